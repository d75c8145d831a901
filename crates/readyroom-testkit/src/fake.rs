//! Fake tools: real programs that do what a test needs, with the definitions by which they are driven.
//!
//! `readyroom-echo` is a REPL that prints back what it is told; `readyroom-acp-fixture` is an agent. What they do on
//! command is said at the head of `src/bin/echo.rs` and `src/bin/acp_fixture.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use readyroom::tool::Definition;

/// A program of this crate, beside the test that runs.
///
/// # Panics
/// When it is not built, with the command that builds it.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test's own path");
    let found = test.ancestors().skip(1).take(3).map(|directory| directory.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not built; `cargo build --package readyroom-testkit --bins` does it"))
}

/// Lets `readyroom-echo` be the guardian of this test's tools. A test's own `main` can't begin with `readyroom::init`,
/// so every test that starts tools calls this first.
pub fn use_guardian() {
    readyroom::process::use_program(program("readyroom-echo"));
}

fn words(program: &str, args: &[&str]) -> String {
    let argv: Vec<String> =
        std::iter::once(program).chain(args.iter().copied()).map(|word| format!("{word:?}")).collect();
    format!("[{}]", argv.join(", "))
}

/// The definition file of the echo under the name `id`, launched with `args`.
pub fn echo_toml(id: &str, args: &[&str]) -> String {
    let program = program("readyroom-echo");
    // The echo can't hold a program to any level, and has no model that could misuse one.
    format!(
        r#"id = "{id}"
summary = "a line echo"
driver = "repl"
argv = {argv}

[find]
version_args = ["--version"]
version_pattern = '(\d+\.\d+\.\d+)'

[repl]
fence = ":fence {{a}} {{b}}"
marker = "{{a}}{{b}}\n"
reset = ":reset"
reset_ack = "context cleared"
interrupt = {interrupt}

[permissions.read]
prevents = ["writes", "shell"]

[permissions.edit]
prevents = ["shell"]

[permissions.full]
"#,
        argv = words(&program.display().to_string(), args),
        interrupt = args.contains(&"--interrupt"),
    )
}

/// The echo, launched with `args`, and its program.
///
/// # Panics
/// When it is not built.
pub fn echo_definition(args: &[&str]) -> (Arc<Definition>, PathBuf) {
    (parse(&echo_toml("echo", args)), program("readyroom-echo"))
}

/// The definition file of the agent under the name `id`, launched with `args`; several instances share a process where
/// `shared`.
pub fn acp_toml(id: &str, args: &[&str], shared: bool) -> String {
    let program = program("readyroom-acp-fixture");
    format!(
        r#"id = "{id}"
summary = "a scripted agent"
driver = "acp"
argv = {argv}
sharing = "{sharing}"

[find]
version_args = ["--version"]
version_pattern = '(\d+\.\d+\.\d+)'

[permissions.read]
prevents = ["writes", "shell"]

[permissions.edit]
prevents = ["shell"]

[permissions.full]
"#,
        argv = words(&program.display().to_string(), args),
        sharing = if shared { "many" } else { "one" },
    )
}

/// The agent, launched with `args`, and its program.
///
/// # Panics
/// When it is not built.
pub fn acp_definition(args: &[&str]) -> (Arc<Definition>, PathBuf) {
    (parse(&acp_toml("acp-fixture", args, true)), program("readyroom-acp-fixture"))
}

fn parse(text: &str) -> Arc<Definition> {
    Arc::new(toml::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}")))
}
