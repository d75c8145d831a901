//! Context commands for tools that have none of their own: they change which files the turn's prompt names.

use std::path::{Path, PathBuf};

use crate::driver::ContextCommand;
use crate::error::{Failure, FailureKind};

/// Carries out a command on the turn's files, which are kept whole, below `cwd`. What it did, for the caller.
///
/// # Errors
/// `BadInput`: the file is not there, or, to be dropped, none of the turn.
pub(super) fn carry_out(command: &ContextCommand, files: &mut Vec<PathBuf>, cwd: &Path) -> Result<String, Failure> {
    let refused = |why: String| Err(Failure::new(FailureKind::BadInput, why));
    match command {
        ContextCommand::Add(path) | ContextCommand::ReadOnly(path) => {
            let whole = cwd.join(path);
            if !whole.exists() {
                return refused(format!("no such file: {} (in {})", path.display(), cwd.display()));
            }
            if !files.contains(&whole) {
                files.push(whole);
            }
            Ok(format!("Added {} to the turn", path.display()))
        }
        ContextCommand::Drop(path) => {
            let whole = cwd.join(path);
            let Some(at) = files.iter().position(|file| *file == whole) else {
                return refused(format!("{} is not a file of this turn", path.display()));
            };
            files.remove(at);
            Ok(format!("Dropped {} from the turn", path.display()))
        }
    }
}
