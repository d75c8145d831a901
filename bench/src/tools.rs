//! What instances of the five tools cost: the launch of one and of four, and memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use readyroom::tool::Definition;
use readyroom::{Cluster, Routing, Wait};
use readyroom_testkit::{Model, Sandbox, Step, processes_of};

use crate::page::{Page, Row, Unit};
use crate::stats::{median, ratio};

const TOOLS: [&str; 5] = ["aider", "claude", "codex", "gemini", "opencode"];
const MANY: usize = 4;
const ROUNDS: usize = 3;
/// The most that four forks may take to be ready, in the time of one start, and of what four starts hold.
const FORKS_GOAL: f64 = 1.5;
const MEMORY_GOAL: f64 = 0.6;

/// What a launch took and holds.
struct Launch {
    ready: Duration,
    first_turns: Duration,
    memory: u64,
}

/// Measures.
pub fn run(page: &mut Page, tools: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    for tool in TOOLS.into_iter().filter(|tool| tools.is_empty() || tools.iter().any(|wanted| wanted == tool)) {
        let model = Model::start();
        model.otherwise(Step::say("ok"));
        let sandbox = Sandbox::new(tool, &model);
        // The first start of a tool in a HOME sets it up.
        runtime.block_on(launch(&sandbox, 1, false))?;
        let has_zygote = sandbox.definition().0.zygote.is_some();
        let (mut ones, mut fours, mut forks) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ones.push(runtime.block_on(launch(&sandbox, 1, false))?);
            fours.push(runtime.block_on(launch(&sandbox, MANY, false))?);
            if has_zygote {
                forks.push(runtime.block_on(launch(&sandbox, MANY, true))?);
            }
        }
        let times = |of: &[Launch], time: fn(&Launch) -> Duration| -> Vec<Duration> { of.iter().map(time).collect() };
        let (one, four) = (times(&ones, |launch| launch.ready), times(&fours, |launch| launch.ready));
        page.table(format!("Launch of {tool}, to the last instance's being ready, and its first turn"));
        page.row(Row::times("readyroom: 1 instance", &one));
        page.row(Row::times(format!("readyroom: {MANY} instances"), &four).ratio(ratio(median(&four), median(&one))));
        if has_zygote {
            let forked = times(&forks, |launch| launch.ready);
            let found = ratio(median(&forked), median(&one));
            let row = Row::times(format!("readyroom: {MANY} forks of a zygote, its own start included"), &forked)
                .ratio(found);
            page.row(row.goal(format!("at most {FORKS_GOAL}x"), found <= FORKS_GOAL));
        }
        page.row(Row::times("the first turn on each of 1", &times(&ones, |launch| launch.first_turns)));
        page.row(Row::times(format!("the first turn on each of {MANY}"), &times(&fours, |launch| launch.first_turns)));
        if has_zygote {
            let first = times(&forks, |launch| launch.first_turns);
            page.row(Row::times(format!("the first turn on each of {MANY} forks"), &first));
        }
        let least = |of: &[Launch]| of.iter().map(|launch| launch.memory).min().unwrap_or_default() as f64;
        page.table(format!("Memory of {tool} after a turn on each (PSS: shared pages counted in part)"));
        page.row(Row::value("readyroom: 1 instance", Unit::Bytes, least(&ones)));
        let each = least(&fours) / MANY as f64;
        page.row(
            Row::value(format!("readyroom: {MANY} instances, each"), Unit::Bytes, each).ratio(each / least(&ones)),
        );
        if has_zygote {
            let forked = least(&forks) / MANY as f64;
            let name = format!("readyroom: {MANY} forks, each, with their share of the zygote");
            let row = Row::value(name, Unit::Bytes, forked).ratio(forked / least(&ones));
            page.row(row.goal(format!("at most {MEMORY_GOAL}x of what a start holds"), forked <= MEMORY_GOAL * each));
        }
    }
    Ok(())
}

async fn launch(sandbox: &Sandbox, count: usize, forked: bool) -> anyhow::Result<Launch> {
    let (definition, program) = sandbox.definition();
    let mut definition = Definition::clone(&definition);
    if let Some(zygote) = &mut definition.zygote {
        zygote.enabled = forked;
    }
    let mut options = sandbox.options().count(count).routing(Routing::LeastBusy).wait(Wait::All);
    options.ready_timeout = Duration::from_secs(120);
    let began = Instant::now();
    let cluster = Cluster::launch(Arc::new(definition), &program, options).await?;
    let ready = began.elapsed();
    let began = Instant::now();
    let firsts: Vec<_> = (0..count).map(|_| cluster.submit("Say ok.")).collect::<Result<_, _>>()?;
    for first in firsts {
        let response = first.await;
        anyhow::ensure!(response.ok(), "{}", response.outcome);
    }
    let first_turns = began.elapsed();
    let memory = processes_of(sandbox).iter().map(|process| proportional(process.pid).unwrap_or(0)).sum();
    cluster.shutdown().await;
    Ok(Launch { ready, first_turns, memory })
}

/// A process's memory where pages that several share count in part, in bytes.
fn proportional(pid: u32) -> anyhow::Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = maps.lines().find_map(|line| line.strip_prefix("Pss:")).context("Pss")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
}
