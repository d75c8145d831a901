//! `readyroom run` and `readyroom resume`: from what was typed to a plan, found tools and open outputs; then either words (`--dry-run`) or the
//! run itself.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use readyroom::journal::Wishes;
use readyroom::tool::{Contract, Layers, Registry};

use super::dry_run;
use crate::args::{ApplyArg, ResumeArgs, RunArgs};
use crate::batch::{self, Journal, Recipe, Resumed, Telling, Untold};
use crate::exit::ExitStatus;
use crate::output::{self, JsonSink, Outputs};
use crate::plan::{self, Plan, Pool, PoolKind};
use crate::report::{Verbosity, text};
use crate::run::pools::{Located, contract_options};
use crate::run::{FileId, Workrooms, run as run_plan};
use crate::say;
use crate::settings::{Settings, Terminal};
use crate::workspace::Workspaces;

/// Runs the jobs. Whatever is wrong with the command line, the inputs or the tools is found before anything is started.
///
/// # Errors
/// Bad usage, bad input, no such tool.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitStatus> {
    let plan = plan::plan(args, &mut io::stdin().lock())?;
    let settings = Settings::resolve(args, &plan, Terminal::look())?;
    plan.check_names()?;
    let registry = registry(args.directory.as_deref().unwrap_or(Path::new(".")), &args.tool_files)?;
    let located = locate(&plan, &registry)?;
    let contracts_found = contracts(&plan, &located, &settings)?;
    if settings.verbosity > Verbosity::Quiet {
        for ignored in registry.ignored() {
            say::stderr(&format!(
                "{} is ignored until `readyroom tools trust` has shown it to you",
                ignored.path.display()
            ));
        }
    }
    if args.dry_run {
        say::stdout(dry_run::describe(&plan, &contracts_found, &settings).as_bytes())?;
        return Ok(ExitStatus::Success);
    }
    if plan.jobs.is_empty() {
        say::stderr("no inputs, nothing to do");
    }
    let json = args.json.as_deref().map(JsonSink::open).transpose()?;
    output::prepare(&plan.jobs)?;
    // A batch may have kinds of earlier runs besides.
    let take = |batch: &str, kinds: &[PoolKind]| {
        worktrees(kinds).then(|| Workspaces::take(args, kinds, &plan, batch)).transpose()
    };
    if args.no_journal && worktrees(&plan.kinds()) && args.workspace.apply == ApplyArg::Never {
        bail!("--apply never keeps changes in the journal; leave out --no-journal");
    }
    if args.no_journal || plan.jobs.is_empty() {
        let batch = format!("run-{}", std::process::id());
        let kinds = plan.kinds();
        let workspaces = take(&batch, &kinds)?;
        let rooms = rooms(workspaces.as_ref(), &plan, &kinds, batch, true)?;
        begin_anew(json.as_ref())?;
        return start(plan, settings, located, json, None, rooms);
    }
    let mut recipe = Recipe::of(args, &plan, &settings)?;
    if let Some(name) = &args.batch {
        let resumed = batch::repeat(args.journal.as_deref(), name, recipe, &plan, args.rerun_changed, take)?;
        let located = locate(&resumed.plan, &registry)?;
        contracts(&resumed.plan, &located, &settings)?;
        if resumed.is_new {
            begin_anew(json.as_ref())?;
        }
        return go_on(resumed, settings, located, json);
    }
    let kinds = recipe.kinds.clone();
    let journal = Journal::create(args.journal.as_deref(), None, &mut recipe, &plan, |batch| take(batch, &kinds))?;
    let rooms = rooms(recipe.workspaces.as_ref(), &plan, &kinds, journal.batch().into(), false)?;
    begin_anew(json.as_ref())?;
    start(plan, settings, located, json, Some(journal), rooms)
}

fn worktrees(kinds: &[PoolKind]) -> bool {
    kinds.iter().any(|kind| kind.worktree)
}

/// Empties the file of JSON lines for a batch that is new.
fn begin_anew(json: Option<&JsonSink>) -> anyhow::Result<()> {
    json.map_or(Ok(()), JsonSink::begin_anew)
}

/// The worktrees of a plan's pools.
fn rooms(
    workspaces: Option<&Workspaces>,
    plan: &Plan,
    kinds: &[PoolKind],
    batch: String,
    passing: bool,
) -> anyhow::Result<Workrooms> {
    let Some(workspaces) = workspaces else { return Ok(Workrooms::default()) };
    let one = |pool: &Pool| {
        let at = kinds.iter().position(|kind| *kind == pool.kind);
        at.map_or(Ok(None), |at| workspaces.of(&batch, at, &pool.kind))
    };
    Ok(Workrooms {
        pools: plan.pools.iter().map(one).collect::<Result<_, _>>()?,
        applies: workspaces.apply == ApplyArg::Auto,
        in_order: workspaces.in_order,
        commit: workspaces.message()?,
        batch,
        passing,
        ..Workrooms::default()
    })
}

/// Goes on with a batch.
///
/// # Errors
/// There is none, somebody else runs it, its tools or definitions are gone.
pub fn resume(args: &ResumeArgs) -> anyhow::Result<ExitStatus> {
    let wishes = Wishes { failed: args.failed, lost: args.lost };
    let resumed = batch::resume(args.journal.as_deref(), args.batch.as_deref(), wishes, args.instances)?;
    let settings = Settings::resumed(&resumed.recipe, args, &resumed.plan, Terminal::look());
    let located = locate(&resumed.plan, &registry(&resumed.recipe.directory, &resumed.recipe.tool_files)?)?;
    contracts(&resumed.plan, &located, &settings)?;
    let json = args.json.as_deref().map(JsonSink::open).transpose()?;
    go_on(resumed, settings, located, json)
}

/// Runs what is left of a batch.
fn go_on(
    resumed: Resumed,
    settings: Settings,
    located: Vec<Located>,
    mut json: Option<JsonSink>,
) -> anyhow::Result<ExitStatus> {
    let Resumed { recipe, plan, journal, lost, failed, untold, mut conflicts, deferred, is_new: _ } = resumed;
    for id in &lost {
        say::stderr(&format!(
            "{id} may have run when its run ended, and is left; `readyroom resume --lost` runs it again"
        ));
    }
    if failed > 0 {
        let (jobs, batch) = (text::count(failed, "job"), journal.batch());
        say::stderr(&format!("{jobs} failed before; `readyroom resume {batch} --failed` runs what failed"));
    }
    let how = Telling { terminal: settings.terminal.stdout, quiet: settings.verbosity == Verbosity::Quiet };
    let mut told = Untold::tell_all(&untold, json.as_mut(), how, |place| {
        journal.told_at(place);
        Ok(())
    })?;
    if told == ExitStatus::StoppedEarly {
        return Ok(told);
    }
    let with_rest = |told, conflicts| match told {
        ExitStatus::Success if !lost.is_empty() || failed > 0 || conflicts > 0 => ExitStatus::SomeFailed,
        told => told,
    };
    if plan.jobs.is_empty() {
        say::stderr(&format!("batch {}: nothing is left to run", journal.batch()));
        return Ok(with_rest(told, conflicts));
    }
    output::prepare(&plan.jobs)?;
    let rooms = rooms(recipe.workspaces.as_ref(), &plan, &recipe.kinds, journal.batch().into(), false)?;
    let (path, batch) = (journal.path().to_owned(), journal.batch().to_owned());
    let rooms = Workrooms { applies: rooms.applies && !deferred, ..rooms };
    let mut later = json.as_ref().filter(|_| deferred).map(JsonSink::again).transpose()?;
    let status = start(plan, settings, located, json, Some(journal), rooms)?;
    if deferred {
        conflicts += batch::apply_rest(&path, &batch, &recipe)?;
        told = match batch::tell_rest(&path, &batch, later.as_mut(), how)? {
            ExitStatus::Success => told,
            worse => worse,
        };
    }
    Ok(match status {
        ExitStatus::Success => with_rest(told, conflicts),
        status => status,
    })
}

fn start(
    mut plan: Plan,
    settings: Settings,
    located: Vec<Located>,
    json: Option<JsonSink>,
    journal: Option<Journal>,
    mut rooms: Workrooms,
) -> anyhow::Result<ExitStatus> {
    let mut own: Vec<PathBuf> = plan.jobs.iter().filter_map(|planned| planned.output.clone()).collect();
    own.extend(json.as_ref().and_then(JsonSink::path).map(Path::to_owned));
    own.extend(settings.record.clone());
    own.extend(journal.iter().flat_map(Journal::files));
    rooms.own = own.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    rooms.streams = [io::stdout().as_fd(), io::stderr().as_fd()].into_iter().filter_map(FileId::of).collect();
    plan.batch = journal.as_ref().map(|journal| journal.batch().to_owned());
    let plan = Arc::new(plan);
    let outputs = Outputs::new(Arc::clone(&plan), json, settings.keep_order, settings.terminal.stdout);
    run_plan(plan, settings, located, outputs, journal, rooms)
}

fn registry(directory: &Path, tool_files: &[PathBuf]) -> anyhow::Result<Registry> {
    let layers = tool_files.iter().fold(Layers::around(directory), |layers, file| layers.with_file(file));
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
        .enumerate()
        .map(|(at, (pool, located))| {
            let options = contract_options(plan, at, settings, None);
            Contract::resolve(Arc::clone(&located.definition), &located.program, &options)
                .map_err(|failure| anyhow::anyhow!(failure.message))
                .with_context(|| format!("the tool {}", pool.kind.tool))
        })
        .collect()
}
