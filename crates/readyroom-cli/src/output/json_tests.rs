use std::sync::{Arc, Mutex};
use std::time::Duration;

use readyroom::workspace::{Change, Edit, EditKind};
use readyroom::{Answer, Failure, Schema};
use serde_json::{Value, json};

use super::*;
use crate::report::view::tests::plan;

/// What is wrong with a line by our schema; the empty list: nothing.
fn check(line: &Value) -> Vec<String> {
    let schema = serde_json::from_str(include_str!("../../../../docs/outcome.schema.json")).unwrap();
    Schema::new(schema).unwrap().find(&line.to_string()).err().into_iter().collect()
}

fn line(ended: &Ended) -> Value {
    let plan = plan("aider", 1, &["a.py", "b.py"]);
    serde_json::to_value(Line::new(&plan, ended, Some(Path::new("notes/a.md")))).unwrap()
}

fn success() -> Ended {
    let mut ended = Ended::unstarted(1, Outcome::Succeeded);
    ended.instance = Some(2);
    ended.generation = 1;
    ended.timings.turn = Duration::from_millis(1500);
    ended.proof = Some(Proof::Acknowledged("cleared".into()));
    ended.usage.input_tokens = Some(5);
    ended.value = Some(json!([1]));
    let edit = Edit { kind: EditKind::Renamed, path: "b.py".into(), from: Some("c.py".into()) };
    let change = Change {
        base: "0123".into(),
        commit: "4567".into(),
        tree: "89ab".into(),
        edits: vec![edit],
        patch: b"secret".to_vec(),
        left_alone: vec!["lib".into()],
    };
    ended.change = Some(JobChange { change, state: ChangeState::Conflict, branch: Some("b".into()) });
    ended.turns.push(Answer {
        text: Text::from(vec![0xff]),
        transcript: "all".into(),
        denials: Denials::Known(vec!["write x".into()]),
        changed_files: vec!["a.py".into()],
        ..Answer::default()
    });
    ended
}

#[test]
fn lines_of_every_outcome_fit_the_schema() {
    let failures = [
        FailureKind::RateLimited { retry_after: Some(Duration::from_secs(3)) },
        FailureKind::UsageWindow { resets_at: Some(jiff::Timestamp::UNIX_EPOCH) },
        FailureKind::Crashed { exit: Some(Exit::Signal(9)) },
        FailureKind::Crashed { exit: Some(Exit::Unknown) },
        FailureKind::BadInput,
        FailureKind::ToolMissing,
        FailureKind::ModelError,
    ];
    let outcomes = failures
        .into_iter()
        .map(|kind| Outcome::Failed(Failure::new(kind, "why").with_stderr("last words")))
        .chain([
            Outcome::Cancelled,
            Outcome::Lost,
            Outcome::TimedOut { after: Duration::from_secs(5), evidence: String::new() },
        ])
        .map(|outcome| Ended::unstarted(0, outcome))
        .chain([success()]);
    for ended in outcomes {
        assert_eq!(check(&line(&ended)), Vec::<String>::new(), "{}", line(&ended));
    }
}

#[test]
fn a_line_says_what_happened() {
    let value = line(&success());
    assert_eq!(value["v"], 1);
    assert_eq!(value["job"], 2);
    assert_eq!(value["input"], "b.py");
    assert_eq!(value["outcome"], "succeeded");
    assert_eq!(value["answer"], json!({"base64": "/w=="}));
    assert_eq!(value["turns"][0]["denials"], json!(["write x"]));
    assert_eq!(value["seconds"]["turn"], 1.5);
    assert_eq!(value["proof"], json!({"acknowledged": "cleared"}));
    assert_eq!(
        value["change"],
        json!({
            "state": "conflict", "branch": "b", "base": "0123",
            "files": [{"kind": "renamed", "path": "b.py", "from": "c.py"}], "left_alone": ["lib"],
        })
    );
    let timed_out = line(&Ended::unstarted(
        0,
        Outcome::TimedOut { after: Duration::from_secs(90), evidence: "429, retrying".into() },
    ));
    assert_eq!(timed_out["failure"]["evidence"], "429, retrying");
    assert_eq!(timed_out["instance"], Value::Null);
}

#[test]
fn the_checker_finds_planted_mistakes() {
    for (pointer, wrong) in [
        ("/v", json!(2)),
        ("/job", json!("1")),
        ("/job", json!(0)),
        ("/outcome", json!("great")),
        ("/answer", json!(5)),
        ("/seconds", json!({"turn": 1.0})),
        ("/turns/0/denials", json!([1])),
        ("/change/files/0/kind", json!("moved")),
    ] {
        let mut value = line(&success());
        *value.pointer_mut(pointer).unwrap() = wrong;
        assert!(!check(&value).is_empty(), "{pointer}");
    }
    let mut value = line(&success());
    value["more"] = json!(1);
    assert!(!check(&value).is_empty());
    value.as_object_mut().unwrap().remove("more");
    value.as_object_mut().unwrap().remove("tool");
    assert!(!check(&value).is_empty());
}

#[test]
fn each_line_is_flushed_by_itself() {
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<(Vec<u8>, usize)>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().1 += 1;
            Ok(())
        }
    }
    let kept = Kept::default();
    let mut sink = JsonSink { name: "test".into(), path: None, out: Box::new(kept.clone()), stdout: false };
    let plan = plan("aider", 1, &["a.py", "b.py"]);
    for _ in 0..3 {
        sink.write(&plan, &success(), None).unwrap();
    }
    let (bytes, flushes) = &*kept.0.lock().unwrap();
    assert_eq!(*flushes, 3);
    assert_eq!(String::from_utf8_lossy(bytes).lines().count(), 3);
}

#[test]
fn a_full_disk_is_named_with_its_place() {
    let mut sink = JsonSink::open(Path::new("/dev/full")).unwrap();
    let broken = sink.write(&plan("aider", 1, &["a.py", "b.py"]), &success(), None).unwrap_err();
    assert_eq!(
        broken.to_string(),
        "--json /dev/full can't be written: No space left on device (os error 28); free some space and run again"
    );
    assert!(!broken.reader_gone());
}
