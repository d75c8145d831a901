//! Installs the tools that the tests and the demo use, in the versions that the definitions were tested with.
//!
//! Each lot (the npm packages, aider, cargo-deny) has a directory below the tools' root and a marker file in it that
//! names what is installed; where the marker names what is wanted, nothing is done.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::host::{self, Version};

/// The npm packages: package, version, and the program whose version proves it.
const PACKAGES: [(&str, &str, Option<&str>); 6] = [
    ("@anthropic-ai/claude-code", "2.1.197", Some("claude")),
    ("@copilotkit/aimock", "1.43.0", None),
    ("@google/gemini-cli", "0.61.0", Some("gemini")),
    ("@openai/codex", "0.169.0", Some("codex")),
    ("opencode-ai", "1.18.33", Some("opencode")),
    ("pyright", "1.1.414", Some("pyright")),
];

/// What puts the native programs of these packages in place. npm can be set to run no such script by itself.
const NATIVE: [(&str, &str); 2] = [("@anthropic-ai/claude-code", "install.cjs"), ("opencode-ai", "postinstall.mjs")];

const AIDER: &str = "0.86.2";
const ACPX: &str = "0.19.1";
const PEXPECT: &str = "4.9.0";

/// The commands of cargo's that the checks use, in the versions that they were written for.
const CARGO: [(&str, &str); 3] = [("cargo-deny", "0.20.2"), ("cargo-fuzz", "0.13.2"), ("cargo-mutants", "27.1.0")];

/// Programs that some tests drive, and the Debian package of each.
const SYSTEM: [(&str, &str); 4] =
    [("tmux", "tmux"), ("sqlite3", "sqlite3"), ("psql", "postgresql-client"), ("postgres", "postgresql")];

const MARKER: &str = ".installed";

/// Installs the tools and the local model. Only one run at a time does it.
pub fn tools() -> anyhow::Result<()> {
    host::check()?;
    let root = host::tools();
    let _lock = lock(&root)?;
    lot(&root.join("npm"), &npm_wanted(), npm)?;
    lot(&root.join("aider"), &format!("aider-chat=={AIDER}"), aider)
}

/// Installs one of [`CARGO`]'s programs where it is missing, and gives it.
pub fn cargo(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let (_, version) = CARGO.iter().find(|(known, _)| *known == name).context("no such program is installed")?;
    let root = host::tools();
    let _lock = lock(&root)?;
    let directory = root.join(name);
    lot(&directory, &format!("{name}@{version}"), |directory| {
        host::persist(|| {
            let mut command = Command::new("cargo");
            command.args(["install", "--locked", "--quiet", "--version", version, name, "--root"]);
            command.arg(directory);
            command
        })
    })?;
    Ok(directory.join("bin").join(name))
}

/// Installs what building and testing the Python package takes where it is missing, and gives the interpreter.
pub fn python() -> anyhow::Result<std::path::PathBuf> {
    let root = host::tools();
    let _lock = lock(&root)?;
    let directory = root.join("python");
    let wanted = fs::read_to_string(host::workspace().join("python/requirements.txt"))?;
    lot(&directory, &wanted, |directory| {
        venv(directory)?;
        host::persist(|| {
            let mut command = Command::new(directory.join("bin/python"));
            command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
            command.arg(host::workspace().join("python/requirements.txt"));
            command
        })
    })?;
    Ok(directory.join("bin/python"))
}

/// Installs what the benchmarks compare with where it is missing: acpx, pexpect and GNU parallel.
pub fn compared() -> anyhow::Result<()> {
    let root = host::tools();
    let _lock = lock(&root)?;
    lot(&root.join("acpx"), &format!("acpx@{ACPX}"), |directory| {
        host::persist(|| {
            let mut command = Command::new("npm");
            command.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(directory);
            command.arg(format!("acpx@{ACPX}"));
            command
        })
    })?;
    lot(&root.join("pexpect"), &format!("pexpect=={PEXPECT}"), |directory| {
        venv(directory)?;
        host::persist(|| {
            let mut command = Command::new(directory.join("bin/python"));
            command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            command.arg(format!("pexpect=={PEXPECT}"));
            command
        })
    })?;
    packages(&[("parallel", "parallel")])
}

fn venv(directory: &Path) -> anyhow::Result<()> {
    let python = host::python()?;
    host::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(directory))
        .context("the virtual environment (Debian: python3-venv)")
}

fn lock(root: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(root).with_context(|| format!("{} can't be made", root.display()))?;
    let file = File::create(root.join(".lock")).context("the tools' lock")?;
    file.lock().context("the tools' lock")?;
    Ok(file)
}

/// Installs a lot, unless its marker says that it is there.
fn lot(directory: &Path, wanted: &str, install: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let marker = directory.join(MARKER);
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let named: Vec<&str> = wanted.lines().filter(|line| !line.starts_with('#')).collect();
    println!("installing {} into {}", named.join(" "), directory.display());
    fs::create_dir_all(directory)?;
    install(directory).with_context(|| format!("{} could not be installed", wanted.replace('\n', " ")))?;
    fs::write(&marker, wanted)?;
    Ok(())
}

fn npm_wanted() -> String {
    PACKAGES.map(|(package, version, _)| format!("{package}@{version}")).join("\n")
}

fn npm(directory: &Path) -> anyhow::Result<()> {
    let dependencies: serde_json::Map<_, _> =
        PACKAGES.iter().map(|(package, version, _)| ((*package).to_owned(), json!(version))).collect();
    let scripts: serde_json::Map<_, _> =
        NATIVE.iter().map(|(package, _)| ((*package).to_owned(), json!(true))).collect();
    let manifest = json!({ "private": true, "dependencies": dependencies, "allowScripts": scripts });
    fs::write(directory.join("package.json"), format!("{manifest:#}\n"))?;
    host::persist(|| {
        let mut command = Command::new("npm");
        command.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]);
        command.current_dir(directory);
        command
    })?;
    let modules = directory.join("node_modules");
    for (package, version, program) in PACKAGES {
        let wanted = Version::find(version).expect("a pinned version");
        let Some(program) = program else { continue };
        let program = modules.join(".bin").join(program);
        if host::version(&program) != Some(wanted)
            && let Some((_, script)) = NATIVE.iter().find(|(native, _)| *native == package)
        {
            let home = modules.join(package);
            host::run(Command::new("node").arg(home.join(script)).current_dir(&home))?;
        }
        let found = host::version(&program);
        ensure!(
            found == Some(wanted),
            "{} says that it is {}, but {package} {version} was installed",
            program.display(),
            found.map_or_else(|| "nothing".to_owned(), |found| found.to_string())
        );
    }
    Ok(())
}

fn aider(directory: &Path) -> anyhow::Result<()> {
    venv(directory)?;
    host::persist(|| {
        let mut command = Command::new(directory.join("bin/python"));
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.arg(format!("aider-chat=={AIDER}"));
        command
    })?;
    let found = host::version(directory.join("bin/aider"));
    ensure!(found == Version::find(AIDER), "aider says that it is {found:?}, but {AIDER} was installed");
    Ok(())
}

/// The programs of the system that tests drive: installed where we may, else named.
pub fn system() -> anyhow::Result<()> {
    packages(&SYSTEM)
}

/// Installs the Debian packages of programs that are missing: the program, and its package.
fn packages(wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !host::on_path(program) && !in_postgres(program))
        .map(|(_, p)| *p)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = rustix::process::geteuid().is_root();
    if !(root && host::on_path("apt-get")) {
        bail!("these packages are needed, which a person must install: {}", missing.join(" "));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    println!("installing {}", missing.join(" "));
    host::persist(|| apt(&["update"]))?;
    host::persist(|| apt(&[&["install", "--yes", "--no-install-recommends"][..], &missing].concat()))
}

/// Debian keeps the server's programs in a directory of their own.
fn in_postgres(program: &str) -> bool {
    fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|mut versions| versions.any(|v| v.is_ok_and(|v| v.path().join("bin").join(program).is_file())))
}
