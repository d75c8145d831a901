//! The worktrees of jobs: what is set up in them, what jobs do to their git, and how files come back.

mod support;

use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use support::worktrees::{no_worktree_left, place, readyroom};

#[test]
fn a_git_that_is_under_way_outside_is_not_the_jobs() {
    let place = place();
    let prompt = "@sh git rev-parse --absolute-git-dir > {}; git add -A; git commit --quiet -m mine; : {}";
    let unset = "test -z \"$GIT_DIR$GIT_INDEX_FILE\"";
    let words = ["run", "-t", "echo", "-q", "--setup", unset, "--verify", unset, prompt, "f1"];
    let mut command = place.command(&words);
    let git = place.sandbox.dir().join(".git");
    command.env("GIT_DIR", &git).env("GIT_INDEX_FILE", git.join("index")).env("GIT_AUTHOR_NAME", "Me");
    let before = place.sandbox.git(&["rev-parse", "HEAD"]);
    place.finish(command).expect(0);
    assert!(place.read("f1").contains("/.git/worktrees/"), "{}", place.read("f1"));
    assert_eq!(place.sandbox.git(&["rev-parse", "HEAD"]), before);
}

#[test]
fn what_a_job_leaves_half_done_in_git_is_not_there_for_the_next() {
    let place = place();
    let leave = "touch $git/index.lock $git/BISECT_LOG; mkdir $git/rebase-merge";
    let look = "ls $git | grep -E \"[.]lock|BISECT|rebase\"";
    let prompt =
        format!("@sh git=$(git rev-parse --git-dir); if test {{#}} = 1; then {leave}; else {look}; fi > {{}}; :");
    place.run(&["-v", "-j", "1", &prompt, "f1", "f2"]).expect(0);
    assert_eq!((place.read("f1"), place.read("f2")), (String::new(), String::new()));
    no_worktree_left(&place);
}

#[test]
fn what_a_setup_makes_is_there_for_every_job_and_no_part_of_its_change() {
    let place = place();
    let setup = "echo set >> f3; rm f4; echo made > by-setup";
    let prompt = "@sh cat f3 by-setup; test -e f4 && echo f4; echo new > {}";
    let words = ["-j", "1", "--only-files", "--setup", setup, prompt, "f1", "f2"];
    let run = place.run(&words).expect(0);
    assert_eq!(run.out.matches("3\nset\nmade\n").count(), 2, "{}", run.out);
    assert!(!run.out.contains("f4\n"), "{}", run.out);
    assert_eq!(place.sandbox.git(&["status", "--porcelain"]), " M f1\n M f2\n M f9\n");
    no_worktree_left(&place);

    // Kept for later, also when nothing but the journal knows of it; and in a file that the setup changed.
    let words = [
        "-j",
        "1",
        "--batch",
        "b",
        "--apply",
        "never",
        "--setup",
        setup,
        "@sh echo 0 > new; cat {} >> new; mv new {}",
        "f3",
    ];
    place.run(&words).expect(0);
    place.sandbox.git(&["gc", "--quiet", "--prune=now"]);
    readyroom(&place, &["batch", "apply", "b"]).expect(0);
    assert_eq!(place.read("f3"), "0\n3\n");
}

#[test]
fn files_keep_their_permissions_when_a_change_comes() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    let file = |name: &str| place.sandbox.dir().join(name);
    let mode = |name: &str| fs::metadata(file(name)).unwrap().permissions().mode() & 0o777;
    for (name, mode) in [("f1", 0o600), ("f2", 0o444), ("f3", 0o640)] {
        fs::set_permissions(file(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    place.run(&["@sh echo new >> {}; test {} != f3 || chmod +x {}", "f1", "f2", "f3"]).expect(0);
    assert_eq!([mode("f1"), mode("f2"), mode("f3")], [0o600, 0o444, 0o750]);
    assert_eq!(place.read("f2"), "2\nnew\n");
}

#[test]
fn a_directory_that_git_does_not_know_is_refused() {
    let place = place();
    fs::create_dir(place.sandbox.dir().join("empty")).unwrap();
    place.run(&["-C", "empty", "x"]).expect(2).says("is not in the worktrees, since git knows no file in it");
}

#[test]
fn what_a_job_hides_from_git_is_seen_and_reaches_no_other() {
    let place = place();
    let hide =
        "git update-index --skip-worktree {} f8; git update-index --assume-unchanged f7; echo left > f7; echo new > {}";
    let prompt = format!("@sh if test {{}} = f1; then {hide}; else cat f7 > {{}}; fi");
    place.run(&["-j", "1", &prompt, "f1", "f2"]).expect(0);
    assert_eq!(["f1", "f7", "f2"].map(|file| place.read(file)), ["new\n", "left\n", "7\n"]);
    // A part of the tree that a job does not want to see is not gone, and is there for the next.
    let prompt = "@sh test {} != f3 || git sparse-checkout set --no-cone /f3; echo {} >> {}; test -e f8";
    place.run(&["-j", "1", prompt, "f3", "f4"]).expect(0);
    assert_eq!(["f3", "f4", "f8"].map(|file| place.read(file)), ["3\nf3\n", "4\nf4\n", "8\n"]);
    no_worktree_left(&place);
}

#[test]
fn a_job_that_damages_its_worktree_harms_no_other() {
    let place = place();
    for (damage, file) in [("rm .git", "f1"), ("echo x > $(git rev-parse --git-dir)/index", "f2")] {
        let prompt = format!("@sh test {{}} != {file} || {{ {damage}; }}; echo new > {{}}");
        let run = place.run(&["-j", "1", "--retries", "0", &prompt, file, "f3", "f4"]);
        run.says("  succeeded     2");
        assert!(!run.err.contains("stays down"), "{}", run.err);
        assert_eq!(["f3", "f4"].map(|file| place.read(file)), ["new\n"; 2]);
        place.sandbox.git(&["checkout", "--quiet", "f3", "f4"]);
    }
}

#[test]
fn a_setup_that_takes_long_is_stopped_with_the_run() {
    let place = place();
    let pipe = place.sandbox.home().join("begun");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // For both, so that opening it waits for nobody.
    let begun = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let setup = "echo half > done; echo > \"$HOME/begun\"; sleep 600";
    let started = place.start(&["-j", "2", "--no-journal", "--setup", setup, "see {}", "f1"]);
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&begun, PollFlags::IN)], Some(&patience)), Ok(1), "the setup has begun");
    started.signal(Signal::INT);
    started.finish().expect(130);
    place.nothing_left();
    no_worktree_left(&place);
}
