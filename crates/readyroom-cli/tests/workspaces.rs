//! Jobs in worktrees: what they change comes to the caller's files, whole or as a branch, and nothing else of the
//! repository is touched.

mod support;

use std::fs;
use std::path::Path;

use readyroom_testkit::zoo::{self, Protocol};
use rustix::process::Signal;
use serde_json::Value;
use support::Place;
use support::worktrees::{jobs, no_worktree_left, place, readyroom, status};

/// What a tool writes between two jobs is no job's work.
#[test]
fn what_a_tool_writes_at_its_reset_is_in_nobodys_change() {
    let place = place();
    // It leaves a file in its directory at the reset behind its first turn.
    place.file("zoo.toml", zoo::toml(Protocol::Claude, "false-reset"));
    let jobs = "{\"prompt\": \"append f1 more\"}\n{\"prompt\": \"append f2 more\"}\n{\"prompt\": \"append f3 more\"}\n";
    place.file("ignored/jobs", jobs);
    let words = ["run", "--tools", "zoo.toml", "-t", "zoo", "-j", "1", "--from", "ignored/jobs"];
    readyroom(&place, &words).expect(0);
    assert_eq!(status(&place), " M f1\n M f2\n M f3\n M f9\n?? zoo.toml\n");
    no_worktree_left(&place);
}

#[test]
fn jobs_edit_in_worktrees_and_their_changes_come_to_the_callers_files() {
    let place = place();
    let before = place.sandbox.git(&["for-each-ref", "refs/heads"]);
    let finished = place.run(&["-j", "3", "@edit {} new {#}", "f1", "f2", "f3", "f4", "f5"]).expect(0);
    assert!(!finished.err.contains("share"), "{}", finished.err);
    for file in 1..=5 {
        assert_eq!(place.read(&format!("f{file}")), format!("new {file}\n"));
    }
    assert_eq!(status(&place), " M f1\n M f2\n M f3\n M f4\n M f5\n M f9\n", "and the index is as it was");
    assert_eq!(place.read("f9"), "not committed\n");
    assert_eq!(place.sandbox.git(&["for-each-ref", "refs/heads"]), before);
    no_worktree_left(&place);
    let job = &jobs(&place)["f2"];
    assert_eq!(job["outcome"]["change"]["state"], "applied");
    assert_eq!(job["outcome"]["change"]["files"][0]["path"], "f2");
}

#[test]
fn each_job_starts_from_the_batchs_base_and_not_from_the_last_job() {
    let place = place();
    let finished =
        place.run(&["-j", "1", "@sh cat f9; ls; echo more {#} >> f9; echo x > new-{#}; : {}", "a", "b"]).expect(1);
    // Both change the same line of f9: the second does not apply, whole or not at all.
    finished.says("conflict: its change does not apply to f9");
    assert!(!finished.out.contains("new-1"), "{finished:#?}");
    assert_eq!(place.read("f9"), "not committed\nmore 1\n");
    assert!(place.sandbox.read("new-2").is_none());
    let id = jobs(&place)["b"]["outcome"]["batch"].as_str().unwrap().to_owned();
    let branch = format!("readyroom/{id}/2");
    assert_eq!(place.sandbox.git(&["show", &format!("{branch}:new-2")]), "x\n");
    // Who mends the tree by hand can apply it then.
    place.file("f9", "not committed\n");
    readyroom(&place, &["batch", "rm", &id]).expect(2).says("holds changes that are not in your files");
    readyroom(&place, &["batch", "apply", &id]).expect(0).says("applied b");
    assert_eq!(place.read("new-2"), "x\n");
    assert_eq!(jobs(&place)["b"]["state"], "succeeded");
    readyroom(&place, &["batch", "rm", &id]).expect(0);
    assert_eq!(place.sandbox.git(&["for-each-ref", "refs/readyroom"]), "");
}

#[test]
fn what_the_caller_edits_meanwhile_stays() {
    let place = place();
    let edited = place.sandbox.home().join("edited");
    let waits = format!("@sh until test -e {}; do sleep 0.02; done", edited.display());
    let mut started = place.start(&["-v", "-j", "1", "{}", &waits, "@edit f1 job"]);
    started.wait_for("begins @sh");
    place.file("f1", "mine\n");
    place.file("f2", "mine too\n");
    fs::write(edited, "").unwrap();
    let finished = started.finish().expect(1);
    finished.says("does not apply to f1");
    assert_eq!((place.read("f1"), place.read("f2")), ("mine\n".into(), "mine too\n".into()));
}

#[test]
fn a_job_that_writes_into_the_callers_directory_is_noticed() {
    let place = place();
    let file = place.sandbox.dir().join("f3");
    let prompt = format!("@sh test {{}} = b || echo leak > {}; echo y > f4", file.display());
    let own = ["--json", "out.jsonl", "-o", "out-{/}", "--journal", "j.sqlite", "--record", "record"];
    let finished = place.run(&[&own[..], &["-j", "1", &prompt, "a", "b"]].concat()).expect(0);
    finished.says("f3 changed in your directory while jobs work in worktrees");
    let leak = format!("@sh echo leak >> {}; : {{}}", place.sandbox.dir().join("f5").display());
    place.run(&["-j", "1", &leak, "a"]).expect(0).says("f5 changed in your directory");
    assert_eq!(finished.err.matches("changed in your directory").count(), 1, "what we write is no news: {finished:#?}");
}

#[test]
fn where_the_answers_go_and_what_was_told_once_is_no_news() {
    let place = place();
    let mut command = place.command(&["run", "-t", "echo", "-j", "1", "@edit {} new", "f1", "f2", "f3"]);
    let at = |name: &str| place.sandbox.dir().join(name);
    let create = |name: &str| fs::File::create(at(name)).unwrap();
    let status = command.stdout(create("answers")).stderr(create("log")).status().unwrap();
    let log = place.read("log");
    assert!(status.success() && place.read("f3") == "new\n" && !place.read("answers").is_empty(), "{log}");
    assert!(!log.contains("changed in your directory"), "{log}");
    let leaks = format!("@sh echo {{}} >> {}", at("leak").display());
    let finished = place.run(&["-j", "1", &leaks, "a", "b", "c"]).expect(0);
    assert_eq!(finished.err.matches("leak changed in your directory").count(), 1, "{finished:#?}");
}

#[test]
fn changes_can_be_kept_for_later_applied_in_order_and_committed() {
    let place = place();
    place.run(&["--apply", "never", "@edit {} later", "f1", "f2"]).expect(0);
    assert_eq!(status(&place), " M f9\n");
    let id = jobs(&place)["f1"]["outcome"]["batch"].as_str().unwrap().to_owned();
    readyroom(&place, &["batch", "apply", &id, "f2"]).expect(0);
    assert_eq!(status(&place), " M f2\n M f9\n");
    readyroom(&place, &["batch", "apply", &id, "nothing"]).expect(2).says("has no job \"nothing\"");
    readyroom(&place, &["batch", "prune", "--older-than", "0s"]).expect(0).says("is kept");
    readyroom(&place, &["batch", "prune", "--older-than", "0s", "--force"]).expect(0);

    place.sandbox.git(&["checkout", "--quiet", "f2"]);
    place.sandbox.git(&["config", "user.name", "Me"]);
    place.sandbox.git(&["config", "user.email", "me@localhost"]);
    // The first job ends last.
    let words = ["-j", "3", "--in-order", "--commit={#} on {}", "@sh test {#} = 1 && sleep 0.5; echo new > {}"];
    let words: Vec<&str> = words.into_iter().chain(["f3", "f4", "f5"]).collect();
    place.run(&words).expect(0);
    let log = place.sandbox.git(&["log", "--format=%an %s", "-3"]);
    assert_eq!(log, "Me 3 on f5\nMe 2 on f4\nMe 1 on f3\n");
    assert_eq!(status(&place), " M f9\n", "what is committed is no change any more, and the rest is not committed");
    assert_eq!(place.sandbox.git(&["show", "--format=", "--name-only", "HEAD"]), "f5\n");
}

#[test]
fn paths_lead_into_the_worktree_or_are_refused() {
    let place = place();
    let sub = place.sandbox.dir().join("sub");
    let run = |words: &[&str]| {
        let all: Vec<&str> = ["run", "-t", "echo", "-q"].iter().chain(words).copied().collect();
        let mut command = place.command(&all);
        command.current_dir(&sub);
        place.finish(command)
    };
    let absolute = place.sandbox.dir().join("f1").display().to_string();
    assert_eq!(run(&["--no-files", "see {}", &absolute]).expect(0).out, "see ../f1\n");
    assert_eq!(run(&["--no-files", "see {}", "../sub/./s"]).expect(0).out, "see s\n");
    run(&["@edit {} new", "../f2"]).expect(0);
    assert_eq!(place.read("f2"), "new\n");
    std::os::unix::fs::symlink("/etc/hostname", sub.join("out")).unwrap();
    run(&["see {}", "out"]).expect(2).says("--workspace shared works on it where it is");
    run(&["see {}", "/etc/hostname"]).expect(2).says("is not in the repository");
    run(&["see {}", "../ignored/x"]).expect(2).says("bring it in with --link");
    assert_eq!(run(&["--link", "../ignored", "@sh cat {}", "../ignored/x"]).expect(0).out, "x\n");
    std::os::unix::fs::symlink(place.sandbox.dir().join("f3"), sub.join("link")).unwrap();
    run(&["@edit {} through", "link"]).expect(0);
    assert_eq!(place.read("f3"), "through\n", "the file that it leads to, by the worktree's own");
}

#[test]
fn what_git_ignores_is_brought_in_when_it_is_named() {
    let place = place();
    place.file(".env", "key\n");
    place.file(".gitignore", "ignored/\n.env\n");
    place.file(".worktreeinclude", ".env\n");
    let words = ["-q", "-j", "1", "--setup", "echo made > ignored/made", "--link", "ignored"];
    let prompt = "@sh cat .env ignored/x ignored/made; echo junk > ignored/junk; ls ignored | wc -l; : {}";
    let words: Vec<&str> = words.into_iter().chain([prompt, "a", "b"]).collect();
    let finished = place.run(&words).expect(0);
    assert_eq!(finished.out.matches("key\nx\nmade\n").count(), 2, "{finished:#?}");
    assert_eq!(place.sandbox.read("ignored/made"), None);
    let prompt = "@sh echo out > ignored/through; : {}";
    place.run(&["-q", "--symlink", "ignored", prompt, "a"]).expect(0);
    assert_eq!(place.read("ignored/through"), "out\n");
    let verify = "test -e ignored/x && touch litter && test -e \"$HOME/again\" || { touch \"$HOME/again\"; exit 1; }";
    place.run(&["-q", "--symlink", "ignored", "--verify", verify, "see {}", "f1"]).expect(0);
    let bad = place.run(&["--setup", "echo no room >&2; exit 3", "{}", "a"]).expect(3);
    bad.says("the setup of its worktree").says("no room");
    no_worktree_left(&place);
}

#[test]
fn what_needs_worktrees_says_so() {
    let place = place();
    place
        .run(&["--apply", "never", "--no-journal", "{}", "f1"])
        .expect(2)
        .says("--apply never keeps changes in the journal");
    let refused = |words: &[&str], why: &str| {
        let all: Vec<&str> = words.iter().copied().chain(["do {}", "x", "y"]).collect();
        place.run(&all).expect(2).says(why);
    };
    refused(&["--workspace", "shared", "--require-change"], "--require-change needs worktrees");
    refused(&["--permissions", "read", "--commit"], "they need a git repository");
    refused(&["--context", "keep", "--workspace", "worktree"], "exclude each other");
    refused(&["--only-files", "--no-files"], "leave one of them out");
    let dry = place.run(&["--dry-run", "--verify", "make test", "--require-change", "do {}", "f1"]).expect(0).out;
    assert!(
        dry.contains("a git worktree for each instance") && dry.contains("verify       sh -c 'make test'"),
        "{dry}"
    );
    refused(&["--workspace", "shared", "--verify", "true"], "use --workspace worktree, or -j 1");
    fs::write(place.sandbox.dir().join(".git/MERGE_HEAD"), "").unwrap();
    refused(&[], "in the middle of a merge; finish or abort it first");
    place.run(&["--workspace", "shared", "do {}", "x"]).expect(0);
    fs::remove_dir_all(place.sandbox.dir().join(".git")).unwrap();
    refused(&["--workspace", "worktree"], "not in a git work tree");
    place.sandbox.git(&["init", "--quiet"]);
    refused(&[], "has no commit yet");
    assert!(!Path::new(place.sandbox.home()).join(".local/state/readyroom/worktrees").exists());
}

#[test]
fn a_verify_command_sends_the_job_back_into_its_session() {
    let place = place();
    // The fake tool obeys what it is told to mend: the check's last words.
    let verify = "grep -q good \"$1\" || { echo \"@sh echo good > $1\"; exit 1; }";
    let words = ["--json", "-", "--verify", verify, "@edit {} bad", "f1"];
    let finished = place.run(&words).expect(0);
    let line: Value = serde_json::from_str(finished.out.trim()).unwrap();
    assert_eq!(line["turns"].as_array().unwrap().len(), 2, "{line:#}");
    assert_eq!(place.read("f1"), "good\n");

    let words =
        ["--verify", "echo it is wrong; echo litter > litter; false", "--verify-rounds", "1", "@edit {} bad", "f2"];
    let failed = place.run(&words).expect(1);
    failed.says("verify_failed").says("ended with exit status 1");
    assert_eq!((place.read("f2"), place.sandbox.read("litter")), ("2\n".into(), None), "kept, and not applied");
    let job = &jobs(&place)["f2"];
    assert_eq!(job["outcome"]["change"]["state"], "kept");
    assert_eq!(job["outcome"]["change"]["files"].as_array().unwrap().len(), 1, "without what the check left");
    let slow = place.run(&[
        "--verify",
        "sleep 100",
        "--verify-timeout",
        "100ms",
        "--verify-rounds",
        "0",
        "@edit {} bad",
        "f2",
    ]);
    slow.expect(1).says("was not done after");
    let mut started = place.start(&["--verify", "echo > \"$HOME/began\"; sleep 100", "@edit {} bad", "f2"]);
    while !place.sandbox.home().join("began").exists() {
        assert!(started.is_running());
        std::thread::yield_now();
    }
    started.signal(Signal::INT);
    started.finish().expect(130);
    place.nothing_left();
    no_worktree_left(&place);
}

#[test]
fn a_job_has_to_change_something_and_its_own_files_only() {
    let place = place();
    place.run(&["--require-change", "see {}", "f1"]).expect(1).says("unchanged: it changed no file");
    let finished = place.run(&["--only-files", "@sh echo x > {}; test {#} = 1 || echo x > f9", "f1", "f2"]).expect(1);
    finished.says("out_of_scope: it changed f9");
    assert_eq!(
        (place.read("f1"), place.read("f2"), place.read("f9")),
        ("x\n".into(), "2\n".into(), "not committed\n".into()),
        "{finished:#?}"
    );
}

/// A bug that others had (anthropics/claude-code#76901): a placeholder was accepted where an answer by a schema was
/// asked for.
#[test]
fn an_answer_has_to_fit_its_schema_and_gets_one_more_chance() {
    let place = place();
    let schema = place.file("schema.json", r#"{"type": "object", "required": ["n"]}"#);
    let schema = schema.to_str().unwrap();
    let fits = place.run(&["--schema", schema, "--json", "-", r#"so {"n": 1} :: {}"#, "f1"]).expect(0);
    assert_eq!(serde_json::from_str::<Value>(fits.out.trim()).unwrap()["value"]["n"], 1);
    // The echo's second answer repeats what it is told, the schema itself: an object without `n`.
    let failed = place.run(&["--schema", schema, "--json", "-", "no {}", "f1"]).expect(1);
    failed.says("schema: ");
    assert_eq!(serde_json::from_str::<Value>(failed.out.trim()).unwrap()["turns"].as_array().unwrap().len(), 2);
    let bad = place.file("bad.json", r#"{"type": 5}"#);
    place.run(&["--schema", bad.to_str().unwrap(), "{}", "f1"]).expect(2).says("is no JSON Schema");
    place.run(&["--schema", "none.json", "{}", "f1"]).expect(2).says("can't be read");
}

#[test]
fn a_batch_is_cancelled_from_elsewhere_and_never_goes_on() {
    let place = place();
    let mut started = place.start(&["-v", "-j", "1", "--batch", "b", "{}", "@hang", "later"]);
    started.wait_for("begins @hang");
    let cancelled = place.command(&["batch", "cancel", "b"]).output().unwrap();
    assert!(String::from_utf8_lossy(&cancelled.stderr).contains("2 jobs will not run"), "{cancelled:?}");
    started.finish().expect(143);
    readyroom(&place, &["resume", "b"]).expect(0).says("nothing is left to run");
    assert!(jobs(&place).values().all(|job| job["state"] == "dropped"));
    no_worktree_left(&place);
}

/// Eight instances edit the same few files: the tree is what the applied changes give in the order in which they are
/// recorded, all others are branches, and what the caller edited meanwhile is there.
#[test]
fn overlapping_edits_are_applied_in_the_recorded_order_or_are_branches() {
    let place = place();
    let lines: String = (1..=40).map(|line| format!("line {line}\n")).collect();
    place.file("shared", &lines);
    place.sandbox.commit();
    let base = place.sandbox.git(&["rev-parse", "HEAD"]);
    // Job N changes line N % 20 * 2 + 1 and makes a file of its own; two jobs want each line.
    let inputs: Vec<String> = (0..40).map(|job| (job % 20 * 2 + 1).to_string() + "/" + &job.to_string()).collect();
    let prompt = "@sh sed -i \"s|^line {//}$|by {/}|\" shared; mkdir -p made; echo {/} > made/{/}";
    let mut words = vec!["-v", "-j", "8", prompt];
    words.extend(inputs.iter().map(String::as_str));
    let mut started = place.start(&words);
    started.wait_for_lines("ok ", 1);
    place.file("f7", "mine meanwhile\n");
    started.finish().expect(1);
    let jobs = jobs(&place);
    let of = |state: &str| jobs.values().filter(|job| job["outcome"]["change"]["state"] == state).count();
    assert_eq!((of("applied"), of("conflict")), (20, 20));

    // The same changes, one after the other, on the base alone.
    let again = tempfile_worktree(&place, base.trim());
    let id = jobs.values().next().unwrap()["outcome"]["batch"].as_str().unwrap().to_owned();
    let journal = readyroom::journal::Store::open(&place.sandbox.home().join(".local/state/readyroom/journal.sqlite"));
    for (_, recorded) in journal.unwrap().changes(&id).unwrap() {
        if recorded.state == readyroom::journal::ChangeState::Applied {
            let repository = readyroom::workspace::Repository::open(&again).unwrap();
            assert_eq!(repository.apply(&recorded.change).unwrap(), readyroom::workspace::Applied::Whole);
        } else {
            let branch = recorded.branch.unwrap();
            assert!(!place.sandbox.git(&["rev-parse", "--verify", &branch]).is_empty());
        }
    }
    assert_eq!(fs::read_to_string(again.join("shared")).unwrap(), place.read("shared"));
    let made = |root: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(root.join("made")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(made(&again), made(place.sandbox.dir()));
    assert_eq!(place.read("f7"), "mine meanwhile\n");
    assert_eq!(status(&place), " M f7\n M f9\n M shared\n?? made/\n".replace(" M f9\n", ""));
    place.sandbox.git(&["worktree", "remove", "--force", again.to_str().unwrap()]);
}

/// A worktree of the test's own at a commit.
fn tempfile_worktree(place: &Place, commit: &str) -> std::path::PathBuf {
    let root = place.sandbox.home().join("again");
    place.sandbox.git(&["worktree", "add", "--quiet", "--detach", root.to_str().unwrap(), commit]);
    root
}

#[test]
fn odd_repositories_work_or_are_refused_before_anything_is_sent() {
    let place = place();
    place.sandbox.git(&["checkout", "--quiet", "--detach"]);
    place.run(&["@edit {} new", "f1"]).expect(0);
    assert_eq!(place.read("f1"), "new\n", "a detached HEAD");
    let refused = |words: &[&str], why: &str| {
        let finished = place.run(&[words, &["@edit {} new", "f2"]].concat()).expect(2);
        finished.says(why);
        assert_eq!(place.read("f2"), "2\n");
    };
    let huge = fs::File::create(place.sandbox.dir().join("huge")).unwrap();
    huge.set_len(3 << 30).unwrap();
    refused(&[], "add what is not source to .gitignore");
    place.run(&["--workspace", "shared", "see {}", "f2"]).expect(0);
    fs::remove_file(place.sandbox.dir().join("huge")).unwrap();
    let mut command = place.command(&["run", "-t", "echo", "@edit {} new", "f2"]);
    command.env("PATH", "/nowhere");
    place.finish(command).expect(2).says("git was not found on PATH").says("--workspace shared");
    // A place for worktrees that can't be written to: nothing is sent, and the batch goes on when there is one.
    let blocked = place.sandbox.home().join(".local/state/readyroom/worktrees");
    fs::remove_dir(&blocked).unwrap();
    fs::write(&blocked, "").unwrap();
    let failed = place.run(&["@edit {} new", "f2"]);
    assert!(failed.code() == 2 || failed.code() == 3, "{failed:#?}");
    failed.says("worktrees");
    fs::remove_file(blocked).unwrap();
    place.run(&["@edit {} new", "f2"]).expect(0);
    no_worktree_left(&place);
}
