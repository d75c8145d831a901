//! A local model server. Real tools talk to it as they talk to their provider; it answers by scripts that are chosen
//! by words in the conversation, and keeps a journal of all that was asked.
//!
//! It is `@copilotkit/aimock` in a node process, behind a front of our own (`server.mjs`) that adds scripts, the
//! journal, and the faults that a mock can't have. Commands and facts are JSON lines on the process's stdin and stdout;
//! it ends when its stdin does, so it can't outlive the test.

mod journal;
mod step;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::tools;
use journal::Journal;
pub use journal::{Ending, Request};
pub use step::{Script, Step, ToolCall};

/// The longest wait for something that a test expects to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A model server of a test's own. It ends when it is dropped.
#[derive(Debug)]
pub struct Model {
    child: Child,
    port: u16,
    commands: Mutex<Commands>,
    journal: Arc<Journal>,
}

#[derive(Debug)]
struct Commands {
    stdin: ChildStdin,
    sent: u64,
}

impl Model {
    /// Starts a server on a free port. Until a script is set it answers everything with `ok`.
    ///
    /// # Panics
    /// When node or aimock is missing, or the server does not come up.
    pub fn start() -> Self {
        let aimock = tools::path("npm/node_modules/@copilotkit/aimock/dist/index.js");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/server.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(aimock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the model server needs `node`, version 20 or later, on PATH");
        let stdin = child.stdin.take().expect("stdin is piped");
        let mut facts = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut first = String::new();
        facts.read_line(&mut first).expect("the model server's first line");
        let port = serde_json::from_str::<Value>(&first)
            .ok()
            .and_then(|fact| fact["listening"].as_u64())
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or_else(|| panic!("the model server did not come up, it said {first:?}"));
        let journal = Arc::new(Journal::default());
        let reader = Arc::clone(&journal);
        std::thread::spawn(move || {
            for line in facts.lines() {
                let Ok(line) = line else { break };
                reader.take(&line);
            }
            reader.close();
        });
        Self { child, port, commands: Mutex::new(Commands { stdin, sent: 0 }), journal }
    }

    /// The server's address without a path: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers by `script` whenever `word` stands in the conversation's newest user message that holds any such word.
    /// Each request of that word takes the script's next step; the last step repeats. A tool's own side requests
    /// (titles, summaries) are answered `ok` and take no step. Setting a word again begins its new script.
    pub fn on(&self, word: &str, script: impl Into<Script>) {
        self.command(json!({ "on": { "word": word, "steps": script.into() } }));
    }

    /// Answers by `script` where no word matches, instead of `ok`.
    pub fn otherwise(&self, script: impl Into<Script>) {
        self.command(json!({ "otherwise": { "steps": script.into() } }));
    }

    /// Forgets all words.
    pub fn forget(&self) {
        self.command(json!({ "forget": true }));
    }

    /// The journal: every request so far, in order. All that came in before an answer that the caller has seen is in.
    pub fn requests(&self) -> Vec<Request> {
        self.command(json!({}));
        self.journal.requests()
    }

    /// The same, and forgets them: for runs whose journal would not fit into memory.
    pub fn take_requests(&self) -> Vec<Request> {
        self.command(json!({}));
        self.journal.take_all()
    }

    /// The requests that were answered by `word`'s script, in order. Side requests are not among them.
    pub fn requests_of(&self, word: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.is_of(word)).collect()
    }

    /// Waits until a request of `word` has come in, and gives the first.
    ///
    /// # Panics
    /// When none comes within a minute, or when called on a Tokio runtime of one thread: there it would hold up what
    /// it waits for, so use [`requested`](Self::requested).
    pub fn wait_request(&self, word: &str) -> Request {
        self.wait(&format!("a request of {word:?}"), |requests| requests.iter().find(|r| r.is_of(word)).cloned())
    }

    /// Waits until a connection with a request of `word` was closed by the client before its answer was complete.
    ///
    /// # Panics
    /// As [`wait_request`](Self::wait_request).
    pub fn wait_closed(&self, word: &str) -> Request {
        self.wait(&format!("a closed connection of {word:?}"), |requests| {
            requests.iter().find(|r| r.is_of(word) && r.ending == Ending::Closed).cloned()
        })
    }

    /// Waits until `found` gives something for the journal. `what` is named when it does not within a minute.
    ///
    /// # Panics
    /// As [`wait_request`](Self::wait_request).
    pub fn wait<T>(&self, what: &str, found: impl FnMut(&[Request]) -> Option<T>) -> T {
        use tokio::runtime::{Handle, RuntimeFlavor};
        let wait = || self.journal.wait(what, PATIENCE, found);
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::CurrentThread) => panic!(
                "a blocking wait for {what} would hold up this runtime of one thread; await `requested`, `closed` or \
                 `until` instead"
            ),
            Ok(_) => tokio::task::block_in_place(wait),
            Err(_) => wait(),
        }
    }

    /// [`wait_request`](Self::wait_request) for async tests.
    pub async fn requested(&self, word: &str) -> Request {
        self.until(&format!("a request of {word:?}"), |requests| requests.iter().find(|r| r.is_of(word)).cloned()).await
    }

    /// [`wait_closed`](Self::wait_closed) for async tests.
    pub async fn closed(&self, word: &str) -> Request {
        self.until(&format!("a closed connection of {word:?}"), |requests| {
            requests.iter().find(|r| r.is_of(word) && r.ending == Ending::Closed).cloned()
        })
        .await
    }

    /// [`wait`](Self::wait) for async tests.
    pub async fn until<T>(&self, what: &str, found: impl FnMut(&[Request]) -> Option<T>) -> T {
        self.journal.until(what, PATIENCE, found).await
    }

    /// Sends a command and waits until it is in force.
    fn command(&self, mut command: Value) {
        let id = {
            let mut commands = self.commands.lock().expect("no test panicked while it wrote");
            commands.sent += 1;
            command["id"] = commands.sent.into();
            let line = format!("{command}\n");
            commands.stdin.write_all(line.as_bytes()).expect("the model server reads its stdin");
            commands.sent
        };
        self.journal.wait_done(id, PATIENCE);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // Both may fail when the server is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
