//! 24 real edits by aider with a model that thinks for two seconds, everything included: by `readyroom run`, by what people
//! use to run a command many times at once, and one after the other. And 24 prompts by acpx, where it runs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use readyroom_testkit::{Model, Sandbox, Step, fake};

use crate::demo::{Demo, on_path, path_with};
use crate::page::{Page, Row};
use crate::stats::{ratio, short};

const FILES: usize = 24;
const AT_ONCE: usize = 4;
/// How many files the processes one after the other get.
const PART: usize = 6;
const LATENCY: u64 = 2000;
/// How much faster it must be than one after the other, and than `xargs`.
const GOALS: (f64, f64) = (9.0, 4.0);

/// Measures.
pub fn run(page: &mut Page) -> anyhow::Result<()> {
    let work = Demo::new(FILES, AT_ONCE, Some(LATENCY), None);
    let warm = work.warm()?;
    work.check(FILES)?;
    let tools = work.sandbox.home().join(".config/readyroom/tools");
    std::fs::create_dir_all(&tools)?;
    std::fs::write(tools.join("aider.toml"), "[zygote]\nenabled = false\n")?;
    let started = work.warm()?;
    work.check(FILES)?;
    std::fs::remove_file(tools.join("aider.toml"))?;
    let xargs = work.processes(FILES, AT_ONCE)?;
    work.check(FILES)?;
    let parallel = match on_path("parallel") {
        true => Some(work.parallel(FILES)?),
        false => None,
    };
    if parallel.is_some() {
        work.check(FILES)?;
    }
    let serial = work.processes(PART, 1)? * u32::try_from(FILES)? / u32::try_from(PART)?;
    work.check(PART)?;
    page.table(format!("{FILES} edits by aider, {AT_ONCE} at once, a model of 2 s; launch and end included"));
    page.row(Row::times(format!("readyroom run -j {AT_ONCE}"), &[warm]));
    page.row(
        Row::times(format!("readyroom run -j {AT_ONCE}, without a zygote"), &[started]).ratio(ratio(started, warm)),
    );
    let (to_serial, to_xargs) = (ratio(serial, warm), ratio(xargs, warm));
    let goal = format!("at least {}x", GOALS.1);
    page.row(Row::times(format!("xargs -P {AT_ONCE}"), &[xargs]).ratio(to_xargs).goal(goal, to_xargs >= GOALS.1));
    if let Some(parallel) = parallel {
        page.row(Row::times(format!("GNU parallel -j {AT_ONCE}"), &[parallel]).ratio(ratio(parallel, warm)));
    }
    let goal = format!("at least {}x", GOALS.0);
    let name = format!("one after the other (scaled from {PART})");
    page.row(Row::times(name, &[serial]).ratio(to_serial).goal(goal, to_serial >= GOALS.0));
    let model = Duration::from_millis(LATENCY) * u32::try_from(FILES / AT_ONCE)?;
    page.note(format!(
        "The model alone takes {} of it: {FILES} answers, {AT_ONCE} at a time. Nothing can be more than {:.2}x ahead of `xargs` and {:.2}x \
         ahead of one after the other here; the faster a machine starts aider, the less there is to save.",
        short(model),
        ratio(xargs, model),
        ratio(serial, model)
    ));
    acpx(page)
}

/// The same prompts to Gemini by acpx: a process a prompt, and its warm session, which keeps its context.
fn acpx(page: &mut Page) -> anyhow::Result<()> {
    let program = PathBuf::from(std::env::var_os("READYROOM_ACPX").context("run it by `cargo xtask bench`")?);
    let model = Model::start();
    model.otherwise(Step::say("ok"));
    let sandbox = Sandbox::new("gemini", &model);
    let (_, gemini) = sandbox.definition();
    let agent = format!("{} --acp", gemini.display());
    let acpx = |words: &[&str]| -> anyhow::Result<()> {
        let mut command = Command::new(&program);
        command.args(["--agent", &agent, "--format", "quiet"]).args(words);
        let output = sandbox.apply(&mut command).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "acpx {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let timed = |work: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<Duration> {
        let began = Instant::now();
        work()?;
        Ok(began.elapsed())
    };
    let ours = || -> anyhow::Result<()> {
        let mut command = Command::new(fake::program("readyroom"));
        command.args(["run", "--quiet", "-j", "1", "-t", "gemini", "--permissions", "read", "--no-files", "Say {}."]);
        command.args((0..FILES).map(|job| format!("word{job}")));
        let output = sandbox.apply(&mut command).env("PATH", path_with(&gemini)?).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    // The first start of a tool in a HOME sets it up.
    ours()?;
    let warm = timed(&mut || ours())?;
    let each = timed(&mut || (0..PART).try_for_each(|job| acpx(&["exec", &format!("Say word{job}.")])))?;
    let each = each * u32::try_from(FILES)? / u32::try_from(PART)?;
    let session = timed(&mut || {
        acpx(&["sessions", "new"])?;
        (0..FILES).try_for_each(|job| acpx(&["--ttl", "5", "prompt", &format!("Say word{job}.")]))
    })?;
    acpx(&["sessions", "close"])?;
    page.table(format!("{FILES} prompts to Gemini, one at a time, a model without latency; launch and end included"));
    page.row(Row::times("readyroom run -j 1, each in a clean context", &[warm]));
    page.row(Row::times("acpx, a warm session, all in one context", &[session]).ratio(ratio(session, warm)));
    page.row(Row::times(format!("acpx exec (scaled from {PART})"), &[each]).ratio(ratio(each, warm)));
    Ok(())
}
