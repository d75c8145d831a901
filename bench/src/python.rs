//! The Python package against what it stands beside: the same turn from Rust, and the same work by a process a file.

#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use readyroom_testkit::{Sandbox, fake};

use crate::demo::Demo;
use crate::stats::{median, ratio, short, summary};
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

/// Measures turns, `read_any` and memory. Whether the goals were met.
pub fn turn(turns: usize, rounds: usize) -> anyhow::Result<bool> {
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
    println!("a turn from Rust, blocking  {}", summary(&rust));
    println!(
        "a turn from Python          {}  {} more (goal: at most {})",
        summary(&python),
        short(over),
        short(TURN_GOAL)
    );

    let late: Vec<Duration> = ask("read", 50)?.into_iter().map(Duration::from_secs_f64).collect();
    println!("read_any after the answer   {}  (goal: at most {})", summary(&late), short(READ_GOAL));

    let memory = ask("memory", 100_000)?;
    let grown = (memory[1] - memory[0]) / 1024.0 / 1024.0;
    println!(
        "memory                      {:.1} MiB after 10,000 turns, {grown:+.1} MiB after 100,000 (goal: less than {MEMORY_GOAL} MiB)",
        memory[0] / 1024.0 / 1024.0
    );
    let latest = late.iter().max().copied().unwrap_or_default();
    Ok(over <= TURN_GOAL && latest <= READ_GOAL && grown < MEMORY_GOAL)
}

/// Three files on three workers against one file on one of them, with a model of 5 s, launches not counted and first
/// turns included. Whether the edits were made and the goal was met.
fn side_by_side() -> anyhow::Result<bool> {
    let work = Demo::new(3, 3, Some(5000), None);
    println!("a real edit in one file and in three files, on 3 warm aiders, with a model that thinks for 5 s");
    let mut well = true;
    let mut turns = |count: usize| -> anyhow::Result<Duration> {
        let mut command = Command::new(interpreter()?);
        command.arg(script("rollout.py")).arg("3").args(&work.files[..count]);
        work.by_name(&mut command)?;
        well &= work.check(count, "Python")?;
        let answers = std::fs::read_to_string(work.sandbox.home().join("answers"))?;
        let took = answers.lines().last().and_then(|line| line.strip_prefix("took ")).context("the script's time")?;
        Ok(Duration::from_secs_f64(took.parse()?))
    };
    let (one, three) = (turns(1)?, turns(3)?);
    let found = ratio(three, one);
    println!("one {}, three {}: {found:.2}x (goal: at most {SIDE_BY_SIDE_GOAL}x)\n", short(one), short(three));
    Ok(well && found <= SIDE_BY_SIDE_GOAL)
}

/// Measures the rollout. Whether all edits were made and the goals were met.
pub fn rollout(files: usize) -> anyhow::Result<bool> {
    let side_by_side = side_by_side()?;
    let work = Demo::new(files, WORKERS, Some(1000), None);
    println!("a real edit in each of {files} files, with a model that thinks for 1 s");

    println!("\n== {WORKERS} warm aiders, from Python");
    let mut command = Command::new(interpreter()?);
    command.arg(script("rollout.py")).arg(WORKERS.to_string()).args(&work.files);
    let warm = work.by_name(&mut command)?;
    let mut well = work.check(files, "Python")?;

    println!("\n== a process a file, {WORKERS} at once (xargs -P {WORKERS})");
    let parallel = work.processes(files, WORKERS)?;
    well &= work.check(files, "xargs")?;

    let part = PART.min(files);
    println!("\n== a process a file, one after the other, {part} of {files} files");
    let serial = work.processes(part, 1)? * u32::try_from(files)? / u32::try_from(part)?;
    well &= work.check(part, "one after the other")?;

    let (to_xargs, to_serial) = (ratio(parallel, warm), ratio(serial, warm));
    println!("\n{:<34}{:>10}", format!("{files} files"), "time");
    println!("{:<34}{:>10}", format!("launch_cluster(\"aider\", count={WORKERS})"), short(warm));
    println!(
        "{:<34}{:>10}    {to_xargs:.1}x (goal: at least {}x)",
        format!("xargs -P {WORKERS} aider"),
        short(parallel),
        ROLLOUT_GOALS.0
    );
    println!(
        "{:<34}{:>10}    {to_serial:.1}x, scaled from {part} files (goal: at least {}x)",
        "aider, one by one",
        short(serial),
        ROLLOUT_GOALS.1
    );
    Ok(well && side_by_side && to_xargs >= ROLLOUT_GOALS.0 && to_serial >= ROLLOUT_GOALS.1)
}
