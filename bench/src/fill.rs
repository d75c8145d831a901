//! How well 4 instances of Claude Code are kept busy: 40 jobs with a model that takes a second each.

#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use std::time::{Duration, Instant};

use readyroom::{Cluster, Routing, Wait};
use readyroom_testkit::{Model, Sandbox, Step};

use crate::stats::{ratio, short};

/// The most that the jobs may take, in the best schedule's time.
const GOAL: f64 = 1.05;
const INSTANCES: usize = 4;
const JOBS: usize = 40;
const SECOND: u64 = 1000;
const LONG: u64 = 8;

/// Measures. Whether the goals were met.
pub fn run() -> anyhow::Result<bool> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let equal = fill(&[SECOND; JOBS]).await?;
        let ideal = Duration::from_millis(SECOND) * (JOBS / INSTANCES) as u32;
        let first = report("40 jobs of 1 s on 4 instances", equal, ideal);

        // One long job comes first: the best schedule gives the other three the rest.
        let mut times = [SECOND; JOBS];
        times[0] = LONG * SECOND;
        let one_slow = fill(&times).await?;
        let total: u64 = times.iter().sum();
        let best = Duration::from_millis((total.div_ceil(INSTANCES as u64)).div_ceil(SECOND) * SECOND)
            .max(Duration::from_millis(LONG * SECOND));
        let second = report("the same with one of 8 s among them", one_slow, best);
        Ok(first && second)
    })
}

fn report(what: &str, took: Duration, ideal: Duration) -> bool {
    let found = ratio(took, ideal);
    println!("{what}: {} against {} at best, {found:.3}x (goal: at most {GOAL}x)", short(took), short(ideal));
    found <= GOAL
}

/// The time of jobs whose model takes so many milliseconds each; launch and first turns are not counted.
async fn fill(milliseconds: &[u64]) -> anyhow::Result<Duration> {
    let model = Model::start();
    let sandbox = Sandbox::new("claude", &model);
    let (definition, program) = sandbox.definition();
    let mut options = sandbox.options().count(INSTANCES).routing(Routing::LeastBusy).wait(Wait::All);
    options.ready_timeout = Duration::from_secs(120);
    let cluster = Cluster::launch(definition, &program, options).await?;
    let firsts: Vec<_> = (0..INSTANCES).map(|_| cluster.submit("Say ok.")).collect::<Result<_, _>>()?;
    for first in firsts {
        anyhow::ensure!(first.await.ok(), "a first turn failed");
    }
    for (job, milliseconds) in milliseconds.iter().enumerate() {
        model.on(&format!("fillword{job}x"), Step::say("done").after(*milliseconds));
    }
    let started = Instant::now();
    let tickets: Vec<_> =
        (0..milliseconds.len()).map(|job| cluster.submit(format!("Do fillword{job}x."))).collect::<Result<_, _>>()?;
    for ticket in tickets {
        let response = ticket.await;
        anyhow::ensure!(response.ok(), "{}", response.outcome);
    }
    let took = started.elapsed();
    cluster.shutdown().await;
    Ok(took)
}
