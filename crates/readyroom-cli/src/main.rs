//! The command `readyroom`: parses the command line, runs one command, and turns its end into an exit status.

mod args;
mod commands;
mod exit;
mod output;
mod plan;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    readyroom::init();
    let cli = args::Cli::parse();
    match cli.command {
        args::Command::Tools(args) => commands::tools::main(&args),
        _ => ExitCode::from(exit::ExitStatus::Usage),
    }
}
