//! Worktrees and changes on real repositories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

struct Place {
    dir: TempDir,
}

impl Place {
    /// A repository with one commit of two files, and something ignored.
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.root()).unwrap();
        place.git(&["init", "--quiet", "--initial-branch=main"]);
        place.write("a.txt", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        place.write("sub/b.txt", "b\n");
        place.write(".gitignore", "ignored/\n");
        place.write("ignored/x", "x");
        place.git(&["add", "."]);
        place.git(&["commit", "--quiet", "-m", "first"]);
        place
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=me", "-c", "user.email=me@localhost"]).args(args).current_dir(self.root());
        let output = git.env("HOME", self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn write(&self, file: &str, text: &str) {
        write(&self.root().join(file), text);
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.root().join(file)).ok()
    }

    fn open(&self) -> Repository {
        Repository::open(&self.root()).unwrap()
    }

    fn worktree(&self, repository: &Repository, base: &Snapshot) -> Worktree {
        let at = fs::read_dir(self.dir.path()).unwrap().count();
        Worktree::create(repository, &self.dir.path().join(format!("trees-{at}/tree")), base).unwrap()
    }

    /// All that must be as it was: index, stash, HEAD, branches.
    fn untouched(&self) -> String {
        let index = self.git(&["ls-files", "--stage"]) + &self.git(&["diff", "--cached", "--raw"]);
        index
            + &self.git(&["stash", "list"])
            + &self.git(&["for-each-ref", "refs/heads"])
            + &self.git(&["rev-parse", "HEAD"])
    }
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

#[test]
fn what_is_no_place_for_worktrees_is_named() {
    let outside = tempfile::tempdir().unwrap();
    assert!(matches!(Repository::open(outside.path()), Err(WorkspaceError::NotARepository { .. })));
    let place = Place { dir: outside };
    fs::create_dir(place.root()).unwrap();
    place.git(&["init", "--quiet"]);
    assert!(matches!(Repository::open(&place.root()), Err(WorkspaceError::NoCommit { .. })));
    assert!(matches!(Repository::open(&place.root().join(".git")), Err(WorkspaceError::NotARepository { .. })));
    let gone = place.root().join("gone");
    assert!(matches!(Repository::open(&gone), Err(WorkspaceError::Io { path, .. }) if path == gone));

    let place = Place::new();
    place.git(&["checkout", "--quiet", "-b", "other"]);
    place.write("a.txt", "other\n");
    place.git(&["commit", "--quiet", "-am", "other"]);
    place.git(&["checkout", "--quiet", "main"]);
    place.write("a.txt", "main\n");
    place.git(&["commit", "--quiet", "-am", "main"]);
    let merge = Command::new("git").args(["merge", "other"]).current_dir(place.root()).output().unwrap();
    assert!(!merge.status.success());
    let error = Repository::open(&place.root()).unwrap_err();
    assert!(error.to_string().contains("in the middle of a merge; finish or abort it first"), "{error}");
}

#[test]
fn a_worktree_starts_from_the_callers_files_and_leaves_them_alone() {
    let place = Place::new();
    place.write("staged.txt", "staged\n");
    place.git(&["add", "staged.txt"]);
    place.write("a.txt", "changed\n");
    place.write("new file.txt", "untracked\n");
    fs::remove_file(place.root().join("sub/b.txt")).unwrap();
    // In a repository's subdirectory, detached: the whole repository is taken all the same.
    place.git(&["checkout", "--quiet", "--detach"]);
    let (before, status) = (place.untouched(), place.git(&["status", "--porcelain"]));
    let repository = Repository::open(&place.root().join("ignored")).unwrap();
    let base = repository.snapshot("batch/base").unwrap();
    let tree = place.worktree(&repository, &base);
    let read = |file: &str| fs::read_to_string(tree.root().join(file)).ok();
    assert_eq!(read("a.txt").as_deref(), Some("changed\n"));
    assert_eq!(read("staged.txt").as_deref(), Some("staged\n"));
    assert_eq!(read("new file.txt").as_deref(), Some("untracked\n"));
    assert_eq!((read("sub/b.txt"), read("ignored/x")), (None, None));
    assert_eq!(tree.change().unwrap(), None);
    assert_eq!((place.untouched(), place.git(&["status", "--porcelain"])), (before, status));
    assert!(tree.remove(&[]).unwrap());
    assert_eq!(place.git(&["worktree", "list"]).lines().count(), 1);
    repository.forget("batch").unwrap();
}

#[test]
fn nothing_differs_from_a_clean_head() {
    let place = Place::new();
    let base = place.open().snapshot("base").unwrap();
    assert_eq!(base.commit, place.git(&["rev-parse", "HEAD"]).trim());
}

#[test]
fn hooks_do_not_run() {
    let place = Place::new();
    for hook in ["post-checkout", "pre-commit", "reference-transaction", "post-index-change"] {
        let file = place.root().join(".git/hooks").join(hook);
        write(&file, "#!/bin/sh\ntouch \"$(git rev-parse --git-common-dir)/ran\"\n");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    write(&tree.root().join("a.txt"), "job\n");
    let change = tree.change().unwrap().unwrap();
    tree.reset(&[]).unwrap();
    assert_eq!(repository.apply(&change).unwrap(), Applied::Whole);
    assert!(tree.remove(&[]).unwrap());
    assert!(!place.root().join(".git/ran").exists());
    place.git(&["checkout", "--quiet", "--detach"]);
    assert!(place.root().join(".git/ran").exists(), "a hook that can run would have been seen");
}

#[test]
fn a_change_has_all_kinds_of_edits_and_comes_over_whole() {
    let place = Place::new();
    place.write("old name.txt", "the same\nlines\nunder\nanother\nname\n");
    place.write("gone.txt", "gone\n");
    place.write("tool.sh", "#!/bin/sh\n");
    place.write("crlf.txt", "one\r\ntwo\r\n");
    place.write("type", "a file\n");
    place.git(&["add", "."]);
    place.git(&["commit", "--quiet", "-m", "second"]);
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    let at = |file: &str| tree.root().join(file);
    fs::rename(at("old name.txt"), at("neuer Näme.txt")).unwrap();
    fs::remove_file(at("gone.txt")).unwrap();
    fs::set_permissions(at("tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    write(&at("crlf.txt"), "one\r\ntwo\r\nthree\r\n");
    fs::write(at("binary"), [0, 159, 146, 150, 0, 255]).unwrap();
    symlink("a.txt", at("link")).unwrap();
    fs::remove_file(at("type")).unwrap();
    symlink("/nowhere", at("type")).unwrap();
    write(&at("deep/er/file"), "no newline at the end");
    write(&at("ignored/y"), "not of the change");
    // What the job commits is its change all the same.
    let commit = Command::new("git")
        .args(["-c", "user.name=job", "-c", "user.email=job@localhost", "commit", "--quiet", "-am", "mine"])
        .current_dir(tree.root())
        .status();
    assert!(commit.unwrap().success());

    let change = tree.change().unwrap().unwrap();
    let mut edits: Vec<_> = change.edits.iter().map(|edit| (edit.kind, edit.path.to_str().unwrap())).collect();
    edits.sort_by_key(|edit| edit.1);
    let expected = [
        (EditKind::Added, "binary"),
        (EditKind::Modified, "crlf.txt"),
        (EditKind::Added, "deep/er/file"),
        (EditKind::Deleted, "gone.txt"),
        (EditKind::Added, "link"),
        (EditKind::Renamed, "neuer Näme.txt"),
        (EditKind::Modified, "tool.sh"),
        (EditKind::Retyped, "type"),
    ];
    assert_eq!(edits, expected);

    let before = place.untouched();
    assert_eq!(repository.apply(&change).unwrap(), Applied::Whole);
    assert_eq!(place.untouched(), before);
    assert_eq!(repository.state().unwrap().tree, change.tree);
    assert_eq!(repository.apply(&change).unwrap(), Applied::Whole, "once more changes nothing");
    assert_eq!(fs::read(place.root().join("binary")).unwrap(), [0, 159, 146, 150, 0, 255]);
    assert_eq!(fs::metadata(place.root().join("tool.sh")).unwrap().permissions().mode() & 0o111, 0o111);
}

#[test]
fn a_change_is_merged_with_the_callers_own_and_never_over_it() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    write(&tree.root().join("a.txt"), "1\n2\n3\n4\n5\n6\n7\n8\njob\n");
    let top = tree.change().unwrap().unwrap();
    tree.reset(&[]).unwrap();
    write(&tree.root().join("a.txt"), "job\n2\n3\n4\n5\n6\n7\n8\n9\n");
    write(&tree.root().join("c.txt"), "job\n");
    let clash = tree.change().unwrap().unwrap();

    place.write("a.txt", "mine\n2\n3\n4\n5\n6\n7\n8\n9\n");
    assert_eq!(repository.apply(&top).unwrap(), Applied::Whole);
    assert_eq!(place.read("a.txt").as_deref(), Some("mine\n2\n3\n4\n5\n6\n7\n8\njob\n"));
    assert_eq!(repository.apply(&clash).unwrap(), Applied::Conflict(vec!["a.txt".into()]));
    assert_eq!(place.read("a.txt").as_deref(), Some("mine\n2\n3\n4\n5\n6\n7\n8\njob\n"));
    assert_eq!(place.read("c.txt"), None, "whole or not at all");
    repository.keep_as_branch("readyroom/batch/1", &clash).unwrap();
    assert_eq!(place.git(&["show", "readyroom/batch/1:c.txt"]), "job\n");
    assert_eq!(repository.keep_as_branch("readyroom/batch/1", &clash).unwrap(), "readyroom/batch/1", "again");
    assert_eq!(repository.keep_as_branch("readyroom/batch/1", &top).unwrap(), "readyroom/batch/1-2");
}

#[test]
fn a_file_that_git_ignores_is_not_overwritten() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    write(&tree.root().join(".gitignore"), "");
    write(&tree.root().join("ignored/x"), "job\n");
    let change = tree.change().unwrap().unwrap();
    assert!(matches!(repository.apply(&change).unwrap(), Applied::Conflict(_)));
    assert_eq!(place.read("ignored/x").as_deref(), Some("x"));
    assert_eq!(place.read(".gitignore").as_deref(), Some("ignored/\n"));
}

#[test]
fn a_change_outlives_its_objects() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    write(&tree.root().join("new"), "job\n");
    let change = tree.change().unwrap().unwrap();
    assert!(tree.remove(&[&change.tree]).unwrap());
    place.git(&["-c", "gc.pruneExpire=now", "gc", "--quiet", "--prune=now"]);
    let named = format!("{}^{{commit}}", change.commit);
    let there = Command::new("git").args(["cat-file", "-e", &named]).current_dir(place.root()).output().unwrap();
    assert!(!there.status.success(), "collected");
    assert_eq!(repository.apply(&change).unwrap(), Applied::Whole);
    assert_eq!(place.read("new").as_deref(), Some("job\n"));
}

#[test]
fn a_reset_undoes_whatever_a_job_did() {
    let place = Place::new();
    place.git(&["branch", "theirs"]);
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    let job = "git checkout -q theirs && echo x > a.txt && git -c user.name=j -c user.email=j@j commit -qam x \
        && echo y >> a.txt && mkdir -p node/modules ignored && echo z > node/modules/z && echo i > ignored/i";
    assert!(Command::new("sh").args(["-c", job]).current_dir(tree.root()).status().unwrap().success());
    tree.reset(&[Path::new("node")]).unwrap();
    assert_eq!(fs::read_to_string(tree.root().join("a.txt")).unwrap(), place.read("a.txt").unwrap());
    assert!(tree.root().join("node/modules/z").exists() && !tree.root().join("ignored").exists());
    assert_eq!(place.git(&["log", "--format=%s", "theirs"]), "x\nfirst\n", "a branch stays where the job moved it");
}

#[test]
fn a_worktree_that_nothing_has_happened_in_is_known_by_its_print() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    let kept = [PathBuf::from("ignored")];
    let mut clean = tree.print(&kept).unwrap();
    // Only what is not quite new can be told from what has just been written.
    while !tree.print(&kept).unwrap().is_still(&clean) {
        clean = tree.print(&kept).unwrap();
    }
    let still_after = |clean: &Print, job: &str| {
        assert!(Command::new("sh").args(["-ec", job]).current_dir(tree.root()).status().unwrap().success(), "{job}");
        tree.print(&kept).unwrap().is_still(clean)
    };
    assert!(still_after(
        &clean,
        "cat a.txt sub/b.txt; git --no-optional-locks status; mkdir ignored; echo i > ignored/i"
    ));
    let commit = "git -c user.name=j -c user.email=j@j commit -q";
    for job in [
        "echo 9 >> a.txt",
        "mkdir sub/empty",
        "git rm -q --cached a.txt",
        &format!("{commit} --allow-empty -m x"),
        "git checkout -qb job",
    ] {
        assert!(!still_after(&clean, job), "{job}");
        tree.reset(&[Path::new("ignored")]).unwrap();
        assert!(tree.change().unwrap().is_none() && tree.root().join("ignored/i").exists());
        while !tree.print(&kept).unwrap().is_still(&clean) {
            clean = tree.print(&kept).unwrap();
        }
    }
}

/// A bug that others had (tomcounsell/ai#2517): work that was in no commit went with its worktree.
#[test]
fn what_holds_something_unrecorded_is_found_and_kept() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    let root = tree.root().to_owned();
    write(&root.join("new"), "job\n");
    assert!(!tree.remove(&[]).unwrap());
    let left = Worktree::left(&repository, &base, |found| found == root).unwrap();
    let [tree] = &left[..] else { panic!("{left:?}") };
    let change = tree.change().unwrap().unwrap();
    assert!(tree.clone().remove(&[&change.tree]).unwrap() && !root.exists());
}

#[test]
fn worktrees_of_others_in_the_same_place_are_left_alone() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let named = |name| Worktrees::new(repository.clone(), base.clone(), &place.dir.path().join("trees"), name).unwrap();
    let (one, other) = (named("batch.1"), named("batch.1.1"));
    let (kept, gone) = (other.prepare(0).unwrap(), one.prepare(0).unwrap());
    assert_eq!(kept.root().parent(), gone.root().parent(), "no directory deeper than it has to be");
    assert!(one.remove(&[]).unwrap().is_empty());
    assert!(kept.root().is_dir() && !gone.root().exists());
    write(&kept.root().join("new"), "job\n");
    assert_eq!((one.salvage("one").unwrap(), other.salvage("other").unwrap()), (0, 1));
    assert!(!kept.root().exists());
}

#[test]
fn paths_are_mapped_into_the_worktree_or_are_outside() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    symlink("/etc", place.root().join("out")).unwrap();
    let map = |path: &str| tree.map(&place.root().join(path));
    assert_eq!(map("sub/../a.txt"), Some(tree.root().join("a.txt")));
    assert_eq!(map("sub/new.txt"), Some(tree.root().join("sub/new.txt")));
    assert_eq!(map("out"), Some(tree.root().join("out")), "the link itself");
    assert_eq!((map("out/passwd"), map("../x"), tree.map(Path::new("/etc/passwd"))), (None, None, None));
}

/// What jobs do to files, by small numbers.
fn play(root: &Path, steps: &[(u8, u8, u8)]) {
    const NAMES: [&str; 6] = ["a.txt", "sub/b.txt", "sub/ü ñ.txt", "deep/er/c", "d", "-e"];
    for (what, which, content) in steps {
        let file = root.join(NAMES[usize::from(*which) % NAMES.len()]);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        match what % 6 {
            0 => drop(fs::remove_file(&file)),
            1 => {
                let _ = fs::remove_file(&file);
                symlink(format!("to-{content}"), &file).unwrap();
            }
            2 if file.is_file() && !file.is_symlink() => {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            }
            3 => {
                let _ = fs::remove_file(&file);
                fs::write(&file, [0, *content, 0, 255]).unwrap();
            }
            _ => {
                let _ = fs::remove_file(&file);
                let line =
                    |number: u8| if number == content % 9 { format!("{content}\r\n") } else { format!("{number}\n") };
                fs::write(&file, (1..=9).map(line).collect::<String>()).unwrap();
            }
        }
    }
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut places = vec![root.to_owned()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if entry.file_name() == ".git" {
                continue;
            } else if kind.is_dir() {
                places.push(path);
            } else {
                let content = match kind.is_symlink() {
                    true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                    false => fs::read(&path).unwrap(),
                };
                found.insert(path.strip_prefix(root).unwrap().to_owned(), content);
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Several jobs from one base and the caller's own edits: what is applied is there, what is not has changed nothing,
    /// and index, stash and branches are as they were.
    #[test]
    fn any_changes_are_applied_whole_or_not_at_all(
        own in prop::collection::vec(any::<(u8, u8, u8)>(), 0..3),
        jobs in prop::collection::vec(prop::collection::vec(any::<(u8, u8, u8)>(), 1..4), 1..4),
    ) {
        let place = Place::new();
        let repository = place.open();
        let base = repository.snapshot("base").unwrap();
        let tree = place.worktree(&repository, &base);
        let mut changes = Vec::new();
        for steps in &jobs {
            tree.reset(&[]).unwrap();
            play(tree.root(), steps);
            let left = files(tree.root());
            if let Some(change) = tree.change().unwrap() {
                changes.push((change, left));
            }
        }
        play(&place.root(), &own);
        let untouched = place.untouched();
        let mut first = own.is_empty();
        for (change, left) in &changes {
            let before = files(&place.root());
            match repository.apply(change).unwrap() {
                Applied::Whole if first => {
                    let mut now = files(&place.root());
                    now.remove(Path::new("ignored/x"));
                    prop_assert_eq!(&now, left);
                }
                Applied::Whole => {}
                Applied::Conflict(named) => {
                    prop_assert!(!first && !named.is_empty());
                    prop_assert_eq!(files(&place.root()), before);
                }
            }
            first = false;
            prop_assert_eq!(place.untouched(), untouched.clone());
        }
    }
}

#[test]
fn submodules_and_lfs_files_are_left_alone_and_named() {
    let place = Place::new();
    let other = Place::new();
    place.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    place.write("large.bin", "version https://git-lfs.github.com/spec/v1\n");
    place.write("moved.bin", "version https://git-lfs.github.com/spec/v1\noid 1\n");
    place.git(&["add", "."]);
    let other = other.root();
    place.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other.to_str().unwrap(), "lib"]);
    place.git(&["commit", "--quiet", "-m", "with a submodule"]);
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    let tree = place.worktree(&repository, &base);
    write(&tree.root().join("a.txt"), "job\n");
    write(&tree.root().join("large.bin"), "job\n");
    write(&tree.root().join("new.bin"), "job\n");
    fs::rename(tree.root().join("moved.bin"), tree.root().join("sub/elsewhere.bin")).unwrap();
    fs::remove_dir_all(tree.root().join("lib")).unwrap();
    let change = tree.change().unwrap().unwrap();
    let mut left: Vec<_> = change.left_alone.iter().map(|path| path.to_str().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, ["large.bin", "lib", "moved.bin", "new.bin", "sub/elsewhere.bin"]);
    assert_eq!(change.edits.len(), 1, "{:?}", change.edits);
    assert_eq!(repository.apply(&change).unwrap(), Applied::Whole);
    assert_eq!(place.read("large.bin").as_deref(), Some("version https://git-lfs.github.com/spec/v1\n"));
    assert!(place.read("moved.bin").is_some() && place.read("sub/elsewhere.bin").is_none());
    assert!(place.read("new.bin").is_none() && place.root().join("lib/a.txt").exists());
    assert!(tree.remove(&[&change.tree]).is_ok());
}

/// git tells by seconds whether a file has changed; one that keeps its size may change in the second in which it was made.
#[test]
fn a_change_within_the_second_of_the_checkout_is_seen_later() {
    let place = Place::new();
    let repository = place.open();
    let base = repository.snapshot("base").unwrap();
    for round in 0..3 {
        let tree = place.worktree(&repository, &base);
        write(&tree.root().join("sub/b.txt"), "x\n");
        let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let now = second();
        while second() == now {
            std::thread::yield_now();
        }
        let change = tree.change().unwrap();
        assert_eq!(change.map(|change| change.edits.len()), Some(1), "round {round}");
    }
}
