use std::sync::{Arc, Mutex};
use std::time::Duration;

use readyroom::{Answer, Failure};
use serde_json::{Value, json};

use super::*;
use crate::report::view::tests::plan;

/// What is wrong with `value` by `schema`, of the few keywords that our schema uses. Any other keyword is an error, so
/// that nothing in the schema goes unchecked.
fn mistakes(root: &Value, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                mistakes(root, &root["$defs"][name], value, at, out);
            }
            "type" => {
                let is = |name: &str| match name {
                    "null" => value.is_null(),
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    other => panic!("unknown type {other}"),
                };
                let fits = match rule {
                    Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
                    name => is(name.as_str().unwrap()),
                };
                if !fits {
                    out.push(format!("{at}: {value} is no {rule}"));
                }
            }
            "const" if value != rule => out.push(format!("{at}: {value} is not {rule}")),
            "const" => {}
            "enum" if !rule.as_array().unwrap().contains(value) => out.push(format!("{at}: {value} not in {rule}")),
            "enum" => {}
            "minimum" if value.as_f64().is_some_and(|value| value < rule.as_f64().unwrap()) => {
                out.push(format!("{at}: {value} is below {rule}"));
            }
            "minimum" => {}
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        out.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(schema) => mistakes(root, schema, field, &format!("{at}.{name}"), out),
                        None => out.push(format!("{at}: {name} is not described")),
                    }
                }
            }
            "additionalProperties" => assert_eq!(rule, false),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    mistakes(root, rule, item, &format!("{at}[{index}]"), out);
                }
            }
            "anyOf" => {
                let fits = rule.as_array().unwrap().iter().any(|schema| {
                    let mut inner = Vec::new();
                    mistakes(root, schema, value, at, &mut inner);
                    inner.is_empty()
                });
                if !fits {
                    out.push(format!("{at}: {value} fits none of {rule}"));
                }
            }
            other => panic!("{at}: the checker does not know the keyword {other}"),
        }
    }
}

fn check(line: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("../../../../docs/outcome.schema.json")).unwrap();
    let mut out = Vec::new();
    mistakes(&schema, &schema, line, "line", &mut out);
    out
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
    let mut sink = JsonSink { name: "test".into(), out: Box::new(kept.clone()), stdout: false };
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
    let mut sink = JsonSink::open(Path::new("/dev/full"), false).unwrap();
    let broken = sink.write(&plan("aider", 1, &["a.py", "b.py"]), &success(), None).unwrap_err();
    assert_eq!(
        broken.to_string(),
        "--json /dev/full can't be written: No space left on device (os error 28); free some space and run again"
    );
    assert!(!broken.reader_gone());
}
