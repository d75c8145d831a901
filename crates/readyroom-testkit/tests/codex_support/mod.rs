//! What the tests of the real Codex have in common.
#![allow(dead_code, reason = "no test file uses all of it")]

pub mod raw;

use std::time::Duration;

use readyroom::cluster::Status;
use readyroom::driver::{Activity, Proof};
use readyroom::{Cluster, ClusterOptions, Event, Permissions, Wait};
use readyroom_testkit::{Model, Request, Sandbox, Step, assert_nothing_left};
use serde_json::{Value, json};

/// A model and surroundings of a test's own, with Codex pointed at the model.
pub struct Place {
    pub model: Model,
    pub sandbox: Sandbox,
}

impl Place {
    pub fn new() -> Self {
        let model = Model::start();
        let sandbox = Sandbox::new("codex", &model);
        Self { model, sandbox }
    }

    /// Options for so many instances, all of which are waited for.
    pub fn options(&self, count: usize) -> ClusterOptions {
        ClusterOptions {
            contract: self.sandbox.contract(),
            wait: Wait::All,
            timeout: Some(Duration::from_secs(60)),
            ..ClusterOptions::default().count(count)
        }
    }

    pub async fn launch(&self, options: ClusterOptions) -> Cluster {
        let (definition, program) = self.sandbox.definition();
        Cluster::launch(definition, &program, options).await.unwrap()
    }

    /// A cluster at a permission level.
    pub async fn at(&self, permissions: Permissions, count: usize) -> Cluster {
        self.launch(self.options(count).permissions(permissions)).await
    }

    /// Shuts the cluster down and asserts that nothing of it is left.
    pub async fn end(&self, cluster: Cluster) {
        assert_eq!(cluster.shutdown().await.dropped, 0);
        assert_nothing_left(&self.sandbox);
    }

    /// Whether this very command is running in the sandbox. (The helpers that start it name it in theirs.)
    pub fn runs(&self, command: &str) -> bool {
        readyroom_testkit::sandbox::processes_of(&self.sandbox).iter().any(|process| process.command == command)
    }

    /// Waits until such a process runs.
    pub async fn until_runs(&self, command: &str) {
        for _ in 0..2000 {
            if self.runs(command) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no process {command:?} within 20 s");
    }
}

/// A call that adds a file by a patch, which Codex tells as a change of the file.
pub fn patch(path: &str, text: &str) -> Step {
    shell(&format!("apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: {path}\n+{text}\n*** End Patch\nEOF\n"))
}

/// A call of the shell.
pub fn shell(command: &str) -> Step {
    Step::call("exec_command", json!({ "cmd": command }))
}

/// A call of the shell that asks to leave the sandbox.
pub fn unsandboxed(command: &str) -> Step {
    let arguments = json!({ "cmd": command, "sandbox_permissions": "require_escalated", "justification": "need it" });
    Step::call("exec_command", arguments)
}

/// The text blocks of the newest message of the user in a request.
pub fn prompt_of(request: &Request) -> Vec<String> {
    let messages = request.body["input"].as_array().unwrap();
    let newest = messages.iter().rev().find(|message| message["role"] == "user").unwrap();
    newest["content"].as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap().to_owned()).collect()
}

/// What a tool call gave back to the model, of all calls in a request.
pub fn outputs_of(request: &Request) -> Vec<String> {
    let items = request.body["input"].as_array().unwrap();
    let outputs = items.iter().filter(|item| item["type"] == "function_call_output");
    outputs
        .map(|item| match &item["output"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect()
}

pub fn pids(status: &Status) -> Vec<Option<u32>> {
    status.instances.iter().map(|instance| instance.pid).collect()
}

/// The thread that proves a fresh context.
pub fn thread(proof: &Option<Proof>) -> String {
    match proof {
        Some(Proof::NewSession(id)) => id.clone(),
        other => panic!("{other:?}"),
    }
}

/// Waits for an activity of a turn for which `wanted` holds.
pub async fn until_activity(events: &mut readyroom::cluster::Events, wanted: impl Fn(&Activity) -> bool) {
    let mut seen = Vec::new();
    let found = async {
        loop {
            match events.recv().await {
                Some(Event::TurnProgressed { activity, .. }) if wanted(&activity) => return,
                Some(Event::TurnProgressed { activity, .. }) => seen.push(activity),
                Some(_) => {}
                None => panic!("the cluster is gone"),
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), found).await.is_ok();
    assert!(in_time, "the activity that is waited for did not come within 60 s, but {seen:?}");
}
