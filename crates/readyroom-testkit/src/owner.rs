//! An owner of a tool in a process of its own, for tests that kill it.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use readyroom::Permissions;

use crate::Sandbox;
use crate::sandbox::{Process, guardian_of};

/// A process that holds one instance of a sandbox's tool and runs one prompt on it. Killed when it is dropped.
#[derive(Debug)]
pub struct Owner {
    child: Child,
}

impl Owner {
    /// Starts it in the sandbox's surroundings.
    ///
    /// # Panics
    /// When the program `readyroom-owner` was not built. Cargo builds it with the integration tests of this package.
    pub fn start(sandbox: &Sandbox, permissions: Permissions, prompt: &str) -> Self {
        let test = std::env::current_exe().expect("the path of this test");
        let program: PathBuf = test.ancestors().nth(2).expect("a directory above").join("readyroom-owner");
        let mut command = Command::new(&program);
        command.args([sandbox.tool(), &permissions.to_string(), prompt]).stdin(Stdio::null()).stdout(Stdio::piped());
        let child =
            sandbox.apply(&mut command).spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { child }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its guardian: the child that runs the same program.
    pub fn guardian(&self, sandbox: &Sandbox) -> Option<Process> {
        guardian_of(sandbox, self.pid())
    }

    /// Kills it with -9, and waits until it is gone. Its guardian and what is below that are not waited for.
    ///
    /// # Panics
    /// When it can't be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("the owner can be killed");
        self.child.wait().expect("the owner can be waited for");
    }

    /// Waits for its end and gives what it printed: the outcome of its prompt.
    ///
    /// # Panics
    /// When it can't be waited for.
    pub fn outcome(&mut self) -> String {
        let mut said = String::new();
        self.child.stdout.take().expect("stdout is piped").read_to_string(&mut said).expect("text");
        self.child.wait().expect("the owner can be waited for");
        said.trim_end().to_owned()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
