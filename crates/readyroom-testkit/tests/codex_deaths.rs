//! What happens when a process dies: Codex's own, and that of whoever owns it.

mod codex_support;

use std::time::{Duration, Instant};

use codex_support::{Place, shell};
use readyroom::{Cluster, FailureKind, LaunchError, Permissions};
use readyroom_testkit::{Owner, Script, Step, assert_nothing_left};

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// kill -9 of one instance in mid-turn, while a command of its model runs: its turn has crashed, what it ran is gone, a
/// second life takes its place, and the other instance's turn notices nothing.
#[tokio::test]
async fn a_killed_codex_fails_its_turn_and_no_other() {
    let place = Place::new();
    place.model.on("jasper-dies", [shell("sleep 4322"), Step::say("never said")]);
    place.model.on("jasper-lives", Step::Slow { text: "word ".repeat(100), chunk: 10, delay_ms: 40 });
    place.model.on("jasper-next", "all is well");
    let cluster = place.at(Permissions::Edit, 2).await;
    let dies = cluster.turn().on(0).prompt("Work on jasper-dies").unwrap();
    let lives = cluster.turn().on(1).prompt("Work on jasper-lives").unwrap();
    place.model.requested("jasper-lives").await;
    place.until_runs("sleep 4322").await;
    kill(cluster.status().await.instances[0].pid.unwrap());
    let response = dies.await;
    let failure = response.error().unwrap();
    assert!(matches!(failure.kind, FailureKind::Crashed { exit: Some(readyroom::Exit::Signal(9)) }), "{failure:?}");
    assert!(!place.runs("sleep 4322"), "its command outlived it");
    assert_eq!(lives.await.text().unwrap(), "word ".repeat(100).as_str());
    let next = cluster.turn().on(0).prompt("Work on jasper-next").unwrap().await;
    assert_eq!(next.text().unwrap(), "all is well");
    assert_eq!(next.generation, 2);
    let status = cluster.status().await;
    assert_eq!(status.instances[1].generation, 1);
    assert_eq!((status.alive, status.dead), (2, 0));
    place.end(cluster).await;
}

/// A Codex that ends at each start is quarantined, and the launch says why in Codex's own words.
#[tokio::test]
async fn a_codex_that_can_not_start_says_why() {
    let place = Place::new();
    std::fs::write(place.sandbox.home().join(".codex/config.toml"), "model = [broken\n").unwrap();
    let (definition, program) = place.sandbox.definition();
    let options = readyroom::ClusterOptions { ready_timeout: Duration::from_secs(30), ..place.options(1) };
    let error = Cluster::launch(definition, &program, options).await.unwrap_err();
    let LaunchError::NotReady { evidence, .. } = &error else { panic!("{error}") };
    assert_eq!(evidence.len(), 1);
    assert!(error.to_string().contains("config.toml"), "{error}");
    assert_nothing_left(&place.sandbox);
}

/// Both of these at both levels: a command of the model in Codex's sandbox, and one without a sandbox that has left its
/// group and session.
const COMMANDS: [(Permissions, &str); 2] = [
    (Permissions::Edit, "sleep 4323"),
    (Permissions::Full, "setsid sh -c 'trap \"\" TERM HUP INT; sleep 4323; sleep 4323' & sleep 4323"),
];

fn in_mid_command(permissions: Permissions, command: &str) -> (Place, Owner) {
    let place = Place::new();
    place.model.on("onyx", Script::new([shell(command), Step::say("never said")]));
    let owner = Owner::start(&place.sandbox, permissions, "Work on onyx");
    place.model.wait_request("onyx");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !place.runs("sleep 4323") {
        assert!(Instant::now() < deadline, "the command never ran");
        std::thread::sleep(Duration::from_millis(10));
    }
    (place, owner)
}

/// kill -9 of the owner in mid-turn: nothing is alive 2 s later.
#[test]
fn nothing_outlives_a_killed_owner() {
    for (permissions, command) in COMMANDS {
        let (place, mut owner) = in_mid_command(permissions, command);
        owner.kill();
        assert_nothing_left(&place.sandbox);
    }
}

/// kill -9 of the guardian alone: the owner sees it, ends all, and its turn has crashed.
#[test]
fn without_its_guardian_the_owner_ends_all() {
    for (permissions, command) in COMMANDS {
        let (place, mut owner) = in_mid_command(permissions, command);
        kill(owner.guardian(&place.sandbox).expect("a guardian").pid);
        let killed = Instant::now();
        let outcome = owner.outcome();
        assert!(outcome.contains("crashed"), "{outcome}");
        assert_nothing_left(&place.sandbox);
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    }
}
