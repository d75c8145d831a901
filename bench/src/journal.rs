//! The journal: durable outcomes a second against the disk's own rate, and a batch of 100,000 jobs.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use readyroom_testkit::fake;

use crate::page::{Page, Row, Unit};
use crate::stats::short;

/// The least that is journalled in a second: a job's end, its attempt and its outcome.
const GOAL: f64 = 2000.0;
const INSTANCES: usize = 64;

/// The longest that a start, a list or a resume of the large batch may take.
const LARGE_GOAL: Duration = Duration::from_secs(2);

/// How much the memory of a run may grow from a tenth of its jobs to the last.
const GROWTH: u64 = 8 << 20;

/// Measures.
pub fn run(page: &mut Page, jobs: usize, large: usize) -> anyhow::Result<()> {
    let place = Place::new()?;
    let syncs = syncs_a_second(place.dir.path())?;
    let mut running = place.start(&["run", "-t", "echo", "-j", &INSTANCES.to_string(), "--from", "-"], Some(jobs))?;
    // The first of all instances are under way when a good many have ended.
    let warm = jobs / 10;
    running.outcomes(warm)?;
    let began = Instant::now();
    running.outcomes(jobs - warm)?;
    let rate = (jobs - warm) as f64 / began.elapsed().as_secs_f64();
    running.end()?;
    page.table(format!("Durable outcomes of {INSTANCES} instances of the echo: job, attempt and outcome journalled"));
    page.row(Row::value("the disk alone: fsyncs", Unit::Rate, syncs));
    page.row(Row::value("readyroom: outcomes", Unit::Rate, rate).goal(format!("at least {GOAL:.0}/s"), rate >= GOAL));
    for jobs in [large / 100, large / 10, large] {
        large_batch(page, jobs)?;
    }
    Ok(())
}

fn large_batch(page: &mut Page, jobs: usize) -> anyhow::Result<()> {
    let place = Place::new()?;
    let words = ["run", "-t", "echo", "-j", "8", "--from", "-"];
    let began = Instant::now();
    let mut running = place.start(&words, Some(jobs))?;
    running.outcomes(1)?;
    let start = began.elapsed();
    running.outcomes(jobs / 10)?;
    let early = running.memory()?;
    running.child.kill()?;
    running.child.wait()?;

    let began = Instant::now();
    anyhow::ensure!(place.command(&["batch", "list"]).stdout(Stdio::null()).status()?.success(), "batch list failed");
    let list = began.elapsed();
    let began = Instant::now();
    let mut running = place.start(&["resume", "--lost"], None)?;
    running.outcomes(1)?;
    let resume = began.elapsed();
    let mut seen = 1;
    let resumed_early = loop {
        running.outcomes(jobs / 10)?;
        seen += jobs / 10;
        if seen > jobs / 10 {
            break running.memory()?;
        }
    };
    let mut late = resumed_early;
    while running.outcomes(jobs / 10).is_ok() {
        late = running.memory().unwrap_or(late);
    }
    running.child.wait()?;
    let grown = late.saturating_sub(resumed_early);
    page.table(format!("{jobs} jobs in one batch of the echo"));
    for (name, time) in [
        ("readyroom run: first outcome", start),
        ("readyroom batch list", list),
        ("readyroom resume: first outcome", resume),
    ] {
        page.row(Row::times(name, &[time]).goal(format!("at most {}", short(LARGE_GOAL)), time <= LARGE_GOAL));
    }
    page.table(format!("Memory of a run of {jobs} jobs"));
    page.row(Row::value("at a tenth", Unit::Bytes, early as f64));
    page.row(Row::value("of the resumed run, at a tenth", Unit::Bytes, resumed_early as f64));
    let goal = format!("at most {} MiB", GROWTH >> 20);
    page.row(Row::value("more than that at its end", Unit::Bytes, grown as f64).goal(goal, grown <= GROWTH));
    Ok(())
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let tools = dir.path().join(".config/readyroom/tools");
        fs::create_dir_all(&tools)?;
        fs::write(tools.join("echo.toml"), fake::echo_toml("echo", &[]))?;
        Ok(Self { dir })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(fake::program("readyroom"));
        command.args(words).current_dir(self.dir.path()).env("HOME", self.dir.path());
        for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "READYROOM_TOOL"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts a command with outcomes on its stdout, and so many jobs on its stdin.
    fn start(&self, words: &[&str], jobs: Option<usize>) -> anyhow::Result<Running> {
        let mut command = self.command(words);
        command.args(["--json", "-", "--quiet"]).stdout(Stdio::piped()).stderr(Stdio::null());
        match jobs {
            Some(jobs) => {
                let path = self.jobs(jobs)?;
                command.args(["--permissions", "read"]).stdin(File::open(path)?);
            }
            None => drop(command.stdin(Stdio::null())),
        }
        let mut child = command.spawn()?;
        let out = child.stdout.take().context("its stdout")?;
        Ok(Running { child, lines: BufReader::new(out) })
    }

    fn jobs(&self, jobs: usize) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join("jobs.jsonl");
        let mut file = std::io::BufWriter::new(File::create(&path)?);
        for job in 0..jobs {
            writeln!(file, "{{\"id\":\"job-{job}\",\"prompt\":\"say {job}\"}}")?;
        }
        file.flush()?;
        Ok(path)
    }
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Waits for so many outcomes.
    fn outcomes(&mut self, count: usize) -> anyhow::Result<()> {
        let mut line = String::new();
        for _ in 0..count {
            line.clear();
            anyhow::ensure!(self.lines.read_line(&mut line)? > 0, "the run ended");
        }
        Ok(())
    }

    /// Its own memory, in bytes.
    fn memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
    }

    fn end(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.wait()?.success(), "the run failed");
        Ok(())
    }
}

/// How often a page can be written and brought to the disk in a second.
fn syncs_a_second(directory: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(directory.join("sync"))?;
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
