//! What the file system says of all that is in a worktree. Where it says the same as before, nothing has happened there, and git
//! need not be asked, which costs a process for each question.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two writes that are closer to each other than this may have the same time, where times are whole seconds.
const COARSE: Duration = Duration::from_secs(3);

/// The same where they are not: twice the kernel's tick.
fn tick() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse);
        Duration::try_from(tick).unwrap_or(Duration::from_millis(25)) * 2
    }
    #[cfg(not(target_os = "linux"))]
    {
        Duration::from_millis(50)
    }
}

/// The names, kinds, sizes and times of all files and directories below some. Content is not read: what is written to a file
/// changes its time of change, which no program can set.
#[derive(Debug)]
pub struct Print {
    digest: u64,
    /// Whether a later write would show: nothing was written just before the print was taken.
    settled: bool,
}

impl Print {
    /// Of all below these directories but what is below one of the paths `without`. Links are not followed.
    pub(super) fn of(directories: &[&Path], without: &[PathBuf]) -> io::Result<Self> {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        let mut taking = Taking {
            hasher: KEYS.get_or_init(RandomState::new).build_hasher(),
            without: without.iter().map(PathBuf::as_path).collect(),
            newest: Duration::ZERO,
            tick: COARSE,
        };
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for directory in directories {
            taking.visit(directory)?;
        }
        Ok(Self { digest: taking.hasher.finish(), settled: taking.newest + taking.tick < began })
    }

    /// Whether all is certainly as it was at an earlier print.
    pub fn is_still(&self, earlier: &Self) -> bool {
        earlier.settled && earlier.digest == self.digest
    }

    /// Whether all seems to be as it was at an earlier print: a write that came right behind that may be missed.
    pub fn seems(&self, earlier: &Self) -> bool {
        earlier.digest == self.digest
    }
}

struct Taking<'a, H> {
    hasher: H,
    without: HashSet<&'a Path>,
    newest: Duration,
    tick: Duration,
}

impl<H: Hasher> Taking<'_, H> {
    fn visit(&mut self, directory: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.retain(|entry| !self.without.contains(entry.path().as_path()));
        entries.sort_by_key(fs::DirEntry::file_name);
        entries.len().hash(&mut self.hasher);
        for entry in entries {
            let facts = entry.metadata()?;
            entry.file_name().hash(&mut self.hasher);
            facts.mode().hash(&mut self.hasher);
            if facts.is_dir() {
                self.visit(&entry.path())?;
                continue;
            }
            let (seconds, nanoseconds) = (facts.ctime(), facts.ctime_nsec());
            (facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec(), seconds, nanoseconds).hash(&mut self.hasher);
            let changed = Duration::new(
                u64::try_from(seconds).unwrap_or_default(),
                u32::try_from(nanoseconds).unwrap_or_default(),
            );
            self.newest = self.newest.max(changed);
            if nanoseconds != 0 && self.tick == COARSE {
                self.tick = tick();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A directory whose files have stood for long enough.
    fn place() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::write(place.path().join("a/b/file"), "1234").unwrap();
        fs::write(place.path().join("kept"), "k").unwrap();
        symlink("a", place.path().join("link")).unwrap();
        while !Print::of(&[place.path()], &[]).unwrap().settled {
            std::thread::yield_now();
        }
        place
    }

    fn still_after(work: impl FnOnce(&Path)) -> bool {
        let place = place();
        let without = [place.path().join("kept")];
        let take = || Print::of(&[place.path()], &without).unwrap();
        let before = take();
        work(place.path());
        take().is_still(&before)
    }

    #[test]
    fn nothing_or_a_look_leaves_it_as_it_is() {
        assert!(still_after(|_| {}));
        assert!(still_after(|place| drop(fs::read(place.join("a/b/file")).unwrap())));
        assert!(still_after(|place| fs::write(place.join("kept"), "other").unwrap()));
    }

    #[test]
    fn whatever_happens_shows() {
        assert!(!still_after(|place| fs::write(place.join("new"), "").unwrap()));
        assert!(!still_after(|place| fs::remove_file(place.join("link")).unwrap()));
        assert!(!still_after(|place| fs::create_dir(place.join("a/empty")).unwrap()));
        assert!(!still_after(|place| fs::rename(place.join("a"), place.join("z")).unwrap()));
        let mode = |mode| fs::Permissions::from_mode(mode);
        assert!(!still_after(|place| fs::set_permissions(place.join("a/b/file"), mode(0o700)).unwrap()));
        // Another content of the same size, with the time of the first put back.
        assert!(!still_after(|place| {
            let file = place.join("a/b/file");
            let time = fs::metadata(&file).unwrap().modified().unwrap();
            fs::write(&file, "4321").unwrap();
            let file = File::options().write(true).open(file).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }));
    }

    #[test]
    fn a_print_that_was_taken_just_after_a_write_proves_nothing() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "1").unwrap();
        let take = || Print::of(&[place.path()], &[]).unwrap();
        let before = take();
        assert!(!take().is_still(&before));
    }
}
