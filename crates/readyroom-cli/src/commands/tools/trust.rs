//! `readyroom tools trust`: shows the project's definitions, every character of them, and records the content that was
//! shown.

use std::io::{BufRead as _, IsTerminal as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use readyroom::tool::trust::{Standing, TrustRecord};
use readyroom::tool::{Layers, ProjectFile, Registry};

use super::table::{printable, printable_lines};
use crate::exit::ExitStatus;

/// Shows and records.
pub fn run(layers: &Layers, yes: bool, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let files = layers.project_files()?;
    let (trusted, open): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.standing == Standing::Trusted);
    for file in &trusted {
        writeln!(out, "{} is trusted already", shown(&file.path))?;
    }
    if open.is_empty() {
        if trusted.is_empty() {
            writeln!(out, "This project has no tool definitions of its own.")?;
        }
        out.flush()?;
        return Ok(ExitStatus::Success);
    }
    for file in &open {
        show(file, out)?;
    }
    // A file that is trusted and wrong would stop every command in this project.
    Registry::load_as_if_trusted(layers, &open).context("not recorded, since what was shown can't be used")?;
    if !yes && !confirmed(open.len(), out)? {
        writeln!(out, "Nothing was recorded.")?;
        out.flush()?;
        return Ok(ExitStatus::SomeFailed);
    }
    let record = layers.trust.as_deref().context("there is no HOME to keep the record in; set XDG_STATE_HOME")?;
    let contents: Vec<(&Path, &[u8])> = open.iter().map(|file| (&*file.path, &*file.content)).collect();
    TrustRecord::add(record, &contents)?;
    writeln!(out, "Recorded {} in {}.", count(open.len()), shown(record))?;
    out.flush()?;
    Ok(ExitStatus::Success)
}

fn show(file: &ProjectFile, out: &mut dyn Write) -> anyhow::Result<()> {
    let changed = if file.standing == Standing::Changed { " (changed since you trusted it)" } else { "" };
    writeln!(out, "--- {}{changed}", shown(&file.path))?;
    let text = printable_lines(&String::from_utf8_lossy(&file.content));
    for line in text.lines() {
        writeln!(out, "    {line}")?;
    }
    writeln!(out)?;
    Ok(())
}

fn confirmed(files: usize, out: &mut dyn Write) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        out.flush()?;
        bail!("stdin is not a terminal, so nobody can be asked; say --yes if you trust what was shown");
    }
    write!(out, "These can run any command. Trust {}? [y/N] ", count(files))?;
    out.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn count(files: usize) -> String {
    if files == 1 { "this file".into() } else { format!("these {files} files") }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
