//! The fake tools themselves: what the definitions say of them is so.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use readyroom_testkit::{Sandbox, assert_nothing_left, fake, sandbox};
use serde_json::{Value, json};

/// A fake tool on pipes.
struct Tool {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Tool {
    fn start(sandbox: &Sandbox, program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(fake::program(program));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sandbox.apply(&mut command).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// The next message with this id.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the agent has ended");
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
        }
    }

    fn end(mut self) -> (Option<i32>, Vec<u8>) {
        drop(self.child.stdin.take());
        let mut rest = Vec::new();
        self.out.read_to_end(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn the_echo_echoes_fences_and_forgets() {
    let sandbox = Sandbox::bare("echo");
    let mut tool = Tool::start(&sandbox, "readyroom-echo", &[]);
    tool.write("hello\n:fence ab cd\n");
    assert_eq!((tool.line().as_str(), tool.line().as_str()), ("hello", "abcd"));
    tool.write("@recall\n:reset\n@recall\n:fence x y\n");
    assert_eq!([tool.line(), tool.line(), tool.line()], ["hello", "context cleared", "xy"]);
    tool.write("@edit new.txt some words\n@bytes ff00\n:fence 1 2\n");
    assert_eq!(tool.line(), "edited new.txt");
    let (status, rest) = tool.end();
    assert_eq!((status, rest.as_slice()), (Some(0), b"\xff\x0012\n".as_slice()));
    assert_eq!(sandbox.read("new.txt").as_deref(), Some("some words\n"));
    assert_nothing_left(&sandbox);
}

#[test]
fn the_echo_crashes_when_told() {
    let sandbox = Sandbox::bare("echo");
    let mut tool = Tool::start(&sandbox, "readyroom-echo", &["--crash-at", "2", "--log", "log"]);
    tool.write("one\n:fence a b\ntwo\n:fence c d\n");
    assert_eq!([tool.line(), tool.line(), tool.line()], ["one", "ab", ""]);
    let pid = tool.child.id();
    assert_eq!(tool.end().0, None, "it ended by a signal");
    assert_eq!(sandbox.read("log").unwrap(), format!("{pid} one\n"));
    let tool = Tool::start(&sandbox, "readyroom-echo", &["--crash-start", "no luck today"]);
    assert_eq!(tool.end().0, Some(3));
}

#[test]
fn an_interrupt_cuts_a_turn_short() {
    let sandbox = Sandbox::bare("echo");
    let mut tool = Tool::start(&sandbox, "readyroom-echo", &["--interrupt"]);
    tool.write("before\n@hang\nafter\n:fence a b\n");
    assert_eq!(tool.line(), "before");
    let pid = rustix::process::Pid::from_child(&tool.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(tool.line(), "ab", "the rest of the turn is dropped");
    tool.write("next\n:fence c d\n");
    assert_eq!([tool.line(), tool.line()], ["next", "cd"]);
    assert_eq!(tool.end().0, Some(0));
}

#[test]
fn a_stray_is_in_no_group_of_the_echos_and_a_deaf_echo_ignores_term() {
    let sandbox = Sandbox::bare("echo");
    let mut tool = Tool::start(&sandbox, "readyroom-echo", &["--stray", "--deaf"]);
    tool.write("ready\n:fence a b\n");
    assert_eq!(tool.line(), "ready");
    let pid = rustix::process::Pid::from_child(&tool.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tool.write("alive\n:fence c d\n");
    assert_eq!([tool.line(), tool.line()], ["ab", "alive"]);
    tool.end();
    let left = sandbox::processes_of(&sandbox);
    let [stray] = &left[..] else { panic!("{left:?}") };
    let stray = rustix::process::Pid::from_raw(stray.pid.cast_signed()).unwrap();
    assert_eq!(rustix::process::getsid(Some(stray)).unwrap(), stray);
    rustix::process::kill_process(stray, rustix::process::Signal::KILL).unwrap();
    assert_nothing_left(&sandbox);
}

fn call(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string() + "\n"
}

fn prompt(id: u64, session: &str, text: &str) -> String {
    call(id, "session/prompt", &json!({ "sessionId": session, "prompt": [{ "type": "text", "text": text }] }))
}

#[test]
fn the_agent_answers_cancels_and_misbehaves() {
    let sandbox = Sandbox::bare("acp");
    let mut tool = Tool::start(&sandbox, "readyroom-acp-fixture", &[]);
    tool.write(&call(0, "initialize", &json!({ "protocolVersion": 1 })));
    assert_eq!(tool.answer(0)["result"]["protocolVersion"], 1);
    let session = |tool: &mut Tool, id| {
        tool.write(&call(id, "session/new", &json!({ "cwd": "/", "mcpServers": [] })));
        tool.answer(id)["result"]["sessionId"].as_str().unwrap().to_owned()
    };
    let (first, second) = (session(&mut tool, 1), session(&mut tool, 2));
    assert_ne!(first, second);

    tool.write(&prompt(3, &first, "@hang"));
    tool.write(&prompt(4, &second, "hello"));
    let said: Value = serde_json::from_str(&tool.line()).unwrap();
    assert_eq!(said["params"]["update"]["content"]["text"], "hello\n", "one session does not hold up the other");
    assert_eq!(tool.answer(4)["result"]["stopReason"], "end_turn");
    let cancel = json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": first } });
    tool.write(&format!("{cancel}\n"));
    assert_eq!(tool.answer(3)["result"]["stopReason"], "cancelled");

    tool.write(&prompt(5, &second, "@malformed {not json\n@request vendor/thing\n@late too late"));
    assert_eq!(tool.line(), "{not json");
    let asked: Value = serde_json::from_str(&tool.line()).unwrap();
    assert_eq!((&asked["id"], &asked["method"]), (&json!(0), &json!("vendor/thing")));
    tool.write("{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{\"code\":-32601,\"message\":\"no\"}}\n");
    assert_eq!(tool.answer(5)["result"]["stopReason"], "end_turn");
    assert!(tool.line().contains("too late"));

    tool.write(&prompt(6, &first, "@die 7"));
    assert_eq!(tool.line(), "", "it has ended");
    assert_eq!(tool.end().0, Some(7));
    assert_nothing_left(&sandbox);
}

#[test]
fn the_definitions_load() {
    let (echo, program) = fake::echo_definition(&["--delay", "5"]);
    assert_eq!(echo.argv, [program.to_str().unwrap(), "--delay", "5"]);
    let (agent, _) = fake::acp_definition(&[]);
    assert_eq!(agent.sharing, readyroom::tool::Sharing::Many);
    let directory = tempfile::tempdir().unwrap();
    let files = ["a", "b"].map(|name| directory.path().join(format!("{name}.toml")));
    std::fs::write(&files[0], fake::echo_toml("a", &[])).unwrap();
    std::fs::write(&files[1], fake::acp_toml("b", &[], false)).unwrap();
    let layers = readyroom::tool::Layers { files: files.to_vec(), ..Default::default() };
    let registry = readyroom::tool::Registry::load(&layers).unwrap();
    assert!(registry.get("a").is_some() && registry.get("b").is_some());
}
