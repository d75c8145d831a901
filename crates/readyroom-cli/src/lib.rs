//! The command `readyroom`: parses the command line, runs one command, and turns its end into an exit status. A library
//! so that other packages can carry it; [`main`] is all of it.

mod args;
mod batch;
mod commands;
mod exit;
mod output;
mod plan;
#[doc(hidden)]
pub mod properties;
mod report;
mod run;
mod say;
mod settings;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use exit::ExitStatus;

/// The command: reads its arguments from the process's own. To be called first in a program's `main`.
pub fn main() -> ExitCode {
    readyroom::init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, whose reader may have gone away.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(ExitStatus::Usage.code()));
        }
    };
    let result = match &cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Resume(args) => commands::run::resume(args),
        Command::Batch(args) => commands::batch::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
        Command::Tools(args) => return commands::tools::main(args),
    };
    let status = result.unwrap_or_else(|error| {
        say::stderr(&format!("error: {error:#}"));
        ExitStatus::Usage
    });
    status.into()
}
