//! The Python package: builds its wheel, tests what was built, and makes the documentation's site.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{host, install};

/// The interpreter of the environment that has what building and testing take.
fn python() -> anyhow::Result<PathBuf> {
    install::python()
}

/// A command whose PATH begins with the environment's programs.
fn within(python: &std::path::Path) -> anyhow::Result<Command> {
    let bin = python.parent().context("the interpreter has a directory")?.to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path: OsString = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&rest)))?;
    let mut command = Command::new(python);
    command.env("PATH", path).env("PIP_DISABLE_PIP_VERSION_CHECK", "1").current_dir(host::workspace());
    Ok(command)
}

/// Builds the wheel below `target/wheels`; its path.
pub fn wheel() -> anyhow::Result<PathBuf> {
    let python = python()?;
    let wheels = host::workspace().join("target/wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels)?;
    }
    let mut pip = within(&python)?;
    pip.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]);
    host::run(pip.arg(&wheels).arg("./python"))?;
    let mut found = fs::read_dir(&wheels)?.filter_map(|entry| Some(entry.ok()?.path()));
    found.find(|path| path.extension().is_some_and(|end| end == "whl")).context("no wheel was built")
}

/// Whether a test of the package has this in its name.
pub fn has_test(filter: &str) -> anyhow::Result<bool> {
    for entry in fs::read_dir(host::workspace().join("python/tests"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if text.lines().any(|line| line.starts_with("def test_") && line.contains(filter)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Builds the wheel and installs it into the environment; its path.
pub fn installed() -> anyhow::Result<PathBuf> {
    let wheel = wheel()?;
    let mut pip = within(&python()?)?;
    pip.args(["-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps"]);
    host::run(pip.arg(&wheel))?;
    Ok(wheel)
}

/// Builds and installs the wheel, and gives the command that runs the tests on it.
pub fn tests(filter: Option<&str>) -> anyhow::Result<Command> {
    let python = python()?;
    let wheel = installed()?;
    let mut pytest = within(&python)?;
    // In a directory from which the package's sources can't be imported.
    pytest.args(["-m", "pytest", "--quiet"]).current_dir(host::workspace().join("python/tests"));
    pytest.env("READYROOM_TOOLS_DIR", host::tools()).env("READYROOM_WHEEL", wheel);
    pytest.args(filter.into_iter().flat_map(|filter| ["-k", filter]));
    Ok(pytest)
}

/// Builds the documentation's site below `target/site`: pages, the API of the package and of the crate, with search. A
/// link that leads nowhere is an error.
pub fn docs() -> anyhow::Result<bool> {
    let python = python()?;
    let site = host::workspace().join("target/site");
    let mut mkdocs = within(&python)?;
    mkdocs.env("NO_MKDOCS_2_WARNING", "1");
    mkdocs.args(["-m", "mkdocs", "build", "--strict", "--quiet", "--clean", "--site-dir"]).arg(&site);
    host::run(&mut mkdocs)?;
    let mut rustdoc = Command::new("cargo");
    rustdoc.args(["doc", "--package", "readyroom", "--no-deps", "--quiet"]).current_dir(host::workspace());
    host::run(rustdoc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    let copied = Command::new("cp")
        .arg("-r")
        .arg(host::workspace().join("target/doc"))
        .arg(site.join("rust"))
        .status()
        .context("cp can't be run")?;
    ensure!(copied.success(), "the crate's pages could not be copied");
    println!("{}", site.join("index.html").display());
    Ok(true)
}
