//! Cancel and timeout in every state that a turn can be in.

use std::time::{Duration, Instant};

use readyroom::cluster::Events;
use readyroom::driver::Activity;
use readyroom::{Cluster, Event, Job, Outcome};
use readyroom_testkit::Step;

use super::{Bed, eventually, runs, varied};

/// A state of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Streaming,
    Silent,
    Retrying,
    Shell,
    PermissionAsked,
}

const CELLS: [Cell; 5] = [Cell::Streaming, Cell::Silent, Cell::Retrying, Cell::Shell, Cell::PermissionAsked];

/// Cancels one turn and lets another run into its deadline, in each state; the next job is right each time.
pub async fn every_state(bed: &Bed, cluster: &Cluster) {
    for cell in CELLS {
        assert!(one(bed, cluster, cell, None).await);
        // On a machine that is busy a turn may be late in its state; it gets longer then.
        let mut limit = Duration::from_secs(3);
        while !one(bed, cluster, cell, Some(limit)).await {
            limit *= 3;
            assert!(limit < Duration::from_secs(100), "{cell:?}: the state is not reached");
        }
    }
}

/// Stops a turn in one state, and checks what is left of it; false where its limit was over before it was in the state.
async fn one(bed: &Bed, cluster: &Cluster, cell: Cell, limit: Option<Duration>) -> bool {
    let timeout = limit.is_some();
    let word = format!("STOP-{cell:?}-{timeout}-X");
    // Told apart from every other test's sleep by its length.
    let length = format!("{}.{:05}", 900 + cell as u32 * 2 + u32::from(timeout), std::process::id() % 100_000);
    let sleep = format!("sleep {length}");
    let script = match cell {
        Cell::Streaming => {
            vec![Step::Slow { text: format!("PARTIAL {}", varied(20_000)), chunk: 8, delay_ms: 100 }]
        }
        Cell::Silent => vec![Step::Hang],
        Cell::Retrying => vec![Step::status(500)],
        Cell::Shell => vec![bed.shell(&sleep)],
        // It asks again for each of many writes, and the stop comes between an answer and the next question.
        Cell::PermissionAsked => {
            let write = |number| bed.write(&bed.sandbox.dir().join("asked.txt"), &format!("{number}\n"));
            (0..60).map(write).chain([Step::Hang]).collect()
        }
    };
    bed.model.on(&word, script);
    let mut job = Job::new(word.as_str());
    if let Some(limit) = limit {
        job = job.with_timeout(limit);
    }
    let mut events = cluster.events();
    let mut ticket = cluster.submit(job).expect("the job is taken");
    let began = Instant::now();
    let reached = async {
        match cell {
            Cell::Streaming => until(&mut events, |activity| matches!(activity, Activity::Text(_))).await,
            Cell::PermissionAsked => until(&mut events, |activity| matches!(activity, Activity::Granted(_))).await,
            Cell::Shell => eventually("the shell command", || runs(&sleep)).await,
            Cell::Silent | Cell::Retrying => drop(bed.model.requested(&word).await),
        }
    };
    tokio::select! {
        biased;
        () = reached => {}
        response = &mut ticket => {
            let late = timeout && matches!(response.outcome, Outcome::TimedOut { .. });
            assert!(late, "{cell:?}: the state is not reached: {}", response.outcome);
            return false;
        }
    }
    let asked = Instant::now();
    if !timeout {
        ticket.cancel();
    }
    let response = ticket.await;
    match limit {
        None => assert_eq!(response.outcome, Outcome::Cancelled, "{cell:?}"),
        Some(limit) => {
            assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{cell:?}: {}", response.outcome);
            assert!(began.elapsed() < limit + Duration::from_secs(8), "{cell:?} took {:?}", began.elapsed());
        }
    }
    assert!(timeout || asked.elapsed() < Duration::from_secs(8), "{cell:?} took {:?}", asked.elapsed());
    assert!(!runs(&sleep), "{cell:?}: the command still runs");
    bed.next_job_is_right(cluster, &[&word, "PARTIAL"]).await;
    true
}

async fn until(events: &mut Events, wanted: impl Fn(&Activity) -> bool) {
    loop {
        match events.recv().await.expect("an event") {
            Event::TurnProgressed { activity, .. } if wanted(&activity) => return,
            _ => {}
        }
    }
}
