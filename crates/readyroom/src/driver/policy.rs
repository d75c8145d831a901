//! What is granted when a tool asks for a permission.
//!
//! A driver translates its tool's question into an [`Ask`]; [`decide`] answers it by the turn's permission level and
//! the directory in which the conversation works. It looks at the file system (symbolic links), and at nothing else.
//! A grant is for once: no driver may pick an "always" of its tool.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::Turn;
use crate::job::{Mode, Permissions};

/// What a tool asks to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To look at files, to search.
    Read,
    /// To write, create, move or delete these paths. Relative ones start at the directory.
    Write(Vec<PathBuf>),
    /// To run a shell command.
    Command(String),
    /// To fetch something from the network.
    Network,
    /// Something else, by the tool's own name for it.
    Other(String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Granted, this once.
    Grant,
    /// Not granted. The reason is a sentence that the model may read.
    Deny(String),
}

/// The level that holds for a turn: a question never gets more than `read`.
pub fn level(turn: &Turn) -> Permissions {
    match turn.mode {
        Mode::Ask => Permissions::Read,
        Mode::Default | Mode::Code | Mode::Architect => turn.permissions,
    }
}

/// Below `full` nothing is written into these: git and the tools run what they find there, so that a write would be a
/// shell command with a delay.
const EXECUTED: [&str; 9] =
    [".git", ".claude", ".codex", ".gemini", ".opencode", ".readyroom", ".mcp.json", "opencode.json", "opencode.jsonc"];

/// Decides what `ask` gets under `level` in a conversation that works in `directory` (absolute).
pub fn decide(level: Permissions, directory: &Path, ask: &Ask) -> Decision {
    let deny = |what: &str| Decision::Deny(format!("{what} is not allowed here (permissions: {level})"));
    match (level, ask) {
        (Permissions::Full, _) | (_, Ask::Read) => Decision::Grant,
        (_, Ask::Command(_)) => deny("running a shell command"),
        (_, Ask::Network) => deny("fetching from the network"),
        (_, Ask::Other(name)) => deny(name),
        (Permissions::Read, Ask::Write(_)) => deny("changing a file"),
        (Permissions::Edit, Ask::Write(paths)) if paths.is_empty() => deny("changing a file that is not named"),
        (Permissions::Edit, Ask::Write(paths)) => match paths.iter().find_map(|path| objection(directory, path)) {
            Some(objection) => Decision::Deny(format!("{objection} (permissions: {level})")),
            None => Decision::Grant,
        },
    }
}

/// Why `path` may not be written under `edit`; `None` where it may.
fn objection(directory: &Path, path: &Path) -> Option<String> {
    let directory = resolve(directory)?;
    // A tool may take `a/..` away before it follows links, or after; both readings have to stay inside.
    let absolute = directory.join(path);
    let readings = [resolve(&absolute), resolve(&without_dots(&absolute))];
    for reading in readings {
        let Some(inside) = reading.as_deref().and_then(|reading| reading.strip_prefix(&directory).ok()) else {
            return Some(format!("writing {} is not allowed: it is outside {}", path.display(), directory.display()));
        };
        if inside.as_os_str().is_empty() {
            return Some(format!("writing {} is not allowed: it is the directory itself", path.display()));
        }
        if let Some(part) = inside.iter().find(|part| is_executed(part)) {
            return Some(format!(
                "writing {} is not allowed: programs run what is in {}",
                path.display(),
                part.to_string_lossy()
            ));
        }
    }
    None
}

fn is_executed(part: &OsStr) -> bool {
    EXECUTED.iter().any(|name| part.eq_ignore_ascii_case(name))
}

/// `path` without `.` and `..`, by its text alone.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Follows every symbolic link of an absolute path, as the kernel would; what does not exist yet is taken by name.
/// `None` for a relative path and where links go round in a circle.
fn resolve(path: &Path) -> Option<PathBuf> {
    const MOST_LINKS: usize = 40;
    if !path.is_absolute() {
        return None;
    }
    let mut links = 0;
    let mut resolved = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    while let Some(part) = ahead.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => resolved = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                resolved.pop();
            }
            Some(Component::Normal(name)) => {
                let next = resolved.join(name);
                match std::fs::read_link(&next) {
                    Ok(target) => {
                        links += 1;
                        if links > MOST_LINKS {
                            return None;
                        }
                        for part in target.components().rev() {
                            ahead.push_front(part.as_os_str().to_owned());
                        }
                    }
                    Err(_) => resolved = next,
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place {
        root: tempfile::TempDir,
    }

    impl Place {
        /// `repo` with a file and links out of it, beside `outside`.
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let repo = root.path().join("repo");
            std::fs::create_dir_all(repo.join("src/deep")).unwrap();
            std::fs::create_dir_all(root.path().join("outside/deep")).unwrap();
            symlink(root.path().join("outside"), repo.join("out")).unwrap();
            symlink(root.path().join("outside/not-there-yet"), repo.join("dangling")).unwrap();
            symlink("src/deep", repo.join("within")).unwrap();
            symlink("round", repo.join("round")).unwrap();
            Self { root }
        }

        fn repo(&self) -> PathBuf {
            self.root.path().join("repo")
        }

        fn edit(&self, path: impl Into<PathBuf>) -> Decision {
            decide(Permissions::Edit, &self.repo(), &Ask::Write(vec![path.into()]))
        }
    }

    fn denied(decision: &Decision) -> bool {
        matches!(decision, Decision::Deny(reason) if !reason.is_empty())
    }

    #[test]
    fn the_table_of_levels() {
        let place = Place::new();
        let inside = Ask::Write(vec![place.repo().join("a")]);
        let asks = [
            Ask::Read,
            inside,
            Ask::Command("ls".into()),
            Ask::Network,
            Ask::Other("Agent".into()),
            Ask::Write(vec![]),
        ];
        let granted =
            |level| asks.iter().map(|ask| decide(level, &place.repo(), ask) == Decision::Grant).collect::<Vec<_>>();
        assert_eq!(granted(Permissions::Read), [true, false, false, false, false, false]);
        assert_eq!(granted(Permissions::Edit), [true, true, false, false, false, false]);
        assert_eq!(granted(Permissions::Full), [true; 6]);
    }

    #[test]
    fn edit_writes_below_the_directory() {
        let place = Place::new();
        for path in ["a", "./a", "src/new/file.txt", "src/../a", "within/b", "within/../deep/b", "..a", "not/../there"]
        {
            assert_eq!(place.edit(path), Decision::Grant, "{path}");
            assert_eq!(place.edit(place.repo().join(path)), Decision::Grant, "{path}, absolute");
        }
    }

    #[test]
    fn edit_writes_nowhere_else() {
        let place = Place::new();
        let repo = place.repo();
        let sibling = place.root.path().join("repo2/a");
        for path in
            ["../a", "src/../../a", "out/a", "dangling", "round/a", "out/../a", "", ".", "src/..", "/etc/passwd", "/"]
        {
            assert!(denied(&place.edit(path)), "{path}");
        }
        assert!(denied(&place.edit(std::env::temp_dir().join("a"))), "the temporary directory is outside");
        assert!(denied(&place.edit(sibling)), "a name that begins alike");
        assert!(denied(&place.edit(repo.join("../outside/a"))));
        let both = Ask::Write(vec![repo.join("a"), "/etc/a".into()]);
        assert!(denied(&decide(Permissions::Edit, &repo, &both)), "one bad path among good ones");
    }

    #[test]
    fn edit_does_not_write_what_programs_run() {
        let place = Place::new();
        symlink(place.repo().join(".git/hooks"), place.repo().join("h")).unwrap();
        for path in [".git/hooks/pre-commit", "h/pre-commit", "src/.GIT/config", ".claude/settings.json", ".mcp.json"] {
            assert!(denied(&place.edit(path)), "{path}");
        }
        assert_eq!(place.edit(".github/workflows/a.yml"), Decision::Grant);
        assert_eq!(place.edit(".gitignore"), Decision::Grant);
    }

    #[test]
    fn a_directory_behind_a_link_is_still_the_directory() {
        let place = Place::new();
        let alias = place.root.path().join("alias");
        symlink(place.repo(), &alias).unwrap();
        let ask = |path: PathBuf| decide(Permissions::Edit, &alias, &Ask::Write(vec![path]));
        assert_eq!(ask(place.repo().join("a")), Decision::Grant);
        assert_eq!(ask(alias.join("a")), Decision::Grant);
        assert!(denied(&ask(alias.join("../outside/a"))));
    }

    #[test]
    fn a_question_never_gets_more_than_read() {
        let turn =
            |mode| Turn { prompt: "p".into(), mode, files: vec![], permissions: Permissions::Full, schema: None };
        assert_eq!(level(&turn(Mode::Ask)), Permissions::Read);
        assert_eq!(level(&turn(Mode::Code)), Permissions::Full);
    }
}
