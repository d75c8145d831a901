//! `readyroom completions`: scripts that complete the command line.

use clap::CommandFactory as _;
use clap_complete::Shell as Script;

use crate::args::{Cli, CompletionsArgs, Shell};
use crate::exit::ExitStatus;
use crate::say;

/// Prints the script.
///
/// # Errors
/// Stdout can't be written.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitStatus> {
    say::stdout(&script(args.shell))?;
    Ok(ExitStatus::Success)
}

fn script(shell: Shell) -> Vec<u8> {
    let script = match shell {
        Shell::Bash => Script::Bash,
        Shell::Zsh => Script::Zsh,
        Shell::Fish => Script::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(script, &mut Cli::command(), "readyroom", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_knows_the_options_of_run() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["max-failures", "keep-order", "least_busy", "completions"] {
                assert!(script.contains(word), "{shell:?} lacks {word}");
            }
        }
    }
}
