//! What the page says of the machine and of the versions, so that a figure can be judged.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use readyroom_testkit::tools;

/// The head of the page.
pub fn about() -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |line| line.1);
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory: u64 = memory.split_whitespace().nth(1).context("/proc/meminfo")?.parse()?;
    let cores = std::thread::available_parallelism()?;
    let mut text = String::from(
        "# Results\n\nWritten by `cargo xtask bench` on one machine in one run, the sides of each comparison one after the \
         other. Rerun it on yours: ratios travel, times do not. A heading names the command that measures its part alone. \
         The tools are real; the model is a local one that answers at once, or after the time that a table names. Medians, with the \
         range in brackets; a value without one was measured once. Where a goal stands and was missed, the table says so.\n\n",
    );
    text.push_str(&format!(
        "{cores} cores of {model}, {:.0} GiB, Linux {}. ",
        memory as f64 / 1024.0 / 1024.0,
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
    ));
    let mut versions = vec![said("rustc"), said("python3"), format!("node {}", said("node")), said("git")];
    for tool in ["aider", "claude", "codex", "gemini", "opencode"] {
        let version = said(tools::program(tool));
        versions.push(if version.starts_with(tool) { version } else { format!("{tool} {version}") });
    }
    text.push_str(&format!("{}. ", versions.join(", ")));
    Ok(text)
}

/// What a program says of its version.
fn said(program: impl AsRef<std::ffi::OsStr>) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("?").trim().to_owned()
}
