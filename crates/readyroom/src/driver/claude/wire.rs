//! The lines of Claude Code's stream-json protocol: those we write, and those it writes, decoded.
//!
//! Decoding keeps only what the driver acts on. A line is never lost: what is not known here comes back as
//! [`Message::Odd`], and the driver reports it.

use std::time::Duration;

use serde_json::{Value, json};

/// The tool by which the model answers where the answer has to fit a schema.
const ANSWER: &str = "StructuredOutput";

/// What a line of the tool says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    /// A turn begins in this session. Comes with every turn, also with one that nobody asked for.
    Init { session: String },
    /// The tool took our user line with this id.
    Taken { id: String },
    /// Some text of the answer, while the model says it.
    Delta(String),
    /// A whole block of the model's text; `error` is set where the tool itself speaks of a failure.
    Said { text: String, error: Option<String> },
    /// The model answers by a call, with this JSON. The tool refuses what does not fit, and the model calls again.
    Structured(String),
    /// The model calls a tool.
    ToolStarted { id: String, name: String, input: Value, nested: bool },
    /// A tool's result went to the model.
    ToolEnded { id: String, failed: bool },
    /// A background command or a sub-agent began.
    TaskStarted { id: String },
    /// It ended.
    TaskEnded { id: String },
    /// The tool will try its model again.
    Retry { attempt: u32, delay: Duration, status: Option<u64>, error: String },
    /// The usage window of a subscription is used up.
    Window { resets_at: Option<jiff::Timestamp> },
    /// The tool asks for a permission.
    Ask { request: String, tool: String, call: String, input: Value },
    /// The tool asks for something else.
    Control { request: String, subtype: String },
    /// The answer to a control request of ours.
    Reply { id: String, result: Result<Value, String> },
    /// A turn ended.
    Result(Box<Finish>),
    /// Known, and nothing to act on.
    Quiet,
    /// Not known, or not as it should be.
    Odd(&'static str),
}

/// The content of a `result` line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Finish {
    pub subtype: String,
    pub is_error: bool,
    /// The status with which the model's provider answered, in a failure.
    pub status: Option<u64>,
    /// 0: the model was never asked.
    pub turns: Option<u64>,
    /// The last block of text, or what went wrong.
    pub text: String,
    /// None in a turn whose last stream broke off.
    pub stop_reason: Option<String>,
    pub session: String,
    /// The process's total until now.
    pub cost: Option<f64>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// The calls that were denied: their ids, and what they wanted.
    pub denials: Vec<(String, String)>,
    /// Who began the turn, where it was not us.
    pub origin: Option<String>,
    /// Why the tool's loop ended: `completed`, `aborted_streaming`, ...
    pub reason: String,
    /// The tool's own words about an end that is not the model's.
    pub errors: Vec<String>,
}

impl Finish {
    /// Whether the tool ran this turn by itself.
    pub fn foreign(&self) -> bool {
        self.origin.as_deref().is_some_and(|kind| kind != "human")
    }
}

/// Decodes a line. An assistant line may hold several blocks, so several messages may come of it.
pub(super) fn decode(line: &[u8]) -> Vec<Message> {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return vec![Message::Odd("a line that is not JSON")];
    };
    let nested = value["parent_tool_use_id"].is_string();
    match text(&value["type"]).as_str() {
        "system" => vec![system(&value)],
        "stream_event" => vec![delta(&value["event"], nested)],
        "assistant" => assistant(&value, nested),
        "user" => user(&value),
        "result" => vec![Message::Result(Box::new(finish(&value)))],
        "control_request" => vec![control(&value)],
        "control_response" => vec![reply(&value["response"])],
        "rate_limit_event" => vec![limit(&value["rate_limit_info"])],
        "control_cancel_request"
        | "keep_alive"
        | "tool_progress"
        | "tool_use_summary"
        | "auth_status"
        | "prompt_suggestion"
        | "conversation_reset"
        | "command_lifecycle" => vec![Message::Quiet],
        _ => vec![Message::Odd("a line of an unknown type")],
    }
}

fn system(value: &Value) -> Message {
    match text(&value["subtype"]).as_str() {
        "init" => Message::Init { session: text(&value["session_id"]) },
        "task_started" => Message::TaskStarted { id: text(&value["task_id"]) },
        "task_notification" => Message::TaskEnded { id: text(&value["task_id"]) },
        "api_retry" => Message::Retry {
            attempt: value["attempt"].as_u64().and_then(|attempt| attempt.try_into().ok()).unwrap_or(0),
            delay: value["retry_delay_ms"]
                .as_f64()
                .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
                .unwrap_or_default(),
            status: value["error_status"].as_u64(),
            error: text(&value["error"]),
        },
        "status"
        | "task_updated"
        | "task_progress"
        | "background_tasks"
        | "compact_boundary"
        | "hook_started"
        | "hook_progress"
        | "hook_response"
        | "stop_hook_summary"
        | "files_persisted"
        | "session_state_changed"
        | "notification"
        | "informational"
        | "local_command_output"
        | "permission_denied"
        | "turn_duration"
        | "thinking_tokens"
        | "commands_changed"
        | "api_error"
        | "model_fallback"
        | "model_refusal_fallback"
        | "model_refusal_no_fallback"
        | "memory_recall"
        | "memory_saved"
        | "plugin_install"
        | "post_turn_summary" => Message::Quiet,
        _ => Message::Odd("a system line of an unknown subtype"),
    }
}

fn delta(event: &Value, nested: bool) -> Message {
    let delta = &event["delta"];
    if !nested && event["type"] == "content_block_delta" && delta["type"] == "text_delta" {
        Message::Delta(text(&delta["text"]))
    } else {
        Message::Quiet
    }
}

fn assistant(value: &Value, nested: bool) -> Vec<Message> {
    let Some(blocks) = value["message"]["content"].as_array() else {
        return vec![Message::Odd("an assistant line without content")];
    };
    let error = value["error"].as_str();
    // `(no content)` under this name is what the tool itself puts where no model was asked.
    let placeholder = value["message"]["model"] == "<synthetic>" && error.is_none();
    blocks
        .iter()
        .map(|block| match block["type"].as_str() {
            Some("text") if nested || placeholder => Message::Quiet,
            Some("text") => Message::Said { text: text(&block["text"]), error: error.map(str::to_owned) },
            Some("tool_use") if !nested && block["name"] == ANSWER => Message::Structured(block["input"].to_string()),
            Some("tool_use" | "server_tool_use") => Message::ToolStarted {
                id: text(&block["id"]),
                name: text(&block["name"]),
                input: block["input"].clone(),
                nested,
            },
            _ => Message::Quiet,
        })
        .collect()
}

fn user(value: &Value) -> Vec<Message> {
    if value["isReplay"] == true {
        return vec![Message::Taken { id: text(&value["uuid"]) }];
    }
    let Some(blocks) = value["message"]["content"].as_array() else { return vec![Message::Quiet] };
    blocks
        .iter()
        .filter(|block| block["type"] == "tool_result")
        .map(|block| Message::ToolEnded { id: text(&block["tool_use_id"]), failed: block["is_error"] == true })
        .collect()
}

fn control(value: &Value) -> Message {
    let (request, body) = (text(&value["request_id"]), &value["request"]);
    match body["subtype"].as_str() {
        Some("can_use_tool") => Message::Ask {
            request,
            tool: text(&body["tool_name"]),
            call: text(&body["tool_use_id"]),
            input: body["input"].clone(),
        },
        other => Message::Control { request, subtype: other.unwrap_or_default().to_owned() },
    }
}

fn reply(response: &Value) -> Message {
    let result = match response["subtype"].as_str() {
        Some("success") => Ok(response["response"].clone()),
        _ => Err(text(&response["error"])),
    };
    Message::Reply { id: text(&response["request_id"]), result }
}

fn limit(info: &Value) -> Message {
    if info["status"] == "rejected" {
        Message::Window {
            resets_at: info["resetsAt"].as_i64().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
        }
    } else {
        Message::Quiet
    }
}

fn finish(value: &Value) -> Finish {
    let usage = &value["usage"];
    let input = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    Finish {
        subtype: text(&value["subtype"]),
        is_error: value["is_error"] == true,
        status: value["api_error_status"].as_u64(),
        turns: value["num_turns"].as_u64(),
        text: text(&value["result"]),
        stop_reason: value["stop_reason"].as_str().map(str::to_owned),
        session: text(&value["session_id"]),
        cost: value["total_cost_usd"].as_f64(),
        input_tokens: input.iter().filter_map(|name| usage[*name].as_u64()).reduce(|a, b| a + b),
        output_tokens: usage["output_tokens"].as_u64(),
        denials: list(&value["permission_denials"])
            .iter()
            .map(|denial| {
                let wanted = super::permission::describe(&text(&denial["tool_name"]), &denial["tool_input"]);
                (text(&denial["tool_use_id"]), wanted)
            })
            .collect(),
        origin: value["origin"]["kind"].as_str().map(str::to_owned),
        reason: text(&value["terminal_reason"]),
        errors: list(&value["errors"]).iter().map(text).collect(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A user line. The id comes back when the tool takes it.
pub(super) fn user_line(id: &str, content: Value) -> Vec<u8> {
    line(&json!({"type": "user", "uuid": id, "message": {"role": "user", "content": content}}))
}

/// The request that makes the tool ready; `schema`: what it is to hold all answers to.
pub(super) fn initialize_line(id: &str, schema: Option<&Value>) -> Vec<u8> {
    let mut request = json!({"subtype": "initialize"});
    if let Some(schema) = schema {
        request["jsonSchema"] = schema.clone();
    }
    line(&json!({"type": "control_request", "request_id": id, "request": request}))
}

/// A request of ours outside the conversation.
pub(super) fn control_line(id: &str, subtype: &str) -> Vec<u8> {
    line(&json!({"type": "control_request", "request_id": id, "request": {"subtype": subtype}}))
}

/// The grant of a permission, for this call only.
pub(super) fn allow_line(request: &str, input: Value) -> Vec<u8> {
    let answer = json!({"behavior": "allow", "updatedInput": input});
    line(&json!({"type": "control_response",
        "response": {"subtype": "success", "request_id": request, "response": answer}}))
}

/// The refusal of a permission. The model reads the message, and the turn goes on.
pub(super) fn deny_line(request: &str, message: &str) -> Vec<u8> {
    let answer = json!({"behavior": "deny", "message": message});
    line(&json!({"type": "control_response",
        "response": {"subtype": "success", "request_id": request, "response": answer}}))
}

/// The answer to a request that we do not know.
pub(super) fn refuse_line(request: &str, subtype: &str) -> Vec<u8> {
    let error = format!("unsupported control request: {subtype}");
    line(&json!({"type": "control_response", "response": {"subtype": "error", "request_id": request, "error": error}}))
}

fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
