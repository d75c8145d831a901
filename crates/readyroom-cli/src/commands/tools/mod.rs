//! `readyroom tools`: what is known about each tool, on this machine and for this directory.
//!
//! [`list`] and [`show`] only look; [`check`] starts a tool; [`trust`] records which of a project's files the user has
//! seen. Each takes its arguments and a writer, and prints nothing by itself.

mod check;
mod list;
mod show;
mod table;
mod trust;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use readyroom::tool::{Layers, Registry};

pub use table::Table;

use crate::exit::ExitStatus;

/// Arguments of `tools`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct ToolsArgs {
    /// What to do; without it, all known tools are listed.
    #[command(subcommand)]
    pub command: Option<ToolsCommand>,

    /// Prints the list as JSON.
    #[arg(long)]
    pub json: bool,

    /// Looks for the project's definitions from DIR.
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".", global = true, hide_default_value = true)]
    pub directory: PathBuf,

    /// Reads a tool definition from FILE, over all others; repeatable.
    #[arg(long = "tools", value_name = "FILE", global = true)]
    pub tool_files: Vec<PathBuf>,
}

/// The commands below `tools`.
#[derive(Debug, clap::Subcommand)]
pub enum ToolsCommand {
    /// Prints a tool's definition as it is in force, as TOML.
    #[command(after_help = "Example:\n  readyroom tools show aider")]
    Show {
        /// The tool.
        tool: String,
    },
    /// Starts one instance of a tool and checks that it gets ready, resets and stops.
    ///
    /// Asks nothing of a model. Exit status 1 when something does not hold.
    #[command(after_help = "Example:\n  readyroom tools check claude")]
    Check {
        /// The tool.
        tool: String,
    },
    /// Shows the project's tool definitions and records that you trust them as they are.
    ///
    /// A project's definitions run commands, so they do not count until you have looked at them. When one changes, it no
    /// longer counts until you have looked again.
    #[command(after_help = "Example:\n  readyroom tools trust")]
    Trust {
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Where the output goes: how wide it is, and whether it takes colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Screen {
    /// The columns of the terminal; none where it is not one.
    pub width: Option<usize>,
    /// Whether words are coloured.
    pub color: bool,
}

impl Screen {
    /// What stdout is: colour only on a terminal that is not dumb, and never under `NO_COLOR`.
    pub fn of_stdout() -> Self {
        use std::io::IsTerminal as _;
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb");
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        Self { width: width.filter(|width| *width > 0), color: !plain }
    }
}

/// Runs `tools` on stdout and a runtime of its own.
#[expect(clippy::print_stderr, reason = "the command's own error")]
pub fn main(args: &ToolsArgs) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let done = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args, &mut out, Screen::of_stdout())));
    let status = match done {
        Ok(status) => status,
        // `readyroom tools | head`: whoever read the output has seen enough of it.
        Err(error) if closed(&error) => ExitStatus::Success,
        Err(error) => {
            eprintln!("readyroom: {error:#}");
            ExitStatus::Usage
        }
    };
    status.into()
}

fn closed(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(broken)
            || cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
                == Some(std::io::ErrorKind::BrokenPipe)
    })
}

/// Runs `tools`.
///
/// # Errors
/// Bad definitions, an unknown tool, or output that can't be written.
pub async fn run(args: &ToolsArgs, out: &mut dyn Write, screen: Screen) -> anyhow::Result<ExitStatus> {
    let layers = layers(&args.directory, &args.tool_files)?;
    match &args.command {
        None => list::run(&Registry::load(&layers)?, args.json, out, screen).await,
        Some(ToolsCommand::Show { tool }) => show::run(&Registry::load(&layers)?, tool, out),
        Some(ToolsCommand::Check { tool }) => {
            check::run(&Registry::load(&layers)?, tool, &args.directory, out, screen).await
        }
        Some(ToolsCommand::Trust { yes }) => trust::run(&layers, *yes, out),
    }
}

/// The layers of definitions for work in `directory` with the files that were named.
///
/// # Errors
/// A directory that is none.
pub fn layers(directory: &Path, files: &[PathBuf]) -> anyhow::Result<Layers> {
    if !directory.is_dir() {
        anyhow::bail!("{} is not a directory; name one with -C", directory.display());
    }
    let mut layers = Layers::around(directory);
    layers.files = files.to_vec();
    Ok(layers)
}
