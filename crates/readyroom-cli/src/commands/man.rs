//! `readyroom man`: the man pages, made from the definition of the command line.

use std::path::Path;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;

use crate::args::{Cli, ManArgs};
use crate::exit::ExitStatus;
use crate::say;

/// Prints a page, or writes all of them.
///
/// # Errors
/// There is no such command; a directory, a file or stdout can't be written.
pub fn run(args: &ManArgs) -> anyhow::Result<ExitStatus> {
    let pages = pages()?;
    if let Some(directory) = &args.out {
        write(directory, &pages)?;
        return Ok(ExitStatus::Success);
    }
    let name = args.page.as_ref().map_or_else(|| "readyroom".to_owned(), |page| format!("readyroom-{page}"));
    match pages.iter().find(|(known, _)| *known == name) {
        Some((_, page)) => say::stdout(page)?,
        None => {
            let known: Vec<&str> = pages.iter().filter_map(|(name, _)| name.strip_prefix("readyroom-")).collect();
            bail!("no command {:?} has a page; there are {}", args.page.as_deref().unwrap_or(""), known.join(", "));
        }
    }
    Ok(ExitStatus::Success)
}

/// All pages by name.
fn pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    collect(&command, "readyroom", &mut pages)?;
    Ok(pages)
}

fn collect(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().display_name(name.to_owned())).render(&mut page)?;
    pages.push((name.to_owned(), page));
    for sub in command.get_subcommands() {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

fn write(directory: &Path, pages: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("the directory {} can't be made; name another", directory.display()))?;
    for (name, page) in pages {
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page).with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_options() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let (_, page) = pages.iter().find(|(known, _)| known == name).unwrap();
            String::from_utf8(page.clone()).unwrap()
        };
        assert!(page("readyroom").contains("Add type hints"));
        assert!(page("readyroom-run").contains("max\\-failures"));
        assert!(page("readyroom-completions").contains("fish"));
    }
}
