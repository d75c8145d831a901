//! `readyroom tools` as a person runs it: the real command, tools that are small scripts, and plain REPLs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A user with a HOME, a project in a git repository, and programs of their own.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        world.write("repo/.git/HEAD", "ref: refs/heads/main\n");
        world
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(below)
    }

    fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(&format!("bin/{name}"), text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_readyroom"));
        command
            .args(words)
            .current_dir(self.path("repo"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("WORLD", self.path(""))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().unwrap())
    }

    fn tools(&self, words: &[&str]) -> Ran {
        self.run(&[&["tools"], words].concat())
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        let ran = self.tools(&[&["--json"], words].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Processes that were started in this world and still run.
    fn left(&self) -> Vec<String> {
        let mark = format!("WORLD={}", self.path("").display());
        let processes = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        });
        processes
            .map(|entry| {
                String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).unwrap_or_default()).into_owned()
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // The guardian sees its owner's end a moment after we do.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while !self.left().is_empty() && std::time::Instant::now() < until {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            assert_eq!(self.left(), [""; 0], "these processes were left running");
        }
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn tool<'a>(list: &'a serde_json::Value, id: &str) -> &'a serde_json::Value {
    list["tools"]
        .as_array()
        .unwrap()
        .iter()
        .find(|tool| tool["id"] == id)
        .unwrap_or_else(|| panic!("no {id} in {list}"))
}

const SHELL: &str = r#"
summary = "GNU bash"
driver = "repl"
transport = "merged"
argv = ["bash", "--norc"]

[find]
version_args = ["--version"]
version_pattern = 'version (\S+)'

[repl]
frame = "bash_eval"
fence = "printf '\\n%s%s %d\\n' {a} {b} $?"
marker = "\n{a}{b} {status}\n"
"#;

#[test]
fn the_list_tells_what_is_ready_missing_broken_and_without_a_driver() {
    let world = World::new();
    world.program("claude", "#!/bin/sh\necho '2.1.197 (Claude Code)'\n");
    world.program("codex", "#!/bin/sh\necho 'cannot find module' >&2\nexit 7\n");
    world.program("gemini", "#!/nowhere/node\n");
    world
        .write("repo/.aim/aim-registry/registry.json", r#"{"tools":{"jules":{"detectCommands":["jules --version"]}}}"#);
    assert_eq!(world.tools(&["trust", "--yes"]).code, 0);

    let list = world.json(&[]);
    assert_eq!(list["v"], 1);
    let claude = tool(&list, "claude");
    assert_eq!((&claude["status"], &claude["version"]), (&"ready".into(), &"2.1.197".into()));
    assert_eq!(claude["program"], world.path("bin/claude").to_str().unwrap());
    assert_eq!(claude["sources"][0]["layer"], "built_in");
    assert!(claude["permissions"]["read"]["prevents"].as_array().is_some_and(|prevents| !prevents.is_empty()));
    let codex = tool(&list, "codex");
    assert_eq!(codex["status"], "broken");
    let problem = codex["problem"].as_str().unwrap();
    assert!(problem.contains("exit status 7") && problem.contains("cannot find module"), "{problem}");
    let gemini = tool(&list, "gemini");
    assert_eq!(gemini["status"], "broken");
    assert!(gemini["problem"].as_str().unwrap().contains("needs `/nowhere/node`, which is not there"));
    let aider = tool(&list, "aider");
    assert_eq!(aider["status"], "missing");
    assert!(aider["problem"].as_str().unwrap().contains("install it with: python3 -m pip install aider-chat"));
    let jules = tool(&list, "jules");
    assert_eq!((&jules["status"], &jules["driver"]), (&"no_driver".into(), &serde_json::Value::Null));

    let text = world.tools(&[]).out;
    assert!(text.contains("claude    claude  ready      2.1.197  "), "{text}");
    assert!(text.contains("jules     -       no driver  -"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}

#[test]
fn asking_for_a_version_leaves_no_process_behind() {
    let world = World::new();
    world.program("claude", "#!/bin/sh\nsetsid sleep 300 &\n(trap '' TERM; sleep 300) &\necho '2.1.197'\n");
    assert_eq!(tool(&world.json(&[]), "claude")["status"], "ready");
}

#[test]
fn what_is_left_running_would_be_seen() {
    let world = World::new();
    let mut sleeper = Command::new("sleep").arg("300").env_clear().env("WORLD", world.path("")).spawn().unwrap();
    assert_eq!(world.left().len(), 1);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn a_users_file_adds_a_tool_and_changes_another() {
    let world = World::new();
    let own = world.write("home/.config/readyroom/tools/shell.toml", SHELL);
    let over = world.write("home/.config/readyroom/tools/claude.toml", "[env]\nMY_KEY = \"sk-1\"\nMINE = \"yes\"\n");
    let list = world.json(&[]);
    let shell = tool(&list, "shell");
    assert_eq!((&shell["status"], &shell["driver"]), (&"ready".into(), &"repl".into()));
    assert_eq!(shell["sources"], serde_json::json!([{ "layer": "user", "file": own.to_str().unwrap() }]));
    assert!(shell["permissions"]["edit"]["refused"].as_str().unwrap().contains("does not say that it holds"));
    assert_eq!(tool(&list, "claude")["sources"][1]["file"], over.to_str().unwrap());

    let shown = world.tools(&["show", "claude"]);
    assert_eq!(shown.code, 0);
    assert!(shown.out.contains(&format!("#   {}: env.MY_KEY, env.MINE", over.display())), "{}", shown.out);
    assert!(shown.out.contains("#   environment: MINE=yes") && shown.out.contains("MINE = \"yes\""), "{}", shown.out);
    assert!(!shown.out.contains("sk-1"), "{}", shown.out);
    let definition: toml::Table = toml::from_str(&shown.out).unwrap();
    assert_eq!(definition["id"].as_str(), Some("claude"));
}

#[test]
fn a_projects_files_are_named_and_ignored_until_they_are_trusted() {
    let world = World::new();
    let file = world.write("repo/.readyroom/tools/shell.toml", SHELL);
    let named = |list: &serde_json::Value| list["ignored"].as_array().unwrap().len();
    let list = world.json(&[]);
    assert_eq!(named(&list), 1);
    assert!(list["tools"].as_array().unwrap().iter().all(|tool| tool["id"] != "shell"));
    let text = world.tools(&[]).out;
    assert!(text.contains("readyroom tools trust") && text.contains(file.to_str().unwrap()), "{text}");
    let check = world.tools(&["check", "shell"]);
    assert_eq!(check.code, 2);
    assert!(check.err.contains("readyroom tools trust"), "{}", check.err);

    let asked = world.tools(&["trust"]);
    assert_eq!(asked.code, 2);
    assert!(asked.out.contains("argv = [\"bash\", \"--norc\"]"), "all of it is shown: {}", asked.out);
    assert!(asked.err.contains("--yes"), "{}", asked.err);
    assert_eq!(named(&world.json(&[])), 1, "to show is not to trust");

    let trusted = world.tools(&["trust", "--yes"]);
    assert_eq!(trusted.code, 0, "{}", trusted.err);
    let record = world.path("home/.local/state/readyroom/trust.toml");
    assert_eq!(fs::metadata(record).unwrap().permissions().mode() & 0o777, 0o600);
    let list = world.json(&[]);
    assert_eq!((named(&list), &tool(&list, "shell")["status"]), (0, &"ready".into()));
    assert!(world.tools(&["trust"]).out.contains("is trusted already"));

    fs::write(&file, SHELL.replace("--norc", "--norc\", \"-x")).unwrap();
    let list = world.json(&[]);
    assert_eq!((named(&list), &list["ignored"][0]["changed"]), (1, &true.into()));
    assert!(world.tools(&["trust"]).out.contains("(changed since you trusted it)"));
}

#[test]
fn what_is_shown_for_trust_can_not_drive_the_terminal() {
    let world = World::new();
    world.write("repo/.readyroom/tools/t.toml", "driver = \"acp\"\nargv = [\"t\"]\n# \u{202e}hidden\u{200b}\n");
    let shown = world.tools(&["trust", "--yes"]).out;
    assert!(shown.contains("# \\u{202e}hidden\\u{200b}"), "{shown}");
}

#[test]
fn a_projects_file_that_can_not_be_used_is_not_recorded() {
    let world = World::new();
    let file = world.write("repo/.readyroom/tools/t.toml", "driver = \"acp\"\nargv = [\"t\"]\nwhat = 1\n");
    let ran = world.tools(&["trust", "--yes"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains(&format!("{}:3:1: unknown field `what`", file.display())), "{}", ran.err);
    assert!(!world.path("home/.local/state/readyroom/trust.toml").exists());
}

#[test]
fn mistakes_exit_with_2_and_name_the_place_and_the_mend() {
    let world = World::new();
    let bad = world.write("bad.toml", "driver = \"acp\"\nargv = [\"t\"]\n[[errors]]\npattern = '('\nkind = \"auth\"\n");
    let cases: [(&[&str], &[&str]); 5] = [
        (&["show", "cluade"], &["no tool is called \"cluade\"", "did you mean `claude`"]),
        (&["--tools", bad.to_str().unwrap()], &["bad.toml:4:1: `(` is no regular expression", "correct it"]),
        (&["--tools", "nowhere.toml"], &["nowhere.toml: can't be read", "check its path"]),
        (&["-C", "nowhere"], &["nowhere is not a directory", "-C"]),
        (&["frobnicate"], &["unrecognized subcommand 'frobnicate'"]),
    ];
    for (words, wanted) in cases {
        let ran = world.tools(words);
        assert_eq!(ran.code, 2, "{words:?}: {}", ran.err);
        for text in wanted {
            assert!(ran.err.contains(text), "{words:?}: {}", ran.err);
        }
        assert_eq!(ran.out, "", "{words:?}");
    }
}

#[test]
fn a_closed_stdout_is_no_error() {
    let world = World::new();
    let mut child =
        world.command(&["tools", "show", "claude"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn a_check_of_a_real_program_tells_what_it_saw() {
    let world = World::new();
    let file = world.write("shell.toml", SHELL);
    let ran = world.tools(&["check", "shell", "--tools", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let results = results(&ran.out);
    assert_eq!(
        results,
        [
            ("definition", "holds"),
            ("program", "holds"),
            ("version", "holds"),
            ("ready", "holds"),
            ("fresh context", "holds"),
            ("reset", "-"),
            ("clean stop", "holds"),
            ("nothing left", "holds")
        ]
        .map(|(what, result)| (what.to_owned(), result.to_owned()))
    );
}

#[test]
fn a_check_of_a_tool_that_does_not_start_fails_with_its_words() {
    let world = World::new();
    world.program(
        "claude",
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 2.1.197 && exit\necho 'no license' >&2\nexit 3\n",
    );
    let ran = world.tools(&["check", "claude"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let results = results(&ran.out);
    assert!(results.contains(&("ready".into(), "fails".into())), "{}", ran.out);
    assert!(ran.out.contains("no license"), "{}", ran.out);
    assert!(ran.out.contains("it had ended by itself"), "{}", ran.out);
    assert!(results.contains(&("nothing left".into(), "holds".into())), "{}", ran.out);

    let missing = world.tools(&["check", "codex"]);
    assert_eq!(missing.code, 1);
    assert!(missing.out.contains("install it with"), "{}", missing.out);
}

#[test]
fn a_check_of_a_tool_that_must_be_killed_fails() {
    let world = World::new();
    let stubborn = world.program("stubborn", "#!/bin/bash\ntrap '' TERM\nset --\n. \"$WORLD/loop\"\n");
    world.write("loop", "while true; do read -r line && eval \"$line\" || sleep 0.1; done\n");
    let text = SHELL.replace("[\"bash\", \"--norc\"]", &format!("[\"{}\"]", stubborn.display()));
    let text = format!("{}\n[limits]\nstop_seconds = 1\n", text.replace("version_args = [\"--version\"]", ""));
    let file = world.write("stubborn.toml", &text);
    let ran = world.tools(&["check", "stubborn", "--tools", file.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("it had to be ended: signal 9"), "{}", ran.out);
    assert!(results(&ran.out).contains(&("nothing left".into(), "holds".into())), "{}", ran.out);
}

fn results(table: &str) -> Vec<(String, String)> {
    let result = |line: &str| {
        let mut cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
    };
    table.lines().skip(1).filter(|line| !line.starts_with(' ')).filter_map(result).collect()
}

#[test]
fn the_helps_show_examples() {
    let world = World::new();
    for words in [&["--help"][..], &["show", "--help"], &["check", "--help"], &["trust", "--help"]] {
        let help = world.tools(words).out;
        assert!(help.contains("Example:\n  readyroom tools"), "{help}");
    }
}
