//! `readyroom run` with a real binary and a fake tool: what it does with prompts, inputs and options.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use support::Place;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn one_job_answers_on_stdout_alone() {
    let place = Place::new();
    let finished = place.run(&["hello"]).expect(0);
    assert_eq!(finished.out, "hello\n");
    finished
        .says("ok 1/1 job 1 (echo 0, ")
        .says("  succeeded     1")
        .says("in the model ")
        .says("echo 0        1         0");
    let quiet = place.run(&["-q", "hello"]).expect(0);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("hello\n", ""));
}

#[test]
fn a_job_for_each_input_with_headings() {
    let place = Place::new();
    place.file("src/a.py", "");
    let finished = place.run(&["-k", "{#}: {/.} in {//}", "src/a.py", "b c"]).expect(0);
    assert_eq!(finished.out, "==> src/a.py <==\n1: a in src\n==> b c <==\n2: b c in .\n");
}

#[test]
fn inputs_come_from_stdin_by_line_or_by_nul() {
    let place = Place::new();
    let finished = place.run_with("one\ntwo words\n", &["-k", "<{}>", "-"]).expect(0);
    assert_eq!(finished.out, "==> one <==\n<one>\n==> two words <==\n<two words>\n");
    let finished = place.run_with("a b\0c", &["-k", "-0", "<{}>", "-"]).expect(0);
    assert_eq!(finished.out, "==> a b <==\n<a b>\n==> c <==\n<c>\n");
    let nothing = place.run_with("\n", &["<{}>", "-"]).expect(0);
    assert_eq!(nothing.out, "");
    nothing.says("no inputs, nothing to do");
    // Without `-` stdin is left alone.
    assert_eq!(place.run_with("never read\n", &["hello"]).expect(0).out, "hello\n");
}

#[test]
fn the_prompt_comes_from_a_file_or_stdin() {
    let place = Place::new();
    place.file("prompt", "from a file: {}\n");
    assert_eq!(place.run(&["--prompt-file", "prompt", "x"]).expect(0).out, "from a file: x\n\n");
    assert_eq!(place.run_with("from stdin", &["--prompt-file", "-"]).expect(0).out, "from stdin\n");
}

#[test]
fn a_prompt_keeps_its_braces_and_another_token_can_be_chosen() {
    let place = Place::new();
    assert_eq!(place.run(&[r#"{"a": [{"b": 1}]}"#]).expect(0).out, "{\"a\": [{\"b\": 1}]}\n");
    assert_eq!(place.run(&["-I", "%", "{} is %", "x"]).expect(0).out, "{} is x\n");
}

#[test]
fn a_file_name_that_begins_with_a_dash_works_behind_two_dashes() {
    let place = Place::new();
    place.file("-n.txt", "");
    let finished = place.run(&["--json", "out.jsonl", "--", "see {}", "-n.txt"]).expect(0);
    assert_eq!(finished.out, "see -n.txt\n");
    assert_eq!(lines(&place.read("out.jsonl"))[0]["files"], serde_json::json!(["-n.txt"]));
}

#[test]
fn answers_keep_the_order_where_that_is_asked_for() {
    let place = Place::new();
    let finished = place.run(&["-j", "2", "-k", "@sleep {}", "700", "1", "2"]).expect(0);
    let order: Vec<&str> = finished.out.lines().filter(|line| line.starts_with("slept")).collect();
    assert_eq!(order, ["slept 700", "slept 1", "slept 2"]);
    let inputs = ["until test -e told; do sleep 0.02; done; echo first", "echo second", "echo third"];
    let mut started = place.start(&[&["-j", "2", "@sh {}"][..], &inputs[..]].concat());
    started.wait_for("ok 2/3");
    place.file("told", "");
    let finished = started.finish().expect(0);
    place.nothing_left();
    assert!(finished.out.ends_with("\nfirst\n"), "{finished:#?}");
}

#[test]
fn answers_go_to_files_of_their_own() {
    let place = Place::new();
    place.file("notes/a.md", "old");
    let finished = place.run(&["-o", "notes/{/.}.md", "about {}", "a.py", "x/b.py"]).expect(0);
    assert_eq!(finished.out, "");
    assert_eq!(place.read("notes/a.md"), "about a.py\n");
    assert_eq!(place.read("notes/b.md"), "about x/b.py\n");
    assert_eq!(fs::read_dir(place.sandbox.dir().join("notes")).unwrap().count(), 2);
}

#[test]
fn outcomes_are_json_lines() {
    let place = Place::new();
    place.file("a.py", "");
    place.run(&["-j", "1", "--json", "out.jsonl", "{}", "a.py", "@exit 7", "c"]).expect(1);
    let outcomes = lines(&place.read("out.jsonl"));
    assert_eq!(outcomes.len(), 3);
    let of = |job: u64| outcomes.iter().find(|line| line["job"] == job).unwrap();
    assert_eq!(of(1)["answer"], "a.py\n");
    assert_eq!(of(1)["files"], serde_json::json!(["a.py"]));
    assert_eq!(of(2)["outcome"], "failed");
    assert_eq!(of(2)["failure"]["kind"], "crashed");
    assert_eq!(of(2)["failure"]["exit"], serde_json::json!({"status": 7}));
    assert_eq!(of(3)["outcome"], "succeeded");
    assert!(outcomes.iter().all(|line| line["v"] == 1 && line["tool"] == "echo"));
    let alone = place.run(&["--json", "-", "hello"]).expect(0);
    assert_eq!(lines(&alone.out)[0]["answer"], "hello\n");
}

#[test]
fn jobs_come_as_json_lines_too() {
    let place = Place::new();
    place.tool("other", &[]);
    place.file("sub/x.py", "");
    let jobs = concat!(
        r#"{"id":"first","prompt":"literal {}"}"#,
        "\n",
        r#"{"files":["x.py"],"cwd":"sub"}"#,
        "\n\n",
        r#"{"id":"turns","prompts":["one","two","@recall"],"permissions":"read"}"#,
        "\n",
        r#"{"prompt":"@cwd","tool":"other","cwd":"sub","timeout":30}"#,
        "\n",
    );
    let finished = place.run_with(jobs, &["--from", "-", "--json", "out.jsonl", "-k", "work on {/}"]).expect(0);
    assert_eq!(
        finished.out,
        format!(
            "==> first <==\nliteral {{}}\n==> x.py <==\nwork on x.py\n==> turns <==\none\ntwo\n==> job 4 <==\n{}\n",
            place.sandbox.dir().join("sub").canonicalize().unwrap().display()
        )
    );
    let outcomes = lines(&place.read("out.jsonl"));
    let turns = outcomes.iter().find(|line| line["id"] == "turns").unwrap();
    assert_eq!(turns["turns"].as_array().unwrap().len(), 3);
    assert_eq!(turns["permissions"], "read");
    // Four kinds of job and three instances: four pools, no more than three at once, all jobs done.
    finished.says("4 jobs in").says("succeeded     4");
}

#[test]
fn no_more_instances_are_started_than_there_are_jobs() {
    let place = Place::new();
    let finished = place.run(&["-v", "-j", "5", "{}", "a", "b"]).expect(0);
    assert_eq!(finished.err.matches("started, life 1").count(), 2, "{finished:#?}");
    finished.says("2 instances share ");
    let reading = place.run(&["--permissions", "read", "{}", "a", "b"]).expect(0);
    assert!(!reading.err.contains("share"), "{reading:#?}");
}

#[test]
fn jobs_start_when_the_first_instance_is_ready() {
    let place = Place::new();
    place.scripted("echo", "mkdir first 2>/dev/null && exec $ECHO || exec $ECHO --hang-start");
    let finished = place.run(&["-j", "3", "-k", "{}", "a", "b", "c"]).expect(0);
    assert_eq!(finished.out, "==> a <==\na\n==> b <==\nb\n==> c <==\nc\n");
}

#[test]
fn a_context_is_fresh_or_kept() {
    let place = Place::new();
    let fresh = place.run(&["-j", "1", "-k", "{}", "a secret", "@recall"]).expect(0);
    assert_eq!(fresh.out, "==> a secret <==\na secret\n==> @recall <==\n");
    let keep = place.run(&["-j", "1", "-k", "--context", "keep", "{}", "a secret", "@recall"]).expect(0);
    assert_eq!(keep.out, "==> a secret <==\na secret\n==> @recall <==\na secret\n");
}

#[test]
fn one_shot_has_a_process_for_each_job_and_the_same_answers() {
    let place = Place::new();
    let pids = |finished: &support::Finished| -> std::collections::BTreeSet<String> {
        finished.out.lines().filter(|line| line.parse::<u32>().is_ok()).map(str::to_owned).collect()
    };
    place.file("jobs", "{}\n{}\n{}\n");
    let warm = place.run(&["-j", "1", "--from", "jobs", "@pid"]).expect(0);
    assert_eq!(pids(&warm).len(), 1);
    let cold = place.run(&["-j", "1", "--one-shot", "--from", "jobs", "@pid"]).expect(0);
    assert_eq!(pids(&cold).len(), 3, "{cold:#?}");
}

/// A command's process ends with its turn: there is nobody left to ask again.
#[test]
fn a_command_that_runs_once_a_turn_fails_with_what_its_check_found() {
    let place = Place::in_repository();
    place.oneshot("once", "cat > /dev/null; echo no value");
    let schema = place.file("schema.json", "{\"type\": \"object\"}");
    let run = |check: &[&str]| {
        let words = [&["run", "-t", "once", "-j", "1"][..], check, &["Say {}", "x"]].concat();
        place.finish(place.command(&words)).expect(1)
    };
    run(&["--schema", schema.to_str().unwrap()]).says("schema: ");
    run(&["--verify", "echo wombat; false"]).says("verify_failed: ").says("wombat");
}

#[test]
fn an_isolated_home_is_empty_and_removed() {
    let place = Place::new();
    place.oneshot("home", "cat > /dev/null; ls -A \"$HOME\"; touch \"$HOME/kept\"; echo \"$HOME\"");
    place.file("jobs", "{}\n{}\n");
    let words = ["run", "-t", "home", "-j", "1", "-k", "--isolated-home", "--from", "jobs", "x"];
    let finished = place.finish(place.command(&words)).expect(0);
    let answers: Vec<&str> = finished.out.lines().filter(|line| !line.starts_with("==>")).collect();
    assert_eq!(answers.len(), 3, "{finished:#?}");
    assert_eq!((answers[0], answers[1]), (answers[2], "kept"));
    assert!(!answers[0].starts_with(place.sandbox.home().to_str().unwrap()));
    assert!(!std::path::Path::new(answers[0]).exists());
}

#[test]
fn records_hold_every_byte_and_are_ones_own() {
    let place = Place::new();
    let finished = place.run(&["-j", "1", "--record", "rec", "{}", "first words", "second words"]).expect(0);
    let files: Vec<_> =
        fs::read_dir(place.sandbox.dir().join("rec")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{finished:#?}");
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let record = fs::read_to_string(&files[0]).unwrap();
    for text in ["first words", "second words", ":reset", "context cleared"] {
        assert!(record.contains(text), "{record}");
    }
    place.run(&["--record", "rec", "x"]).expect(2).says("rec of --record is not empty; name a new one");
    // Several pools have a directory each.
    place.file("jobs", "{}\n{\"permissions\":\"read\"}\n");
    place.run(&["--record", "rec2", "--from", "jobs", "x"]).expect(0);
    for pool in ["rec2/1-echo", "rec2/2-echo"] {
        assert_eq!(fs::read_dir(place.sandbox.dir().join(pool)).unwrap().count(), 1, "{pool}");
    }
}

#[test]
fn what_stdout_is_redirected_to_is_written_to_and_not_replaced() {
    let place = Place::new();
    let path = place.file("all", "before\n");
    for words in [&["-o", "/dev/stdout", "a"][..], &["--json", "/dev/stdout", "b"][..]] {
        let mut command = place.command(&[&["run", "-q", "-t", "echo"], words].concat());
        command.stdout(fs::OpenOptions::new().append(true).open(&path).unwrap());
        assert!(command.status().unwrap().success());
    }
    let all = place.read("all");
    assert!(all.starts_with("before\na\n{\"v\":1,") && all.ends_with("}\n"), "{all}");
    place.nothing_left();
}

#[test]
fn a_job_has_a_time_limit() {
    let place = Place::new();
    let finished = place.run(&["-j", "1", "--timeout", "5s", "-k", "{}", "@hang", "next"]).expect(1);
    finished.says("timed out 1/2 @hang").says("  timed_out     1");
    assert_eq!(finished.out, "==> next <==\nnext\n");
}

#[test]
fn failures_stop_a_run_early() {
    let place = Place::new();
    let words =
        ["-j", "1", "--max-failures", "2", "--json", "out.jsonl", "{}", "@exit 1", "@exit 2", "c", "d", "e", "f"];
    let finished = place.run(&words).expect(4);
    finished.says("stopping: --max-failures is reached").says("not done: c").says("not done: f");
    let outcomes = lines(&place.read("out.jsonl"));
    assert_eq!(outcomes.len(), 6);
    assert_eq!(outcomes.iter().filter(|line| line["outcome"] == "failed").count(), 2);
    assert!(outcomes.iter().any(|line| line["outcome"] == "cancelled" && line["instance"].is_null()));
    // A limit that is not reached stops nothing.
    place.run(&["-j", "1", "--max-failures", "90%", "{}", "@exit 1", "c"]).expect(1);
}

#[test]
fn no_instance_ready_has_a_status_and_the_reason() {
    let place = Place::new();
    place.tool("echo", &["--crash-start", "license expired"]);
    let finished = place.run(&["--json", "out.jsonl", "{}", "a", "b"]).expect(3);
    finished.says("license expired").says("not_ready");
    let outcomes = lines(&place.read("out.jsonl"));
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[0]["failure"]["kind"], "not_ready");
}

#[test]
fn a_dry_run_tells_all_and_starts_nothing() {
    let place = Place::new();
    place.scripted("echo", "touch started; exec $ECHO");
    place.file("a.py", "");
    let words = [
        "--dry-run",
        "--tool-arg=--banner",
        "--tool-arg",
        "it's",
        "--isolated-home",
        "--permissions",
        "read",
        "-o",
        "{/.}.md",
        "--record",
        "rec",
        "--json",
        "out.jsonl",
        "see {}",
        "a.py",
        "b",
    ];
    let finished = place.run(&words).expect(0);
    let directory = place.sandbox.dir().canonicalize().unwrap();
    for text in [
        "pool 1: 2 instances of echo",
        "--banner 'it'\\''s'",
        &format!("directory    {}", directory.display()),
        "permissions  read",
        "HOME         a new, empty directory",
        "job 1: a.py (pool 1)",
        "prompt       see a.py",
        "file         a.py",
        "answer to    a.md",
        "timeout      10m00s",
        "prompt       see b",
    ] {
        assert!(finished.out.contains(text), "{text}: {}", finished.out);
    }
    for name in ["started", "rec", "out.jsonl", "a.md"] {
        assert!(!place.sandbox.dir().join(name).exists(), "{name}");
    }
}

#[test]
fn the_tool_can_come_from_the_environment() {
    let place = Place::new();
    let mut command = place.command(&["run", "hello"]);
    command.env("READYROOM_TOOL", "echo");
    assert_eq!(place.finish(command).expect(0).out, "hello\n");
}

#[test]
fn every_byte_of_an_answer_arrives() {
    let place = Place::new();
    let mut command = place.command(&["run", "-t", "echo", "@bytes ff00411b5b316d"]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.stdout, b"\xff\0A\x1b[1m\n");
    let big = place.run(&["@print 3000000"]).expect(0);
    assert_eq!(big.out.len(), 3_000_000);
}

#[test]
fn completions_and_man_pages_are_made() {
    let place = Place::new();
    for (words, expected) in [
        (vec!["completions", "bash"], "complete -F"),
        (vec!["completions", "zsh"], "#compdef readyroom"),
        (vec!["completions", "fish"], "complete -c readyroom"),
        (vec!["man"], ".TH readyroom"),
        (vec!["man", "run"], ".TH readyroom-run"),
        (vec!["run", "--help"], "git ls-files"),
        (vec!["--help"], "Example"),
    ] {
        let finished = place.finish(place.command(&words)).expect(0);
        assert!(finished.out.contains(expected), "{words:?}: {}", finished.out);
    }
    place.finish(place.command(&["man", "--out", "pages"])).expect(0);
    assert!(place.read("pages/readyroom-run.1").contains("max\\-failures"));
    place.finish(place.command(&["man", "nothing"])).expect(2).says("no command \"nothing\" has a page");
}
