//! What proves the promises beyond the tests, and takes longer than they may: fuzzing, the address sanitizer, mutants
//! and the two long runs of `readyroom-prove`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::{host, install, suite};

/// Runs fuzz targets (all, where none is named), each for so many seconds, and keeps what reaches new code.
pub fn fuzz(targets: &[String], seconds: u64) -> anyhow::Result<bool> {
    nightly()?;
    let program = install::cargo("cargo-fuzz")?;
    let directory = host::workspace().join("fuzz");
    let known = names(&directory.join("fuzz_targets"))?;
    if let Some(strange) = targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no fuzz target {strange}; there are {}", known.join(", "));
    }
    let chosen: Vec<&String> = known.iter().filter(|name| targets.is_empty() || targets.contains(name)).collect();
    let mut build = Command::new(&program);
    build.args(["fuzz", "build", "--target-dir"]).arg(host::target().join("fuzz")).current_dir(host::workspace());
    host::run(build.env("RUSTUP_TOOLCHAIN", "nightly"))?;
    let programs = host::target().join("fuzz").join(triple()?).join("release");
    let mut well = true;
    for name in chosen {
        let (program, kept) = (programs.join(name), directory.join("corpus").join(name));
        // New inputs are gathered apart; a few of those that reach something join what is kept.
        let (found, crashes) = (host::target().join("fuzz-corpus").join(name), directory.join("artifacts"));
        std::fs::create_dir_all(&found)?;
        std::fs::create_dir_all(&crashes)?;
        println!("fuzzing {name} for {seconds} s");
        let mut fuzz = Command::new(&program);
        fuzz.args([&found, &kept]).arg(format!("-max_total_time={seconds}"));
        fuzz.arg(format!("-artifact_prefix={}/{name}-", crashes.display()));
        well &= fuzz.args(["-timeout=25", "-max_len=4096", "-print_final_stats=1"]).args(MEMORY).status()?.success();
        let least = host::target().join("fuzz-corpus").join(format!("{name}-least"));
        let _ = std::fs::remove_dir_all(&least);
        std::fs::create_dir_all(&least)?;
        let mut merge = Command::new(&program);
        merge.args([&least, &kept, &found]).args(["-merge=1", "-max_len=1024"]).args(MEMORY);
        host::run(merge.stderr(Stdio::null()))?;
        keep(&least, &kept)?;
    }
    Ok(well)
}

/// How many inputs are kept of a target: the ordinary tests play them all.
const KEPT: usize = 40;

/// Fills up what is kept with inputs of all sizes, as far as there is room.
fn keep(from: &Path, kept: &Path) -> anyhow::Result<()> {
    let mut files: Vec<(u64, PathBuf)> = std::fs::read_dir(from)?
        .flatten()
        .map(|entry| Ok((entry.metadata()?.len(), entry.path())))
        .collect::<anyhow::Result<_>>()?;
    files.sort();
    let room = KEPT.saturating_sub(std::fs::read_dir(kept)?.count());
    let step = files.len().div_ceil(room.max(1)).max(1);
    for (_, file) in files.iter().step_by(step).take(room) {
        std::fs::copy(file, kept.join(file.file_name().context("a file's name")?))?;
    }
    Ok(())
}

/// The sanitizer's shadow is counted too.
const MEMORY: [&str; 1] = ["-rss_limit_mb=4096"];

/// The name of the machine's kind, as cargo knows it.
fn triple() -> anyhow::Result<String> {
    let said = String::from_utf8(Command::new("rustc").arg("-vV").output()?.stdout)?;
    said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("rustc names no host")
}

/// The names of the files in a directory, without their ends.
pub fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Runs the tests of the process floor, which alone holds unsafe code, with the address sanitizer.
pub fn sanitize() -> anyhow::Result<bool> {
    nightly()?;
    let triple = triple()?;
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).args(["--target", &triple, "--target-dir"]).arg(host::target().join("asan"));
        command.env("RUSTUP_TOOLCHAIN", "nightly").env("RUSTFLAGS", "-Zsanitizer=address");
        command.env("READYROOM_TOOLS_DIR", host::tools()).current_dir(host::workspace());
        command
    };
    host::run(&mut cargo(&["build", "--package", "readyroom-testkit", "--bins"]))?;
    let mut well = cargo(&["test", "--package", "readyroom", "--lib", "process::"]).status()?.success();
    let mut tests = cargo(&["test", "--package", "readyroom-testkit", "--no-fail-fast"]);
    for name in suite::test_files("readyroom-testkit")?.iter().filter(|name| name.starts_with("process_")) {
        tests.args(["--test", name]);
    }
    well &= tests.status()?.success();
    Ok(well)
}

/// Changes the code of the router, the fence, the restart table and the retry policy in small ways, and sees whether the
/// tests notice.
pub fn mutants(more: &[String]) -> anyhow::Result<bool> {
    let program = install::cargo("cargo-mutants")?;
    let mut command = Command::new(program);
    command.args(["mutants", "--output"]).arg(host::target()).args(more).current_dir(host::workspace());
    Ok(command.status()?.success())
}

/// Builds and runs a part of `readyroom-prove`: a soak as it is used, chaos with what a debug build checks besides.
pub fn prove(part: &str, more: &[String]) -> anyhow::Result<bool> {
    install::tools()?;
    let profile = if part == "soak" { "release" } else { "debug" };
    let mut build = Command::new("cargo");
    build.args(["build", "--package", "readyroom-cli", "--package", "readyroom-testkit", "--package"]);
    build.args(["readyroom-prove", "--bins"]).args((profile == "release").then_some("--release"));
    host::run(build.current_dir(host::workspace()))?;
    let mut command = Command::new(host::target().join(profile).join("readyroom-prove"));
    command.arg(part).args(more).env("READYROOM_TOOLS_DIR", host::tools()).current_dir(host::workspace());
    Ok(command.status()?.success())
}

/// The fuzzer and the sanitizer need flags that only a nightly compiler takes.
fn nightly() -> anyhow::Result<()> {
    let found =
        Command::new("cargo").args(["+nightly", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(found.is_ok_and(|status| status.success()), "a nightly Rust is needed: rustup toolchain install nightly");
    Ok(())
}
