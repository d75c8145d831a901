//! What the project does with itself: installs the pinned tools, tests against them, checks the code, shows itself.
//!
//! Run as `cargo xtask COMMAND`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "these are commands for a person")]

mod bench;
mod host;
mod install;
mod lint;
mod prove;
mod python;
mod suite;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What the project does with itself.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the pinned tools below target/tools, and what the tests need besides. A second run finds them in a moment.
    Install,
    /// Install what the tests need, run all of them and the documentation's, and close with a line of counts.
    Test {
        /// Only tests whose name holds this.
        filter: Option<String>,
    },
    /// Show it: 24 files edited by 4 warm aiders, then by a process a job. `-- --help` lists its options.
    Demo {
        /// Ask your own model with your own keys and settings instead of the local model.
        #[arg(long)]
        real: bool,
        /// More options of the demonstration.
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Measure readyroom against what it is compared to, and write bench/RESULTS.md with its plots; or one part of that.
    /// `cargo xtask bench help` lists them, `-- --help` the options of one.
    Bench {
        /// Which part; all, where none is named.
        part: Option<String>,
        /// More options of the part.
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Batches on the zoo and on real tools while owner, guardian, instances and model are killed, stopped and slowed and the
    /// disk is filled; what must hold is checked after each round. `-- --help` lists the options.
    Chaos {
        /// `--seed S --minutes M`, and more.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// A million turns on the echo and the zoo and 500 on each real tool; ends, contexts and growth are checked.
    Soak {
        /// Options of the run.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Fuzz the readers of foreign bytes and keep what reaches new code. Needs a nightly compiler.
    Fuzz {
        /// Only these targets.
        targets: Vec<String>,
        /// For how long, each.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
    },
    /// Run the process floor's tests with the address sanitizer. Needs a nightly compiler.
    Sanitize,
    /// Change router, fence, restart table and retry policy in small ways; the tests must notice.
    Mutants {
        /// More options of cargo-mutants.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Run the tests again and again, until one fails.
    Repeat {
        /// How often.
        times: u32,
        /// Only the tests that need no real tool.
        #[arg(long)]
        own: bool,
        /// Keep all cores busy besides.
        #[arg(long)]
        load: bool,
    },
    /// Build the Python package's wheel below target/wheels.
    Wheel,
    /// Build the documentation's site below target/site, with all links checked.
    Docs,
    /// Check the form of the code: fmt, clippy and rustdoc with warnings as errors, and cargo-deny.
    Lint,
    /// Check dependencies with cargo-deny, which is installed below target/tools where it is missing.
    Deny,
    /// `test`, then `lint`: what CI runs.
    Ci,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Carries a command out; false where it found something wrong and has said so.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Install => {
            install::tools()?;
            install::system().map(|()| true)
        }
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Demo { real, more } => bench::demo(real, &more),
        Command::Bench { part, more } => bench::part(part.as_deref(), &more),
        Command::Chaos { more } => prove::prove("chaos", &more),
        Command::Soak { more } => prove::prove("soak", &more),
        Command::Fuzz { targets, seconds } => prove::fuzz(&targets, seconds),
        Command::Sanitize => prove::sanitize(),
        Command::Mutants { more } => prove::mutants(&more),
        Command::Repeat { times, own, load } => {
            suite::repeat(if own { suite::Suite::Own } else { suite::Suite::Whole }, times, load)
        }
        Command::Wheel => {
            println!("{}", python::wheel()?.display());
            Ok(true)
        }
        Command::Docs => python::docs(),
        Command::Lint => lint::all(),
        Command::Deny => lint::deny(),
        Command::Ci => {
            let tested = test::run(None)?;
            Ok(lint::all()? && tested)
        }
    }
}
