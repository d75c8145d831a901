//! What the machine must have: programs in a version that is new enough, and where the project's own directories are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_owned()
}

/// Where tools are installed: `READYROOM_TOOLS_DIR`, else `target/tools`.
pub fn tools() -> PathBuf {
    std::env::var_os("READYROOM_TOOLS_DIR").map_or_else(|| workspace().join("target/tools"), PathBuf::from)
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, else `target`.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// A version of up to three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// The first thing in `text` that looks like a version.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|sign: char| !(sign.is_ascii_digit() || sign == '.')).find_map(|word| {
            let mut numbers = word.split('.').map(|number| number.parse().ok());
            Some(Self(numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
        })
    }
}

/// The version that `program` prints for `--version`; none where it can't be run.
pub fn version(program: impl AsRef<Path>) -> Option<Version> {
    let output = Command::new(program.as_ref()).arg("--version").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() { Version::find(&String::from_utf8_lossy(&text)) } else { None }
}

/// Whether a program of that name is on PATH.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The python in which aider can be installed.
pub fn python() -> anyhow::Result<PathBuf> {
    let (least, below) = (Version(3, 10, 0), Version(3, 13, 0));
    let mut seen = Vec::new();
    for name in ["python3", "python3.12", "python3.11", "python3.10"] {
        match version(name) {
            Some(found) if (least..below).contains(&found) => return Ok(name.into()),
            Some(found) => seen.push(format!("{name} is {found}")),
            None => {}
        }
    }
    bail!(
        "aider needs Python {least} or later, below {below}; {}",
        if seen.is_empty() { "there is no python3 on PATH".to_owned() } else { seen.join(", ") }
    )
}

/// Checks the programs that everything else is built on, and says what is missing, all at once.
pub fn check() -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for (program, least, mend) in [
        ("cargo", Version(1, 95, 0), "install a newer Rust (rustup update)"),
        ("node", Version(20, 0, 0), "install Node.js 20 or later (Debian: nodejs)"),
        ("npm", Version(9, 0, 0), "install npm, which comes with Node.js"),
        ("git", Version(2, 30, 0), "install git (Debian: git)"),
    ] {
        match version(program) {
            Some(found) if found >= least => {}
            Some(found) => missing.push(format!("{program} is {found}, but {least} or later is needed; {mend}")),
            None => missing.push(format!("{program} is missing; {mend}")),
        }
    }
    if let Err(error) = python() {
        missing.push(format!("{error}; install one of them (Debian: python3 and python3-venv)"));
    }
    ensure!(missing.is_empty(), "this machine lacks something:\n  {}", missing.join("\n  "));
    Ok(())
}

/// Runs a command and fails with what it was when it does.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("{shown} can't be run"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}

/// Runs what `command` makes up to three times: what a registry serves can fail once.
pub fn persist(mut command: impl FnMut() -> Command) -> anyhow::Result<()> {
    let mut tries = 1;
    loop {
        match run(&mut command()) {
            Ok(()) => return Ok(()),
            Err(error) if tries == 3 => return Err(error),
            Err(error) => eprintln!("xtask: {error:#}; trying again"),
        }
        tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(Version::find("v20.20.2"), Some(Version(20, 20, 2)));
        assert_eq!(Version::find("2.1.197 (Claude Code)"), Some(Version(2, 1, 197)));
        assert_eq!(Version::find("git version 2.39.5"), Some(Version(2, 39, 5)));
        assert_eq!(Version::find("codex-cli 0.169.0"), Some(Version(0, 169, 0)));
        assert_eq!(Version::find("tmux 3.3a"), Some(Version(3, 3, 0)));
        assert_eq!(Version::find("nothing here"), None);
    }
}
