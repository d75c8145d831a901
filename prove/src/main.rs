//! The long runs that prove what the page promises: `cargo xtask chaos` and `cargo xtask soak`.

mod chaos;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Proves promises of readyroom's.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Batches while everything around them is killed, stopped, slowed and filled.
    Chaos(chaos::Options),
    /// Many turns on a few instances: right ends, clean contexts, no growth.
    Soak(soak::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    readyroom::init();
    let well = match Args::parse().run {
        Run::Chaos(options) => chaos::run(&options)?,
        Run::Soak(options) => soak::run(&options)?,
    };
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
