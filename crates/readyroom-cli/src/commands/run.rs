//! `readyroom run`: from what was typed to a plan, found tools and open outputs; then either words (`--dry-run`) or the
//! run itself.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use readyroom::tool::{Contract, Layers, Registry};

use super::dry_run;
use crate::args::RunArgs;
use crate::exit::ExitStatus;
use crate::output::{self, JsonSink, Outputs};
use crate::plan::{self, Plan};
use crate::report::Verbosity;
use crate::run::pools::{Located, contract_options};
use crate::run::run as run_plan;
use crate::say;
use crate::settings::{Settings, Terminal};

/// Runs the jobs. Whatever is wrong with the command line, the inputs or the tools is found before anything is started.
///
/// # Errors
/// Bad usage, bad input, no such tool.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitStatus> {
    let plan = plan::plan(args, &mut std::io::stdin().lock())?;
    let settings = Settings::resolve(args, &plan, Terminal::look())?;
    let registry = registry(args)?;
    let located = locate(&plan, &registry)?;
    let contracts = contracts(&plan, &located, &settings)?;
    if settings.verbosity > Verbosity::Quiet {
        for ignored in registry.ignored() {
            say::stderr(&format!(
                "{} is ignored until `readyroom tools trust` has shown it to you",
                ignored.path.display()
            ));
        }
    }
    if args.dry_run {
        say::stdout(dry_run::describe(&plan, &contracts, &settings).as_bytes())?;
        return Ok(ExitStatus::Success);
    }
    if plan.jobs.is_empty() {
        say::stderr("no inputs, nothing to do");
    }
    let json = args.json.as_deref().map(JsonSink::open).transpose()?;
    output::prepare(&plan)?;
    let plan = Arc::new(plan);
    let outputs = Outputs::new(Arc::clone(&plan), json, settings.keep_order, settings.terminal.stdout);
    run_plan(plan, settings, located, outputs)
}

fn registry(args: &RunArgs) -> anyhow::Result<Registry> {
    let directory = args.directory.as_deref().unwrap_or(Path::new("."));
    let layers = args.tool_files.iter().fold(Layers::around(directory), |layers, file| layers.with_file(file));
    Ok(Registry::load(&layers)?)
}

/// The tool of each pool.
fn locate(plan: &Plan, registry: &Registry) -> anyhow::Result<Vec<Located>> {
    plan.pools
        .iter()
        .map(|pool| {
            let (definition, found) =
                registry.locate(&pool.kind.tool).map_err(|failure| anyhow::anyhow!(failure.message))?;
            Ok(Located { definition, program: found.program })
        })
        .collect()
}

/// The contract of each pool: refuses what a tool can't hold before anything is started.
fn contracts(plan: &Plan, located: &[Located], settings: &Settings) -> anyhow::Result<Vec<Contract>> {
    plan.pools
        .iter()
        .zip(located)
        .map(|(pool, located)| {
            let options = contract_options(pool, settings, None);
            Contract::resolve(Arc::clone(&located.definition), &located.program, &options)
                .map_err(|failure| anyhow::anyhow!(failure.message))
                .with_context(|| format!("the tool {}", pool.kind.tool))
        })
        .collect()
}
