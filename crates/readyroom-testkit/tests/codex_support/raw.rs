//! Codex without readyroom: what it does by itself, so that a rule is seen to be needed.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use readyroom_testkit::{Sandbox, tools};
use serde_json::{Value, json};

pub struct Raw {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    sent: u64,
}

impl Raw {
    /// Codex in the sandbox, initialized.
    pub fn start(sandbox: &Sandbox) -> Self {
        let mut command = Command::new(tools::program("codex"));
        command.arg("app-server").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = sandbox.apply(&mut command).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut raw = Self { child, stdin, lines, sent: 0 };
        raw.ask("initialize", json!({"clientInfo": {"name": "t", "title": "t", "version": "0"}}));
        raw.send(&json!({"method": "initialized"}));
        raw
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").unwrap();
    }

    /// Sends a request and gives its result; what comes before it is dropped.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        self.send(&json!({"id": id, "method": method, "params": params}));
        let answer = self.until(|message| message["id"] == id && message.get("method").is_none());
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// The next message for which `wanted` holds.
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.next().expect("Codex goes on").unwrap();
            let message = serde_json::from_str(&line).unwrap();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// A new thread in a directory.
    pub fn thread(&mut self, sandbox: &Sandbox) -> String {
        let params =
            json!({"cwd": sandbox.dir(), "ephemeral": true, "approvalPolicy": "never", "sandbox": "workspace-write"});
        self.ask("thread/start", params)["thread"]["id"].as_str().unwrap().to_owned()
    }

    /// Starts a turn and gives the id that Codex names.
    pub fn turn(&mut self, thread: &str, prompt: &str) -> String {
        let params = json!({"threadId": thread, "input": [{"type": "text", "text": prompt}]});
        self.ask("turn/start", params)["turn"]["id"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a turn.
    pub fn completed(&mut self, turn: &str) -> Value {
        self.until(|message| message["method"] == "turn/completed" && message["params"]["turn"]["id"] == turn)
    }

    /// Ends it in order, with all that it runs.
    pub fn stop(mut self, sandbox: &Sandbox) {
        drop(self.stdin);
        self.child.wait().unwrap();
        for process in readyroom_testkit::sandbox::processes_of(sandbox) {
            let _ = Command::new("kill").args(["-9", &process.pid.to_string()]).status();
        }
    }
}
