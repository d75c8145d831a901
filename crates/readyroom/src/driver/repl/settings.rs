//! A definition's `[repl]` table with its patterns compiled.

use regex::bytes::Regex;

use crate::error::{Failure, FailureKind};
use crate::tool::{Definition, ReplSettings};

/// The settings of one tool, ready for use.
pub(super) struct Settings {
    /// The plain values.
    pub(super) plain: ReplSettings,
    pub(super) hopeless: Option<Regex>,
    pub(super) version: Option<Regex>,
    /// The prompt as a whole line.
    pub(super) prompt_line: Option<Regex>,
    /// The prompt at the beginning of a line.
    pub(super) prompt_start: Option<Regex>,
    pub(super) head: Option<Regex>,
    pub(super) tail: Option<Regex>,
    pub(super) aside: Option<Regex>,
    pub(super) ran: Option<Regex>,
    pub(super) error: Option<Regex>,
    pub(super) retry: Option<Regex>,
    pub(super) changed: Option<Regex>,
    pub(super) context_done: Option<Regex>,
    /// What a prompt must not hold, and why.
    pub(super) refuse: Vec<(Regex, String)>,
}

impl Settings {
    /// The settings of `definition`.
    ///
    /// # Errors
    /// `BadInput` that names the value which can't be used.
    pub(super) fn of(definition: &Definition) -> Result<Self, Failure> {
        let bad = |what: String| {
            Failure::new(FailureKind::BadInput, format!("the definition of {} can't be used: {what}", definition.id))
        };
        let Some(plain) = definition.repl.clone() else {
            return Err(bad("it has no [repl] table".into()));
        };
        if !["{a}", "{b}"].iter().all(|half| plain.fence.contains(half) && plain.marker.contains(half)) {
            return Err(bad("`fence` and `marker` need both `{a}` and `{b}`".into()));
        }
        let compile = |name: &str, pattern: &str| match pattern {
            "" => Ok(None),
            _ => Regex::new(pattern)
                .map(Some)
                .map_err(|error| bad(format!("repl.{name} is no regular expression: {error}"))),
        };
        let around = |before: &str, pattern: &str, after: &str| match pattern {
            "" => String::new(),
            _ => format!("{before}(?:{pattern}){after}"),
        };
        let mut refuse = Vec::new();
        for (pattern, why) in &plain.refuse {
            if let Some(pattern) = compile("refuse", pattern)? {
                refuse.push((pattern, why.clone()));
            }
        }
        Ok(Self {
            hopeless: compile("hopeless", &plain.hopeless)?,
            version: compile("version", &plain.version)?,
            prompt_line: compile("prompt", &around("^", &plain.prompt, "$"))?,
            prompt_start: compile("prompt", &around("^", &plain.prompt, ""))?,
            head: compile("head", &around("^", &plain.head, ""))?,
            tail: compile("tail", &around("", &plain.tail, "$"))?,
            aside: compile("aside", &around("^", &plain.aside, ""))?,
            ran: compile("ran", &plain.ran)?,
            error: compile("error", &plain.error)?,
            retry: compile("retry", &plain.retry)?,
            changed: compile("changed", &plain.changed)?,
            context_done: compile("context.done", &plain.context.done)?,
            refuse,
            plain,
        })
    }
}
