//! Which of a project's files the user has looked at and trusts.
//!
//! A project's definitions run commands, and a project comes from other people: its files count only once their
//! content was shown and its hash recorded here. The record is a file in the user's state directory, for this user
//! alone; content that changes afterwards is no longer trusted.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the user's record says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// This content at this path was shown and trusted.
    Trusted,
    /// Other content at this path was trusted; this content was not.
    Changed,
    /// Nothing at this path was ever trusted.
    New,
}

/// The user's record of trusted files.
#[derive(Debug, Clone, Default)]
pub struct TrustRecord {
    trusted: Vec<Trusted>,
}

/// One file's record. The path is for a person; the hash covers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    path: String,
    sha256: String,
    since: jiff::Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    #[serde(default)]
    trusted: Vec<Trusted>,
}

/// The record can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system refused.
    #[error("{}: the record of trusted files can't be {what}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The file's content is not what this version writes.
    #[error(
        "{}: is not a record of trusted files: {message}; move it away and run `readyroom tools trust` again",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// The hash that stands for `content` at `path`: SHA-256 over the path's length, the path and the content, in hex.
pub fn digest(path: &Path, content: &[u8]) -> String {
    let path = path.as_os_str().as_bytes();
    let mut hash = Sha256::new();
    // Without the length, a byte could move from the content to the path and leave the hash as it is.
    hash.update((path.len() as u64).to_le_bytes());
    hash.update(path);
    hash.update(content);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl TrustRecord {
    /// Reads the record at `path`. A file that does not exist trusts nothing.
    ///
    /// # Errors
    /// A file that can't be read, or whose content is not a record: then nothing may count as trusted.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(TrustError::Io { path: path.into(), what: "read", error }),
        };
        let content = |message: String| TrustError::Content { path: path.into(), message };
        let stored: Stored = toml::from_str(&text).map_err(|error| content(error.message().to_owned()))?;
        if stored.version != 1 {
            return Err(content(format!("it has version {}, this readyroom reads version 1", stored.version)));
        }
        Ok(Self { trusted: stored.trusted })
    }

    /// What the record says about `content` at `path`, which must be absolute.
    pub fn standing(&self, path: &Path, content: &[u8]) -> Standing {
        let hash = digest(path, content);
        let shown = path.to_string_lossy();
        if self.trusted.iter().any(|trusted| trusted.sha256 == hash) {
            Standing::Trusted
        } else if self.trusted.iter().any(|trusted| trusted.path == shown) {
            Standing::Changed
        } else {
            Standing::New
        }
    }

    /// Adds files with the content that was shown to the record at `record`, and returns it as it is then. What was
    /// recorded for their paths before is replaced. The file is replaced as a whole, so a reader sees the old record or
    /// the new one; two writers wait for each other.
    ///
    /// # Errors
    /// As [`TrustRecord::read`], and a directory or file that can't be written.
    pub fn add(record: &Path, files: &[(&Path, &[u8])]) -> Result<Self, TrustError> {
        let failed = |error: io::Error| TrustError::Io { path: record.into(), what: "written", error };
        let directory = record.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = options().truncate(false).open(record.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut known = Self::read(record)?;
        for (path, content) in files {
            let shown = path.to_string_lossy().into_owned();
            known.trusted.retain(|trusted| trusted.path != shown);
            known.trusted.push(Trusted { path: shown, sha256: digest(path, content), since: jiff::Timestamp::now() });
        }
        let stored = Stored { version: 1, trusted: known.trusted.clone() };
        let text = toml::to_string(&stored)
            .map_err(|error| TrustError::Content { path: record.into(), message: error.to_string() })?;
        replace(record, text.as_bytes()).map_err(failed)?;
        Ok(known)
    }
}

/// Options for a file that only this user may read.
fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).mode(0o600);
    options
}

/// Writes beside the file, to disk, and renames.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        let mut file = options().truncate(true).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn content_is_trusted_until_it_changes_or_moves() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("state/readyroom/trust.toml");
        let (a, b) = (Path::new("/p/a.toml"), Path::new("/p/b.toml"));
        assert_eq!(TrustRecord::read(&record).unwrap().standing(a, b"x"), Standing::New);

        TrustRecord::add(&record, &[(a, b"x")]).unwrap();
        let known = TrustRecord::read(&record).unwrap();
        assert_eq!(known.standing(a, b"x"), Standing::Trusted);
        assert_eq!(known.standing(a, b"y"), Standing::Changed);
        assert_eq!(known.standing(b, b"x"), Standing::New);

        let known = TrustRecord::add(&record, &[(a, b"y"), (b, b"x")]).unwrap();
        assert_eq!(known.standing(a, b"y"), Standing::Trusted);
        assert_eq!(known.standing(a, b"x"), Standing::Changed, "the older content is no longer trusted");
        assert_eq!(known.standing(b, b"x"), Standing::Trusted);
    }

    #[test]
    fn the_record_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("s/trust.toml");
        TrustRecord::add(&record, &[(Path::new("/a"), b"")]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&record), 0o600);
        assert_eq!(mode(record.parent().unwrap()), 0o700);
        let names: Vec<_> =
            fs::read_dir(dir.path().join("s")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{names:?}");
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("trust.toml");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let record = &record;
                scope.spawn(move || TrustRecord::add(record, &[(Path::new(&format!("/p/{n}")), b"x")]).unwrap());
            }
        });
        let known = TrustRecord::read(&record).unwrap();
        for n in 0..8 {
            assert_eq!(known.standing(Path::new(&format!("/p/{n}")), b"x"), Standing::Trusted);
        }
    }

    #[test]
    fn a_damaged_record_trusts_nothing_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("trust.toml");
        for text in ["version = 2\n", "version = 1\nmore = 1\n", "}", ""] {
            fs::write(&record, text).unwrap();
            let error = TrustRecord::read(&record).unwrap_err().to_string();
            assert!(error.contains("trust.toml") && error.contains("tools trust"), "{error}");
        }
    }

    #[test]
    fn a_byte_can_not_move_between_path_and_content() {
        assert_ne!(digest(Path::new("/ab"), b"c"), digest(Path::new("/a"), b"bc"));
    }
}
