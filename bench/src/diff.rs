//! What a worktree costs in a repository of 10,000 files: making it, taking what a job changed, applying that, and going back.

use std::time::{Duration, Instant};

use readyroom::workspace::{Applied, Repository, Worktree};
use readyroom_testkit::Sandbox;

use crate::page::{Page, Row};
use crate::stats::{median, ratio};

const FILES: usize = 10_000;
const ROUNDS: usize = 7;

/// Measures.
pub fn run(page: &mut Page) -> anyhow::Result<()> {
    let sandbox = Sandbox::bare("git");
    for file in 0..FILES {
        sandbox.write(&format!("src/d{}/f{file}.txt", file % 100), format!("file {file}\n").repeat(20));
    }
    sandbox.commit();
    let repository = Repository::open(sandbox.dir())?;
    let place = tempfile::tempdir()?;
    let (base, snapshot) = timed(|| repository.snapshot("bench"))?;
    let (tree, create) = timed(|| Worktree::create(&repository, &place.path().join("tree"), &base))?;
    // git looks into all files that are not older than its index by a second: what is just made is no one's repository yet.
    std::thread::sleep(Duration::from_millis(1100));
    sandbox.git(&["status"]);
    tree.reset(&[])?;
    let [mut statuses, mut takes, mut applies, mut resets, mut looks] = [const { Vec::new() }; 5];
    for round in 0..ROUNDS {
        let file = format!("src/d{round}/f{round}.txt");
        std::fs::write(tree.root().join(&file), format!("edited in round {round}\n"))?;
        let (change, take) = timed(|| tree.change())?;
        let change = change.ok_or_else(|| anyhow::anyhow!("no change was found"))?;
        takes.push(take);
        let (applied, apply) = timed(|| repository.apply(&change))?;
        anyhow::ensure!(applied == Applied::Whole, "{applied:?}");
        applies.push(apply);
        resets.push(timed(|| tree.reset(&[]))?.1);
        let clean = tree.print(&[]).ok_or_else(|| anyhow::anyhow!("no print"))?;
        let (_, look) = timed(|| anyhow::Ok(tree.print(&[]).is_some_and(|now| now.is_still(&clean))))?;
        looks.push(look);
        let began = Instant::now();
        sandbox.git(&["status", "--porcelain"]);
        statuses.push(began.elapsed());
    }
    tree.remove(&[])?;
    page.table(format!("A job's worktree in a repository of {FILES} files, of which it edits one"));
    page.row(Row::times("git status, by hand", &statuses));
    let against =
        |name: &str, times: &[Duration]| Row::times(name, times).ratio(ratio(median(times), median(&statuses)));
    page.row(against("readyroom: the caller's state as a base, once", &[snapshot]));
    page.row(against("readyroom: a worktree, once an instance", &[create]));
    page.row(against("readyroom: what the job changed", &takes));
    page.row(against("readyroom: bringing it to the caller's files", &applies));
    page.row(against("readyroom: back to the base", &resets));
    page.row(against("readyroom: after a job that has edited nothing, instead of its change and the way back", &looks));
    Ok(())
}

fn timed<T, E: Into<anyhow::Error>>(work: impl FnOnce() -> Result<T, E>) -> anyhow::Result<(T, Duration)> {
    let began = Instant::now();
    let result = work().map_err(Into::into)?;
    Ok((result, began.elapsed()))
}
