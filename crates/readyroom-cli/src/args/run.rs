//! The arguments of `readyroom run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use readyroom::Budget;
use readyroom::batch::RetryPolicy;

use super::values::{
    ContextArg, Deadline, Limit, MaxFailures, OnLimit, PermissionsArg, RoutingArg, batch_name, dollars, duration,
    instances,
};
use super::workspace::{CheckArgs, WorkspaceArgs};

const EXAMPLES: &str = "\
Placeholders in PROMPT and in --output:
  {}    the input                      {.}   without its extension
  {/}   its base name                  {/.}  base name without extension
  {//}  its directory                  {#}   the job's number
Only these exact tokens are replaced; all other braces stay as they are.

Examples:
  readyroom run -t aider -j 3 'Add type hints to {}' src/*.py
  git ls-files | readyroom run -t claude -o 'notes/{/.}.txt' 'Summarise {}' -
  readyroom run -t codex --from jobs.jsonl --json outcomes.jsonl

Exit status:
  0    all jobs succeeded
  1    some did not
  2    bad usage, bad input, or no such tool
  3    no instance became ready
  4    stopped early: --max-failures, or an output or the journal that can't be written
  129, 130, 143   ended by SIGHUP, SIGINT, SIGTERM";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "readyroom run -t TOOL [OPTIONS] PROMPT [INPUT]...\n       \
                      readyroom run -t TOOL [OPTIONS] --prompt-file FILE [INPUT]...\n       \
                      readyroom run -t TOOL [OPTIONS] --from FILE [PROMPT]",
    after_help = EXAMPLES
)]
pub struct RunArgs {
    /// What to ask; placeholders are replaced by the input
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<OsString>,

    /// Files or words, a job each; `-` reads them from stdin, one a line
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<OsString>,

    /// The tool: aider, claude, codex, gemini, opencode, or one of your own
    #[arg(short, long, env = "READYROOM_TOOL", value_name = "TOOL")]
    pub tool: Option<String>,

    /// How many instances run at once, over all tools
    #[arg(short = 'j', long, value_name = "N", default_value = "3", value_parser = instances)]
    pub instances: usize,

    /// Which instance gets a job [the library's own default is round_robin]
    #[arg(long, value_name = "STRATEGY", default_value = "least_busy")]
    pub routing: RoutingArg,

    /// Whether each job starts in a clean context
    #[arg(long, value_name = "CONTEXT", default_value = "fresh")]
    pub context: ContextArg,

    /// The longest time that a job may run: 90s, 10m, 1h30m, or none
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub timeout: Limit,

    /// What the tool may do
    #[arg(long, value_name = "LEVEL", default_value = "edit")]
    pub permissions: PermissionsArg,

    /// The model; the tool's own default where it is not given
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// An argument added to the tool's command line; repeatable
    #[arg(long = "tool-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub tool_args: Vec<OsString>,

    /// Where the tool works, and where INPUT is looked up
    #[arg(short = 'C', long, value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// Gives each pool of instances an empty HOME of its own, removed at the end
    #[arg(long)]
    pub isolated_home: bool,

    /// Starts a process for each job and ends it after the job
    #[arg(long)]
    pub one_shot: bool,

    /// Reads the prompt from FILE, or from stdin with `-`; all positional arguments are then inputs
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,

    /// Reads jobs as JSON lines from FILE, or from stdin with `-`
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// With the input `-`: inputs are separated by NUL, not by newlines
    #[arg(short = '0', long = "null")]
    pub null: bool,

    /// Uses STR in place of {}
    #[arg(short = 'I', long = "replace", value_name = "STR", allow_hyphen_values = true)]
    pub replace: Option<String>,

    /// Does not give inputs that are files to the tool as files
    #[arg(long)]
    pub no_files: bool,

    /// Hands out nothing more once N jobs, or P% of all, have failed; what runs may end
    #[arg(long, value_name = "N|P%")]
    pub max_failures: Option<MaxFailures>,

    /// Tries a job again so often when its instance crashes, or its model fails
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retries: u32,

    /// Tries also those jobs again that may have changed something before they failed
    #[arg(long)]
    pub retry_edits: bool,

    /// Limits of the whole run.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Where jobs work.
    #[command(flatten)]
    pub workspace: WorkspaceArgs,

    /// What jobs have to prove.
    #[command(flatten)]
    pub checks: CheckArgs,

    /// Prints answers in the order of the inputs
    #[arg(short, long)]
    pub keep_order: bool,

    /// Writes each answer to a file of its own; placeholders as in PROMPT
    #[arg(short, long, value_name = "TEMPLATE")]
    pub output: Option<OsString>,

    /// Writes outcomes as JSON lines to FILE as they happen; `-` takes stdout for itself
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Records every byte in both directions, with times, into a new directory
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,

    /// Keeps the batch in this journal, for `readyroom resume` [the user's own, in the state directory]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,

    /// Keeps no journal: what is stopped can't be resumed
    #[arg(long, conflicts_with = "journal")]
    pub no_journal: bool,

    /// Names the batch. Where there is one of this name, runs only the inputs that it does not have, and what it never ran
    #[arg(long, value_name = "NAME", value_parser = batch_name, conflicts_with = "no_journal")]
    pub batch: Option<String>,

    /// With --batch: also runs inputs again whose file is not as their last run left it
    #[arg(long, requires = "batch")]
    pub rerun_changed: bool,

    /// Reads a tool definition from FILE, over all others; repeatable
    #[arg(long = "tools", value_name = "FILE")]
    pub tool_files: Vec<PathBuf>,

    /// Shows each job's prompt, files, directory, permissions and the tool's command line; starts nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Prints no progress and no table at the end
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also tells what happens to instances
    #[arg(short, long)]
    pub verbose: bool,
}

/// Limits of the whole run, for `run` and `resume`.
#[derive(Debug, clap::Args)]
pub struct LimitArgs {
    /// When a usage limit is reached: wait until it is over, or stop, so that `readyroom resume` goes on later [wait]
    #[arg(long, value_name = "WHAT")]
    pub on_limit: Option<OnLimit>,

    /// The longest wait for a usage limit's end [6h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub max_wait: Option<Duration>,

    /// Starts nothing more once the batch has cost so many US dollars, as far as its tools tell; counted over resumes
    #[arg(long, value_name = "USD", value_parser = dollars)]
    pub budget_usd: Option<f64>,

    /// Starts nothing more once the batch has used so many tokens, as far as its tools tell; counted over resumes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub budget_tokens: Option<u64>,

    /// Asks nothing more of a job that has cost so many US dollars, over all its attempts
    #[arg(long, value_name = "USD", value_parser = dollars)]
    pub job_budget_usd: Option<f64>,

    /// Asks nothing more of a job that has used so many tokens, over all its attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub job_budget_tokens: Option<u64>,

    /// Gives a turn up in which neither the tool says anything nor its processes work for so long: 90s, 5m, or none
    /// [5m]
    #[arg(long, value_name = "DURATION")]
    pub stall: Option<Limit>,

    /// Starts nothing more after this time, or at this time of day; what runs may end
    #[arg(long, value_name = "8h|06:00")]
    pub deadline: Option<Deadline>,
}

impl LimitArgs {
    /// What the batch may cost.
    pub fn budget(&self) -> Budget {
        Budget { tokens: self.budget_tokens, usd: self.budget_usd }
    }

    /// What a job may cost.
    pub fn job_budget(&self) -> Budget {
        Budget { tokens: self.job_budget_tokens, usd: self.job_budget_usd }
    }

    /// How long a usage window is waited for, where that was said.
    pub fn longest(&self) -> Option<Duration> {
        match self.on_limit {
            Some(OnLimit::Stop) => Some(Duration::ZERO),
            Some(OnLimit::Wait) => Some(self.max_wait.unwrap_or(RetryPolicy::default().longest_window)),
            None => self.max_wait,
        }
    }
}
