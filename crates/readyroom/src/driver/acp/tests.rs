//! The driver against what real agents said, word for word (ids and paths shortened), and against what none should say.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::driver::Activity;
use crate::job::{Denials, Mode};
use crate::tool::ContractOptions;

const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{"loadSession":true,"sessionCapabilities":{"close":{},"fork":{}}},"agentInfo":{"name":"OpenCode","version":"1.18.33"}}}"#;

fn contract(toml: &str, permissions: Permissions) -> Contract {
    let text = format!("id = \"x\"\ndriver = \"acp\"\nargv = [\"x\"]\n{toml}");
    let definition: Definition = toml::from_str(&text).unwrap();
    let options = ContractOptions { cwd: "/".into(), permissions, ..Default::default() };
    Contract::resolve(Arc::new(definition), Path::new("/bin/x"), &options).unwrap()
}

fn builtin(text: &str, permissions: Permissions) -> Contract {
    let definition: Definition = toml::from_str(text).unwrap();
    let options = ContractOptions { cwd: "/".into(), permissions, ..Default::default() };
    Contract::resolve(Arc::new(definition), Path::new("/bin/x"), &options).unwrap()
}

const GEMINI: &str = include_str!("../../tool/builtin/gemini.toml");
const OPENCODE: &str = include_str!("../../tool/builtin/opencode.toml");

fn turn(prompt: &str) -> Turn {
    Turn { prompt: prompt.into(), mode: Mode::Default, files: Vec::new(), permissions: Permissions::Full, schema: None }
}

/// A driver with what it wants done.
struct Peer {
    driver: Acp,
}

impl Peer {
    fn new(contract: &Contract) -> Self {
        Self { driver: Acp::new(contract) }
    }

    /// Past `initialize`, with slot 0 open as session `s1`, its prompt sent as request 3.
    fn running(contract: &Contract, prompt: &str) -> Self {
        let mut peer = Self::open(contract);
        peer.request(Request::Begin { slot: Slot(0), turn: turn(prompt) });
        peer
    }

    fn open(contract: &Contract) -> Self {
        let mut peer = Self::new(contract);
        let mut out = Vec::new();
        peer.driver.launched(&mut out);
        peer.hear(HELLO);
        peer.request(Request::Open { slot: Slot(0), cwd: "/repo".into() });
        let effects = peer.hear(r#"{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}"#);
        assert_eq!(effects, [Effect::Fresh { slot: Slot(0), proof: Proof::NewSession("s1".into()) }]);
        peer
    }

    fn request(&mut self, request: Request) -> Vec<Effect> {
        let mut out = Vec::new();
        self.driver.request(request, &mut out);
        out
    }

    fn hear(&mut self, line: &str) -> Vec<Effect> {
        let mut out = Vec::new();
        self.driver.stdout(line.as_bytes(), &mut out);
        self.driver.stdout(b"\n", &mut out);
        out
    }

    fn update(&mut self, session: &str, update: Value) -> Vec<Effect> {
        let params = json!({"sessionId": session, "update": update});
        self.hear(&json!({"jsonrpc": "2.0", "method": "session/update", "params": params}).to_string())
    }

    fn says(&mut self, text: &str) -> Vec<Effect> {
        self.update("s1", json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}))
    }

    fn answer(&mut self, id: u64, result: Value) -> TurnEnd {
        end(self.hear(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()))
    }

    fn fails(&mut self, error: &str) -> Failure {
        match end(self.hear(&format!(r#"{{"jsonrpc":"2.0","id":3,"error":{error}}}"#))).status {
            TurnStatus::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}

fn end(effects: Vec<Effect>) -> TurnEnd {
    match effects.into_iter().next_back() {
        Some(Effect::Ended { end, .. }) => *end,
        other => panic!("{other:?}"),
    }
}

fn written(effects: &[Effect]) -> Vec<Value> {
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::Write(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
        _ => None,
    });
    lines.collect()
}

fn failed(end: TurnEnd) -> FailureKind {
    match end.status {
        TurnStatus::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    }
}

fn anomalies(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Anomaly { .. })).count()
}

fn opencode_end() -> Value {
    json!({"stopReason": "end_turn", "usage": {"inputTokens": 1003, "outputTokens": 7, "totalTokens": 1010}, "_meta": {}})
}

fn gemini_end() -> Value {
    json!({"stopReason": "end_turn", "_meta": {"quota": {"token_count": {"input_tokens": 1001, "output_tokens": 7},
        "model_usage": [{"model": "gemini-2.5-flash", "token_count": {"input_tokens": 1001, "output_tokens": 7}}]}}})
}

fn gemini_nothing() -> Value {
    json!({"stopReason": "end_turn", "_meta": {"quota": {"token_count": {"input_tokens": 0, "output_tokens": 0},
        "model_usage": []}}})
}

#[test]
fn a_turn_from_launch_to_answer() {
    let mut peer = Peer::new(&builtin(OPENCODE, Permissions::Edit));
    let mut out = Vec::new();
    peer.driver.launched(&mut out);
    assert_eq!(written(&out)[0]["method"], "initialize");
    assert_eq!(peer.hear(HELLO), [Effect::Ready { version: Some("1.18.33".into()) }]);
    let out = peer.request(Request::Open { slot: Slot(0), cwd: "/repo".into() });
    assert_eq!(written(&out)[0]["params"], json!({"cwd": "/repo", "mcpServers": []}));
    peer.hear(r#"{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s1"}}"#);
    let files = vec!["/repo/a b%20\u{e9}.py".into()];
    let out = peer.request(Request::Begin { slot: Slot(0), turn: Turn { files, ..turn("Fix it.\n") } });
    assert_eq!(
        written(&out)[0]["params"],
        json!({"sessionId": "s1", "prompt": [
            {"type": "text", "text": "Fix it.\n"},
            {"type": "resource_link", "uri": "file:///repo/a%20b%2520%C3%A9.py", "name": "a b%20\u{e9}.py"}
        ]})
    );
    assert_eq!(peer.says("REPLY-"), [Effect::Activity { slot: Slot(0), activity: Activity::Text("REPLY-".into()) }]);
    peer.says("1\n");
    let end = peer.answer(3, opencode_end());
    assert_eq!(end.status, TurnStatus::Succeeded);
    assert_eq!(end.answer.text, "REPLY-1\n");
    assert_eq!((end.answer.usage.input_tokens, end.answer.usage.output_tokens), (Some(1003), Some(7)));
    assert_eq!(end.answer.denials, Denials::Known(vec![]));
}

/// A bug that others had (openclaw/acpx#228): a reset gave the same conversation back.
#[test]
fn a_reset_is_a_session_that_was_never_heard_of_and_closes_the_old_one() {
    let mut peer = Peer::open(&builtin(OPENCODE, Permissions::Edit));
    let out = peer.request(Request::Reset { slot: Slot(0) });
    assert_eq!(written(&out)[0]["params"]["cwd"], "/repo");
    let out = peer.hear(r#"{"jsonrpc":"2.0","id":3,"result":{"sessionId":"s2"}}"#);
    assert_eq!(out[0], Effect::Fresh { slot: Slot(0), proof: Proof::NewSession("s2".into()) });
    assert_eq!(written(&out)[0]["method"], "session/close");
    assert_eq!(written(&out)[0]["params"], json!({"sessionId": "s1"}));
    assert!(peer.hear(r#"{"jsonrpc":"2.0","id":4,"result":{}}"#).is_empty());

    peer.request(Request::Reset { slot: Slot(0) });
    let out = peer.hear(r#"{"jsonrpc":"2.0","id":5,"result":{"sessionId":"s1"}}"#);
    assert!(matches!(&out[0], Effect::NotFresh { failure, .. } if failure.kind == FailureKind::Protocol), "{out:?}");
}

#[test]
fn a_session_that_cannot_be_opened_says_why() {
    let mut peer = Peer::open(&builtin(GEMINI, Permissions::Edit));
    peer.request(Request::Reset { slot: Slot(0) });
    let out = peer.hear(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32000,"message":"Authentication required"}}"#);
    assert!(matches!(&out[0], Effect::NotFresh { failure, .. } if failure.kind == FailureKind::Auth), "{out:?}");
}

#[test]
fn a_mode_is_set_before_the_session_is_handed_out_and_its_echo_is_no_text() {
    let mut peer = Peer::new(&contract("settings = { mode = \"plan\" }", Permissions::Edit));
    peer.driver.launched(&mut Vec::new());
    peer.hear(HELLO);
    peer.request(Request::Open { slot: Slot(0), cwd: "/repo".into() });
    let out = peer.hear(r#"{"id":2,"result":{"sessionId":"s1","modes":{"availableModes":[{"id":"default"},{"id":"plan"}],"currentModeId":"default"}}}"#);
    assert_eq!(written(&out)[0]["method"], "session/set_mode");
    assert_eq!(out.len(), 1);
    assert!(matches!(peer.hear(r#"{"id":3,"result":{}}"#)[..], [Effect::Fresh { .. }]));
    peer.request(Request::Begin { slot: Slot(0), turn: turn("p") });
    assert_eq!(peer.says("[MODE_UPDATE] plan"), []);
    assert_eq!(anomalies(&peer.says("[MODE_UPDATE] autoEdit")), 0);
    peer.says("[MODE_UPDATE] plan");
    let end = peer.answer(4, gemini_end());
    assert_eq!(end.answer.text, "[MODE_UPDATE] autoEdit[MODE_UPDATE] plan");
}

#[test]
fn a_mode_that_the_agent_does_not_have_is_refused_before_it_is_sent() {
    let mut peer = Peer::new(&contract("settings = { mode = \"yolo\" }", Permissions::Edit));
    peer.driver.launched(&mut Vec::new());
    peer.hear(HELLO);
    peer.request(Request::Open { slot: Slot(0), cwd: "/repo".into() });
    let out = peer.hear(r#"{"id":2,"result":{"sessionId":"s1","configOptions":[{"id":"mode","options":[{"value":"build"},{"value":"plan"}]}]}}"#);
    assert!(matches!(&out[..], [Effect::NotFresh { failure, .. }] if failure.kind == FailureKind::BadInput), "{out:?}");
}

#[test]
fn prompts_that_begin_like_commands_get_a_block_before_them() {
    let blocks = |toml: &str, prompt: &str| {
        let framing = Framing::new(&builtin(toml, Permissions::Edit));
        framing.blocks(&turn(prompt))
    };
    let text = |text: &str| json!({"type": "text", "text": text});
    for prompt in ["/help", " \n/init x", "/etc/hosts is"] {
        let hidden = json!({"type": "text", "text": ".", "annotations": {"audience": ["user"]}});
        assert_eq!(blocks(OPENCODE, prompt), [hidden, text(prompt)]);
        assert_eq!(blocks(GEMINI, prompt), [text("\u{2060}"), text(prompt)]);
    }
    assert_eq!(blocks(GEMINI, "$help"), [text("\u{2060}"), text("$help")]);
    for prompt in ["hello /help", "!ls", "@a.py", "{\"a\":1}", "x\n/help"] {
        assert_eq!(blocks(OPENCODE, prompt), [text(prompt)]);
        assert_eq!(blocks(GEMINI, prompt), [text(prompt)]);
    }
    let plain = Framing::new(&builtin(GEMINI, Permissions::Edit));
    let link = plain.blocks(&Turn { files: vec!["/r/a b%20.py".into()], ..turn("p") });
    assert_eq!(link[1]["uri"], "file:///r/a b%20.py");
    assert!(plain.refuses(&turn("")).is_some_and(|failure| failure.kind == FailureKind::BadInput));
    assert!(plain.refuses(&turn(" ")).is_none());
}

#[test]
fn an_end_without_a_request_to_the_model_is_no_success() {
    // opencode, for a prompt that it took for a command.
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    assert_eq!(failed(peer.answer(3, json!({"stopReason": "end_turn", "_meta": {}}))), FailureKind::NotRun);
    // Gemini, for a command that it carried out itself.
    let mut peer = Peer::running(&builtin(GEMINI, Permissions::Edit), "p");
    assert_eq!(failed(peer.answer(3, gemini_nothing())), FailureKind::NotRun);
    // Gemini, for a stream that broke off and was tried four times.
    let mut peer = Peer::running(&builtin(GEMINI, Permissions::Edit), "p");
    (0..4).for_each(|_| drop(peer.says("PART")));
    let end = peer.answer(3, gemini_nothing());
    assert_eq!(end.answer.text, "PARTPARTPARTPART");
    assert_eq!(failed(end), FailureKind::ModelError);
    // An answer of nothing.
    let mut peer = Peer::running(&builtin(GEMINI, Permissions::Edit), "p");
    assert_eq!(failed(peer.answer(3, gemini_end())), FailureKind::ModelError);
    // An agent that tells no usage, but said something.
    let mut peer = Peer::running(&contract("", Permissions::Edit), "p");
    peer.says("yes");
    assert_eq!(peer.answer(3, json!({"stopReason": "end_turn"})).status, TurnStatus::Succeeded);
}

#[test]
fn every_stop_reason_has_its_meaning() {
    for (reason, kind) in [
        ("max_tokens", FailureKind::ModelError),
        ("refusal", FailureKind::ModelError),
        ("max_turn_requests", FailureKind::ModelError),
        ("cancelled", FailureKind::Protocol),
        ("bored", FailureKind::Protocol),
    ] {
        let mut peer = Peer::running(&builtin(GEMINI, Permissions::Edit), "p");
        peer.says("text");
        let mut result = gemini_end();
        result["stopReason"] = reason.into();
        assert_eq!(failed(peer.answer(3, result)), kind, "{reason}");
    }
}

#[test]
fn after_our_cancel_every_end_is_cancelled() {
    for result in [opencode_end(), json!({"stopReason": "cancelled"}), gemini_nothing()] {
        let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
        let out = peer.request(Request::Cancel { slot: Slot(0) });
        assert_eq!(
            written(&out),
            [json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s1"}})]
        );
        let end = peer.answer(3, result);
        assert_eq!(end.status, TurnStatus::Cancelled);
        assert_eq!(end.answer.usage, crate::job::Usage::default());
    }
    let mut peer = Peer::open(&builtin(OPENCODE, Permissions::Edit));
    assert_eq!(peer.request(Request::Cancel { slot: Slot(0) }), []);
}

#[test]
fn a_permission_asked_for_after_the_cancel_is_answered_as_cancelled() {
    let mut peer = Peer::running(&builtin(GEMINI, Permissions::Full), "p");
    peer.request(Request::Cancel { slot: Slot(0) });
    let out = peer.hear(&gemini_asks("/repo/new.txt"));
    assert_eq!(written(&out)[0]["result"], json!({"outcome": {"outcome": "cancelled"}}));
    assert_eq!(peer.answer(3, json!({"stopReason": "cancelled"})).status, TurnStatus::Cancelled);
    // And one after the end of the turn, too.
    let out = peer.hear(&gemini_asks("/repo/new.txt"));
    assert_eq!(written(&out)[0]["result"], json!({"outcome": {"outcome": "cancelled"}}));
    assert_eq!(anomalies(&out), 1);
}

fn gemini_asks(path: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": {"sessionId": "s1",
        "options": [{"optionId": "proceed_always", "name": "Allow for this session", "kind": "allow_always"},
            {"optionId": "proceed_once", "name": "Allow", "kind": "allow_once"},
            {"optionId": "cancel", "name": "Reject", "kind": "reject_once"}],
        "toolCall": {"toolCallId": "w0", "status": "pending", "title": "Writing to new.txt",
            "content": [{"type": "diff", "path": path, "oldText": "", "newText": "hello\n", "_meta": {"kind": "add"}}],
            "locations": [{"path": path}], "kind": "edit"}}})
    .to_string()
}

#[test]
fn a_grant_is_for_once_and_a_denial_is_in_the_answer() {
    let mut peer = Peer::running(&builtin(GEMINI, Permissions::Edit), "p");
    let out = peer.hear(&gemini_asks("/repo/new.txt"));
    assert_eq!(written(&out)[0]["id"], 0);
    assert_eq!(written(&out)[0]["result"], json!({"outcome": {"outcome": "selected", "optionId": "proceed_once"}}));
    peer.says("I write.");
    peer.update("s1", json!({"sessionUpdate": "tool_call_update", "toolCallId": "w0", "status": "completed",
        "title": "Writing to new.txt", "content": [{"type": "diff", "path": "/repo/new.txt", "oldText": "", "newText": "hello\n"}],
        "locations": [{"path": "/repo/new.txt"}], "kind": "edit"}));
    let out = peer.hear(&gemini_asks("/elsewhere/new.txt"));
    assert_eq!(written(&out)[0]["result"], json!({"outcome": {"outcome": "selected", "optionId": "cancel"}}));
    peer.says("Done.");
    let end = peer.answer(3, gemini_end());
    assert_eq!(end.status, TurnStatus::Succeeded);
    assert_eq!((end.answer.text, end.answer.transcript), ("Done.".into(), "I write.Done.".into()));
    assert_eq!(end.answer.changed_files, [Path::new("/repo/new.txt")]);
    assert!(matches!(&end.answer.denials, Denials::Known(denials) if denials.len() == 1), "{:?}", end.answer.denials);
}

#[test]
fn a_turn_that_stops_at_a_denial_is_no_success() {
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    peer.says("I will.");
    peer.update(
        "s1",
        json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "bash", "kind": "execute",
        "status": "pending", "rawInput": {"cwd": "/repo"}}),
    );
    let out = peer.hear(r#"{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"sessionId":"s1","toolCall":{"toolCallId":"c","title":"echo hi > /repo/sh.txt","kind":"execute","status":"pending","locations":[],"rawInput":{"command":"echo hi > /repo/sh.txt"}},"options":[{"optionId":"once","kind":"allow_once","name":"Allow once"},{"optionId":"always","kind":"allow_always","name":"Always allow"},{"optionId":"reject","kind":"reject_once","name":"Reject"}]}}"#);
    assert_eq!(written(&out)[0]["result"]["outcome"]["optionId"], "reject");
    peer.update(
        "s1",
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "failed", "kind": "execute",
        "title": "echo hi > /repo/sh.txt", "content": [{"type": "content", "content": {"type": "text",
        "text": "The user rejected permission to use this specific tool call."}}]}),
    );
    let end = peer.answer(3, opencode_end());
    assert_eq!(
        end.answer.denials,
        Denials::Known(vec![
            "echo hi > /repo/sh.txt: running a shell command is not allowed here (permissions: edit)".into()
        ])
    );
    assert_eq!(failed(end), FailureKind::PermissionDenied);
}

#[test]
fn a_question_never_gets_more_than_reading() {
    let mut peer = Peer::open(&builtin(OPENCODE, Permissions::Full));
    peer.request(Request::Begin { slot: Slot(0), turn: Turn { mode: Mode::Ask, ..turn("p") } });
    let out = peer.hear(&gemini_asks("/repo/new.txt"));
    assert_eq!(written(&out)[0]["result"]["outcome"]["optionId"], "cancel");
}

#[test]
fn what_an_agent_does_unasked_against_the_level_ends_the_turn() {
    let done = |kind: &str, path: &str| {
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "completed", "kind": kind,
            "title": "echo hi", "locations": [{"path": path}]})
    };
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    let out = peer.update("s1", done("execute", "/repo"));
    assert_eq!(written(&out)[0]["method"], "session/cancel");
    assert_eq!(failed(peer.answer(3, json!({"stopReason": "cancelled"}))), FailureKind::PermissionDenied);

    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    assert_eq!(written(&peer.update("s1", done("edit", "/repo/a.py"))).len(), 0);
    peer.says("ok");
    assert_eq!(peer.answer(3, opencode_end()).status, TurnStatus::Succeeded);

    let mut peer = Peer::running(&contract("settings = { unasked = \"trust\" }", Permissions::Edit), "p");
    assert_eq!(written(&peer.update("s1", done("execute", "/repo"))).len(), 0);
}

#[test]
fn requests_for_what_the_client_does_not_have_are_answered() {
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    let out = peer.hear(r#"{"jsonrpc":"2.0","id":1,"method":"fs/write_text_file","params":{"sessionId":"s1","path":"/repo/new.txt","content":"hello\n"}}"#);
    assert_eq!((written(&out)[0]["id"].clone(), written(&out)[0]["error"]["code"].clone()), (json!(1), json!(-32601)));
    assert_eq!(out.len(), 1);
    let out = peer.hear(r#"{"jsonrpc":"2.0","id":3,"method":"_x/ask","params":{}}"#);
    assert_eq!(written(&out)[0]["error"]["code"], -32601);
    assert_eq!(anomalies(&out), 1);
    peer.says("still here");
    assert_eq!(peer.answer(3, opencode_end()).status, TurnStatus::Succeeded);
}

#[test]
fn failed_model_calls_have_their_kinds() {
    let opencode = |error: &str| Peer::running(&builtin(OPENCODE, Permissions::Edit), "p").fails(error).kind;
    let gemini = |error: &str| Peer::running(&builtin(GEMINI, Permissions::Edit), "p").fails(error).kind;
    let limited =
        |seconds: Option<u64>| FailureKind::RateLimited { retry_after: seconds.map(std::time::Duration::from_secs) };
    let window = FailureKind::UsageWindow { resets_at: None };
    let api = |text: &str| {
        format!(
            r#"{{"code":-32603,"message":"Internal error: {text}","data":{{"service":"session","errorName":"APIError"}}}}"#
        )
    };
    assert_eq!(opencode(&api("mock: Incorrect API key")), FailureKind::Auth);
    assert_eq!(opencode(&api("mock: Rate limit reached")), limited(None));
    assert_eq!(opencode(&api("You exceeded your current quota")), window);
    assert_eq!(opencode(&api("mock: internal")), FailureKind::ModelError);
    assert_eq!(opencode(&api("Connection reset by server")), FailureKind::ModelError);
    assert_eq!(opencode(&api("The model `x` does not exist")), FailureKind::UnknownModel);
    assert_eq!(
        opencode(r#"{"code":-32603,"message":"Internal error: too long","data":{"errorName":"ContextOverflowError"}}"#),
        FailureKind::ModelError
    );
    assert_eq!(
        gemini(r#"{"code":401,"message":"{\"error\":{\"code\":401,\"status\":\"UNAUTHENTICATED\"}}"}"#),
        FailureKind::Auth
    );
    assert_eq!(gemini(r#"{"code":400,"message":"API key not valid. API_KEY_INVALID"}"#), FailureKind::Auth);
    assert_eq!(
        gemini(r#"{"code":429,"message":"mock: Resource exhausted\nSuggested retry after 3s."}"#),
        limited(Some(3))
    );
    assert_eq!(gemini(r#"{"code":429,"message":"Rate limit exceeded. Try again later."}"#), limited(None));
    assert_eq!(gemini(r#"{"code":429,"message":"You have exhausted your daily quota on this model."}"#), window);
    assert_eq!(gemini(r#"{"code":500,"message":"terminated"}"#), FailureKind::ModelError);
    assert_eq!(gemini(r#"{"code":400,"message":"maximum context length is 100 tokens"}"#), FailureKind::ModelError);
    assert_eq!(gemini(r#"{"code":404,"message":"models/x is not found"}"#), FailureKind::UnknownModel);
    assert_eq!(gemini(r#"{"code":-32602,"message":"Session not found: nope"}"#), FailureKind::Protocol);
}

/// A bug that others had (openclaw/acpx#251): a turn was closed with updates of its answer still to come.
#[test]
fn late_news_is_kept_out_of_the_next_turn() {
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    let chunk = |text: &str, message: &str| json!({"sessionUpdate": "agent_message_chunk", "messageId": message, "content": {"type": "text", "text": text}});
    peer.update("s1", chunk("one", "m1"));
    peer.answer(3, opencode_end());
    assert_eq!(anomalies(&peer.update("s1", chunk("late", "m1"))), 1);
    assert_eq!(anomalies(&peer.update("s0", chunk("whose?", "m1"))), 1);
    assert_eq!(peer.update("s1", json!({"sessionUpdate": "available_commands_update", "availableCommands": []})), []);
    peer.request(Request::Begin { slot: Slot(0), turn: turn("q") });
    assert_eq!(anomalies(&peer.update("s1", chunk("later", "m1"))), 1);
    peer.update("s1", chunk("two", "m2"));
    assert_eq!(peer.answer(4, opencode_end()).answer.text, "two");
    assert_eq!(anomalies(&peer.hear(r#"{"id":4,"result":{"stopReason":"end_turn"}}"#)), 1);
}

#[test]
fn an_answer_that_is_started_over_is_the_last_one() {
    // opencode, for a stream that ended without a finish marker and was asked for again.
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    for (text, message) in [("PA", "msg_1"), ("RT", "msg_1"), ("FU", "msg_2"), ("LL", "msg_2")] {
        peer.update(
            "s1",
            json!({"sessionUpdate": "agent_message_chunk", "messageId": message,
            "content": {"type": "text", "text": text}}),
        );
    }
    let answer = peer.answer(3, opencode_end()).answer;
    assert_eq!((answer.text, answer.transcript), ("FULL".into(), "PARTFULL".into()));
}

#[test]
fn what_is_no_message_changes_nothing() {
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    for line in ["hello", "[]", "{\"method\":\"x/y\"}", "{\"id\":99,\"result\":{}}"] {
        assert_eq!(anomalies(&peer.hear(line)), 1, "{line}");
    }
    assert_eq!(peer.hear("  "), []);
    peer.says("fine");
    assert_eq!(peer.answer(3, opencode_end()).answer.text, "fine");
}

#[test]
fn an_answer_beyond_the_limit_ends_the_turn() {
    let mut peer = Peer::running(&contract("limits = { output_bytes = 1000 }", Permissions::Edit), "p");
    (0..9).for_each(|_| drop(peer.says(&"x".repeat(100))));
    let out = peer.says(&"x".repeat(101));
    assert_eq!(written(&out)[0]["method"], "session/cancel");
    assert_eq!(failed(peer.answer(3, json!({"stopReason": "cancelled"}))), FailureKind::OutputLimit);
    let out = peer.hear(&"y".repeat(1001));
    assert!(matches!(&out[..], [Effect::Broken(failure)] if failure.kind == FailureKind::OutputLimit), "{out:?}");
}

#[test]
fn an_agent_of_another_version_is_refused() {
    let mut peer = Peer::new(&contract("", Permissions::Edit));
    peer.driver.launched(&mut Vec::new());
    let out = peer.hear(r#"{"id":1,"result":{"protocolVersion":2}}"#);
    assert!(matches!(&out[..], [Effect::Broken(failure)] if failure.kind == FailureKind::Protocol), "{out:?}");
}

#[test]
fn a_ping_is_answered_by_any_answer() {
    let mut peer = Peer::open(&builtin(GEMINI, Permissions::Edit));
    assert_eq!(written(&peer.request(Request::Ping))[0]["method"], "_readyroom/ping");
    assert_eq!(peer.request(Request::Ping), []);
    let out = peer
        .hear(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"\"Method not found\": _readyroom/ping"}}"#);
    assert_eq!(out, [Effect::Pong]);
}

#[test]
fn a_slot_that_was_closed_gets_nothing_any_more() {
    let mut peer = Peer::running(&builtin(OPENCODE, Permissions::Edit), "p");
    let out = written(&peer.request(Request::Close { slot: Slot(0) }));
    assert_eq!((&out[0]["method"], &out[1]["method"]), (&json!("session/cancel"), &json!("session/close")));
    peer.request(Request::Open { slot: Slot(0), cwd: "/repo".into() });
    assert_eq!(peer.hear(r#"{"id":3,"result":{"stopReason":"cancelled"}}"#), []);
    assert_eq!(anomalies(&peer.says("late")), 1);
    // Closed and opened again before the answer: only the last session counts.
    peer.request(Request::Close { slot: Slot(0) });
    peer.request(Request::Open { slot: Slot(0), cwd: "/other".into() });
    let out = peer.hear(r#"{"id":5,"result":{"sessionId":"s5"}}"#);
    assert_eq!(written(&out)[0]["method"], "session/close");
    assert_eq!(out.len(), 1);
    let out = peer.hear(r#"{"id":6,"result":{"sessionId":"s6"}}"#);
    assert_eq!(out, [Effect::Fresh { slot: Slot(0), proof: Proof::NewSession("s6".into()) }]);
}

/// Everything that two sessions in one process say, in one stream.
fn interleaved(order: &[bool]) -> (Vec<u8>, String, String) {
    let mut bytes = Vec::new();
    let mut texts = [String::new(), String::new()];
    for (number, second) in order.iter().enumerate() {
        let which = usize::from(*second);
        let text = format!("{which}-{number}\u{e9} ");
        texts[which].push_str(&text);
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}});
        let params = json!({"sessionId": format!("s{}", which + 1), "update": update});
        bytes.extend(json!({"jsonrpc": "2.0", "method": "session/update", "params": params}).to_string().into_bytes());
        bytes.push(b'\n');
    }
    for id in [5, 6] {
        bytes.extend(json!({"jsonrpc": "2.0", "id": id, "result": opencode_end()}).to_string().into_bytes());
        bytes.push(b'\n');
    }
    let [first, second] = texts;
    (bytes, first, second)
}

fn two_sessions() -> Peer {
    let mut peer = Peer::open(&builtin(OPENCODE, Permissions::Edit));
    peer.request(Request::Open { slot: Slot(1), cwd: "/repo2".into() });
    peer.hear(r#"{"id":3,"result":{"sessionId":"s2"}}"#);
    peer.request(Request::Ping);
    peer.hear(r#"{"id":4,"error":{"code":-32601,"message":"no"}}"#);
    peer.request(Request::Begin { slot: Slot(0), turn: turn("p") });
    peer.request(Request::Begin { slot: Slot(1), turn: turn("q") });
    peer
}

proptest! {
    #[test]
    fn sessions_stay_apart_and_any_split_of_the_stream_is_the_same(
        order in prop::collection::vec(any::<bool>(), 0..20),
        cuts in prop::collection::vec(1usize..200, 0..40),
    ) {
        let (bytes, first, second) = interleaved(&order);
        let mut whole = Vec::new();
        two_sessions().driver.stdout(&bytes, &mut whole);
        let mut pieces = Vec::new();
        let mut peer = two_sessions();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            peer.driver.stdout(piece, &mut pieces);
            rest = behind;
        }
        peer.driver.stdout(rest, &mut pieces);
        prop_assert_eq!(&whole, &pieces);
        let texts: Vec<(Slot, String)> = whole.iter().filter_map(|effect| match effect {
            Effect::Ended { slot, end } => Some((*slot, end.answer.text.to_string())),
            _ => None,
        }).collect();
        prop_assert_eq!(texts, vec![(Slot(0), first), (Slot(1), second)]);
    }

    #[test]
    fn nothing_that_an_agent_says_panics(lines in prop::collection::vec(any_line(), 0..12)) {
        let mut peer = two_sessions();
        lines.iter().for_each(|line| drop(peer.hear(line)));
    }
}

fn any_line() -> impl Strategy<Value = String> {
    let method = prop_oneof![Just("session/update"), Just("session/request_permission"), Just("x")];
    let kind = prop_oneof![Just("agent_message_chunk"), Just("tool_call"), Just("tool_call_update"), Just("y")];
    let junk = prop_oneof![
        Just(json!(null)),
        Just(json!("a")),
        Just(json!([1, {}])),
        Just(json!({"text": "t"})),
        Just(json!(7))
    ];
    (method, kind, junk.clone(), junk, any::<bool>()).prop_map(|(method, kind, a, b, with_id)| {
        let mut line = json!({"method": method, "params": {"sessionId": "s1", "options": a.clone(), "toolCall": b.clone(),
            "update": {"sessionUpdate": kind, "content": a, "toolCallId": "c", "status": "completed", "locations": b}}});
        if with_id {
            line["id"] = json!(0);
        }
        line.to_string()
    })
}
