//! What was typed and what surrounds it (terminal, environment), resolved once into what the rest needs.

use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use readyroom::batch::RetryPolicy;
use readyroom::{Budget, Context, Routing};

use crate::args::values::Limit;
use crate::args::{ResumeArgs, RunArgs};
use crate::batch::Recipe;
use crate::plan::Plan;
use crate::report::Reporter;
use crate::report::Verbosity;
use crate::report::bars::{self, Bars};
use crate::report::plain::Plain;
use crate::report::render::Look;

/// How long nothing may move in a turn, where nothing else is said.
pub const STALL: Limit = Limit::After(Duration::from_secs(5 * 60));

/// Choices that hold for the whole run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Instances over all pools.
    pub total: usize,
    /// How jobs are routed.
    pub routing: Routing,
    /// Whether each job starts in a context that is proven new.
    pub context: Context,
    /// Whether each job has a process of its own.
    pub one_shot: bool,
    /// Whether each pool has an empty HOME of its own.
    pub isolated_home: bool,
    /// A directory for records; it exists and is empty.
    pub record: Option<PathBuf>,
    /// Arguments added to the tool's command line.
    pub tool_args: Vec<OsString>,
    /// How many failures stop the run.
    pub failure_limit: Option<u64>,
    /// What becomes of jobs whose attempts fail.
    pub retry: RetryPolicy,
    /// What the batch may cost.
    pub budget: Budget,
    /// What a job may cost.
    pub job_budget: Budget,
    /// How long nothing may move in a turn.
    pub stall: Option<Duration>,
    /// When nothing more is started, from the run's beginning.
    pub deadline: Option<Duration>,
    /// Whether answers come in the jobs' order.
    pub keep_order: bool,
    /// How much is told.
    pub verbosity: Verbosity,
    /// What stdout and stderr are.
    pub terminal: Terminal,
}

/// What stdout and stderr are, and how lines may look.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// Whether stdout is a terminal.
    pub stdout: bool,
    /// Whether stderr is a terminal that lines can be redrawn on.
    pub bars: bool,
    /// Whether that terminal folds long lines anew when it gets narrower.
    pub folds: bool,
    /// How lines may look.
    pub look: Look,
}

impl Terminal {
    /// Looks at the process's own streams and environment.
    pub fn look() -> Self {
        Self::judge(std::io::stdout().is_terminal(), std::io::stderr().is_terminal(), |name| std::env::var(name).ok())
    }

    fn judge(stdout: bool, stderr: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let term = set("TERM").unwrap_or_else(|| "dumb".into());
        let able = stderr && term != "dumb";
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            stdout,
            bars: able,
            folds: set("XTERM_VERSION").is_none() && term != "linux",
            look: Look {
                colour: able && set("NO_COLOR").is_none(),
                unicode: locale.contains("utf-8") || locale.contains("utf8"),
            },
        }
    }
}

impl Settings {
    /// Resolves `args` for `plan`. Makes the directory for records.
    ///
    /// # Errors
    /// A directory for records that can't be made or is not empty; choices that exclude each other.
    pub fn resolve(args: &RunArgs, plan: &Plan, terminal: Terminal) -> anyhow::Result<Self> {
        if !args.dry_run
            && let Some(record) = &args.record
        {
            make_record_directory(record)?;
        }
        Ok(Self {
            total: args.instances,
            routing: args.routing.into(),
            context: args.context.into(),
            one_shot: args.one_shot,
            isolated_home: args.isolated_home,
            record: args.record.clone(),
            tool_args: args.tool_args.clone(),
            failure_limit: args.max_failures.map(|limit| limit.threshold(plan.jobs.len())),
            retry: RetryPolicy {
                retries: args.retries,
                repeat_effects: args.retry_edits,
                longest_window: args.limits.longest().unwrap_or(RetryPolicy::default().longest_window),
            },
            budget: args.limits.budget(),
            job_budget: args.limits.job_budget(),
            stall: args.limits.stall.unwrap_or(STALL).time(),
            deadline: args.limits.deadline.map(|deadline| deadline.from(&jiff::ZonedDateTime::now())),
            keep_order: args.keep_order,
            verbosity: verbosity(args.quiet, args.verbose),
            terminal,
        })
    }

    /// The settings of a batch that goes on, as `recipe` has them.
    pub fn resumed(recipe: &Recipe, args: &ResumeArgs, plan: &Plan, terminal: Terminal) -> Self {
        Self {
            total: args.instances.unwrap_or(recipe.instances),
            routing: recipe.routing,
            context: recipe.context,
            one_shot: recipe.one_shot,
            isolated_home: recipe.isolated_home,
            record: None,
            tool_args: recipe.tool_args.clone(),
            failure_limit: args.max_failures.map(|limit| limit.threshold(plan.jobs.len())),
            retry: RetryPolicy {
                retries: recipe.retries,
                repeat_effects: recipe.retry_edits,
                longest_window: args.limits.longest().unwrap_or(recipe.longest_window),
            },
            budget: or(args.limits.budget(), recipe.budget),
            job_budget: or(args.limits.job_budget(), recipe.job_budget),
            stall: args.limits.stall.unwrap_or(recipe.stall).time(),
            deadline: args.limits.deadline.map(|deadline| deadline.from(&jiff::ZonedDateTime::now())),
            keep_order: recipe.keep_order,
            verbosity: verbosity(args.quiet, args.verbose),
            terminal,
        }
    }

    /// The reporter for what stderr is.
    pub fn reporter(&self) -> Box<dyn Reporter> {
        let Terminal { bars, folds, look, .. } = self.terminal;
        if bars && self.verbosity > Verbosity::Quiet {
            Box::new(Bars::new(bars::Stderr, self.verbosity, look, folds))
        } else {
            Box::new(Plain::new(std::io::stderr(), self.verbosity, look))
        }
    }

    /// Whether what goes to stdout appears between the bars.
    pub fn shared_terminal(&self) -> bool {
        self.terminal.stdout && self.terminal.bars && self.verbosity > Verbosity::Quiet
    }
}

/// What is given anew stands for what was given before.
fn or(new: Budget, old: Budget) -> Budget {
    Budget { tokens: new.tokens.or(old.tokens), usd: new.usd.or(old.usd) }
}

fn verbosity(quiet: bool, verbose: bool) -> Verbosity {
    match (quiet, verbose) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    }
}

/// Records hold prompts and answers verbatim, so nobody else may read them.
fn make_record_directory(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the directory {name} of --record can't be made; name another"))?;
    let mut entries = fs::read_dir(path).with_context(|| format!("the directory {name} of --record can't be read"))?;
    if entries.next().is_some() {
        bail!("the directory {name} of --record is not empty; name a new one, so that no record is overwritten");
    }
    tempfile::tempfile_in(path).with_context(|| format!("nothing can be written to {name} of --record"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_how_lines_look() {
        let judge = |stderr, variables: &[(&str, &str)]| {
            Terminal::judge(true, stderr, |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let full = judge(true, &[("TERM", "xterm"), ("LANG", "en_US.UTF-8")]);
        assert!(full.bars && full.folds && full.look.colour && full.look.unicode);
        assert!(!judge(false, &[("TERM", "xterm")]).bars);
        assert!(!judge(true, &[("TERM", "dumb")]).bars);
        assert!(!judge(true, &[]).bars);
        assert!(!judge(true, &[("TERM", "xterm"), ("NO_COLOR", "1")]).look.colour);
        assert!(judge(true, &[("TERM", "xterm"), ("NO_COLOR", "")]).look.colour);
        assert!(!judge(true, &[("TERM", "xterm"), ("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]).look.unicode);
        assert!(!judge(true, &[("TERM", "xterm"), ("XTERM_VERSION", "XTerm(390)")]).folds);
    }

    #[test]
    fn records_go_to_a_new_directory_of_ones_own() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_record_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        make_record_directory(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        let error = make_record_directory(&path).unwrap_err().to_string();
        assert!(error.contains("is not empty; name a new one"), "{error}");
        assert!(make_record_directory(&path.join("old")).is_err());
    }
}
