//! The state machine against transcripts of the real tool (2.1.197), shortened by what the driver does not read.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::driver::{TurnEnd, TurnStatus};
use crate::job::{Denials, Mode};
use crate::tool::{ContractOptions, Registry};

const EDIT: &str = include_str!("transcripts/edit.jsonl");
const CLEAR: &str = include_str!("transcripts/clear.jsonl");
const DENIED: &str = include_str!("transcripts/denied.jsonl");
const UNAUTHORISED: &str = include_str!("transcripts/unauthorised.jsonl");
const UNKNOWN_COMMAND: &str = include_str!("transcripts/unknown_command.jsonl");
const INTERRUPTED: &str = include_str!("transcripts/interrupted.jsonl");
const BROKEN_OFF: &str = include_str!("transcripts/broken_off.jsonl");
const BACKGROUND: &str = include_str!("transcripts/background.jsonl");
const CLEAR_BACKGROUND: &str = include_str!("transcripts/clear_background.jsonl");
const FOREIGN: &str = include_str!("transcripts/foreign.jsonl");

const READY: &str = concat!(
    r#"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{"pid":7}}}"#,
    "\n",
    r#"{"type":"control_response","response":{"subtype":"success","request_id":"version","response":{"version":"2.1.197"}}}"#,
    "\n",
);

/// A driver that works in a directory, and what came of it.
struct Talk {
    driver: Claude,
    effects: Vec<Effect>,
}

impl Talk {
    fn at(level: Permissions, directory: &Path) -> Self {
        static DEFINITION: LazyLock<Arc<Definition>> =
            LazyLock::new(|| Arc::clone(&Registry::builtin().unwrap().get("claude").unwrap().definition));
        let definition = Arc::clone(&DEFINITION);
        let options = ContractOptions { permissions: level, cwd: directory.to_owned(), ..ContractOptions::default() };
        let mut contract = Contract::resolve(definition, Path::new("/bin/true"), &options).unwrap();
        // The transcripts name this one.
        if directory == Path::new("/") {
            contract.cwd = "/srv/repo".into();
        }
        Self { driver: Claude::new(&contract), effects: Vec::new() }
    }

    fn launched(level: Permissions) -> Self {
        let mut talk = Self::at(level, Path::new("/"));
        talk.driver.launched(&mut talk.effects);
        talk.hear(READY);
        assert_eq!(talk.take().last(), Some(&Effect::Ready { version: Some("2.1.197".into()) }));
        talk
    }

    fn hear(&mut self, lines: &str) -> &mut Self {
        self.driver.stdout(lines.as_bytes(), &mut self.effects);
        self
    }

    fn ask(&mut self, request: Request) -> &mut Self {
        self.driver.request(request, &mut self.effects);
        self
    }

    /// Begins a turn as the line with number `line`.
    fn begin(&mut self, line: u64) -> &mut Self {
        self.driver.sent = line - 1;
        let permissions = self.driver.level;
        self.ask(Request::Begin { slot: Slot(0), turn: turn("the prompt", permissions) })
    }

    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn end(&mut self) -> TurnEnd {
        let ends: Vec<TurnEnd> = self
            .take()
            .into_iter()
            .filter_map(|effect| if let Effect::Ended { end, .. } = effect { Some(*end) } else { None })
            .collect();
        assert_eq!(ends.len(), 1, "one end for one prompt");
        ends.into_iter().next().unwrap()
    }

    fn failure(&mut self) -> Failure {
        match self.end().status {
            TurnStatus::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}

fn turn(prompt: &str, permissions: Permissions) -> Turn {
    Turn { prompt: prompt.into(), mode: Mode::Default, files: vec![], permissions, schema: None }
}

fn written(effects: &[Effect]) -> Vec<Value> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Write(bytes) = effect { Some(bytes) } else { None })
        .map(|bytes| {
            assert_eq!(bytes.last(), Some(&b'\n'));
            assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "one line a write");
            serde_json::from_slice(bytes).unwrap()
        })
        .collect()
}

fn anomalies(effects: &[Effect]) -> Vec<&'static str> {
    effects.iter().filter_map(|e| if let Effect::Anomaly { what, .. } = e { Some(*what) } else { None }).collect()
}

#[test]
fn an_edit_is_granted_and_told() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.begin(1).hear(EDIT);
    let effects = talk.take();
    assert_eq!(anomalies(&effects), [""; 0]);
    let lines = written(&effects);
    assert_eq!(lines[0]["message"]["content"][0]["text"], "the prompt");
    assert_eq!(lines[1]["response"]["response"]["behavior"], "allow");
    assert_eq!(lines[1]["response"]["response"]["updatedInput"]["content"], "hello\n");
    let seen: Vec<&Activity> = effects
        .iter()
        .filter_map(|e| if let Effect::Activity { activity, .. } = e { Some(activity) } else { None })
        .collect();
    let text: String =
        seen.iter().filter_map(|a| if let Activity::Text(text) = a { Some(text.as_str()) } else { None }).collect();
    assert_eq!(text, "I will write it.It is written.\n");
    let rest: Vec<_> = seen.into_iter().filter(|a| !matches!(a, Activity::Text(_))).cloned().collect();
    assert_eq!(
        rest,
        [
            Activity::ToolStarted("Write".into()),
            Activity::Granted("Write /srv/repo/new.txt".into()),
            Activity::ToolEnded("Write".into()),
        ]
    );
    assert!(effects.contains(&Effect::Accepted { slot: Slot(0) }));
    talk.effects = effects;
    let end = talk.end();
    assert_eq!(end.status, TurnStatus::Succeeded);
    assert_eq!(end.answer.text, "It is written.\n");
    assert_eq!(end.answer.transcript, "I will write it.\nIt is written.\n");
    assert_eq!(end.answer.usage.input_tokens, Some(200));
    assert_eq!(end.answer.usage.output_tokens, Some(20));
    assert_eq!(end.answer.usage.cost_usd, Some(0.0015));
    assert_eq!(end.answer.denials, Denials::Known(vec![]));
    assert_eq!(end.answer.changed_files, [PathBuf::from("/srv/repo/new.txt")]);
}

#[test]
fn what_the_level_does_not_hold_is_denied_and_listed() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.begin(3).hear(DENIED);
    let effects = talk.take();
    assert_eq!(written(&effects)[1]["response"]["response"]["behavior"], "deny");
    talk.effects = effects;
    let end = talk.end();
    assert_eq!(end.status, TurnStatus::Succeeded, "the model went on without it");
    assert_eq!(end.answer.denials, Denials::Known(vec!["Bash ls".into()]), "once, though both sides tell of it");
}

#[test]
fn a_question_is_denied_its_edits_also_in_a_pool_that_may_all() {
    let mut talk = Talk::launched(Permissions::Full);
    let question = Turn { mode: Mode::Ask, ..turn("why", Permissions::Full) };
    talk.ask(Request::Begin { slot: Slot(0), turn: question }).hear(EDIT);
    assert_eq!(written(&talk.take())[1]["response"]["response"]["behavior"], "deny");
}

/// A bug that others had (agent-of-empires/agent-of-empires#3080): after a reset and a restart the old context was
/// there again.
#[test]
fn a_reset_is_proven_by_a_session_that_nobody_has_seen() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.ask(Request::Open { slot: Slot(0), cwd: "/srv/repo".into() });
    assert_eq!(talk.take(), [Effect::Fresh { slot: Slot(0), proof: Proof::NewProcess }]);
    talk.begin(1).hear(EDIT).take();
    talk.ask(Request::Reset { slot: Slot(0) });
    assert_eq!(written(&talk.take())[0]["message"]["content"], "/clear");
    talk.hear(CLEAR);
    let proof = Proof::NewSession("1439e42b-8132-43bc-bf5e-d1b21de9d310".into());
    assert_eq!(talk.take(), [Effect::Fresh { slot: Slot(0), proof }]);
    // The same acknowledgement again names a session that is not new.
    talk.ask(Request::Reset { slot: Slot(0) }).hear(CLEAR);
    assert!(matches!(talk.take().last(), Some(Effect::NotFresh { .. })));
}

#[test]
fn a_reset_whose_end_names_another_session_than_its_beginning_proves_nothing() {
    let mut talk = Talk::launched(Permissions::Edit);
    let (init, rest) = CLEAR.split_once('\n').unwrap();
    let other = init.replace("1439e42b", "00000000");
    talk.ask(Request::Reset { slot: Slot(0) }).hear(&format!("{other}\n{rest}"));
    assert!(matches!(talk.take().last(), Some(Effect::NotFresh { .. })));
}

#[test]
fn the_end_of_an_earlier_turn_is_not_the_resets() {
    let mut talk = Talk::launched(Permissions::Edit);
    let late = EDIT.lines().last().unwrap().to_owned() + "\n";
    talk.ask(Request::Reset { slot: Slot(0) }).hear(&late);
    let effects = talk.take();
    assert_eq!(anomalies(&effects), ["the end of another turn, ahead of the reset"]);
    talk.hear(CLEAR);
    assert!(matches!(talk.take().last(), Some(Effect::Fresh { .. })));
}

#[test]
fn a_background_command_makes_the_context_unprovable() {
    let mut talk = Talk::launched(Permissions::Full);
    talk.begin(10).hear(BACKGROUND).end();
    talk.ask(Request::Reset { slot: Slot(0) });
    assert!(matches!(&talk.take()[..], [Effect::NotFresh { failure, .. }] if failure.message.contains("background")));
}

/// A bug that others had (logancyang/obsidian-copilot#2907): a task that was left over ended the turn of the next
/// prompt.
#[test]
fn a_turn_that_nobody_asked_for_is_never_ours() {
    // It begins while nothing runs: the process is given up before a prompt can meet it.
    let mut talk = Talk::launched(Permissions::Full);
    talk.begin(10).hear(BACKGROUND).end();
    talk.driver.tasks.clear();
    talk.ask(Request::Reset { slot: Slot(0) }).hear(CLEAR_BACKGROUND);
    assert!(matches!(talk.take().last(), Some(Effect::Fresh { .. })));
    talk.hear(FOREIGN);
    let effects = talk.take();
    assert!(matches!(effects.last(), Some(Effect::Broken(failure)) if failure.kind == FailureKind::Protocol));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Ended { .. })));
    // It ends while our prompt waits: the prompt fails, it does not get that answer.
    let mut talk = Talk::launched(Permissions::Full);
    talk.begin(11).hear(FOREIGN);
    let effects = talk.take();
    assert!(matches!(effects.last(), Some(Effect::Broken(_))));
    talk.effects = effects;
    let end = talk.end();
    assert!(matches!(end.status, TurnStatus::Failed(failure) if failure.kind == FailureKind::Protocol));
}

#[test]
fn success_is_not_believed() {
    let mut talk = Talk::launched(Permissions::Edit);
    let failure = talk.begin(6).hear(UNKNOWN_COMMAND).failure();
    assert_eq!(failure.kind, FailureKind::NotRun);
    assert!(failure.message.contains("Unknown command: /nope"), "{failure}");
    let failure = talk.begin(9).hear(BROKEN_OFF).failure();
    assert_eq!(failure.kind, FailureKind::ModelError);
    assert!(failure.message.contains("broke off"), "{failure}");
    // A turn that never took our line.
    let others: String =
        EDIT.lines().filter(|line| !line.contains("isReplay")).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(talk.begin(1).hear(&others).failure().kind, FailureKind::NotRun);
    // A model that says nothing and does nothing.
    let silent: String = DENIED
        .lines()
        .filter(|line| !line.contains(r#""type":"assistant""#))
        .map(|line| line.replace(r#""result":"done""#, r#""result":"""#) + "\n")
        .collect();
    assert_eq!(talk.begin(3).hear(&silent).failure().message, "the model answered nothing");
}

#[test]
fn a_cancelled_turn_is_cancelled_whatever_the_tool_calls_it() {
    for transcript in [INTERRUPTED.to_owned(), EDIT.replace("000000000001", "000000000007")] {
        let mut talk = Talk::launched(Permissions::Edit);
        talk.begin(7).take();
        talk.ask(Request::Cancel { slot: Slot(0) }).ask(Request::Cancel { slot: Slot(0) });
        let lines = written(&talk.take());
        assert_eq!(lines.len(), 1, "one interrupt: a second would meet whatever comes next");
        assert_eq!(lines[0]["request"]["subtype"], "interrupt");
        let end = talk.hear(&transcript).end();
        assert_eq!(end.status, TurnStatus::Cancelled);
    }
}

#[test]
fn a_turn_that_somebody_else_aborted_has_crashed() {
    let failure = Talk::launched(Permissions::Edit).begin(7).hear(INTERRUPTED).failure();
    assert_eq!(failure.kind, FailureKind::Crashed { exit: None });
    assert!(failure.evidence.contains("error_during_execution"), "{failure:?}");
}

#[test]
fn what_is_asked_for_after_a_cancel_is_denied() {
    let mut talk = Talk::launched(Permissions::Full);
    talk.begin(1).ask(Request::Cancel { slot: Slot(0) }).take();
    talk.hear(EDIT);
    assert_eq!(written(&talk.take())[0]["response"]["response"]["behavior"], "deny");
}

#[test]
fn a_cancel_of_nothing_writes_nothing() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.ask(Request::Cancel { slot: Slot(0) });
    talk.begin(1).hear(EDIT).take();
    talk.ask(Request::Cancel { slot: Slot(0) });
    assert_eq!(talk.take(), []);
}

/// A bug that others had (anthropics/claude-agent-sdk-python#1196): a reset set the running totals to zero, and the
/// budget with them.
#[test]
fn costs_are_differences_of_totals_and_never_negative() {
    let mut talk = Talk::launched(Permissions::Edit);
    let costs: Vec<f64> = [0.5, 0.75, 0.75, 0.25]
        .iter()
        .map(|total| {
            let turn = EDIT.replace("\"total_cost_usd\":0.0015", &format!("\"total_cost_usd\":{total}"));
            talk.begin(1).hear(&turn).end().answer.usage.cost_usd.unwrap()
        })
        .collect();
    assert_eq!(costs, [0.5, 0.25, 0.0, 0.25]);
}

#[test]
fn a_long_announced_wait_is_given_up() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.begin(5);
    talk.hear(r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":1,"retry_delay_ms":3600000,"error_status":429,"error":"rate_limit"}"#);
    talk.hear("\n");
    let effects = talk.take();
    assert_eq!(written(&effects)[1]["request"]["subtype"], "interrupt");
    let failure = talk.hear(&INTERRUPTED.replace("000000000007", "000000000005")).failure();
    assert_eq!(failure.kind, FailureKind::RateLimited { retry_after: Some(Duration::from_secs(3600)) });
}

/// A `result` of a failed turn, as the tool ends it.
fn failed(status: &str, error: &str, text: &str, before: &str) -> Failure {
    let mut talk = Talk::launched(Permissions::Edit);
    let text = serde_json::to_string(text).unwrap();
    talk.begin(5).hear(before).hear(&format!(
        r#"{{"type":"assistant","message":{{"model":"<synthetic>","content":[{{"type":"text","text":{text}}}]}},"parent_tool_use_id":null,"error":"{error}"}}
{{"type":"result","subtype":"success","is_error":true,"api_error_status":{status},"num_turns":1,"result":{text},"stop_reason":"stop_sequence","session_id":"s","total_cost_usd":0,"permission_denials":[]}}
"#
    ));
    let end = talk.end();
    assert!(end.answer.text.is_empty(), "the tool's own words are not the model's answer");
    match end.status {
        TurnStatus::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_failure_has_its_kind() {
    let limited = |retry_after| FailureKind::RateLimited { retry_after };
    let window = FailureKind::UsageWindow { resets_at: None };
    for (status, error, text, kind) in [
        ("401", "authentication_failed", "Invalid API key · Fix external API key", FailureKind::Auth),
        ("401", "authentication_failed", "Failed to authenticate. API Error: 401 x", FailureKind::Auth),
        ("403", "authentication_failed", "Failed to authenticate. API Error: 403 no", FailureKind::Auth),
        ("null", "authentication_failed", "Not logged in · Please run /login", FailureKind::Auth),
        ("404", "model_not_found", "There's an issue with the selected model (x).", FailureKind::UnknownModel),
        ("400", "invalid_request", "Prompt is too long · the request is ~300000 tokens", FailureKind::ModelError),
        ("400", "unknown", "API Error: 400 bad", FailureKind::BadInput),
        ("413", "invalid_request", "Request too large (max 32MB). Try with a smaller file.", FailureKind::BadInput),
        ("429", "rate_limit", "API Error: Request rejected (429) · slow down", limited(None)),
        ("500", "server_error", "API Error: 500 boom. This is a server-side issue", FailureKind::ModelError),
        ("529", "overloaded", "API Error: 529 Overloaded.", FailureKind::ModelError),
        ("null", "server_error", "API Error: Connection closed mid-response.", FailureKind::ModelError),
        ("null", "max_output_tokens", "API Error: Claude's response exceeded the maximum", FailureKind::ModelError),
        ("400", "billing_error", "Credit balance is too low", window.clone()),
        ("402", "billing_error", "API Error: 402 pay", window.clone()),
        ("429", "rate_limit", "You've hit your session limit · resets 3pm", window.clone()),
        ("429", "rate_limit", "Claude AI usage limit reached", window),
    ] {
        let failure = failed(status, error, text, "");
        assert_eq!(failure.kind, kind, "{status} {error} {text}");
        assert_eq!(failure.message, text);
    }
    let transcript = Talk::launched(Permissions::Edit).begin(5).hear(UNAUTHORISED).failure();
    assert_eq!(transcript.kind, FailureKind::Auth);
    let retry = r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":1,"retry_delay_ms":3000,"error_status":429,"error":"rate_limit"}"#.to_owned() + "\n";
    let failure = failed("429", "rate_limit", "API Error: Request rejected (429) · slow down", &retry);
    assert_eq!(failure.kind, limited(Some(Duration::from_secs(3))));
}

#[test]
fn a_usage_window_says_when_it_opens_where_the_tool_does() {
    let at = FailureKind::UsageWindow { resets_at: Some(jiff::Timestamp::from_second(1_900_000_000).unwrap()) };
    assert_eq!(failed("429", "rate_limit", "Claude AI usage limit reached|1900000000", "").kind, at);
    let event = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1900000000,"rateLimitType":"five_hour"},"session_id":"s"}"#.to_owned() + "\n";
    assert_eq!(failed("429", "rate_limit", "API Error: Request rejected (429)", &event).kind, at);
}

#[test]
fn the_prompt_goes_as_it_was_given_and_files_behind_it() {
    let mut talk = Talk::launched(Permissions::Edit);
    for prompt in ["/clear", "!ls", "@a.py {b}", "\n\u{0}\u{1b}[31m\n", " x "] {
        let lines = {
            talk.ask(Request::Begin { slot: Slot(0), turn: turn(prompt, Permissions::Edit) });
            written(&talk.take())
        };
        assert_eq!(
            lines[0]["message"]["content"],
            json!([{"type": "text", "text": prompt}, {"type": "text", "text": ""}])
        );
    }
    let mut named = turn("p", Permissions::Edit);
    named.files = vec!["/srv/a b.py".into(), "/srv/q\"uote".into()];
    talk.ask(Request::Begin { slot: Slot(0), turn: named });
    let lines = written(&talk.take());
    assert_eq!(lines[0]["message"]["content"][1]["text"], "Files to work on:\n@\"/srv/a b.py\"\n\"/srv/q\\\"uote\"\n");
}

#[test]
fn an_empty_or_too_long_prompt_is_refused() {
    let talk = Talk::launched(Permissions::Edit);
    for prompt in ["", " \n\t"] {
        assert_eq!(talk.driver.refuses(&turn(prompt, Permissions::Edit)).unwrap().kind, FailureKind::BadInput);
    }
    let long = "x".repeat((4 << 20) + 1);
    assert_eq!(talk.driver.refuses(&turn(&long, Permissions::Edit)).unwrap().kind, FailureKind::BadInput);
    assert_eq!(talk.driver.refuses(&turn("/", Permissions::Edit)), None);
}

#[test]
fn what_is_not_known_is_told_and_changes_nothing() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.begin(1);
    talk.hear("not json\n{\"type\":\"novelty\"}\n{\"type\":\"system\",\"subtype\":\"novelty\"}\n\n");
    talk.hear("{\"type\":\"control_request\",\"request_id\":\"9\",\"request\":{\"subtype\":\"elicitation\"}}\n");
    let effects = talk.take();
    assert_eq!(anomalies(&effects).len(), 4);
    let answer = written(&effects).pop().unwrap();
    assert_eq!(answer["response"]["subtype"], "error");
    assert_eq!(answer["response"]["request_id"], "9");
    assert_eq!(talk.hear(EDIT).end().status, TurnStatus::Succeeded);
    // After the end it is late.
    let late = EDIT.lines().find(|line| line.contains(r#""type":"assistant""#)).unwrap().to_owned() + "\n";
    talk.hear(&late);
    assert_eq!(anomalies(&talk.take()), ["a message outside any turn"]);
    let ask = EDIT.lines().find(|line| line.contains("can_use_tool")).unwrap().to_owned() + "\n";
    talk.hear(&ask);
    assert_eq!(written(&talk.take())[0]["response"]["response"]["behavior"], "deny");
}

#[test]
fn a_ping_a_stop_and_a_second_conversation() {
    let mut talk = Talk::launched(Permissions::Edit);
    talk.ask(Request::Ping);
    assert_eq!(written(&talk.take())[0]["request_id"], "ping");
    talk.hear("{\"type\":\"control_response\",\"response\":{\"subtype\":\"error\",\"request_id\":\"ping\",\"error\":\"x\"}}\n");
    assert_eq!(talk.take(), [Effect::Pong], "an error is a sign of life, too");
    talk.ask(Request::Open { slot: Slot(1), cwd: "/srv/repo".into() });
    assert!(matches!(talk.take()[..], [Effect::NotFresh { .. }]));
    talk.ask(Request::Stop);
    assert_eq!(talk.take(), [Effect::CloseStdin]);
}

#[test]
fn a_tool_that_refuses_to_initialise_is_not_ready() {
    let mut talk = Talk::at(Permissions::Edit, Path::new("/"));
    talk.hear("{\"type\":\"control_response\",\"response\":{\"subtype\":\"error\",\"request_id\":\"initialize\",\"error\":\"no\"}}\n");
    assert!(matches!(&talk.take()[..], [Effect::Broken(failure)] if failure.kind == FailureKind::NotReady));
}

#[test]
fn an_answer_beyond_the_limit_is_interrupted() {
    let mut talk = Talk::launched(Permissions::Edit);
    let mut definition = (*talk.driver.definition).clone();
    definition.limits.output_bytes = 10;
    talk.driver.definition = Arc::new(definition);
    talk.begin(1).hear(EDIT);
    let effects = talk.take();
    assert_eq!(written(&effects)[1]["request"]["subtype"], "interrupt");
    talk.effects = effects;
    assert_eq!(talk.failure().kind, FailureKind::OutputLimit);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_split_of_the_stream_has_the_same_effects(cuts in prop::collection::vec(1..400usize, 1..60)) {
        let stream = [EDIT, DENIED, UNAUTHORISED, BROKEN_OFF, INTERRUPTED].map(|text| {
            text.replace("00000000-0000-4000-8000-00000000000", "id-")
        });
        let effects = |sizes: &mut dyn Iterator<Item = usize>| {
            let mut talk = Talk::launched(Permissions::Edit);
            for text in &stream {
                talk.begin(1);
                let mut rest = text.as_bytes();
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(sizes.next().unwrap_or(usize::MAX).min(rest.len()));
                    talk.driver.stdout(now, &mut talk.effects);
                    rest = later;
                }
            }
            talk.take()
        };
        let whole = effects(&mut std::iter::empty());
        prop_assert_eq!(effects(&mut cuts.iter().copied().cycle()), whole);
    }
}

#[test]
fn a_schema_is_told_at_the_launch_and_its_answer_is_the_last_call() {
    let schema = json!({"type": "object", "required": ["n"]});
    let mut talk = Talk::at(Permissions::Read, Path::new("/"));
    talk.driver.schema = Some(schema.clone());
    talk.driver.launched(&mut talk.effects);
    assert_eq!(written(&talk.take())[0]["request"]["jsonSchema"], schema);
    talk.hear(READY).take();
    talk.begin(1).hear(concat!(
        r#"{"type":"system","subtype":"init","session_id":"s"}"#, "\n",
        r#"{"type":"user","isReplay":true,"uuid":"00000000-0000-4000-8000-000000000001","message":{"role":"user","content":[]}}"#, "\n",
        r#"{"type":"assistant","message":{"content":[{"type":"text","text":"Let me see."}]}}"#, "\n",
        r#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a","name":"StructuredOutput","input":{"n":1}}]}}"#, "\n",
        r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"a","content":"provided"}]}}"#, "\n",
    ));
    let acted = |effect: &Effect| matches!(effect, Effect::Activity { activity: Activity::ToolStarted(_), .. });
    assert!(!talk.take().iter().any(acted), "an answer is no deed");
    talk.hear(concat!(
        r#"{"type":"result","subtype":"success","is_error":false,"num_turns":2,"result":"{\"n\":1}","stop_reason":"tool_use","session_id":"s","structured_output":{"n":1}}"#, "\n"
    ));
    let end = talk.end();
    assert_eq!((end.status, end.answer.text), (TurnStatus::Succeeded, r#"{"n":1}"#.into()));
    assert_eq!(end.answer.transcript, "Let me see.\n{\"n\":1}");
}

#[test]
fn too_many_answers_that_do_not_fit_are_a_schema_failure() {
    let mut talk = Talk::launched(Permissions::Read);
    talk.begin(1).hear(concat!(
        r#"{"type":"result","subtype":"error_max_structured_output_retries","is_error":true,"num_turns":6,"session_id":"s"}"#, "\n"
    ));
    assert_eq!(talk.failure().kind, FailureKind::Schema);
}
