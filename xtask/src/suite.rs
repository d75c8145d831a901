//! The tests again and again, several files of them at once.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::test::{Counts, cargo};
use crate::{host, install, prove, python};

/// Which tests are run again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Those that need no real tool: those within the crates, and the files that name none.
    Own,
    /// All.
    Whole,
}

/// Runs a suite so many times, perhaps with all cores busy besides; stops at the first failure.
pub fn repeat(suite: Suite, times: u32, load: bool) -> anyhow::Result<bool> {
    install::tools()?;
    install::system()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if load {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
        }
        let result = (1..=times).try_for_each(|time| {
            let started = Instant::now();
            let well = at_once(suite)?;
            println!(
                "run {time} of {times}: {} after {} s",
                if well { "well" } else { "failed" },
                started.elapsed().as_secs()
            );
            ensure!(well, "run {time} failed");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result.map(|()| true)
    })
}

/// Runs a suite, as many of its parts at once as keep the cores busy. What a part says is shown where it fails. Whether all
/// is well.
fn at_once(suite: Suite) -> anyhow::Result<bool> {
    host::run(cargo(&["build", "--workspace", "--bins"]).stdout(Stdio::null()))?;
    host::run(cargo(&["test", "--workspace", "--no-run", "--quiet"]).stdout(Stdio::null()))?;
    let rest = Mutex::new(parts(suite)?);
    let next = || rest.lock().expect("no worker panics with it").pop();
    let work = || -> anyhow::Result<(Counts, bool)> {
        let (mut counts, mut well) = (Counts::default(), true);
        while let Some(mut part) = next() {
            let output = part.stdin(Stdio::null()).output().with_context(|| format!("{part:?} can't be run"))?;
            output.stdout.split(|byte| *byte == b'\n').for_each(|line| counts.line(&String::from_utf8_lossy(line)));
            if !output.status.success() {
                println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            }
            well &= output.status.success();
        }
        Ok((counts, well))
    };
    // Most tests wait most of the time.
    let workers = std::thread::available_parallelism().map_or(2, usize::from) + 1;
    let (mut counts, mut well) = (Counts::default(), true);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let (more, ended_well) = worker.join().expect("no worker panics")?;
            counts.add(more);
            well &= ended_well;
            anyhow::Ok(())
        })
    })?;
    let (lines, well) = counts.verdict(well, suite == Suite::Whole);
    lines.iter().for_each(|line| println!("{line}"));
    Ok(well)
}

/// The commands that run a suite's parts, the last one first.
fn parts(suite: Suite) -> anyhow::Result<Vec<Command>> {
    let mut parts = Vec::new();
    for package in ["readyroom-testkit", "readyroom-cli", "readyroom"] {
        let files = match suite {
            Suite::Own => without_tools(package)?,
            Suite::Whole => test_files(package)?,
        };
        let part = |file: &String| cargo(&["test", "--no-fail-fast", "--package", package, "--test", file]);
        parts.extend(files.iter().map(part));
    }
    let within = ["test", "--no-fail-fast", "--lib", "--bins"];
    match suite {
        Suite::Own => {
            let packages = ["--package", "readyroom", "--package", "readyroom-cli", "--package", "xtask"];
            parts.push(cargo(&[&within[..], &packages].concat()));
        }
        Suite::Whole => {
            parts.push(cargo(&[&within[..], &["--examples", "--workspace"]].concat()));
            parts.push(cargo(&["test", "--no-fail-fast", "--doc", "--workspace"]));
            parts.push(python::tests(None)?);
        }
    }
    Ok(parts)
}

/// The tests of a package that need no real tool and no model: those whose files, and what they share, name none.
fn without_tools(package: &str) -> anyhow::Result<Vec<String>> {
    let directory = host::workspace().join("crates").join(package).join("tests");
    let mut found = Vec::new();
    for name in test_files(package)? {
        let mut text = std::fs::read_to_string(directory.join(format!("{name}.rs")))?;
        for shared in text.clone().lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')) {
            // The command's own support offers real tools to those who ask, by name.
            if shared != "support" {
                text.push_str(&std::fs::read_to_string(directory.join(shared).join("mod.rs"))?);
            }
        }
        let needs = ["Model", "tools::program", ".alone(", "Registry::builtin().expect"];
        if !needs.iter().any(|word| text.contains(word)) {
            found.push(name);
        }
    }
    Ok(found)
}

/// The files with tests of a package.
pub fn test_files(package: &str) -> anyhow::Result<Vec<String>> {
    let directory = host::workspace().join("crates").join(package).join("tests");
    let mut files = prove::names(&directory)?;
    files.retain(|name| directory.join(format!("{name}.rs")).is_file());
    Ok(files)
}
