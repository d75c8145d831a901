//! Changes that are brought to the caller's tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use readyroom::workspace::{Applied, Change, Repository};

/// A repository that is made good after each change.
struct Place {
    dir: tempfile::TempDir,
    repository: Repository,
    head: String,
}

thread_local! {
    static PLACE: Place = Place::new();
}

/// Takes `data` for the patch of a recorded change whose commit is gone. It is applied whole, or it conflicts or is
/// refused and the tree is as it was; applied again it changes nothing; and whatever it says, nothing outside the tree
/// and nothing of git's own is touched.
pub fn diff(data: &[u8]) {
    PLACE.with(|place| {
        place.check(data);
        place.mend();
    });
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("repository");
        fs::create_dir_all(root.join("sub")).expect("the repository's directory");
        fs::write(root.join("a.txt"), "1\n2\n3\n4\n5\n6\n7\n8\n9\n").expect("a file");
        fs::write(root.join("sub/b.txt"), "b\n").expect("a file");
        std::os::unix::fs::symlink("sub", root.join("link")).expect("a link");
        fs::write(dir.path().join("outside"), "outside\n").expect("a file");
        git(&root, &["init", "--quiet", "--initial-branch=main"], b"").expect("git init");
        git(&root, &["config", "user.name", "me"], b"").expect("git config");
        git(&root, &["config", "user.email", "me@localhost"], b"").expect("git config");
        git(&root, &["add", "."], b"").expect("git add");
        git(&root, &["commit", "--quiet", "-m", "first"], b"").expect("git commit");
        let head = git(&root, &["rev-parse", "HEAD"], b"").expect("HEAD");
        let repository = Repository::open(&root).expect("a repository");
        Self { dir, repository, head }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn check(&self, patch: &[u8]) {
        let root = self.root();
        // The tree that the patch gives, where it gives any: what is recorded with a change.
        let index = root.join(".git/fuzz-index");
        let with_index = |args: &[&str], input: &[u8]| git_with(&root, args, input, Some(&index));
        let tree = with_index(&["read-tree", &self.head], b"")
            .and_then(|_| with_index(&["apply", "--cached", "--binary", "-"], patch))
            .and_then(|_| with_index(&["write-tree"], b""));
        let _ = fs::remove_file(&index);
        let change = Change {
            base: self.head.clone(),
            commit: "0".repeat(39) + "1",
            tree: tree.unwrap_or_else(|| "0".repeat(40)),
            edits: Vec::new(),
            patch: patch.to_vec(),
            left_alone: Vec::new(),
        };
        let (before, own) = (self.tree(), self.own());
        let applied = self.repository.apply(&change);
        assert_eq!(own, self.own(), "{applied:?} touched what is not the tree");
        match applied {
            Ok(Applied::Whole) => {
                let now = self.tree();
                assert_eq!(self.repository.apply(&change).ok(), Some(Applied::Whole));
                assert_eq!(now, self.tree(), "applied again, it changed something");
            }
            Ok(Applied::Conflict(_)) | Err(_) => assert_eq!(before, self.tree(), "{applied:?} wrote something"),
        }
    }

    /// All files of the tree.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(&self.root(), &[".git"])
    }

    /// What lies beside the tree, and what of git's own a change must not reach.
    fn own(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut own = contents(self.dir.path(), &["repository"]);
        let git = self.root().join(".git");
        own.extend(
            contents(&git, &["objects", "readyroom.lock"]).into_iter().map(|(path, text)| (git.join(path), text)),
        );
        own
    }

    fn mend(&self) {
        let root = self.root();
        git(&root, &["reset", "--quiet", "--hard", &self.head], b"").expect("git reset");
        git(&root, &["clean", "-ffdxq"], b"").expect("git clean");
    }
}

/// Everything below `top` but what is named, links as what they point to.
fn contents(top: &Path, without: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of ours").flatten() {
            if directory == top && without.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let (path, kind) = (entry.path(), entry.file_type().expect("a file's kind"));
            let name = path.strip_prefix(top).expect("it is below").to_owned();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                found.insert(name, target.into_os_string().into_encoded_bytes());
            } else {
                found.insert(name, fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

fn git(root: &Path, args: &[&str], input: &[u8]) -> Option<String> {
    git_with(root, args, input, None)
}

fn git_with(root: &Path, args: &[&str], input: &[u8], index: Option<&Path>) -> Option<String> {
    use std::io::Write as _;
    let mut command = Command::new("git");
    command.args(args).current_dir(root).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", root.parent()?);
    command.envs(index.map(|index| ("GIT_INDEX_FILE", index)));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("git can be run");
    if let Some(mut stdin) = child.stdin.take() {
        // git may be done before it has read all.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
