//! A place in which a real tool runs by itself: a HOME of its own, a work directory that is a small git repository, the
//! tool's own configuration pointed at a [`Model`], and none of the caller's keys.

mod leftovers;
mod setup;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use readyroom::tool::{ContractOptions, Definition, Registry};
use tempfile::TempDir;

use crate::{Model, tools};
pub use leftovers::{Process, assert_nothing_left, guardian_of, is_fork, parent_of, processes_of, zygotes_of};

/// The variable by which a sandbox's processes are found again.
pub const MARKER: &str = "READYROOM_TEST_SANDBOX";

/// A tool's surroundings. Its directories are removed when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    tool: String,
    marker: String,
    home: PathBuf,
    dir: PathBuf,
    env: BTreeMap<String, String>,
    _root: TempDir,
    outside: TempDir,
}

impl Sandbox {
    /// Surroundings for the built-in tool `tool`, with its own configuration pointed at `model`.
    ///
    /// # Panics
    /// When the tool is not installed, or the directories can't be made.
    pub fn new(tool: &str, model: &Model) -> Self {
        Self::with_model_at(tool, &model.url())
    }

    /// The same with a model at any address (`http://HOST:PORT`).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_model_at(tool: &str, url: &str) -> Self {
        let _ = tools::program(tool);
        let mut sandbox = Self::bare(tool);
        sandbox.env.extend(setup::configure(tool, url, &sandbox.home));
        sandbox
    }

    /// Surroundings without a model, for REPLs and fake tools.
    ///
    /// # Panics
    /// When the directories can't be made.
    pub fn bare(tool: &str) -> Self {
        crate::use_guardian();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let root = tempfile::Builder::new().prefix("readyroom-").tempdir().expect("a temporary directory");
        let base = root.path().canonicalize().expect("the temporary directory's path");
        let (home, dir) = (base.join("home"), base.join("work"));
        std::fs::create_dir_all(&home).expect("HOME can be made");
        std::fs::create_dir_all(&dir).expect("the work directory can be made");
        let target = tools::workspace().join("target");
        std::fs::create_dir_all(&target).expect("target/ can be made");
        let outside = tempfile::Builder::new().prefix("outside-").tempdir_in(target).expect("a directory in target/");
        let marker = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut env = setup::common(&home);
        env.insert(MARKER.to_owned(), marker.clone());
        let sandbox = Self { tool: tool.to_owned(), marker, home, dir, env, _root: root, outside };
        sandbox.write("README.md", "A small repository.\n");
        sandbox.git(&["init", "--quiet", "--initial-branch=main"]);
        sandbox.commit();
        sandbox
    }

    /// The tool's name.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// The tool's built-in definition, hardened only in that the caller's own keys and settings don't reach the tool,
    /// and the program from the pinned tools.
    ///
    /// # Panics
    /// When there is no such tool.
    pub fn definition(&self) -> (Arc<Definition>, PathBuf) {
        let registry = Registry::builtin().expect("the built-in definitions load");
        let entry = registry.require(&self.tool).expect("a built-in tool");
        let definition = Definition::clone(&entry.definition);
        (Arc::new(self.harden(definition)), tools::program(&self.tool))
    }

    /// `definition` without the caller's own keys and settings.
    pub fn harden(&self, mut definition: Definition) -> Definition {
        definition.unset_env.extend(setup::foreign_variables());
        definition
    }

    /// The contract's options: the work directory, HOME and the tool's environment.
    pub fn contract(&self) -> ContractOptions {
        ContractOptions {
            cwd: self.dir.clone(),
            env: self.env.clone(),
            home: Some(self.home.clone()),
            ..ContractOptions::default()
        }
    }

    /// Options of a cluster in this sandbox, else as they are by default.
    pub fn options(&self) -> readyroom::ClusterOptions {
        readyroom::ClusterOptions { contract: self.contract(), ..readyroom::ClusterOptions::default() }
    }

    /// The work directory, a git repository with one commit.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// HOME.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A directory that is neither below the work directory nor below the temporary directory.
    pub fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// The environment in which the tool runs, over the caller's.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Sets a variable for the tool.
    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// Puts a command (the tool by hand, or `readyroom` itself) into these surroundings.
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for name in setup::foreign_variables() {
            command.env_remove(name);
        }
        command.envs(&self.env).env("PWD", &self.dir).current_dir(&self.dir)
    }

    /// Writes a file below the work directory and gives its path.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().expect("a path below the work directory")).expect("its directory");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Reads a file below the work directory; `None` where there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read(self.dir.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Commits everything in the work directory.
    ///
    /// # Panics
    /// When git fails.
    pub fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "state"]);
    }

    /// Runs git in the work directory and gives what it printed.
    ///
    /// # Panics
    /// When git fails.
    pub fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(args)
            .current_dir(&self.dir)
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git runs");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
