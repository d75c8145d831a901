//! Builds and runs the demonstration and the benchmarks, which are parts of one program.

use std::process::Command;

use crate::{host, install, python};

/// The demonstration. It is the tools' time that it shows, so our own program is built without optimisation.
pub fn demo(real: bool, more: &[String]) -> anyhow::Result<bool> {
    install::tools()?;
    build(&[])?;
    let flag = real.then_some("--real").map(str::to_owned);
    let args: Vec<String> = std::iter::once("demo".to_owned()).chain(flag).chain(more.iter().cloned()).collect();
    run("debug", &args)
}

/// A benchmark, or all of them onto their page.
pub fn part(part: Option<&str>, more: &[String]) -> anyhow::Result<bool> {
    let part = part.unwrap_or("all");
    install::tools()?;
    install::compared()?;
    build(&["--release"])?;
    let args: Vec<String> = std::iter::once(part.to_owned()).chain(more.iter().cloned()).collect();
    // These parts run the package as it is installed.
    if ["all", "python", "rollout"].contains(&part) {
        python::installed()?;
    }
    run("release", &args)
}

fn build(flags: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.args(["build", "--package", "readyroom-cli", "--package", "readyroom-testkit", "--package"]);
    host::run(command.args(["readyroom-bench", "--bins"]).args(flags).current_dir(host::workspace()))
}

fn run(profile: &str, args: &[String]) -> anyhow::Result<bool> {
    let mut command = Command::new(host::target().join(profile).join("readyroom-bench"));
    command.args(args).env("READYROOM_TOOLS_DIR", host::tools());
    command.env("READYROOM_PYTHON", host::tools().join("python/bin/python"));
    command.env("READYROOM_BENCH_PYTHON", host::tools().join("pexpect/bin/python"));
    command.env("READYROOM_ACPX", host::tools().join("acpx/node_modules/.bin/acpx"));
    Ok(command.status()?.success())
}
