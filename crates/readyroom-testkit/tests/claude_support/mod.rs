//! What the tests of Claude Code have in common: a stage with a model, surroundings and a cluster on it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use readyroom::cluster::{Cluster, ClusterOptions, Wait};
use readyroom::driver::Activity;
use readyroom::event::TurnId;
use readyroom::{Event, Job, Outcome, Permissions};
use readyroom_testkit::sandbox::processes_of;
use readyroom_testkit::{Model, Sandbox, Step};
use serde_json::{Value, json};

/// A model and surroundings of a test's own.
pub struct Stage {
    pub model: Model,
    pub sandbox: Sandbox,
}

impl Stage {
    pub fn new() -> Self {
        let model = Model::start();
        let sandbox = Sandbox::new("claude", &model);
        Self { model, sandbox }
    }

    /// One instance with `permissions`.
    pub fn options(&self, permissions: Permissions) -> ClusterOptions {
        let options = ClusterOptions { contract: self.sandbox.contract(), ..ClusterOptions::default() };
        options.count(1).permissions(permissions).timeout(Duration::from_secs(60)).wait(Wait::All)
    }

    pub async fn launch(&self, options: ClusterOptions) -> Cluster {
        let (definition, program) = self.sandbox.definition();
        Cluster::launch(definition, &program, options).await.expect("Claude Code becomes ready")
    }

    /// One instance with `permissions`, launched.
    pub async fn one(&self, permissions: Permissions) -> Cluster {
        self.launch(self.options(permissions)).await
    }

    /// A path below the work directory.
    pub fn path(&self, name: &str) -> String {
        self.sandbox.dir().join(name).display().to_string()
    }

    /// The command lines of the sandbox's processes that hold `part`.
    pub fn running(&self, part: &str) -> Vec<String> {
        processes_of(&self.sandbox).into_iter().map(|process| process.command).filter(|c| c.contains(part)).collect()
    }

    /// Waits until a process whose command line holds `part` runs, or none does any more.
    pub async fn until_running(&self, part: &str, wanted: bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.running(part).is_empty() == wanted {
            assert!(tokio::time::Instant::now() < deadline, "{part}: running is not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn bash(command: &str) -> Step {
    Step::call("Bash", json!({"command": command, "description": "a command"}))
}

pub fn write(path: &str, text: &str) -> Step {
    Step::call("Write", json!({"file_path": path, "content": text}))
}

/// Runs a job and gives its answer.
pub async fn answer(cluster: &Cluster, job: impl Into<Job>) -> String {
    let response = cluster.submit(job).expect("the job is taken").await;
    assert_eq!(response.outcome, Outcome::Succeeded, "{response:?}");
    response.answer.text.to_string()
}

/// Waits for an activity of a turn.
pub async fn activity(events: &mut readyroom::cluster::Events, turn: TurnId, wanted: impl Fn(&Activity) -> bool) {
    loop {
        match tokio::time::timeout(Duration::from_secs(30), events.recv()).await.expect("an activity within 30 s") {
            Some(Event::TurnProgressed { turn: of, activity, .. }) if of == turn && wanted(&activity) => return,
            Some(Event::TurnEnded { turn: of, outcome, .. }) if of == turn => panic!("the turn ended: {outcome}"),
            Some(_) => {}
            None => panic!("the cluster is gone"),
        }
    }
}

/// The text blocks of the last user message of a request, without what the tool adds to each conversation.
pub fn prompt_blocks(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().expect("messages");
    let last = messages.iter().rev().find(|message| message["role"] == "user").expect("a user message");
    match &last["content"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).map(str::to_owned).collect(),
        other => panic!("{other}"),
    }
}
