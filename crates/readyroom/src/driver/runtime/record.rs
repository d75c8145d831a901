//! The record: every byte between readyroom and a tool, in both directions, with times.
//!
//! One file for each life of an instance, one JSON object a line:
//! `{"t":1.234567,"dir":"in","text":"..."}`. `dir` is `in` (to the tool), `out`, `err`, or `note` (something odd that
//! the driver kept). Bytes that are not UTF-8 stand under `base64` instead of `text`. Prompts and answers stand in it
//! verbatim, so the file is readable by its owner only.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use crate::job::Text;

/// Writes a record.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    started: Instant,
}

/// Which way bytes went.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    In,
    Out,
    Err,
    Note,
}

impl Recorder {
    /// A new record `instance-I.generation-G.jsonl` in `directory`, which must exist.
    ///
    /// # Errors
    /// The file can't be made, or is there already.
    pub fn create(directory: &Path, instance: usize, generation: u32) -> std::io::Result<Self> {
        let path = directory.join(format!("instance-{instance}.generation-{generation}.jsonl"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, started: Instant::now() })
    }

    /// Adds a line. A record that can't be written any more (a full disk) stops; the conversation goes on.
    pub(super) fn write(&mut self, direction: Direction, bytes: &[u8]) {
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Err => "err",
            Direction::Note => "note",
        };
        let mut line = match serde_json::to_value(Text::from(bytes.to_vec())) {
            Ok(serde_json::Value::Object(base64)) => base64,
            Ok(text) => serde_json::Map::from_iter([("text".to_owned(), text)]),
            Err(_) => return,
        };
        line.insert("t".into(), self.started.elapsed().as_secs_f64().into());
        line.insert("dir".into(), direction.into());
        let mut line = serde_json::Value::Object(line).to_string();
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the record can't be written");
        }
    }
}
