//! The rules that Codex taught: each is shown on Codex itself, first without readyroom where that is possible.

mod codex_support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use codex_support::raw::Raw;
use codex_support::{Place, patch, shell, unsandboxed};
use readyroom::tool::Definition;
use readyroom::{Cluster, Context, FailureKind, Outcome, Permissions};
use readyroom_testkit::sandbox::processes_of;
use readyroom_testkit::{Script, Step, assert_nothing_left};
use serde_json::{Value, json};

/// A second prompt while a turn runs is steered into it by Codex: one turn, one answer. Under readyroom each prompt
/// has a turn of its own, also when both are for one instance and come at once.
#[tokio::test]
async fn rule_01_one_prompt_is_outstanding_in_a_session() {
    let place = Place::new();
    let slow = |text: &str| Step::Slow { text: text.repeat(40), chunk: 8, delay_ms: 10 };
    place.model.on("topaz-one", slow("first "));
    place.model.on("topaz-two", slow("second "));
    let mut codex = Raw::start(&place.sandbox);
    let thread = codex.thread(&place.sandbox);
    let first = codex.turn(&thread, "Say topaz-one");
    codex.until(|message| message["method"] == "item/agentMessage/delta");
    assert_eq!(codex.turn(&thread, "Say topaz-two"), first, "Codex steers");
    codex.completed(&first);
    codex.stop(&place.sandbox);

    place.model.on("topaz-three", slow("third "));
    place.model.on("topaz-four", slow("fourth "));
    let cluster = place.launch(place.options(1).context(Context::Keep)).await;
    let tickets = ["topaz-three", "topaz-four"].map(|word| cluster.submit(format!("Say {word}")).unwrap());
    let [third, fourth] = tickets;
    let (third, fourth) = (third.await, fourth.await);
    assert_eq!(third.text().unwrap(), "third ".repeat(40).as_str());
    assert_eq!(fourth.text().unwrap(), "fourth ".repeat(40).as_str());
    assert!(place.model.requests_of("topaz-three").iter().all(|request| !request.holds("topaz-four")));
    place.end(cluster).await;
}

/// A command goes on running after `turn/interrupt`. Under readyroom it is gone when the cancelled turn has ended, and
/// what a turn that *succeeded* left running is gone before the next job begins.
///
/// A bug that others had (Tryanks/tcode#75): a background task that never ended kept its turn from ever ending, or
/// ended the next one.
#[tokio::test]
async fn rule_04_ended_is_not_quiescent() {
    let place = Place::new();
    place.model.on("opal-raw", [shell("sleep 4324"), Step::say("never said")]);
    let mut codex = Raw::start(&place.sandbox);
    let thread = codex.thread(&place.sandbox);
    let turn = codex.turn(&thread, "Work on opal-raw");
    codex.until(|message| message["params"]["item"]["type"] == "commandExecution");
    place.until_runs("sleep 4324").await;
    codex.ask("turn/interrupt", json!({"threadId": thread, "turnId": turn}));
    codex.thread(&place.sandbox);
    assert!(place.runs("sleep 4324"), "Codex has ended what an interrupted turn ran: the rule is needed no more");
    codex.stop(&place.sandbox);

    place.model.on("opal-cancelled", [shell("sleep 4325"), Step::say("never said")]);
    let background = json!({"cmd": "sleep 4326", "yield_time_ms": 250});
    place.model.on("opal-background", [Step::call("exec_command", background), Step::say("It runs.")]);
    place.model.on("opal-next", Step::say("all is well").after(300));
    let cluster = place.launch(place.options(1)).await;
    let ticket = cluster.submit("Work on opal-cancelled").unwrap();
    place.until_runs("sleep 4325").await;
    ticket.cancel();
    assert_eq!(ticket.await.outcome, Outcome::Cancelled);
    assert!(!place.runs("sleep 4325"));

    let background = cluster.submit("Work on opal-background").unwrap();
    place.until_runs("sleep 4326").await;
    assert_eq!(background.await.text().unwrap(), "It runs.");
    let next = cluster.submit("Work on opal-next").unwrap();
    place.model.requested("opal-next").await;
    assert!(!place.runs("sleep 4326"), "the last job's command runs in the next job's time");
    assert!(next.await.ok());
    place.end(cluster).await;
}

/// The status is in a field of Codex's own. The rules that read it are data: without them the kind is lost.
#[tokio::test]
async fn rule_10_what_classifies_a_failure_is_data() {
    let place = Place::new();
    place.model.on("beryl", Step::status(401));
    let (definition, program) = place.sandbox.definition();
    let without = Definition { errors: Vec::new(), ..Definition::clone(&definition) };
    for (definition, kind) in [(definition, FailureKind::Auth), (Arc::new(without), FailureKind::ModelError)] {
        let cluster = Cluster::launch(definition, &program, place.options(1)).await.unwrap();
        let response = cluster.submit("Say beryl").unwrap().await;
        let failure = response.error().unwrap();
        assert_eq!(failure.kind, kind);
        assert!(failure.evidence.starts_with(r#"{"httpConnectionFailed":{"httpStatusCode":401}}"#), "{failure:?}");
        place.end(cluster).await;
    }
}

/// A command of Codex's sandbox is in other groups and sessions than Codex; killing Codex's own process must not leave
/// it behind.
#[tokio::test]
async fn rule_12_a_sandboxed_command_is_in_no_group_of_its_tool() {
    let place = Place::new();
    place.model.on("agate", Script::new([shell("sleep 4327"), Step::say("never said")]));
    let cluster = place.at(Permissions::Edit, 1).await;
    let ticket = cluster.submit("Work on agate").unwrap();
    place.until_runs("sleep 4327").await;
    let pid = cluster.status().await.instances[0].pid.unwrap();
    let own = ids(pid).unwrap();
    let (groups, sessions): (BTreeSet<_>, BTreeSet<_>) =
        processes_of(&place.sandbox).iter().filter_map(|process| ids(process.pid)).unzip();
    assert!(groups.contains(&own.0) && groups.len() >= 3, "{groups:?}");
    assert!(sessions.len() >= 2, "{sessions:?}");
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    let response = ticket.await;
    assert!(matches!(response.error().unwrap().kind, FailureKind::Crashed { .. }));
    assert!(!place.runs("sleep 4327"));
    cluster.shutdown().await;
    assert_nothing_left(&place.sandbox);
}

/// A process's group and session.
fn ids(pid: u32) -> Option<(i32, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Codex's own requests count from 0, in an id space that overlaps ours: the record shows both under one id, and each
/// got its own answer.
#[tokio::test]
async fn rule_14_the_other_sides_ids_are_its_own() {
    let place = Place::new();
    let outside = place.sandbox.outside().join("out.txt");
    let touch = || unsandboxed(&format!("touch '{}'", outside.display()));
    let mut steps: Vec<Step> = (0..5).map(|_| touch()).collect();
    steps.extend([patch("in.txt", "x"), Step::say("That was all.")]);
    place.model.on("zircon", steps);
    let record = tempfile::tempdir().unwrap();
    let options = readyroom::ClusterOptions { record: Some(record.path().to_owned()), ..place.options(1) };
    let cluster = place.launch(options).await;
    let mut job = readyroom::Job::new("Work on zircon");
    job.timeout = Some(Duration::from_secs(30));
    assert_eq!(cluster.submit(job).unwrap().await.text().unwrap(), "That was all.");
    assert!(place.sandbox.read("in.txt").is_some() && !outside.exists());
    place.end(cluster).await;

    let text = std::fs::read_to_string(record.path().join("instance-0.generation-1.jsonl")).unwrap();
    let mut ways = [(String::new(), "in"), (String::new(), "out")];
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for (bytes, way) in &mut ways {
            if line["dir"] == *way {
                bytes.push_str(line["text"].as_str().unwrap());
            }
        }
    }
    let [sent, came] =
        ways.map(|(bytes, _)| bytes.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>());
    let ids = |messages: &[Value], request: bool| -> BTreeSet<u64> {
        let of_kind = messages.iter().filter(|message| message.get("method").is_some() == request);
        of_kind.filter_map(|message| message["id"].as_u64()).collect()
    };
    let theirs = ids(&came, true);
    assert_eq!(theirs, (0..5).collect(), "Codex counts from 0");
    assert!(theirs.intersection(&ids(&sent, true)).count() >= 3, "the id spaces overlap");
    assert_eq!(ids(&sent, false), theirs, "each of Codex's requests was answered");
    // The last ones may be cut off by the shutdown.
    assert!(ids(&came, false).is_subset(&ids(&sent, true)) && ids(&came, false).len() >= 4);
}
