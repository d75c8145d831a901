use std::time::Duration;

use clap::Parser as _;

use super::*;
use crate::args::{Cli, Command};

fn args(words: &[&str]) -> RunArgs {
    let cli = Cli::try_parse_from(["readyroom", "run"].iter().chain(words)).unwrap();
    match cli.command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn make(words: &[&str], stdin: &str) -> anyhow::Result<Plan> {
    plan(&args(words), &mut stdin.as_bytes())
}

fn error(words: &[&str], stdin: &str) -> String {
    format!("{:#}", make(words, stdin).unwrap_err())
}

fn prompts(plan: &Plan) -> Vec<&str> {
    plan.jobs.iter().map(|planned| planned.job.prompts[0].as_str()).collect()
}

/// A directory with `a.py` and `sub/b.py`.
fn tree() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.py"), "a").unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/b.py"), "b").unwrap();
    let name = dir.path().to_str().unwrap().to_owned();
    (dir, name)
}

#[test]
fn a_job_for_each_input_and_files_are_given_as_files() {
    let (_dir, path) = tree();
    let plan = make(&["-t", "x", "-C", &path, "look at {/} ({#})", "a.py", "sub/b.py", "word"], "").unwrap();
    assert_eq!(prompts(&plan), ["look at a.py (1)", "look at b.py (2)", "look at word (3)"]);
    assert_eq!(plan.jobs[1].job.files, [PathBuf::from("sub/b.py")]);
    assert!(plan.jobs[2].job.files.is_empty());
    assert_eq!(plan.jobs[0].job.timeout, Some(Duration::from_secs(600)));
    assert_eq!(plan.pools.len(), 1);
    assert_eq!(plan.pools[0].instances, 3);
    let without = make(&["-t", "x", "-C", &path, "--no-files", "--timeout", "none", "see {}", "a.py"], "").unwrap();
    assert!(without.jobs[0].job.files.is_empty());
    assert_eq!(without.jobs[0].job.timeout, None);
}

#[test]
fn one_job_without_inputs_and_none_for_empty_stdin() {
    assert_eq!(prompts(&make(&["-t", "x", "{\"a\": 1} {#}"], "ignored").unwrap()), ["{\"a\": 1} 1"]);
    assert!(make(&["-t", "x", "see {}", "-"], "").unwrap().jobs.is_empty());
    assert_eq!(prompts(&make(&["-t", "x", "see {}", "-"], "a b\nc\n").unwrap()), ["see a b", "see c"]);
    assert_eq!(prompts(&make(&["-t", "x", "-0", "see {}", "-"], "a\nb\0").unwrap()), ["see a\nb"]);
    assert_eq!(prompts(&make(&["-t", "x", "--", "see {}", "--flag"], "").unwrap()), ["see --flag"]);
    assert_eq!(prompts(&make(&["-t", "x", "-I", "@@", "see {} @@", "a"], "").unwrap()), ["see {} a"]);
}

#[test]
fn the_prompt_can_come_from_a_file_or_stdin() {
    let (_dir, path) = tree();
    let file = format!("{path}/sub/b.py");
    let plan = make(&["-t", "x", "-C", &path, "--prompt-file", &file, "a.py"], "").unwrap();
    assert_eq!(prompts(&plan), ["b"]);
    assert_eq!(plan.jobs[0].job.files, [PathBuf::from("a.py")]);
    assert_eq!(prompts(&make(&["-t", "x", "--prompt-file", "-"], "line 1\nline 2\n").unwrap()), ["line 1\nline 2\n"]);
}

#[test]
fn bad_input_is_named_with_its_mend() {
    let (dir, path) = tree();
    let in_tree = |words: &[&str]| error(&[&["-t", "x", "-C", &path], words].concat(), "");
    for (message, expected) in [
        (error(&["-t", "x"], ""), "no PROMPT; write what to do"),
        (error(&["-t", "x", " "], ""), "PROMPT is empty"),
        (error(&["-t", "x", "see {/.}"], ""), "PROMPT uses {/.}, but there is no INPUT; name inputs, or `-`"),
        (error(&["-t", "x", "-0", "see"], ""), "-0 says how inputs on stdin are separated"),
        (error(&["-t", "x", "--prompt-file", "-", "-"], ""), "stdin can be read once only"),
        (error(&["-t", "x", "--prompt-file", "-"], "\n"), "the prompt in stdin is empty"),
        (error(&["-t", "x", "--from", "-", "p", "a"], ""), "--from brings the jobs"),
        (error(&["-t", "x", "--from", "/missing/jobs"], ""), "--from /missing/jobs can't be opened: No such file"),
        (error(&["-t", "x", "-C", "/missing/dir", "p"], ""), "the directory /missing/dir can't be used; create it"),
        (error(&["-t", "x", "-C", &format!("{path}/a.py"), "p"], ""), "is not a directory"),
        (in_tree(&["p", "nothing"]), "the input \"nothing\" is no file in "),
        (in_tree(&["p", "sub"]), "the input \"sub\" is a directory and PROMPT has no {}"),
        (in_tree(&["--no-files", "p", "a.py"]), "--no-files keeps it from the tool"),
        (in_tree(&["-o", "same", "see {}", "a", "b"]), "--output makes same for job 1 (a) and for job 2 (b)"),
        (in_tree(&["-o", "./x/{/}", "see {}", "a", "b/a"]), "for job 1 (a) and for job 2 (b/a)"),
        (in_tree(&["-o", "{//}", "see {}", "a"]), "--output makes . for job 1, which is a directory"),
        (in_tree(&["-o", "{}", "see"]), "--output uses {}, but job 1 has no input"),
        (in_tree(&["-o", "notes/{/}", "see {}", "a/"]), "which is no file name"),
        (in_tree(&["-I", "", "see"]), "-I needs a string"),
    ] {
        assert!(message.contains(expected), "{message}\n  should hold: {expected}");
    }
    drop(dir);
}

#[test]
fn without_a_tool_the_list_is_named() {
    let mut args = args(&["p"]);
    args.tool = None;
    let error = plan(&args, &mut &b""[..]).unwrap_err().to_string();
    assert!(error.starts_with("no tool; name one with -t"), "{error}");
}

#[test]
fn lines_make_jobs_and_pools() {
    let (_dir, path) = tree();
    let lines = concat!(
        "{\"id\":\"one\",\"prompt\":\"literal {}\",\"files\":[\"a.py\"]}\n",
        "{\"files\":[\"b.py\"],\"cwd\":\"sub\",\"timeout\":\"5s\"}\n",
        "{\"prompts\":[\"p\",\"q\"],\"tool\":\"y\",\"permissions\":\"read\",\"model\":\"m\",\"timeout\":\"none\"}\n",
        "{\"prompt\":\"four\",\"key\":\"k\"}\n",
    );
    let plan = make(&["-t", "x", "-j", "4", "-C", &path, "--from", "-", "see {/} {#}"], lines).unwrap();
    assert_eq!(prompts(&plan), ["literal {}", "see b.py 2", "p", "four"]);
    assert_eq!(plan.pools.len(), 3);
    assert_eq!(plan.pools[0].jobs, [0, 3]);
    assert_eq!(plan.pools.iter().map(|pool| pool.instances).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(plan.pools[1].kind.directory.ends_with("sub"));
    assert_eq!(plan.pools[2].kind.model.as_deref(), Some("m"));
    assert_eq!(plan.pools[2].kind.permissions, Permissions::Read);
    assert_eq!(plan.jobs[1].job.timeout, Some(Duration::from_secs(5)));
    assert_eq!(plan.jobs[2].job.timeout, None);
    assert_eq!(plan.label(0), "one");
    assert_eq!(plan.label(1), "b.py");
    assert_eq!(plan.label(2), "job 3");
}

#[test]
fn bad_lines_are_named_by_line() {
    let (_dir, path) = tree();
    for (line, prompt, expected) in [
        ("{\"files\":[\"c.py\"]}", Some("p"), "stdin:1: \"c.py\" in `files` is no file in "),
        ("{\"cwd\":\"gone\"}", Some("p"), "stdin:1: cwd: the directory "),
        ("{}", None, "stdin:1: no `prompt`, no `prompts`, and no PROMPT"),
        ("{}", Some("see {}"), "stdin:1: PROMPT uses {}, which is the line's one file, but `files` holds 0"),
        ("{\"promt\":\"x\"}", None, "stdin:1:8: unknown field `promt`"),
    ] {
        let mut words = vec!["-t", "x", "-C", &path, "--from", "-"];
        words.extend(prompt);
        let message = error(&words, line);
        assert!(message.starts_with(expected), "{message}\n  should begin: {expected}");
    }
}

#[test]
fn an_unreadable_file_is_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, path) = tree();
    std::os::unix::fs::symlink("round", dir.path().join("round")).unwrap();
    let message = error(&["-t", "x", "-C", &path, "p", "round"], "");
    assert!(message.starts_with("round can't be looked at; mend that"), "{message}");
    // Root may read what its mode forbids; then the file is a file as any other.
    let file = dir.path().join("a.py");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    let readable = std::fs::File::open(&file).is_ok();
    match make(&["-t", "x", "-C", &path, "p", "a.py"], "") {
        Ok(plan) => assert!(readable && plan.jobs[0].job.files.len() == 1),
        Err(error) => {
            assert!(!readable && error.to_string().contains("the file a.py can't be read; change its mode"), "{error}");
        }
    }
}
