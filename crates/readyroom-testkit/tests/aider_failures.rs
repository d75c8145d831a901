//! What the model can do wrong: each ends in a kind of its own, in short time, and the next job is right.

mod aider_support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aider_support::{Place, Room};
use readyroom::driver::{Activity, Proof};
use readyroom::{Event, Failure, FailureKind, Job, Outcome, Response};
use readyroom_testkit::{Script, Step};

/// Runs a job that the model answers by `script`, then one that must be right and know nothing of the first.
#[track_caller]
fn run(word: &str, script: impl Into<Script>) -> Response {
    let room = Room::get();
    room.model().on(word, script);
    let response = room.run(word);
    let next = word.to_uppercase();
    room.cluster.send_to(response.instance.unwrap(), &next).unwrap();
    let after = room.cluster.read(response.instance.unwrap(), Duration::from_secs(60)).unwrap();
    assert_eq!(after.text().unwrap(), "ok");
    assert!(matches!(after.proof, Some(Proof::Acknowledged(_))), "the same process, reset: {:?}", after.proof);
    let requests = room.model().requests();
    let later = requests.iter().find(|request| request.holds(&next)).unwrap();
    assert!(!later.holds(word), "the failed prompt is in the next request");
    response
}

#[track_caller]
fn failure(word: &str, script: impl Into<Script>) -> Failure {
    let response = run(word, script);
    response.error().unwrap_or_else(|| panic!("{:?}", response.outcome)).clone()
}

fn status(code: u16, message: &str, kind: &str) -> Step {
    let body = format!(r#"{{"error":{{"message":"{message}","type":"t","code":"{kind}"}}}}"#);
    Step::Status { code, headers: BTreeMap::new(), body }
}

#[test]
fn what_is_refused_for_good_fails_at_once_in_its_kind() {
    let began = Instant::now();
    let found = failure("ashwood", status(401, "Incorrect API key provided: sk", "invalid_api_key"));
    assert_eq!(found.kind, FailureKind::Auth);
    assert!(found.message.contains("Incorrect API key provided: sk"), "{found:?}");
    let found = failure("beech", status(404, "The model `m` does not exist", "model_not_found"));
    assert_eq!(found.kind, FailureKind::UnknownModel);
    let found = failure("cedar", status(400, "that was bad", "bad"));
    assert_eq!(found.kind, FailureKind::ModelError);
    let long = "This model's maximum context length is 8 tokens.";
    let found = failure("elder", status(400, long, "context_length_exceeded"));
    assert_eq!(found.kind, FailureKind::ModelError);
    assert!(found.message.contains("token limit"), "{found:?}");
    let found = failure("fircone", Step::say(""));
    assert_eq!(found.kind, FailureKind::ModelError);
    assert!(found.message.contains("Empty response"), "{found:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
    for word in ["ashwood", "beech", "cedar", "elder", "fircone"] {
        assert_eq!(Room::get().model().requests_of(word).len(), 1, "{word}");
    }
}

/// aider would try nine times; after the second announcement the turn is ended, and the next attempt is the caller's.
#[test]
fn announced_retries_are_shown_and_cut_short() {
    let room = Room::get();
    let events = room.cluster.events();
    let began = Instant::now();
    let found = failure("hazel", Step::retry_after(1));
    assert!(matches!(found.kind, FailureKind::RateLimited { .. }), "{found:?}");
    let found = failure("holly", Step::status(500));
    assert_eq!(found.kind, FailureKind::ModelError);
    assert!(found.message.contains("InternalServerError"));
    let found = failure("larch", status(429, "You exceeded your current quota, please check", "insufficient_quota"));
    assert_eq!(found.kind, FailureKind::UsageWindow { resets_at: None });
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // Each of the three turns announced two.
    let retries = events.filter_map(|event| match event {
        Event::TurnProgressed { activity: Activity::Retrying { why, .. }, .. } => Some(why),
        _ => None,
    });
    for why in retries.take(6) {
        assert!(why.contains("litellm.") && why.contains("Retrying in "), "{why}");
    }
}

#[test]
fn a_stream_that_breaks_off_once_is_answered_whole() {
    let script = Script::new([Step::Break { after_text: "half of it".into() }, Step::say("all of it")]);
    let response = run("maple", script);
    assert_eq!(response.text().unwrap(), "all of it");
    assert!(response.answer.transcript.to_string_lossy().starts_with("half of it"));
}

#[test]
fn a_stream_that_breaks_off_each_time_fails() {
    let found = failure("rowan", Step::Break { after_text: "half of it".into() });
    assert_eq!(found.kind, FailureKind::ModelError);
    assert!(found.evidence.contains("APIConnectionError"), "{found:?}");
}

/// aider by itself does not look at the finish marker, and takes such an answer for whole.
#[test]
fn a_stream_without_a_finish_marker_fails() {
    let found = failure("sorrel", Step::NoFinish { text: "as far as it came".into() });
    assert_eq!(found.kind, FailureKind::ModelError);
    assert!(found.evidence.contains("ended without a finish reason"), "{found:?}");
}

/// What watches for such answers leaves the surroundings as the user has them: a `sitecustomize` and a PYTHONPATH of the
/// user's own.
#[tokio::test]
async fn what_watches_the_answers_leaves_the_users_own_python_settings() {
    let mut place = Place::new();
    let own = place.sandbox.outside().join("own");
    std::fs::create_dir_all(&own).unwrap();
    let told = own.join("told.txt");
    let text = format!(
        "import os, sys\nopen({told:?}, 'w').write(os.environ.get('PYTHONPATH', '') + '\\n' + '\\n'.join(sys.path))\n"
    );
    std::fs::write(own.join("sitecustomize.py"), text).unwrap();
    place.sandbox.set_env("PYTHONPATH", own.to_str().unwrap());
    // The level holds aider's writes to a few places, of which this is none.
    let cluster = place.launch(place.options(1).permissions(readyroom::Permissions::Full)).await;
    let told = std::fs::read_to_string(told).expect("the user's own sitecustomize ran");
    assert_eq!(told.lines().next(), own.to_str());
    assert!(!told.contains("readyroom/aider"), "{told}");
    place.model.on("medlar", Step::NoFinish { text: "half".into() });
    let response = cluster.submit("medlar").unwrap().await;
    assert!(response.error().unwrap().evidence.contains("ended without a finish reason"), "{}", response.outcome);
    cluster.shutdown().await;
}

#[test]
fn a_model_that_hangs_times_out() {
    let room = Room::get();
    room.model().on("willow", Step::Hang);
    let limit = Duration::from_secs(3);
    let response = room.run(Job::new("willow").with_timeout(limit));
    assert!(matches!(response.outcome, Outcome::TimedOut { after, .. } if after == limit), "{:?}", response.outcome);
    assert_eq!(room.run("after the hang").text().unwrap(), "ok");
}

/// With aider's own retries left alone, a turn that retries past its deadline keeps what was announced.
#[tokio::test]
async fn a_deadline_in_the_midst_of_retries_keeps_what_was_announced() {
    let place = Place::new();
    place.model.on("yew", Step::status(500));
    let patient = |definition: &mut readyroom::tool::Definition| {
        definition.repl.as_mut().unwrap().retries_shown = None;
    };
    let cluster = place.launch_with(place.options(1), patient).await;
    let response = cluster.submit(Job::new("yew").with_timeout(Duration::from_secs(12))).unwrap().await;
    assert!(
        matches!(&response.outcome, Outcome::TimedOut { evidence, .. } if evidence.contains("Retrying in ")),
        "{:?}",
        response.outcome
    );
    assert_eq!(cluster.submit("and on").unwrap().await.text().unwrap(), "ok");
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_aider_without_a_model_or_key_says_so_at_once() {
    let mut place = Place::new();
    std::fs::remove_file(place.sandbox.home().join(".aider.conf.yml")).unwrap();
    for name in ["OPENAI_API_KEY", "OPENAI_API_BASE"] {
        place.sandbox.set_env(name, "");
    }
    let (definition, program) = place.sandbox.definition();
    let began = Instant::now();
    let error = readyroom::Cluster::launch(definition, &program, place.options(1)).await.unwrap_err().to_string();
    assert!(error.contains("no API keys were provided"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    readyroom_testkit::assert_nothing_left(&place.sandbox);
}
