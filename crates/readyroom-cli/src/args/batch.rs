//! The arguments of `readyroom resume` and `readyroom batch`.

use std::path::PathBuf;
use std::time::Duration;

use super::run::LimitArgs;
use super::values::{MaxFailures, age, instances};

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The batch [the last one of this directory]
    #[arg(value_name = "BATCH")]
    pub batch: Option<String>,

    /// Also runs what failed
    #[arg(long)]
    pub failed: bool,

    /// Also runs what may have run already
    #[arg(long)]
    pub lost: bool,

    /// How many instances run at once, over all tools [as the batch was started]
    #[arg(short = 'j', long, value_name = "N", value_parser = instances)]
    pub instances: Option<usize>,

    /// Hands out nothing more once N jobs, or P% of all, have failed; what runs may end
    #[arg(long, value_name = "N|P%")]
    pub max_failures: Option<MaxFailures>,

    /// Limits of the whole run.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Adds outcomes as JSON lines to FILE as they happen; `-` takes stdout for itself
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// The journal [the user's own, in the state directory]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,

    /// Prints no progress and no table at the end
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also tells what happens to instances
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of `batch`.
#[derive(Debug, clap::Args)]
pub struct BatchArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BatchCommand,

    /// The journal [the user's own, in the state directory]
    #[arg(long, value_name = "FILE", global = true)]
    pub journal: Option<PathBuf>,

    /// Prints JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands below `batch`.
#[derive(Debug, clap::Subcommand)]
pub enum BatchCommand {
    /// Lists the batches, the newest first.
    #[command(after_help = "Example:\n  readyroom batch list")]
    List,
    /// Shows how each job of a batch stands, or all of one job.
    #[command(after_help = "Examples:\n  readyroom batch show\n  readyroom batch show 20260301-101500 src/a.py")]
    Show {
        /// The batch [the last one of this directory]
        batch: Option<String>,
        /// One of its jobs.
        job: Option<String>,
    },
    /// Prints the answers of a batch; with --json its outcomes as JSON lines.
    #[command(after_help = "Examples:\n  readyroom batch results\n  readyroom batch results --failed --json")]
    Results {
        /// The batch [the last one of this directory]
        batch: Option<String>,
        /// Only what did not succeed, with its reasons.
        #[arg(long)]
        failed: bool,
        /// Only failures of this kind (`rate_limited`, `crashed`, ...).
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
    },
    /// Brings changes of a batch to your files that are not there: all that are pending or did not apply, or those of these jobs.
    #[command(
        after_help = "Examples:\n  readyroom batch apply 20260301-101500\n  readyroom batch apply 20260301-101500 src/a.py"
    )]
    Apply {
        /// The batch.
        batch: String,
        /// Jobs; also such that did not succeed.
        jobs: Vec<String>,
    },
    /// Stops a batch, wherever it runs, and takes out of it what has not run: a resume leaves that alone.
    #[command(after_help = "Example:\n  readyroom batch cancel 20260301-101500")]
    Cancel {
        /// The batch.
        batch: String,
    },
    /// Removes a batch, unless it holds changes that are not in your files.
    #[command(after_help = "Example:\n  readyroom batch rm 20260301-101500")]
    Rm {
        /// The batch.
        batch: String,
        /// Also one that holds changes that are not in your files.
        #[arg(long)]
        force: bool,
    },
    /// Removes batches that are done and older than this, but for those that hold changes that are not in your files.
    #[command(after_help = "Example:\n  readyroom batch prune --older-than 30d")]
    Prune {
        /// How old: 30d, 12h.
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Duration,
        /// Also those that hold changes that are not in your files.
        #[arg(long)]
        force: bool,
    },
}
