//! Where jobs work, what becomes of what they change, and what they have to prove.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser as _};
use readyroom::{Checks, Schema, Verify};

use super::values::duration;

/// Where jobs work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WorkspaceArg {
    /// All in the directory itself.
    Shared,
    /// Each instance in a git worktree of its own; what a job changed comes to the directory afterwards.
    Worktree,
}

/// When a job's change is brought to the caller's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyArg {
    /// When the job has succeeded.
    Auto,
    /// Only by `readyroom batch apply`.
    Never,
}

/// Where jobs work, and what becomes of their changes.
#[derive(Debug, clap::Args)]
pub struct WorkspaceArgs {
    /// Where jobs work: all in the directory itself, or each instance in a git worktree of its own [worktree where jobs may
    /// edit in a git repository]
    #[arg(long, value_name = "WHERE")]
    pub workspace: Option<WorkspaceArg>,

    /// When what a job changed in its worktree is brought to your files
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub apply: ApplyArg,

    /// Brings changes to your files in the order of the inputs, not as jobs end
    #[arg(long)]
    pub in_order: bool,

    /// Makes a commit of each change that is brought to your files; placeholders as in PROMPT
    #[arg(long, value_name = "MESSAGE", num_args = 0..=1, require_equals = true, default_missing_value = "readyroom: {}",
        value_parser = OsStringValueParser::new().try_map(not_empty))]
    pub commit: Option<OsString>,

    /// Copies something that git ignores into each worktree (node_modules, .venv, .env); repeatable. What a
    /// .worktreeinclude file names is copied anyhow
    #[arg(long, value_name = "PATH")]
    pub link: Vec<PathBuf>,

    /// Links something that git ignores into each worktree: all write to the one that is yours; repeatable
    #[arg(long, value_name = "PATH")]
    pub symlink: Vec<PathBuf>,

    /// Runs a shell command once in each worktree, before its first job
    #[arg(long, value_name = "CMD", value_parser = NonEmptyStringValueParser::new())]
    pub setup: Option<String>,
}

fn not_empty(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() { Err("a commit needs a message; leave out the `=` for the default") } else { Ok(text) }
}

/// What jobs have to prove.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Runs a shell command after each job, where it worked; `$1` is the input. If it fails, the tool is told and goes on
    #[arg(long, value_name = "CMD", value_parser = NonEmptyStringValueParser::new())]
    pub verify: Option<String>,

    /// How often a failed --verify goes back to the tool
    #[arg(long, value_name = "N", default_value_t = 3, requires = "verify")]
    pub verify_rounds: u32,

    /// The longest time that --verify may run
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, requires = "verify")]
    pub verify_timeout: Duration,

    /// A job that changes no file has failed
    #[arg(long)]
    pub require_change: bool,

    /// A job that changes other files than its own has failed
    #[arg(long)]
    pub only_files: bool,

    /// The answer has to hold a JSON value that fits the JSON Schema in FILE
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
}

impl CheckArgs {
    /// What each job has to prove, but for what its input adds.
    ///
    /// # Errors
    /// The schema's file can't be read, or is none.
    pub fn checks(&self) -> anyhow::Result<Checks> {
        Ok(Checks {
            verify: self.verify.as_ref().map(|command| Verify {
                argv: ["sh", "-c", command, "verify"].map(str::to_owned).to_vec(),
                rounds: self.verify_rounds,
                timeout: self.verify_timeout,
            }),
            require_change: self.require_change,
            only_files: self.only_files,
            schema: self.schema.as_deref().map(schema).transpose()?,
        })
    }
}

fn schema(file: &Path) -> anyhow::Result<Schema> {
    let name = file.display();
    let text = std::fs::read(file).with_context(|| format!("--schema {name} can't be read"))?;
    let value = serde_json::from_slice(&text).with_context(|| format!("--schema {name} is no JSON"))?;
    Schema::new(value).map_err(|why| anyhow::anyhow!("--schema {name} is no JSON Schema: {why}"))
}
