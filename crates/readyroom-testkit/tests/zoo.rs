//! The hostile zoo: what `docs/design/zoo.md` says of each habit is what comes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use readyroom::cluster::LaunchError;
use readyroom::{Cluster, ClusterOptions, Event, Job, Permissions, Routing, Wait};
use readyroom_testkit::zoo::{self, Protocol};
use readyroom_testkit::{Sandbox, assert_nothing_left, use_guardian};

const PAGE: &str = include_str!("../../../docs/design/zoo.md");

/// The page's table: by habit, what must come of it under each protocol; none where the habit can't be.
fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut cells = row.trim_end_matches('|').split('|').map(str::trim);
        let habit = cells.next().unwrap().trim_end_matches('`');
        (habit, cells.skip(1).collect())
    })
    .collect()
}

#[test]
fn the_page_has_a_row_for_each_habit_and_a_cell_for_each_protocol() {
    let table = table();
    let habits: Vec<&str> = zoo::OF_TRANSPORT.into_iter().chain(zoo::OF_PROTOCOL).collect();
    let rows: Vec<&str> = table.keys().copied().collect();
    let mut expected = habits.clone();
    expected.sort_unstable();
    assert_eq!(rows, expected);
    for (habit, cells) in &table {
        assert_eq!(cells.len(), Protocol::ALL.len(), "{habit}");
        let known = |cell: &&&str| !cell.is_empty();
        assert_eq!(cells.iter().filter(known).count(), cells.len(), "{habit}");
    }
    for habit in zoo::OF_TRANSPORT {
        assert!(!table[habit].contains(&"-"), "{habit} is of bytes and processes: it can be under each protocol");
    }
}

/// All rows under one protocol, some at a time.
async fn column(protocol: Protocol) {
    use_guardian();
    let at = Protocol::ALL.iter().position(|each| *each == protocol).unwrap();
    let only = std::env::var("READYROOM_ZOO").unwrap_or_default();
    let mut rows: Vec<_> = table().into_iter().filter(|(habit, _)| habit.contains(&only)).collect();
    let mut wrong = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    while !rows.is_empty() || !running.is_empty() {
        while running.len() < 4
            && let Some((habit, cells)) = rows.pop()
        {
            let expected = cells[at];
            if expected != "-" {
                running.spawn(async move {
                    let found = tokio::time::timeout(Duration::from_secs(60), row(protocol, habit, expected)).await;
                    let found = found.unwrap_or_else(|_| "it never came to an end".into());
                    (found != expected).then(|| format!("{habit}: {found}, and not {expected}"))
                });
            }
        }
        if let Some(done) = running.join_next().await {
            wrong.extend(done.unwrap());
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", protocol.name(), wrong.join("\n"));
}

/// What came of a habit, in the page's words.
async fn row(protocol: Protocol, habit: &'static str, expected: &str) -> String {
    let sandbox = Sandbox::bare("zoo");
    let (definition, program) = zoo::definition(protocol, habit);
    let mut options = ClusterOptions {
        contract: sandbox.contract(),
        stall: expected.starts_with("stalled").then_some(Duration::from_secs(3)),
        ready_timeout: Duration::from_secs(if expected.starts_with("not_ready") { 2 } else { 30 }),
        ..ClusterOptions::default().count(1).routing(Routing::RoundRobin).wait(Wait::All)
    };
    options.contract.permissions = Permissions::Read;
    let cluster = match Cluster::launch(definition, &program, options).await {
        Ok(cluster) => cluster,
        Err(LaunchError::NotReady { .. }) => {
            assert_nothing_left(&sandbox);
            return "not_ready".into();
        }
        Err(error) => return error.to_string(),
    };
    let mut events = cluster.events();
    // `reads-nothing` lets a prompt fill the pipe.
    let filler = if habit == "reads-nothing" { "x".repeat(1 << 19) } else { String::new() };
    let ask =
        |prompt: String, seconds| cluster.submit(Job::new(prompt).with_timeout(Duration::from_secs(seconds))).unwrap();
    let before = if filler.is_empty() { Some(ask("hello".into(), 30).await) } else { None };
    let mut response =
        ask(format!("{} {filler}", zoo::TRIGGER), if expected.starts_with("timed_out") { 1 } else { 30 }).await;
    let mut found = response.outcome.name().to_owned();
    if response.ok() {
        let text = response.text().map(ToString::to_string).unwrap_or_default();
        let mut wanted = zoo::words(protocol, habit).to_owned();
        if habit == "not-utf8" && matches!(protocol, Protocol::Repl | Protocol::Pty) {
            wanted = format!("{}\n{wanted}", String::from_utf8_lossy(b"\xff\xfe\x00\xc3"));
        }
        // What a REPL prints of an earlier fence is text like any other.
        let same = match (protocol, habit) {
            (Protocol::Repl | Protocol::Pty, "old-end") => text.trim_end().ends_with(&wanted),
            _ => text.trim_end() == wanted.trim_end(),
        };
        if !same {
            found = format!("another answer: {text:?}, not {wanted:?}");
        }
    }
    let life = response.generation;
    if habit == "eats-memory" {
        while !matches!(events.recv().await, Some(Event::InstanceEnded { .. }) | None) {}
    }
    // The next job is well, and begins in a clean context.
    response = ask("and then?".into(), 30).await;
    let text = response.text().map(ToString::to_string).unwrap_or_else(|outcome| outcome.to_string());
    if text.trim_end() != "prompt 1 here: and then?" {
        found = format!("{found}, and then {text:?}");
    }
    if response.generation != life || before.is_some_and(|before| before.generation != life) {
        found.push_str(", new process");
    }
    cluster.shutdown().await;
    assert_nothing_left(&sandbox);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn repl() {
    column(Protocol::Repl).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pty() {
    column(Protocol::Pty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acp() {
    column(Protocol::Acp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude() {
    column(Protocol::Claude).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex() {
    column(Protocol::Codex).await;
}
