//! Cancel and timeout in every state that a turn can be in.

use std::time::{Duration, Instant};

use readyroom::{Cluster, Job, Outcome};
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

/// All of them, each with its test, or why it can't be.
pub const CELLS: [(Cell, Result<(), &str>); 5] = [
    (Cell::Streaming, Ok(())),
    (Cell::Silent, Ok(())),
    (Cell::Retrying, Ok(())),
    (Cell::Shell, Ok(())),
    (
        Cell::PermissionAsked,
        Err("impossible because the driver answers a permission request in the step in which it reads it; a request \
             that crosses a cancel is answered as cancelled, which a unit test of the driver shows"),
    ),
];

/// Cancels one turn and lets another run into its deadline, in each state; the next job is right each time.
pub async fn every_state(bed: &Bed, cluster: &Cluster) {
    for (cell, _) in CELLS.iter().filter(|(_, possible)| possible.is_ok()) {
        one(bed, cluster, *cell, false).await;
        one(bed, cluster, *cell, true).await;
    }
}

async fn one(bed: &Bed, cluster: &Cluster, cell: Cell, timeout: bool) {
    let word = format!("STOP-{cell:?}-{timeout}-X");
    // Told apart from every other test's sleep by its length.
    let length = format!("{}.{:05}", 900 + cell as u32 * 2 + u32::from(timeout), std::process::id() % 100_000);
    let sleep = format!("sleep {length}");
    bed.model.on(
        &word,
        match cell {
            Cell::Streaming => Step::Slow { text: format!("PARTIAL {}", varied(20_000)), chunk: 8, delay_ms: 100 },
            Cell::Silent | Cell::PermissionAsked => Step::Hang,
            Cell::Retrying => Step::status(500),
            Cell::Shell => bed.shell(&sleep),
        },
    );
    let mut job = Job::new(word.as_str());
    if timeout {
        job = job.with_timeout(Duration::from_secs(3));
    }
    let mut events = cluster.events();
    let ticket = cluster.submit(job).expect("the job is taken");
    let began = Instant::now();
    match cell {
        Cell::Streaming => {
            while let Some(event) = events.recv().await {
                let text = matches!(
                    &event,
                    readyroom::Event::TurnProgressed { activity: readyroom::driver::Activity::Text(_), .. }
                );
                if text {
                    break;
                }
            }
        }
        Cell::Shell => eventually("the shell command", || runs(&sleep)).await,
        _ => drop(bed.model.requested(&word).await),
    }
    let asked = Instant::now();
    if !timeout {
        ticket.cancel();
    }
    let response = ticket.await;
    match timeout {
        false => assert_eq!(response.outcome, Outcome::Cancelled, "{cell:?}"),
        true => {
            assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{cell:?}: {}", response.outcome);
            assert!(began.elapsed() < Duration::from_secs(3 + 8), "{cell:?} took {:?}", began.elapsed());
        }
    }
    assert!(timeout || asked.elapsed() < Duration::from_secs(8), "{cell:?} took {:?}", asked.elapsed());
    assert!(!runs(&sleep), "{cell:?}: the command still runs");
    bed.next_job_is_right(cluster, &[&word, "PARTIAL"]).await;
}
