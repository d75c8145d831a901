//! What was typed: the command line as clap sees it, with nothing looked up and nothing decided.
//!
//! The same definition feeds `--help`, the man page and the completions.

mod batch;
mod run;
pub mod values;
mod workspace;

pub use batch::{BatchArgs, BatchCommand, ResumeArgs};
pub use run::RunArgs;
pub use workspace::{ApplyArg, WorkspaceArg, WorkspaceArgs};

use clap::{Parser, Subcommand};

/// Keeps command-line tools warm and gives each job to one of them.
#[derive(Debug, Parser)]
#[command(
    name = "readyroom",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Example:\n  readyroom run -t aider -j 3 'Add type hints to {}' src/*.py"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs jobs on warm instances of a tool.
    ///
    /// One job for each INPUT, or one job where there is none. An INPUT that is an existing file is given to the tool as
    /// a file to work on. Answers go to stdout, everything else to stderr.
    Run(Box<RunArgs>),
    /// Goes on with a batch that was stopped or killed.
    ///
    /// Runs what was never handed to an instance. What may have run when its owner died is run again only where it can
    /// have changed nothing, or nothing but its own worktree; else it is told as lost, and run again with --lost.
    #[command(after_help = "Examples:\n  readyroom resume\n  readyroom resume 20260301-101500 --failed")]
    Resume(ResumeArgs),
    /// Shows batches and what became of their jobs, and removes them.
    #[command(
        after_help = "Examples:\n  readyroom batch list\n  readyroom batch results --failed\n  readyroom batch prune --older-than 30d"
    )]
    Batch(BatchArgs),
    /// Lists the known tools: whether each is there, and what its permission levels really prevent.
    #[command(after_help = "Example:\n  readyroom tools\n  readyroom tools check aider")]
    Tools(crate::commands::tools::ToolsArgs),
    /// Prints the completion script of a shell.
    #[command(
        after_help = "Example:\n  readyroom completions bash > ~/.local/share/bash-completion/completions/readyroom"
    )]
    Completions(CompletionsArgs),
    /// Prints the man page, or writes one for each command.
    #[command(
        after_help = "Examples:\n  readyroom man | man -l -\n  readyroom man run | man -l -\n  readyroom man --out ~/.local/share/man/man1"
    )]
    Man(ManArgs),
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// The shells that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The command whose page is wanted; the main page where none is named.
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub page: Option<String>,

    /// Writes a page for each command into this directory instead of printing one.
    #[arg(long, value_name = "DIR")]
    pub out: Option<std::path::PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_shows_an_example() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
            for sub in command.get_subcommands_mut() {
                check(sub);
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }
}
