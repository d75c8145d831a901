//! The driver without a process: what it does with single messages, and (in `replay`) with what Codex 0.169.0 really said.
//! A transcript holds the literal lines of its stdout; a line that
//! begins with `#` is what the runtime asked of the driver at that point.

mod replay;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::driver::{Activity, Proof};
use crate::job::Mode;
use crate::tool::{BUILTIN, ContractOptions};

const EDIT: &str = include_str!("../transcripts/edit.jsonl");
const TWO: &str = include_str!("../transcripts/two.jsonl");
const CANCEL: &str = include_str!("../transcripts/cancel.jsonl");
const RETRY: &str = include_str!("../transcripts/retry.jsonl");
const DENIED: &str = include_str!("../transcripts/denied.jsonl");
const UNAUTHORIZED: &str = include_str!("../transcripts/unauthorized.jsonl");
const SPAWNED: &str = include_str!("../transcripts/spawned.jsonl");
const ALL: [&str; 7] = [EDIT, TWO, CANCEL, RETRY, DENIED, UNAUTHORIZED, SPAWNED];

fn definition() -> Arc<Definition> {
    let (_, text) = BUILTIN.iter().find(|(id, _)| *id == "codex").unwrap();
    Arc::new(toml::from_str(text).unwrap())
}

fn driver(permissions: Permissions) -> Codex {
    let options = ContractOptions { permissions, ..ContractOptions::default() };
    Codex::new(&Contract::resolve(definition(), Path::new("/bin/codex"), &options).unwrap())
}

fn turn(prompt: &str) -> Turn {
    Turn { prompt: prompt.into(), mode: Mode::Default, files: vec![], permissions: Permissions::Edit, schema: None }
}

fn asked(words: &str) -> Request {
    let (what, rest) = words.split_once(' ').unwrap();
    let (slot, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let slot = Slot(slot.parse().unwrap());
    match what {
        "open" => Request::Open { slot, cwd: rest.into() },
        "begin" => Request::Begin { slot, turn: turn(rest) },
        "cancel" => Request::Cancel { slot },
        "reset" => Request::Reset { slot },
        other => panic!("{other}"),
    }
}

/// Plays a transcript; its bytes come in pieces of these sizes, over and over.
fn play(transcript: &str, pieces: &[usize]) -> Vec<Effect> {
    let mut driver = driver(Permissions::Edit);
    let mut out = Vec::new();
    let mut sizes = pieces.iter().copied().cycle();
    driver.launched(&mut out);
    let mut bytes = String::new();
    let mut flush = |bytes: &mut String, driver: &mut Codex, out: &mut Vec<Effect>| {
        let mut rest = bytes.as_bytes();
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
            driver.stdout(piece, out);
            rest = others;
        }
        bytes.clear();
    };
    for line in transcript.split_inclusive('\n') {
        match line.strip_prefix('#') {
            Some(words) => {
                flush(&mut bytes, &mut driver, &mut out);
                driver.request(asked(words.trim_end()), &mut out);
            }
            None => bytes.push_str(line),
        }
    }
    flush(&mut bytes, &mut driver, &mut out);
    out
}

fn whole(transcript: &str) -> Vec<Effect> {
    play(transcript, &[usize::MAX])
}

fn sent(effects: &[Effect]) -> Vec<Value> {
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::Write(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
        _ => None,
    });
    lines.collect()
}

fn methods(effects: &[Effect]) -> Vec<String> {
    sent(effects).iter().filter_map(|message| message["method"].as_str().map(str::to_owned)).collect()
}

fn ends(effects: &[Effect], of: u32) -> Vec<TurnEnd> {
    let ends = effects.iter().filter_map(|effect| match effect {
        Effect::Ended { slot, end } if slot.0 == of => Some((**end).clone()),
        _ => None,
    });
    ends.collect()
}

fn only_end(effects: &[Effect]) -> TurnEnd {
    let mut ends = ends(effects, 0);
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends.remove(0)
}

fn activities(effects: &[Effect]) -> Vec<Activity> {
    let activities = effects.iter().filter_map(|effect| match effect {
        Effect::Activity { activity, .. } => Some(activity.clone()),
        _ => None,
    });
    activities.collect()
}

fn anomalies(effects: &[Effect]) -> Vec<&'static str> {
    let anomalies = effects.iter().filter_map(|effect| match effect {
        Effect::Anomaly { what, .. } => Some(*what),
        _ => None,
    });
    anomalies.collect()
}

/// A driver with a conversation in slot 0, and the thread's id.
fn open(permissions: Permissions) -> (Codex, String) {
    let mut driver = driver(permissions);
    let mut out = Vec::new();
    driver.launched(&mut out);
    let start = EDIT.lines().take_while(|line| !line.starts_with("#begin"));
    for line in start {
        match line.strip_prefix('#') {
            Some(words) => driver.request(asked(words), &mut out),
            None => driver.stdout(format!("{line}\n").as_bytes(), &mut out),
        }
    }
    let fresh = out.iter().find_map(|effect| match effect {
        Effect::Fresh { proof: Proof::NewSession(id), .. } => Some(id.clone()),
        _ => None,
    });
    (driver, fresh.expect("a conversation"))
}

fn say(driver: &mut Codex, message: &Value) -> Vec<Effect> {
    let mut out = Vec::new();
    driver.stdout(format!("{message}\n").as_bytes(), &mut out);
    out
}

fn ask(driver: &mut Codex, request: Request) -> Vec<Effect> {
    let mut out = Vec::new();
    driver.request(request, &mut out);
    out
}

fn begin(driver: &mut Codex, thread: &str, id: &str) {
    let effects = ask(driver, Request::Begin { slot: Slot(0), turn: turn("p") });
    let request = sent(&effects)[0]["id"].clone();
    say(driver, &json!({"id": request, "result": {"turn": {"id": id, "status": "inProgress"}}}));
    say(driver, &json!({"method": "turn/started", "params": {"threadId": thread, "turn": {"id": id}}}));
}

fn completed(thread: &str, id: &str, status: &str, error: Value) -> Value {
    json!({"method": "turn/completed", "params": {"threadId": thread, "turn": {"id": id, "status": status, "items": [], "error": error}}})
}

/// Answers all requests to end something, until none is left.
fn settle(driver: &mut Codex, mut effects: Vec<Effect>) -> Vec<Effect> {
    let mut all = Vec::new();
    loop {
        let ids: Vec<_> = sent(&effects)
            .into_iter()
            .filter(|message| {
                message["method"]
                    .as_str()
                    .is_some_and(|method| method.contains("clean") || method.contains("interrupt"))
            })
            .map(|message| message["id"].clone())
            .collect();
        all.append(&mut effects);
        if ids.is_empty() {
            return all;
        }
        for id in ids {
            effects.extend(say(driver, &json!({"id": id, "result": {}})));
        }
    }
}

/// The verdict, the message, and what they mean: the rows of the failure table, with the texts as they came.
#[test]
fn the_failure_table() {
    let status = |name: &str, status: u32| json!({name: {"httpStatusCode": status}});
    let rows = [
        (json!("other"), "{\"error\": {\"message\": \"boom 400\", \"type\": \"x\"}}", "model_error"),
        (
            status("httpConnectionFailed", 401),
            "unexpected status 401 Unauthorized: boom 401, url: http://x/v1/responses",
            "auth",
        ),
        (
            status("httpConnectionFailed", 403),
            "unexpected status 403 Forbidden: boom 403, url: http://x/v1/responses",
            "auth",
        ),
        (json!("unauthorized"), "signed out", "auth"),
        (json!("other"), "Missing environment variable: `MOCK_KEY`.", "auth"),
        (
            status("httpConnectionFailed", 404),
            "unexpected status 404 Not Found: boom 404, url: http://x/v1/responses",
            "unknown_model",
        ),
        (json!("modelNotFound"), "The model `gpt-5` does not exist or you do not have access to it.", "unknown_model"),
        (json!("modelNotFound"), "The requested model 'gpt-5' does not exist.", "unknown_model"),
        (
            status("responseTooManyFailedAttempts", 429),
            "exceeded retry limit, last status: 429 Too Many Requests",
            "rate_limited",
        ),
        (json!("rateLimitExceeded"), "Rate limit reached. Please try again in 1.5s.", "rate_limited"),
        (json!("usageLimitExceeded"), "You\u{2019}ve hit your usage limit. Try again later.", "usage_window"),
        (json!("usageLimitExceeded"), "Quota exceeded. Check your plan and billing details.", "usage_window"),
        (
            json!("internalServerError"),
            "We\u{2019}re currently experiencing high demand, which may cause temporary errors.",
            "model_error",
        ),
        (status("httpConnectionFailed", 529), "unexpected status 529 <unknown status code>: boom 529", "model_error"),
        (
            json!("other"),
            "stream disconnected before completion: stream closed before response.completed",
            "model_error",
        ),
        (json!("contextWindowExceeded"), "Codex ran out of room in the model's context window.", "model_error"),
        (json!("serverOverloaded"), "busy", "model_error"),
        (json!("tooManyDenials"), "too many denials", "permission_denied"),
        (json!(null), "no verdict", "model_error"),
        // What a message quotes decides nothing.
        (
            json!("other"),
            "the text said \"httpStatusCode\":401 and \"unauthorized\" and usageLimitExceeded",
            "model_error",
        ),
    ];
    for (verdict, message, kind) in rows {
        let (mut driver, thread) = open(Permissions::Edit);
        begin(&mut driver, &thread, "t");
        let error = json!({"message": message, "codexErrorInfo": verdict, "additionalDetails": null});
        let effects = say(&mut driver, &completed(&thread, "t", "failed", error));
        let effects = settle(&mut driver, effects);
        let TurnStatus::Failed(failure) = only_end(&effects).status else { panic!("{verdict}") };
        assert_eq!(failure.kind.name(), kind, "{verdict} {message}");
        assert_eq!(failure.message, message);
    }
}

#[test]
fn a_wait_that_is_told_is_kept() {
    let error = json!({"message": "Please try again in 1.5s.", "codexErrorInfo": "rateLimitExceeded"});
    let failure = failure::of_turn(&definition(), &error, &jiff::ZonedDateTime::now());
    let retry_after = Some(std::time::Duration::from_millis(1500));
    assert_eq!(failure.kind, FailureKind::RateLimited { retry_after });
    let error = json!({"message": "x or try again at 7:14 PM.", "codexErrorInfo": "usageLimitExceeded"});
    let failure = failure::of_turn(&definition(), &error, &jiff::ZonedDateTime::now());
    assert!(matches!(failure.kind, FailureKind::UsageWindow { resets_at: Some(_) }));
}

#[test]
fn a_completed_turn_that_did_not_run() {
    let (mut driver, thread) = open(Permissions::Edit);
    begin(&mut driver, &thread, "t");
    let effects = say(&mut driver, &completed(&thread, "t", "completed", Value::Null));
    let effects = settle(&mut driver, effects);
    let TurnStatus::Failed(failure) = only_end(&effects).status else { panic!() };
    assert_eq!(failure.kind, FailureKind::NotRun);

    begin(&mut driver, &thread, "u");
    let usage = json!({"total": {"inputTokens": 5, "outputTokens": 0}});
    say(
        &mut driver,
        &json!({"method": "thread/tokenUsage/updated", "params": {"threadId": thread, "turnId": "u", "tokenUsage": usage}}),
    );
    let effects = say(&mut driver, &completed(&thread, "u", "completed", Value::Null));
    let effects = settle(&mut driver, effects);
    let TurnStatus::Failed(failure) = only_end(&effects).status else { panic!() };
    assert_eq!(failure.kind, FailureKind::ModelError, "an empty answer");
}

#[test]
fn a_turn_that_codex_interrupts_by_itself_failed() {
    let (mut driver, thread) = open(Permissions::Edit);
    begin(&mut driver, &thread, "t");
    let effects = say(&mut driver, &completed(&thread, "t", "interrupted", Value::Null));
    let effects = settle(&mut driver, effects);
    let TurnStatus::Failed(failure) = only_end(&effects).status else { panic!() };
    assert_eq!(failure.kind, FailureKind::Protocol);
}

#[test]
fn the_turns_id_may_come_first_from_either_side() {
    for started_first in [true, false] {
        let (mut driver, thread) = open(Permissions::Edit);
        let effects = ask(&mut driver, Request::Begin { slot: Slot(0), turn: turn("p") });
        let request = sent(&effects)[0]["id"].clone();
        let answer = json!({"id": request, "result": {"turn": {"id": "t"}}});
        let started = json!({"method": "turn/started", "params": {"threadId": thread, "turn": {"id": "t"}}});
        let mut effects = Vec::new();
        for message in if started_first { [&started, &answer] } else { [&answer, &started] } {
            effects.extend(say(&mut driver, message));
        }
        assert_eq!(effects, [Effect::Accepted { slot: Slot(0) }], "{started_first}");
    }
}

#[test]
fn a_cancel_waits_for_the_turns_id() {
    let (mut driver, thread) = open(Permissions::Edit);
    let effects = ask(&mut driver, Request::Begin { slot: Slot(0), turn: turn("p") });
    let request = sent(&effects)[0]["id"].clone();
    assert_eq!(ask(&mut driver, Request::Cancel { slot: Slot(0) }), []);
    let effects = say(&mut driver, &json!({"id": request, "result": {"turn": {"id": "t"}}}));
    assert_eq!(sent(&effects)[0]["params"], json!({"threadId": thread, "turnId": "t"}));
    assert_eq!(ask(&mut driver, Request::Cancel { slot: Slot(0) }), [], "once is enough");
    // Too early for Codex: it is sent again when the turn has started.
    let interrupt = sent(&effects)[0]["id"].clone();
    let refused = json!({"id": interrupt, "error": {"code": -32600, "message": "no active turn to interrupt"}});
    assert_eq!(methods(&say(&mut driver, &refused)), <[String; 0]>::default());
    let started = json!({"method": "turn/started", "params": {"threadId": thread, "turn": {"id": "t"}}});
    assert_eq!(methods(&say(&mut driver, &started)), ["turn/interrupt"]);
    let effects = say(&mut driver, &completed(&thread, "t", "completed", Value::Null));
    let effects = settle(&mut driver, effects);
    assert_eq!(only_end(&effects).status, TurnStatus::Cancelled, "whatever Codex calls it");
}

#[test]
fn a_turn_that_is_refused_ends() {
    let (mut driver, _) = open(Permissions::Edit);
    let effects = ask(&mut driver, Request::Begin { slot: Slot(0), turn: turn("p") });
    let request = sent(&effects)[0]["id"].clone();
    let error = json!({"code": -32602, "message": "Input exceeds the maximum length of 1048576 characters.",
        "data": {"input_error_code": "input_too_large", "max_chars": 1048576, "actual_chars": 1048577}});
    let effects = say(&mut driver, &json!({"id": request, "error": error}));
    let TurnStatus::Failed(failure) = only_end(&effects).status else { panic!() };
    assert_eq!(failure.kind, FailureKind::BadInput);
}

#[test]
fn a_turn_that_codex_begins_by_itself_takes_no_prompt() {
    let (mut driver, thread) = open(Permissions::Edit);
    let started = json!({"method": "turn/started", "params": {"threadId": thread, "turn": {"id": "own"}}});
    let effects = say(&mut driver, &started);
    assert_eq!(methods(&effects), ["turn/interrupt"]);
    assert_eq!(anomalies(&effects).len(), 1);
    assert_eq!(ask(&mut driver, Request::Begin { slot: Slot(0), turn: turn("p") }), [], "it would be steered into it");
    let effects = say(&mut driver, &completed(&thread, "own", "interrupted", Value::Null));
    assert_eq!(methods(&effects), ["turn/start"]);
}

#[test]
fn a_thread_that_was_named_before_is_not_fresh() {
    let (mut driver, thread) = open(Permissions::Edit);
    let effects = ask(&mut driver, Request::Reset { slot: Slot(0) });
    let effects = settle(&mut driver, effects);
    let request = sent(&effects).last().unwrap()["id"].clone();
    let again = json!({"thread": {"id": thread}, "sandbox": {"type": "workspaceWrite"}});
    let effects = say(&mut driver, &json!({"id": request, "result": again}));
    assert!(matches!(&effects[..], [Effect::NotFresh { failure, .. }] if failure.kind == FailureKind::Protocol));
}

#[test]
fn a_process_takes_so_many_threads_and_no_more() {
    let (mut driver, _) = open(Permissions::Edit);
    let mut definition = (*driver.definition).clone();
    definition.limits.recycle_sessions = 1;
    driver.definition = Arc::new(definition);
    let effects = ask(&mut driver, Request::Reset { slot: Slot(0) });
    assert!(
        matches!(&effects[..], [Effect::NotFresh { failure, .. }] if failure.message.starts_with("1 conversation"))
    );
}

#[test]
fn a_thread_with_another_sandbox_is_not_used() {
    let (mut driver, _) = open(Permissions::Edit);
    let effects = ask(&mut driver, Request::Reset { slot: Slot(0) });
    let effects = settle(&mut driver, effects);
    let request = sent(&effects).last().unwrap()["id"].clone();
    let open = json!({"thread": {"id": "new"}, "sandbox": {"type": "dangerFullAccess"}});
    let effects = say(&mut driver, &json!({"id": request, "result": open}));
    assert!(
        matches!(&effects[..], [Effect::NotFresh { failure, .. }] if failure.kind == FailureKind::PermissionDenied)
    );
}

#[test]
fn a_question_gets_a_sandbox_that_is_read_only() {
    let (mut driver, _) = open(Permissions::Edit);
    let ask_mode = Turn { mode: Mode::Ask, permissions: Permissions::Full, ..turn("p") };
    let effects = ask(&mut driver, Request::Begin { slot: Slot(0), turn: ask_mode });
    assert_eq!(sent(&effects)[0]["params"]["sandboxPolicy"]["type"], "readOnly");
    let (mut driver, _) = open(Permissions::Edit);
    let more = Turn { permissions: Permissions::Full, ..turn("p") };
    let effects = ask(&mut driver, Request::Begin { slot: Slot(0), turn: more });
    assert_eq!(sent(&effects)[0]["params"]["sandboxPolicy"]["type"], "workspaceWrite", "never above the contract's");
}

#[test]
fn files_stand_in_a_block_of_their_own() {
    let (mut driver, _) = open(Permissions::Edit);
    let files = vec!["/srv/work/a b.py".into(), "/srv/work/c.py".into()];
    let effects =
        ask(&mut driver, Request::Begin { slot: Slot(0), turn: Turn { files, ..turn("/status\u{0}\u{1b}[0m") } });
    let input = &sent(&effects)[0]["params"]["input"];
    assert_eq!(input[0]["text"], "Files to work on:\n- /srv/work/a b.py\n- /srv/work/c.py");
    assert_eq!(input[1]["text"], "/status\u{0}\u{1b}[0m");
}

#[test]
fn what_can_not_be_given_is_refused_before() {
    use std::os::unix::ffi::OsStringExt as _;
    let driver = driver(Permissions::Edit);
    assert_eq!(driver.refuses(&turn(&"é".repeat(1 << 20))), None);
    assert_eq!(driver.refuses(&turn("/x")), None);
    let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/srv/\xff".to_vec()));
    for bad in [turn(""), turn(&"é".repeat((1 << 20) + 1)), Turn { files: vec![odd], ..turn("p") }] {
        assert_eq!(driver.refuses(&bad).unwrap().kind, FailureKind::BadInput);
    }
}

#[test]
fn requests_of_codex_are_answered_whatever_their_id() {
    let (mut driver, thread) = open(Permissions::Edit);
    begin(&mut driver, &thread, "t");
    for id in [json!(0), json!(1), json!(4), json!("x")] {
        let effects = say(&mut driver, &json!({"id": id, "method": "attestation/generate", "params": {}}));
        assert_eq!(sent(&effects)[0]["error"]["code"], -32601);
        assert_eq!(sent(&effects)[0]["id"], id);
    }
    let params = json!({"threadId": thread, "turnId": "t", "itemId": "i", "command": "ls"});
    let question = json!({"id": 2, "method": "item/commandExecution/requestApproval", "params": params});
    assert_eq!(sent(&say(&mut driver, &question))[0]["result"], json!({"decision": "decline"}));
    let foreign = json!({"id": 3, "method": "item/fileChange/requestApproval", "params": {"threadId": "?"}});
    assert_eq!(sent(&say(&mut driver, &foreign))[0]["result"], json!({"decision": "decline"}));
    let form = json!({"threadId": thread, "mode": "form", "message": "Allow?", "requestedSchema": {"properties": {}}});
    let form = json!({"id": 4, "method": "mcpServer/elicitation/request", "params": form});
    assert_eq!(sent(&say(&mut driver, &form))[0]["result"]["action"], "decline");
}

#[test]
fn odd_messages_change_nothing() {
    let (mut driver, thread) = open(Permissions::Edit);
    begin(&mut driver, &thread, "t");
    for odd in [
        "no json",
        "[]",
        "{}",
        r#"{"id":99,"result":{}}"#,
        r#"{"method":"something/new","params":{}}"#,
        r#"{"method":"turn/completed","params":{}}"#,
        r#"{"method":"item/completed","params":{"threadId":"?","turnId":"t"}}"#,
    ] {
        let mut out = Vec::new();
        driver.stdout(format!("{odd}\n").as_bytes(), &mut out);
        assert_eq!(anomalies(&out).len(), out.len(), "{odd}: {out:?}");
        assert_eq!(out.len(), 1, "{odd}");
    }
    let early = completed(&thread, "t", "inProgress", Value::Null);
    assert_eq!(anomalies(&say(&mut driver, &early)).len(), 1);
    let other = completed(&thread, "another", "completed", Value::Null);
    assert_eq!(anomalies(&say(&mut driver, &other)), ["a message of a turn that does not run"]);
    let item = json!({"type": "agentMessage", "id": "m", "text": "here"});
    say(&mut driver, &json!({"method": "item/completed", "params": {"threadId": thread, "turnId": "t", "item": item}}));
    let effects = say(&mut driver, &completed(&thread, "t", "completed", Value::Null));
    assert_eq!(only_end(&effects).answer.text, "here");
}

#[test]
fn a_line_above_the_limit_breaks_the_conversation() {
    let mut definition = (*definition()).clone();
    definition.limits.output_bytes = 100;
    let contract =
        Contract::resolve(Arc::new(definition), Path::new("/bin/codex"), &ContractOptions::default()).unwrap();
    let mut out = Vec::new();
    Codex::new(&contract).stdout(&[b'x'; 200], &mut out);
    assert!(matches!(&out[..], [Effect::Broken(failure)] if failure.kind == FailureKind::OutputLimit));
}

#[test]
fn retries_are_set_where_the_user_left_them_open() {
    let settings = [("request_max_retries", 0), ("stream_max_retries", 2)];
    let config = |config: Value| wire::retries(&json!({"config": config}), &settings);
    let open = config(json!({"model_provider": "p", "model_providers": {"p": {"name": "p"}}}));
    assert_eq!(open.len(), 2);
    let set = config(json!({"model_provider": "p", "model_providers": {"p": {"stream_max_retries": 9}}}));
    assert_eq!(set.keys().collect::<Vec<_>>(), ["model_providers.p.request_max_retries"]);
    assert!(config(json!({"model_provider": null, "model_providers": {}})).is_empty());
    assert!(config(json!({"model_provider": "openai", "model_providers": {}})).is_empty());
}

#[test]
fn a_ping_and_a_stop() {
    let (mut driver, _) = open(Permissions::Edit);
    let effects = ask(&mut driver, Request::Ping);
    let id = sent(&effects)[0]["id"].clone();
    assert_eq!(say(&mut driver, &json!({"id": id, "result": {"data": []}})), [Effect::Pong]);
    assert_eq!(ask(&mut driver, Request::Stop), [Effect::CloseStdin]);
}
