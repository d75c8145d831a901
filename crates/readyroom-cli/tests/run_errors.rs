//! Bad input: each mistake has an error that names the thing, the place and the mend, the right exit status, and leaves
//! nothing running.

mod support;

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;

use support::Place;

#[test]
fn what_is_wrong_with_the_words_is_named() {
    let place = Place::new();
    place.file("word.txt", "");
    std::os::unix::fs::symlink("round", place.sandbox.dir().join("round")).unwrap();
    for (words, expected) in [
        (vec!["-j", "0", "x"], "no instance could run anything; give at least 1"),
        (vec!["-j", "100000", "x"], "at most 1024 instances"),
        (vec!["-j", "many", "x"], "not a number of instances"),
        (vec!["--routing", "random", "x"], "[possible values: round_robin, least_busy, sticky]"),
        (vec!["--context", "stale", "x"], "[possible values: fresh, keep]"),
        (vec!["--permissions", "all", "x"], "[possible values: read, edit, full]"),
        (vec!["--timeout", "soon", "x"], "\"soon\" is not a duration; write it as 90s, 10m or 1h30m"),
        (vec!["--max-failures", "0", "x"], "use 1 to stop at the first failure"),
        (vec!["--deadline", "tomorrow", "x"], "or as a time of day: 06:00"),
        (vec!["--stall", "0", "x"], "`none` is no limit"),
        (vec!["--commit=", "x"], "a commit needs a message"),
        (vec!["--verify", "", "x"], "a value is required for '--verify"),
        (vec!["--verify-rounds", "2", "x"], "--verify <CMD>"),
        (vec![], "no PROMPT; write what to do"),
        (vec![""], "PROMPT is empty; write what to do"),
        (vec!["see {}"], "PROMPT uses {}, but there is no INPUT; name inputs, or `-`"),
        (vec!["see", "nothing.txt"], "the input \"nothing.txt\" is no file in "),
        (vec!["see", "round"], "round can't be looked at; mend that or leave it out: Too many levels"),
        (vec!["--no-files", "see", "word.txt"], "add {} to PROMPT"),
        (vec!["-C", "missing", "x"], "the directory missing can't be used; create it or name another: No such file"),
        (vec!["-C", "word.txt", "x"], "word.txt is not a directory"),
        (vec!["--prompt-file", "missing"], "--prompt-file missing can't be read: No such file"),
        (vec!["--from", "missing"], "--from missing can't be opened: No such file"),
        (vec!["--json", "missing/out", "x"], "--json missing/out can't be opened; name another file"),
        (vec!["-o", "word.txt/{#}", "x"], "the directory word.txt of --output can't be made"),
        (vec!["-o", "same", "{}", "a", "b"], "--output makes same for job 1 (a) and for job 2 (b)"),
        (vec!["--tools", "missing.toml", "x"], "missing.toml"),
    ] {
        let finished = place.run(&words).expect(2);
        assert_eq!(finished.out, "", "{words:?}");
        finished.says(expected);
    }
}

#[test]
fn bad_lines_are_named_with_line_and_column() {
    let place = Place::new();
    for (lines, expected) in [
        ("{\"prompt\":\"x\"}\n{\"promt\":\"x\"}\n", "stdin:2:8: unknown field `promt`"),
        ("{\"prompt\":\"x\"\n", "stdin:1:13: EOF while parsing an object"),
        ("{\"prompt\":\"x\",\"files\":[\"gone.py\"]}\n", "stdin:1: \"gone.py\" in `files` is no file in "),
        ("[]\n", "stdin:1:1: expected a JSON object"),
    ] {
        place.run_with(lines, &["--from", "-"]).expect(2).says(expected);
    }
}

#[test]
fn a_tool_that_is_not_known_is_named_with_the_nearest() {
    let place = Place::new();
    let finished = place.finish(place.command(&["run", "-t", "ecko", "x"])).expect(2);
    finished.says("ecko").says("echo").says("aider");
    let none = place.finish(place.command(&["run", "x"])).expect(2);
    none.says("no tool; name one with -t or READYROOM_TOOL");
}

#[test]
fn a_tool_that_is_not_installed_or_broken_is_named_with_the_way_to_mend_it() {
    let place = Place::new();
    place.definition(
        "absent",
        "id = \"absent\"\ndriver = \"oneshot\"\nargv = [\"no-such-program\"]\n[oneshot]\n[find]\ninstall = \"get it from its makers\"\n\
         [permissions.edit]\n",
    );
    let finished = place.finish(place.command(&["run", "-t", "absent", "x"])).expect(2);
    finished.says("no-such-program").says("get it from its makers");

    let program = place.file("broken", "not a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    let toml = format!(
        "id = \"broken\"\ndriver = \"oneshot\"\nargv = [{:?}]\n[oneshot]\n[permissions.edit]\n",
        program.display().to_string()
    );
    place.definition("broken", &toml);
    place.finish(place.command(&["run", "-t", "broken", "x"])).expect(2).says("broken");
}

#[test]
fn a_tool_that_is_found_but_crashes_shows_its_last_words() {
    let place = Place::new();
    place.tool("echo", &["--crash-start", "cannot open display"]);
    place.run(&["x"]).expect(3).says("cannot open display");
}

#[test]
fn a_bad_definition_is_named_with_its_place() {
    let place = Place::new();
    place.file("bad.toml", "id = \"x\"\ndriver = \"telepathy\"\nargv = [\"x\"]\n");
    place.run(&["--tools", "bad.toml", "x"]).expect(2).says("bad.toml").says("telepathy");
    place.file("worse.toml", "id = \n");
    place.run(&["--tools", "worse.toml", "x"]).expect(2).says("worse.toml").says("1");
}

#[test]
fn a_level_that_a_tool_cannot_hold_is_refused_before_anything_starts() {
    let place = Place::new();
    place.definition(
        "loose",
        "id = \"loose\"\ndriver = \"oneshot\"\nargv = [\"/bin/sh\", \"-c\", \"touch started\"]\n[oneshot]\n[permissions.edit]\nrefused = \
         \"it does as it likes\"\n[permissions.full]\n",
    );
    let finished = place.finish(place.command(&["run", "-t", "loose", "x"])).expect(2);
    finished.says("it does as it likes");
    assert!(!place.sandbox.dir().join("started").exists());
}

#[test]
fn file_names_that_are_not_utf8_are_refused_with_the_reason() {
    let place = Place::new();
    let name = std::ffi::OsString::from_vec(b"caf\xe9.txt".to_vec());
    fs::write(place.sandbox.dir().join(&name), "").unwrap();
    let finished = place.run(&["see {}".into(), name]).expect(2);
    finished.says(r#"the input "caf\xE9.txt" is not UTF-8; tools get text, so write it as UTF-8, and rename a file"#);
}
