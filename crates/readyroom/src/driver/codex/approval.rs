//! Codex's questions to us, and their answers: by the turn's permission level, for once and never for a session.

use std::path::Path;

use serde_json::{Value, json};

use super::turn::Running;
use super::wire;
use crate::driver::Activity;
use crate::driver::policy::{self, Ask, Decision};
use crate::job::Permissions;

/// An answer to a question of Codex.
#[derive(Debug)]
pub struct Reply {
    /// The result to send.
    pub result: Value,
    /// What it means for the turn that asked.
    pub activity: Option<Activity>,
}

/// Answers a question. `turn` is the turn that it belongs to and the directory that this works in; a question that
/// belongs to no turn of ours is denied. `None`: no question that is known.
pub fn answer(method: &str, params: &Value, turn: Option<(&mut Running, &Path)>) -> Option<Reply> {
    let ask = match method {
        "item/commandExecution/requestApproval" if params["networkApprovalContext"].is_object() => Ask::Network,
        "item/commandExecution/requestApproval" => {
            Ask::Command(params["command"].as_str().unwrap_or("a command").to_owned())
        }
        "item/fileChange/requestApproval" => {
            let item = params["itemId"].as_str().unwrap_or_default();
            Ask::Write(turn.as_ref().map(|(running, _)| running.edit(item)).unwrap_or_default())
        }
        "item/permissions/requestApproval" => Ask::Other("more permissions".into()),
        "mcpServer/elicitation/request" => Ask::Other(params["message"].as_str().unwrap_or("a question").to_owned()),
        "item/tool/requestUserInput" => Ask::Other("a question to the user".into()),
        _ => return None,
    };
    let what = describe(&ask);
    let granted = match &turn {
        Some((running, directory)) => policy::decide(running.level, directory, &ask) == Decision::Grant,
        None => false,
    };
    let (granted, result) = match method {
        "item/commandExecution/requestApproval" | "item/fileChange/requestApproval" => {
            (granted, json!({"decision": if granted { "accept" } else { "decline" }}))
        }
        // Nothing is added to what the level holds; at `full` there is nothing to add.
        "item/permissions/requestApproval" => (false, json!({"permissions": {}, "scope": "turn"})),
        "mcpServer/elicitation/request" => {
            // A form with fields can't be filled in by anybody here; one without asks for a yes.
            let asks_for_yes =
                params["requestedSchema"]["properties"].as_object().is_none_or(serde_json::Map::is_empty)
                    && params["mode"] != "url";
            let granted = granted && asks_for_yes;
            let content = if granted { json!({}) } else { Value::Null };
            (granted, json!({"action": if granted { "accept" } else { "decline" }, "content": content, "_meta": null}))
        }
        _ => (false, json!({"answers": {}})),
    };
    let activity = turn.map(|(running, _)| {
        if granted {
            Activity::Granted(what)
        } else {
            running.denied(what.clone());
            Activity::Denied(what)
        }
    });
    Some(Reply { result, activity })
}

fn describe(ask: &Ask) -> String {
    match ask {
        Ask::Read => "read".into(),
        Ask::Write(paths) => format!("edit {}", wire::join(paths)),
        Ask::Command(command) => command.clone(),
        Ask::Network => "network".into(),
        Ask::Other(name) => name.clone(),
    }
}

/// The level that holds for a turn under a contract.
pub fn level(turn: &crate::driver::Turn, contract: Permissions) -> Permissions {
    policy::level(turn).min(contract)
}
