//! How a prompt is put into content blocks, so that the model gets it as it was given.
//!
//! Agents take a prompt that begins like a command (`/help`) for one, even with white space before it: the text never
//! reaches the model. What works is a block of its own before the prompt that white-space trimming leaves alone.
//! An agent that keeps blocks for the user's eyes away from the model gets a block of that kind, and the model sees
//! nothing of it; elsewhere it is one invisible character.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use regex::Regex;
use serde_json::{Value, json};

use crate::driver::Turn;
use crate::error::{Failure, FailureKind};
use crate::tool::Contract;

/// A word joiner: no trimming takes it away, and it shows nothing.
const GUARD: &str = "\u{2060}";

/// What begins like a command in some agent.
const COMMAND: &str = r"^\s*[/!$#]";

/// How one agent's prompts are framed. From the settings `guard`, `guard_before`, `guard_for = "user"` and
/// `file_uris = "plain"`.
#[derive(Debug)]
pub struct Framing {
    guard: String,
    before: Option<Regex>,
    for_user: bool,
    plain_uris: bool,
}

impl Framing {
    /// Reads the contract's settings. A pattern that is none counts as not given.
    pub fn new(contract: &Contract) -> Self {
        let before = contract.setting("guard_before").and_then(|pattern| Regex::new(&pattern).ok());
        Self {
            guard: contract.setting("guard").unwrap_or_else(|| GUARD.into()),
            before: before.or_else(|| Regex::new(COMMAND).ok()),
            for_user: contract.setting("guard_for").as_deref() == Some("user"),
            plain_uris: contract.setting("file_uris").as_deref() == Some("plain"),
        }
    }

    /// The prompt's blocks: the guard where it is needed, the text exactly as it is, a link for each file.
    pub fn blocks(&self, turn: &Turn) -> Vec<Value> {
        let mut blocks = Vec::new();
        if self.before.as_ref().is_some_and(|before| before.is_match(&turn.prompt)) {
            let mut guard = json!({"type": "text", "text": self.guard});
            if self.for_user {
                guard["annotations"] = json!({"audience": ["user"]});
            }
            blocks.push(guard);
        }
        blocks.push(json!({"type": "text", "text": turn.prompt}));
        blocks.extend(turn.files.iter().map(|file| {
            let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
            json!({"type": "resource_link", "uri": self.uri(file), "name": name})
        }));
        blocks
    }

    /// Why the turn can't be given to the agent as it is.
    pub fn refuses(&self, turn: &Turn) -> Option<Failure> {
        let bad = |message: String| Some(Failure::new(FailureKind::BadInput, message));
        if turn.prompt.is_empty() {
            // One agent would answer the question before this one again.
            return bad("the prompt is empty: an agent has nothing to answer".into());
        }
        match turn.files.iter().find(|file| self.plain_uris && file.to_str().is_none()) {
            Some(file) => bad(format!("{} can't be named to this tool: its name is not UTF-8", file.display())),
            None => None,
        }
    }

    /// A file's URI. Some agents take what follows `file://` for the path as it is.
    fn uri(&self, file: &Path) -> String {
        if self.plain_uris {
            return format!("file://{}", file.display());
        }
        let mut uri = String::from("file://");
        for &byte in file.as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(byte.into()),
                _ => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        uri
    }
}
