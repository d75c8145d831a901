//! What the tests of the ACP tools share: a bed for one tool, and the tool calls that a model makes in it.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cancel;
pub mod deaths;
pub mod guide;
pub mod jobs;
pub mod levels;
pub mod turns;

use std::path::Path;
use std::time::Duration;

use readyroom::cluster::Response;
use readyroom::{Cluster, ClusterOptions, Context, FailureKind, Job, Outcome, Permissions};
use readyroom_testkit::{Model, Sandbox, Step};
use serde_json::json;

/// A tool in its sandbox, with a model of its own.
pub struct Bed {
    pub tool: &'static str,
    pub model: Model,
    pub sandbox: Sandbox,
}

impl Bed {
    pub fn new(tool: &'static str) -> Self {
        let model = Model::start();
        let sandbox = Sandbox::new(tool, &model);
        Self { tool, model, sandbox }
    }

    /// With Gemini's own retries off: a setting that only the user's file can make, and without which it gives up after
    /// four minutes.
    pub fn impatient(tool: &'static str) -> Self {
        let bed = Self::new(tool);
        if tool == "gemini" {
            let path = bed.sandbox.home().join(".gemini/settings.json");
            let text = std::fs::read_to_string(&path).expect("the sandbox's settings");
            let mut settings: serde_json::Value = serde_json::from_str(&text).expect("settings are JSON");
            settings["general"]["maxAttempts"] = json!(1);
            std::fs::write(&path, settings.to_string()).expect("settings can be written");
        }
        bed
    }

    pub fn options(&self) -> ClusterOptions {
        ClusterOptions {
            count: 1,
            contract: self.sandbox.contract(),
            timeout: Some(Duration::from_secs(120)),
            ready_timeout: Duration::from_secs(120),
            ..ClusterOptions::default()
        }
    }

    pub async fn launch(&self, options: ClusterOptions) -> Cluster {
        let (definition, program) = self.sandbox.definition();
        Cluster::launch(definition, &program, options).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn cluster(&self, count: usize, context: Context, permissions: Permissions) -> Cluster {
        let options = self.options().count(count).context(context).permissions(permissions);
        self.launch(options.wait(readyroom::cluster::Wait::All)).await
    }

    /// A call that makes a file.
    pub fn write(&self, path: &Path, text: &str) -> Step {
        let path = path.to_str().expect("a path in UTF-8");
        match self.tool {
            "gemini" => Step::call("write_file", json!({"file_path": path, "content": text})),
            _ => Step::call("write", json!({"filePath": path, "content": text})),
        }
    }

    /// A call that changes a text in a file.
    pub fn edit(&self, path: &Path, old: &str, new: &str) -> Step {
        let path = path.to_str().expect("a path in UTF-8");
        match self.tool {
            "gemini" => Step::call(
                "replace",
                json!({"file_path": path, "old_string": old, "new_string": new, "instruction": "change it"}),
            ),
            _ => Step::call("edit", json!({"filePath": path, "oldString": old, "newString": new})),
        }
    }

    /// A call that runs a shell command.
    pub fn shell(&self, command: &str) -> Step {
        let arguments = json!({"command": command, "description": "a command"});
        Step::call(if self.tool == "gemini" { "run_shell_command" } else { "bash" }, arguments)
    }

    /// A call that fetches a page.
    pub fn fetch(&self, url: &str) -> Step {
        match self.tool {
            "gemini" => Step::call("web_fetch", json!({"prompt": format!("Read {url}")})),
            _ => Step::call("webfetch", json!({"url": url, "format": "text"})),
        }
    }

    /// Writes a file below HOME as its user would: a table joins the one that is there, a text is the file.
    pub fn write_home(&self, file: &str, more: &serde_json::Value) {
        let file = self.sandbox.home().join(file);
        let text = match more {
            serde_json::Value::String(text) => text.clone(),
            more => {
                let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "{}".into());
                let mut settings: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                for (key, value) in more.as_object().expect("a table") {
                    settings[key] = value.clone();
                }
                settings.to_string()
            }
        };
        std::fs::create_dir_all(file.parent().expect("a place")).expect("it can be made");
        std::fs::write(&file, text).expect("it can be written");
    }

    /// Gives the tool a server with a tool of the user's own, which the user trusts.
    pub fn add_tool(&self) {
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sandbox/mcp.mjs");
        match self.tool {
            "gemini" => {
                let own = json!({ "command": "node", "args": [server], "trust": true });
                self.write_home(".gemini/settings.json", &json!({ "mcpServers": { "own": own } }));
            }
            _ => {
                let own = json!({ "type": "local", "command": ["node", server], "enabled": true });
                self.write_home(".config/opencode/opencode.json", &json!({ "mcp": { "own": own } }));
            }
        }
    }

    /// A call of that tool, which makes a file.
    pub fn own_tool(&self, path: &Path) -> Step {
        let name = if self.tool == "gemini" { "mcp_own_touch" } else { "own_touch" };
        Step::call(name, json!({ "path": path }))
    }

    /// A job that must be answered right: the conversation works, and holds nothing of what `gone` names.
    pub async fn next_job_is_right(&self, cluster: &Cluster, gone: &[&str]) {
        let before = self.model.requests().len();
        self.model.on("NEXT-JOB", "the next answer");
        let response = run(cluster, "NEXT-JOB").await;
        assert_eq!(response.text().expect("the next job succeeds"), "the next answer");
        for request in &self.model.requests()[before..] {
            for word in gone {
                assert!(!request.holds(word), "{word} is still in the conversation: {:#}", request.body);
            }
        }
    }
}

pub async fn run(cluster: &Cluster, job: impl Into<Job>) -> Response {
    cluster.submit(job).expect("the job is taken").await
}

pub fn kind(response: &Response) -> FailureKind {
    match &response.outcome {
        Outcome::Failed(failure) => failure.kind.clone(),
        other => panic!("{other} and not a failure; it said {:?}", response.answer.transcript),
    }
}

pub async fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.status().await.instances.iter().filter_map(|instance| instance.pid).collect()
}

/// Waits until `holds`, for at most half a minute.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come about");
}

/// Whether a process with this text in its command line runs.
pub fn runs(text: &str) -> bool {
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok()).any(|line| {
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text)
    })
}

/// Text of at least `bytes` bytes that does not repeat itself: Gemini ends a turn whose answer does.
pub fn varied(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 32);
    let mut state: u64 = 1;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:x} \u{e9}\n", state >> 20));
    }
    text
}
