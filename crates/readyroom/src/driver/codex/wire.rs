//! Codex's own words: the parameters that are sent, and the fields that are read.
//!
//! The field names are those of `codex app-server generate-ts`. Nothing here has a state.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::driver::Turn;
use crate::job::Permissions;
use crate::tool::Definition;

/// The most characters of a turn's input, all blocks together; Codex refuses more with `input_too_large`.
pub const INPUT_CHARS: usize = 1 << 20;

/// Notifications that say nothing about a turn's end, its answer or its cost.
const OF_NO_MATTER: &[&str] = &[
    "account/",
    "app/list/updated",
    "autoApprovalReview/",
    "configWarning",
    "deprecationNotice",
    "externalAgentConfig/",
    "fs/changed",
    "guardianWarning",
    "hook/",
    "item/autoApprovalReview/",
    "item/commandExecution/",
    "item/fileChange/",
    "item/mcpToolCall/progress",
    "item/plan/delta",
    "item/reasoning/",
    "mcpServer/",
    "model/",
    "modelProvider/",
    "project/changed",
    "rawResponse/",
    "rawResponseItem/",
    "remoteControl/",
    "serverRequest/resolved",
    "skills/changed",
    "thread/archived",
    "thread/attachment/",
    "thread/compacted",
    "thread/environment/",
    "thread/goal/",
    "thread/name/updated",
    "thread/prediction/",
    "thread/project/",
    "thread/queue/",
    "thread/readState/",
    "thread/section/",
    "thread/settings/",
    "thread/started",
    "thread/status/changed",
    "turn/diff/updated",
    "turn/moderationMetadata",
    "turn/plan/updated",
    "warning",
];

/// Whether a notification is known and changes nothing.
pub fn is_of_no_matter(method: &str) -> bool {
    OF_NO_MATTER.iter().any(|known| if known.ends_with('/') { method.starts_with(known) } else { method == *known })
}

/// What holds a permission level: the sandbox of commands and edits, and when Codex asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    sandbox: Sandbox,
    approval: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sandbox {
    ReadOnly,
    WorkspaceWrite,
    FullAccess,
}

impl Hold {
    /// What the definition says for `level`. What it leaves open, or says in unknown words, is closed.
    pub fn of(definition: &Definition, level: Permissions) -> Self {
        let settings = definition.level(level).settings;
        let sandbox = match settings.get("sandbox").map(String::as_str) {
            Some("danger-full-access") => Sandbox::FullAccess,
            Some("workspace-write") => Sandbox::WorkspaceWrite,
            _ => Sandbox::ReadOnly,
        };
        let approval = settings.get("approval").cloned().unwrap_or_else(|| "never".into());
        Self { sandbox, approval }
    }

    /// For `thread/start`.
    fn mode(&self) -> &'static str {
        match self.sandbox {
            Sandbox::ReadOnly => "read-only",
            Sandbox::WorkspaceWrite => "workspace-write",
            Sandbox::FullAccess => "danger-full-access",
        }
    }

    /// For `turn/start`. The workspace is the thread's directory and nothing else: by default Codex counts the
    /// temporary directories to it.
    fn policy(&self) -> Value {
        match self.sandbox {
            Sandbox::ReadOnly => json!({"type": "readOnly", "networkAccess": false}),
            Sandbox::WorkspaceWrite => json!({
                "type": "workspaceWrite",
                "writableRoots": [],
                "networkAccess": false,
                "excludeTmpdirEnvVar": true,
                "excludeSlashTmp": true,
            }),
            Sandbox::FullAccess => json!({"type": "dangerFullAccess"}),
        }
    }

    /// Why a thread that was asked for does not hold this; requirements of an administrator can change it.
    pub fn objection(&self, started: &Value) -> Option<String> {
        let sandbox = &started["sandbox"]["type"];
        let expected = &self.policy()["type"];
        (sandbox != expected).then(|| format!("asked for the sandbox {expected}, Codex gave {sandbox}"))
    }
}

/// The parameters of `initialize`. The experimental methods are asked for because one of them ends the commands that
/// a turn left running.
pub fn initialize() -> Value {
    json!({
        "clientInfo": {"name": "readyroom", "title": "readyroom", "version": env!("CARGO_PKG_VERSION")},
        "capabilities": {"experimentalApi": true},
    })
}

/// Codex's version from the answer to `initialize`: `client/VERSION (system) ..`.
pub fn version(initialized: &Value) -> Option<String> {
    let agent = initialized["userAgent"].as_str()?;
    let (_, rest) = agent.split_once('/')?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// The parameters of `thread/start`.
pub fn thread_start(cwd: &Path, hold: &Hold, model: Option<&str>, config: &Map<String, Value>) -> Value {
    let mut params = json!({
        "cwd": cwd.to_string_lossy(),
        "ephemeral": true,
        "approvalPolicy": hold.approval,
        // A configuration may route questions to a reviewing model instead.
        "approvalsReviewer": "user",
        "sandbox": hold.mode(),
    });
    if let Some(model) = model {
        params["model"] = json!(model);
    }
    if !config.is_empty() {
        params["config"] = Value::Object(config.clone());
    }
    params
}

/// The parameters of `turn/start`. Permissions are given with each turn, since an override holds for all later turns
/// of its thread.
pub fn turn_start(thread: &str, turn: &Turn, hold: &Hold) -> Value {
    let text = |text: &str| json!({"type": "text", "text": text, "text_elements": []});
    let input: Vec<Value> = files_block(turn).iter().map(|block| text(block)).chain([text(&turn.prompt)]).collect();
    let mut params = json!({
        "threadId": thread,
        "input": input,
        "approvalPolicy": hold.approval,
        "approvalsReviewer": "user",
        "sandboxPolicy": hold.policy(),
    });
    // Codex asks for it as strict, and the provider refuses a turn whose schema is not.
    if let Some(schema) = turn.schema.as_ref().filter(|schema| schema.is_strict()) {
        params["outputSchema"] = schema.as_value().clone();
    }
    params
}

/// How many characters Codex counts for a turn.
pub fn input_chars(turn: &Turn) -> usize {
    turn.prompt.chars().count() + files_block(turn).map_or(0, |block| block.chars().count())
}

/// Names the files to work on, in a block of its own, so that the prompt stays as it was given.
fn files_block(turn: &Turn) -> Option<String> {
    if turn.files.is_empty() {
        return None;
    }
    let names: String = turn.files.iter().map(|file| format!("\n- {}", file.display())).collect();
    Some(format!("Files to work on:{names}"))
}

/// The configuration values for a new thread that set Codex's own retries where the user's configuration leaves them
/// open. They can be set for a provider of the user's only: the built-in ones can't be overridden.
pub fn retries(read: &Value, settings: &[(&'static str, u64)]) -> Map<String, Value> {
    let config = &read["config"];
    let Some(provider) = config["model_provider"].as_str() else { return Map::new() };
    let of_user = &config["model_providers"][provider];
    if !of_user.is_object() {
        return Map::new();
    }
    settings
        .iter()
        .filter(|(name, _)| of_user[*name].is_null())
        .map(|(name, value)| (format!("model_providers.{provider}.{name}"), json!(value)))
        .collect()
}

/// Tokens of a thread, as `thread/tokenUsage/updated` tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Sent to the model.
    pub input: u64,
    /// Received from it.
    pub output: u64,
}

impl Tokens {
    /// The thread's totals so far.
    pub fn total(params: &Value) -> Option<Self> {
        let total = &params["tokenUsage"]["total"];
        Some(Self { input: total["inputTokens"].as_u64()?, output: total["outputTokens"].as_u64()? })
    }

    /// What came on top of `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { input: self.input.saturating_sub(earlier.input), output: self.output.saturating_sub(earlier.output) }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self { input: self.input + other.input, output: self.output + other.output }
    }
}

/// The paths of a `fileChange` item; a moved file has two.
pub fn changed_paths(item: &Value) -> Vec<PathBuf> {
    let changes = item["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    changes
        .iter()
        .flat_map(|change| [&change["path"], &change["kind"]["move_path"]])
        .filter_map(Value::as_str)
        .map(PathBuf::from)
        .collect()
}

/// A short name for an item that is the model's use of a tool; `None` for all others.
pub fn tool_name(item: &Value) -> Option<String> {
    let field = |name: &str| item[name].as_str().unwrap_or("?").to_owned();
    match item["type"].as_str()? {
        "userMessage" | "hookPrompt" | "agentMessage" | "functionCallOutput" | "plan" | "reasoning"
        | "enteredReviewMode" | "exitedReviewMode" | "contextCompaction" | "subAgentActivity" => None,
        "commandExecution" => Some(field("command")),
        "fileChange" => Some(format!("edit {}", join(&changed_paths(item)))),
        "mcpToolCall" => Some(format!("{}/{}", field("server"), field("tool"))),
        "dynamicToolCall" | "collabAgentToolCall" => Some(field("tool")),
        "imageView" => Some(format!("view {}", field("path"))),
        other => Some(other.to_owned()),
    }
}

/// Paths in one line.
pub fn join(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(", ")
}

/// The number of an announced retry (`Reconnecting... 2/5`); 0 where it can't be read.
pub fn attempt(message: &str) -> u32 {
    message.split_whitespace().find_map(|word| word.split_once('/')?.0.parse().ok()).unwrap_or(0)
}
