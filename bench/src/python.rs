//! The Python package against what it stands beside: the same turn from Rust, and the same work by a process a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use readyroom_testkit::{Sandbox, fake};

use crate::demo::Demo;
use crate::page::{Page, Row, Unit};
use crate::stats::{median, ratio, short};
use crate::turn;

/// The most that a turn may cost over the same turn in Rust.
const TURN_GOAL: Duration = Duration::from_micros(15);
/// How soon `read_any` must return once an answer is there.
const READ_GOAL: Duration = Duration::from_millis(2);
/// The most that memory may grow from 10,000 turns to 100,000.
const MEMORY_GOAL: f64 = 5.0;

/// The most that three files may take, in the time of one.
const SIDE_BY_SIDE_GOAL: f64 = 1.3;

const WORKERS: usize = 5;
/// How many files the processes one after the other get.
const PART: usize = 24;
/// How much faster the warm workers must be than `xargs`, and than one after the other.
const ROLLOUT_GOALS: (f64, f64) = (2.5, 5.0);

/// The interpreter that has the package.
fn interpreter() -> anyhow::Result<PathBuf> {
    std::env::var_os("READYROOM_PYTHON").map(PathBuf::from).context("run it by `cargo xtask bench`")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Measures turns, `read_any` and memory.
pub fn turn(page: &mut Page, turns: usize, rounds: usize) -> anyhow::Result<()> {
    let sandbox = Sandbox::bare("echo");
    let definition = sandbox.home().join("echo.toml");
    std::fs::write(&definition, fake::echo_toml("echo", &[]))?;
    let ask = |what: &str, count: usize| -> anyhow::Result<Vec<f64>> {
        let mut command = Command::new(interpreter()?);
        command.arg(script("turn.py")).arg(&definition).arg(what).arg(count.to_string());
        let output = sandbox.apply(&mut command).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        text.split_whitespace().map(|number| Ok(number.parse()?)).collect()
    };
    let (mut rust, mut python) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        rust.push(turn::blocking(turns)?);
        python.push(Duration::from_secs_f64(ask("turn", turns)?[0]));
    }
    let over = median(&python).saturating_sub(median(&rust));
    page.table("A turn on the echo from Python");
    page.row(Row::times("readyroom from Rust, blocking", &rust));
    let goal = format!("at most {} more", short(TURN_GOAL));
    page.row(
        Row::times("readyroom from Python", &python)
            .ratio(ratio(median(&python), median(&rust)))
            .goal(goal, over <= TURN_GOAL),
    );

    let late: Vec<Duration> = ask("read", 50)?.into_iter().map(Duration::from_secs_f64).collect();
    let latest = late.iter().max().copied().unwrap_or_default();
    page.table("How long after an answer read_any returns in Python");
    page.row(Row::times("readyroom", &late).goal(format!("at most {}", short(READ_GOAL)), latest <= READ_GOAL));

    let memory = ask("memory", 100_000)?;
    page.table("Memory of a Python program over 100,000 turns");
    page.row(Row::value("after 10,000", Unit::Bytes, memory[0]));
    let grown = memory[1] - memory[0];
    let goal = format!("less than {MEMORY_GOAL} MiB");
    page.row(
        Row::value("more than that after 100,000", Unit::Bytes, grown)
            .goal(goal, grown < MEMORY_GOAL * 1024.0 * 1024.0),
    );
    Ok(())
}

/// Three files on three workers against one file on one of them, with a model of 5 s, launches not counted and first
/// turns included.
fn side_by_side(page: &mut Page) -> anyhow::Result<()> {
    let work = Demo::new(3, 3, Some(5000), None);
    let turns = |count: usize| -> anyhow::Result<Duration> {
        let mut command = Command::new(interpreter()?);
        command.arg(script("rollout.py")).arg("3").args(&work.files[..count]);
        work.by_name(&mut command)?;
        work.check(count)?;
        let answers = std::fs::read_to_string(work.sandbox.home().join("answers"))?;
        let took = answers.lines().last().and_then(|line| line.strip_prefix("took ")).context("the script's time")?;
        Ok(Duration::from_secs_f64(took.parse()?))
    };
    let (one, three) = (turns(1)?, turns(3)?);
    let found = ratio(three, one);
    page.table("A real edit by 3 warm aiders, from Python, with a model that thinks for 5 s");
    page.row(Row::times("readyroom, one file", &[one]));
    let goal = format!("at most {SIDE_BY_SIDE_GOAL}x the time of one");
    page.row(Row::times("readyroom, three files", &[three]).ratio(found).goal(goal, found <= SIDE_BY_SIDE_GOAL));
    Ok(())
}

/// Measures the rollout.
pub fn rollout(page: &mut Page, files: usize) -> anyhow::Result<()> {
    side_by_side(page)?;
    let work = Demo::new(files, WORKERS, Some(1000), None);
    let mut command = Command::new(interpreter()?);
    command.arg(script("rollout.py")).arg(WORKERS.to_string()).args(&work.files);
    let warm = work.by_name(&mut command)?;
    work.check(files)?;
    let parallel = work.processes(files, WORKERS)?;
    work.check(files)?;
    let part = PART.min(files);
    let serial = work.processes(part, 1)? * u32::try_from(files)? / u32::try_from(part)?;
    work.check(part)?;
    let (to_xargs, to_serial) = (ratio(parallel, warm), ratio(serial, warm));
    page.table(format!("A real edit in each of {files} files, with a model that thinks for 1 s"));
    page.row(Row::times(format!("readyroom: launch_cluster(\"aider\", count={WORKERS})"), &[warm]));
    let goal = format!("at least {}x", ROLLOUT_GOALS.0);
    page.row(
        Row::times(format!("xargs -P {WORKERS} aider"), &[parallel])
            .ratio(to_xargs)
            .goal(goal, to_xargs >= ROLLOUT_GOALS.0),
    );
    let goal = format!("at least {}x", ROLLOUT_GOALS.1);
    let name = format!("aider, one by one (scaled from {part})");
    page.row(Row::times(name, &[serial]).ratio(to_serial).goal(goal, to_serial >= ROLLOUT_GOALS.1));
    Ok(())
}
