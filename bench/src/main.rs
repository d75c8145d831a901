//! The benchmarks: each part measures its two sides in one run and prints raw times, medians and the ratio.
//!
//! `cargo xtask bench NAME` builds what a part needs, with optimisation, and runs it. A part exits with 1 where a ratio
//! is worse than the project's goal for it.

#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

mod batch;
mod demo;
mod diff;
mod fill;
mod journal;
mod machine;
mod others;
mod page;
mod pipes;
mod python;
mod stats;
mod tools;
mod turn;
mod warm;
mod weather;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use page::Page;

/// Measures readyroom.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// All of the parts below but the demonstration, the rollout and the weather, onto bench/RESULTS.md.
    All,
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
    /// 24 edits by aider against xargs, GNU parallel and one after the other; 24 prompts against acpx.
    Batch,
    /// How well 4 instances of Claude Code are kept busy.
    Fill,
    /// A turn on an echo tool against a bare ping-pong over pipes, pexpect and expectrl; 1 to 64 instances; `read_any`.
    Turn {
        /// Turns in a round.
        #[arg(long, default_value_t = 3000)]
        turns: usize,
        /// Rounds; the sides take turns.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// What `turn` has run on one core: nanoseconds a turn of bare pipes, of ours, of ours in a runtime of one thread, and of ours
    /// with a reset; a line a round.
    #[command(hide = true)]
    OneCore { instances: usize, turns: usize, rounds: usize },
    /// Launch and memory of one and of four instances of each tool.
    Tools {
        /// Only these tools.
        tools: Vec<String>,
    },
    /// What a worktree costs in a repository of 10,000 files.
    Diff,
    /// Durable outcomes a second against the disk's own rate, and batches of up to 100,000 jobs.
    Journal {
        /// How many jobs for the rate.
        #[arg(long, default_value_t = 20_000)]
        jobs: usize,
        /// How many jobs in the largest batch.
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
    let page = &mut Page::default();
    match Args::parse().part {
        Part::All => all(page)?,
        Part::Demo(options) => return demo::run(&options).map(|()| ExitCode::SUCCESS),
        Part::Warm { tools, jobs, one_shots } => warm::run(page, &tools, jobs, one_shots)?,
        Part::Batch => batch::run(page)?,
        Part::Fill => fill::run(page)?,
        Part::Turn { turns, rounds } => turn::run(page, turns, rounds)?,
        Part::OneCore { instances, turns, rounds } => {
            return turn::print_sides(instances, turns, rounds).map(|()| ExitCode::SUCCESS);
        }
        Part::Tools { tools } => tools::run(page, &tools)?,
        Part::Diff => diff::run(page)?,
        Part::Weather { jobs } => weather::run(page, jobs)?,
        Part::Journal { jobs, large } => journal::run(page, jobs, large)?,
        Part::Python { turns, rounds } => python::turn(page, turns, rounds)?,
        Part::Rollout { files } => python::rollout(page, files)?,
    }
    println!("{}", if page.is_met() { "all goals met" } else { "a goal was missed" });
    Ok(if page.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that the page shows, in one run.
fn all(page: &mut Page) -> anyhow::Result<()> {
    let began = Instant::now();
    let about = machine::about()?;
    page.part("warm");
    warm::run(page, &[], 30, 5)?;
    page.part("batch");
    batch::run(page)?;
    page.part("fill");
    fill::run(page)?;
    page.part("turn");
    turn::run(page, 3000, 5)?;
    page.part("tools");
    tools::run(page, &[])?;
    page.part("diff");
    diff::run(page)?;
    page.part("journal");
    journal::run(page, 20_000, 100_000)?;
    page.part("python");
    python::turn(page, 3000, 5)?;
    let took = format!("The run took {} minutes.\n", began.elapsed().as_secs().div_ceil(60));
    page.write(Path::new(env!("CARGO_MANIFEST_DIR")), &(about + &took))
}
