//! The command `readyroom`: parses the command line, runs one command, and turns its end into an exit status.

mod args;
mod exit;
mod output;
mod plan;
mod report;
mod run;

use clap::Parser as _;

fn main() {
    readyroom::init();
    let cli = args::Cli::parse();
    drop(cli);
}
