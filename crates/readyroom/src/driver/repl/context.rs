//! Context commands in the tool's own words: a file to work on, to take out, to read only.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::settings::Settings;
use crate::driver::ContextCommand;
use crate::error::{Failure, FailureKind};

/// The line that carries out `command` in a tool that works in `directory`.
///
/// # Errors
/// `BadInput` where the file is missing (some tools would create it) or its path can't be written in a command.
pub(super) fn line(settings: &Settings, directory: &Path, command: &ContextCommand) -> Result<String, Failure> {
    let context = &settings.plain.context;
    let (template, path, must_exist) = match command {
        ContextCommand::Add(path) => (&context.add, path, true),
        ContextCommand::Drop(path) => (&context.drop, path, false),
        ContextCommand::ReadOnly(path) => (&context.read_only, path, true),
    };
    let bad = |why: String| Failure::new(FailureKind::BadInput, why);
    if template.is_empty() {
        return Err(bad("the tool has no such command".into()));
    }
    let path = absolute(directory, path);
    let shown = path.display();
    let Ok(text) = std::str::from_utf8(path.as_os_str().as_bytes()) else {
        return Err(bad(format!("the path {shown} is not UTF-8, and a command can't hold it; rename the file")));
    };
    if let Some(sign) = text.chars().find(|sign| sign.is_control() || context.forbidden.contains(*sign)) {
        return Err(bad(format!("the path {shown:?} holds {sign:?}, and a command can't; rename the file")));
    }
    if must_exist && !path.exists() {
        return Err(bad(format!("there is no file {shown}")));
    }
    Ok(format!("{}\n", template.replace("{path}", text)))
}

/// `path` below `directory`, without `.` parts.
fn absolute(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path).components().collect()
}

/// What the tool's answer to a context command means.
pub(super) fn reply(settings: &Settings, text: &[u8]) -> Result<String, Failure> {
    let shown = String::from_utf8_lossy(text).trim().to_owned();
    let done = settings.context_done.as_ref().is_none_or(|done| done.is_match(text));
    if done {
        return Ok(shown);
    }
    let why = if shown.is_empty() { "the tool did nothing".to_owned() } else { shown };
    Err(Failure::new(FailureKind::BadInput, why))
}
