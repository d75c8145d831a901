//! The benchmarks: each part measures its two sides in one run and prints raw times, medians and the ratio.
//!
//! `cargo xtask bench NAME` builds what a part needs, with optimisation, and runs it. A part exits with 1 where a ratio
//! is worse than the project's goal for it.

#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

mod demo;
mod fill;
mod journal;
mod python;
mod stats;
mod turn;
mod warm;
mod weather;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures readyroom.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// 24 files edited by warm aiders, and by a process a job.
    Demo(demo::Options),
    /// A turn on a warm instance against the tool's own one-shot command, for each tool.
    Warm {
        /// Only these tools.
        tools: Vec<String>,
        /// How many jobs beyond the first.
        #[arg(long, default_value_t = 30)]
        jobs: usize,
        /// How many one-shot runs.
        #[arg(long, default_value_t = 5)]
        one_shots: usize,
    },
    /// How well 4 instances of Claude Code are kept busy.
    Fill,
    /// A turn on an echo tool against a bare ping-pong over pipes.
    Turn {
        /// Turns in a round.
        #[arg(long, default_value_t = 3000)]
        turns: usize,
        /// Rounds; the sides take turns.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Durable outcomes a second against the disk's own rate, and a batch of 100,000 jobs.
    Journal {
        /// How many jobs for the rate.
        #[arg(long, default_value_t = 20_000)]
        jobs: usize,
        /// How many jobs in the large batch.
        #[arg(long, default_value_t = 100_000)]
        large: usize,
    },
    /// A batch in which the provider asks to wait, fails and drops streams, against what the waits leave.
    Weather {
        /// How many jobs.
        #[arg(long, default_value_t = 2000)]
        jobs: usize,
    },
    /// A turn from Python against one from Rust; how soon `read_any` returns; memory over 100,000 turns.
    Python {
        /// Turns in a round.
        #[arg(long, default_value_t = 3000)]
        turns: usize,
        /// Rounds; the sides take turns.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// A real edit in each of 218 files, from Python on 5 warm aiders, and by a process a file.
    Rollout {
        /// How many files.
        #[arg(long, default_value_t = 218)]
        files: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    readyroom::init();
    let met = match Args::parse().part {
        Part::Demo(options) => return Ok(if demo::run(&options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Part::Warm { tools, jobs, one_shots } => warm::run(&tools, jobs, one_shots)?,
        Part::Fill => fill::run()?,
        Part::Turn { turns, rounds } => turn::run(turns, rounds)?,
        Part::Weather { jobs } => weather::run(jobs)?,
        Part::Journal { jobs, large } => journal::run(jobs, large)?,
        Part::Python { turns, rounds } => python::turn(turns, rounds)?,
        Part::Rollout { files } => python::rollout(files)?,
    };
    println!("{}", if met { "all goals met" } else { "a goal was missed" });
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
