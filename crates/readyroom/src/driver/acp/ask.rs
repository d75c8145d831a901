//! What an agent's permission request asks for, and which of its own options answers it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::turn::ToolCall;
use crate::driver::policy::Ask;

/// Names under which agents put paths into a tool call's input.
const PATH_KEYS: [&str; 14] = [
    "filepath",
    "filePath",
    "file_path",
    "path",
    "paths",
    "abs_path",
    "absolute_path",
    "notebook_path",
    "target_file",
    "old_path",
    "new_path",
    "source",
    "destination",
    "files",
];

/// What `call` is about. `known` is what was told of the same call before: some questions about a call (whether it may
/// leave the directory) do not say again what it does.
pub fn ask(call: &Value, known: Option<&ToolCall>) -> Ask {
    let title = title(call).or_else(|| known.map(|known| known.title.clone())).unwrap_or_default();
    let kind = match call["kind"].as_str() {
        Some(kind) if kind != "other" => kind,
        _ => known.map_or("other", |known| known.kind.as_str()),
    };
    match kind {
        "read" | "search" | "think" => Ask::Read,
        "edit" | "delete" | "move" => {
            let mut paths = paths(call);
            for path in known.into_iter().flat_map(|known| &known.paths) {
                if !paths.contains(path) {
                    paths.push(path.clone());
                }
            }
            Ask::Write(paths)
        }
        "execute" => Ask::Command(command(&call["rawInput"]).unwrap_or(title)),
        "fetch" => Ask::Network,
        _ => Ask::Other(if title.is_empty() { "something that the tool does not name".into() } else { title }),
    }
}

/// A tool call's title, where it has one.
pub fn title(call: &Value) -> Option<String> {
    call["title"].as_str().filter(|title| !title.is_empty()).map(str::to_owned)
}

/// Every path that a tool call names: in its differences, its locations and its input.
pub fn paths(call: &Value) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let listed = |list: &Value| list.as_array().cloned().unwrap_or_default();
    for part in listed(&call["content"]).iter().chain(&listed(&call["locations"])) {
        found.extend(part["path"].as_str().map(PathBuf::from));
    }
    for key in PATH_KEYS {
        match &call["rawInput"][key] {
            Value::String(path) => found.push(path.into()),
            Value::Array(list) => {
                for item in list {
                    let path = item.as_str().or_else(|| PATH_KEYS.iter().find_map(|key| item[*key].as_str()));
                    found.extend(path.map(PathBuf::from));
                }
            }
            _ => {}
        }
    }
    let mut unique: Vec<PathBuf> = Vec::new();
    for path in found {
        if !path.as_os_str().is_empty() && !unique.contains(&path) {
            unique.push(path);
        }
    }
    unique
}

fn command(input: &Value) -> Option<String> {
    match &input["command"] {
        Value::String(command) => Some(command.clone()),
        Value::Array(words) => {
            Some(words.iter().map(|word| word.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    }
}

/// The answer that grants once; `None` where the agent has no such option. An "always" would outlive the turn, and in
/// some agents the conversation.
pub fn grant(options: &Value) -> Option<Value> {
    choose(options, "allow_once")
}

/// The answer that rejects. Where no option rejects once, the request is answered as cancelled.
pub fn reject(options: &Value) -> Value {
    choose(options, "reject_once").unwrap_or_else(cancelled)
}

/// The answer of a client whose turn was cancelled.
pub fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

fn choose(options: &Value, kind: &str) -> Option<Value> {
    let option = options.as_array()?.iter().find(|option| option["kind"] == kind)?;
    Some(json!({"outcome": {"outcome": "selected", "optionId": option["optionId"]}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_from_the_call() {
        let gemini = json!({"toolCallId": "w", "status": "pending", "title": "Writing to new.txt", "kind": "edit",
            "content": [{"type": "diff", "path": "/r/new.txt", "oldText": "", "newText": "hello\n"}],
            "locations": [{"path": "/r/new.txt"}]});
        assert_eq!(ask(&gemini, None), Ask::Write(vec!["/r/new.txt".into()]));
        let shell = json!({"kind": "execute", "title": "echo hi", "rawInput": {"command": "echo hi > x"}});
        assert_eq!(ask(&shell, None), Ask::Command("echo hi > x".into()));
        let words = json!({"kind": "execute", "title": "t", "rawInput": {"command": ["bash", "-c", "ls"]}});
        assert_eq!(ask(&words, None), Ask::Command("bash -c ls".into()));
        let titled = json!({"kind": "execute", "title": "echo hi", "locations": []});
        assert_eq!(ask(&titled, None), Ask::Command("echo hi".into()));
        assert_eq!(ask(&json!({"kind": "fetch", "title": "http://x"}), None), Ask::Network);
        assert_eq!(ask(&json!({"kind": "switch_mode", "title": "leave plan"}), None), Ask::Other("leave plan".into()));
    }

    #[test]
    fn a_question_without_a_kind_is_about_what_the_call_does() {
        let outside = json!({"toolCallId": "c", "title": "/o", "kind": "other",
            "locations": [{"path": "/o/new.txt"}, {"path": "/o"}],
            "rawInput": {"filepath": "/o/new.txt", "parentDir": "/o"}});
        let known = |kind: &str| ToolCall { kind: kind.into(), ..ToolCall::default() };
        assert_eq!(ask(&outside, Some(&known("read"))), Ask::Read);
        assert_eq!(ask(&outside, Some(&known("edit"))), Ask::Write(vec!["/o/new.txt".into(), "/o".into()]));
        assert_eq!(ask(&outside, Some(&known("execute"))), Ask::Command("/o".into()));
        assert_eq!(ask(&outside, None), Ask::Other("/o".into()));
    }

    #[test]
    fn only_options_for_once_are_chosen() {
        let options = json!([
            {"optionId": "a", "kind": "allow_always"}, {"optionId": "o", "kind": "allow_once"},
            {"optionId": "r", "kind": "reject_once"}
        ]);
        assert_eq!(grant(&options), Some(json!({"outcome": {"outcome": "selected", "optionId": "o"}})));
        assert_eq!(reject(&options), json!({"outcome": {"outcome": "selected", "optionId": "r"}}));
        let always = json!([{"optionId": "a", "kind": "allow_always"}, {"optionId": "n", "kind": "reject_always"}]);
        assert_eq!(grant(&always), None);
        assert_eq!(reject(&always), cancelled());
    }
}
