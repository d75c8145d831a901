//! What Claude Code's tools do, in the words of the policy.

use std::path::PathBuf;

use serde_json::Value;

use crate::driver::policy::Ask;

/// The tools that change a file, and the input that names it.
const EDITORS: [(&str, &str); 4] =
    [("Write", "file_path"), ("Edit", "file_path"), ("MultiEdit", "file_path"), ("NotebookEdit", "notebook_path")];

/// What a call asks for.
pub(super) fn ask(tool: &str, input: &Value) -> Ask {
    if EDITORS.iter().any(|(name, _)| *name == tool) {
        return Ask::Write(edited(tool, input).into_iter().collect());
    }
    match tool {
        // The task list is the session's own note pad; a sub-agent's calls are asked for one by one.
        "Read" | "Glob" | "Grep" | "LS" | "NotebookRead" | "TaskCreate" | "TaskGet" | "TaskList" | "TaskUpdate"
        | "TaskOutput" | "TodoWrite" | "ReportFindings" | "Task" | "Agent" => Ask::Read,
        "Bash" | "PowerShell" | "Monitor" => Ask::Command(input["command"].as_str().unwrap_or_default().to_owned()),
        "WebFetch" | "WebSearch" => Ask::Network,
        other => Ask::Other(other.to_owned()),
    }
}

/// The file that a call changes, where it changes one.
pub(super) fn edited(tool: &str, input: &Value) -> Option<PathBuf> {
    let (_, field) = EDITORS.iter().find(|(name, _)| *name == tool)?;
    input[*field].as_str().map(PathBuf::from)
}

/// A call in a few words: `Write /srv/a.txt`, `Bash touch b`.
pub(super) fn describe(tool: &str, input: &Value) -> String {
    const MOST: usize = 200;
    let subject = ["file_path", "notebook_path", "command", "url", "query", "skill", "description"]
        .iter()
        .find_map(|field| input[*field].as_str())
        .unwrap_or_default();
    let mut words = format!("{tool} {subject}").trim_end().to_owned();
    if let Some((at, _)) = words.char_indices().nth(MOST) {
        words.truncate(at);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_are_what_they_do() {
        assert_eq!(ask("Read", &json!({"file_path": "/a"})), Ask::Read);
        assert_eq!(ask("Edit", &json!({"file_path": "/a"})), Ask::Write(vec!["/a".into()]));
        assert_eq!(ask("NotebookEdit", &json!({"notebook_path": "/n"})), Ask::Write(vec!["/n".into()]));
        assert_eq!(ask("Write", &json!({})), Ask::Write(vec![]), "a write that names nothing is still a write");
        assert_eq!(ask("Bash", &json!({"command": "ls"})), Ask::Command("ls".into()));
        assert_eq!(ask("WebFetch", &json!({"url": "u"})), Ask::Network);
        assert_eq!(ask("mcp__a__b", &json!({})), Ask::Other("mcp__a__b".into()));
    }

    #[test]
    fn a_description_is_short() {
        assert_eq!(describe("Bash", &json!({"command": "touch b"})), "Bash touch b");
        assert_eq!(describe("TaskList", &json!({})), "TaskList");
        assert_eq!(describe("Bash", &json!({"command": "é".repeat(9000)})).chars().count(), 201);
    }
}
