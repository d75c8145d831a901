//! Answers in files of their own: whole or not at all.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// How the name of a file begins that is being written.
pub const UNFINISHED: &str = ".readyroom-";

/// Writes `bytes` to `path`. A reader sees what was there before or all of it. A path that is no plain file (a device, a
/// named pipe) is written to and never replaced, and so is what a name below `/dev` leads to (`/dev/stdout`); a symbolic link
/// keeps its place and its target is replaced.
///
/// # Errors
/// The system's; `path` is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.starts_with("/dev") {
        return OpenOptions::new().append(true).open(path)?.write_all(bytes);
    }
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mode = match fs::metadata(&target) {
        Ok(data) if data.is_file() => data.permissions().mode() & 0o7777,
        Ok(_) => return OpenOptions::new().write(true).open(&target)?.write_all(bytes),
        Err(_) => 0o666,
    };
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file =
        tempfile::Builder::new().prefix(UNFINISHED).permissions(Permissions::from_mode(mode)).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

/// Whether a file can be made in a directory.
///
/// # Errors
/// The system's.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old and longer").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("a", &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_device_is_written_to_and_never_replaced() {
        let error = write(Path::new("/dev/full"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write(&dir.path().join("no/a"), b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
