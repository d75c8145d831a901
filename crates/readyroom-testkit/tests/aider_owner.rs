//! The owner of an aider is killed in mid-turn, or its guardian is: nothing survives.

mod aider_support;

use std::time::{Duration, Instant};

use aider_support::{Place, edit};
use readyroom::Permissions;
use readyroom_testkit::{Model, Owner, Step, assert_nothing_left, processes_of};

/// Waits until the model was asked: aider is in its turn.
fn in_mid_turn(word: &str) -> (Place, Owner) {
    let place = Place::new();
    place.model.on(word, Step::HangAfter { text: "and so ".into() });
    let owner = Owner::start(&place.sandbox, Permissions::Edit, word);
    Model::wait_request(&place.model, word);
    (place, owner)
}

#[test]
fn nothing_survives_the_owner_by_two_seconds() {
    let (place, mut owner) = in_mid_turn("alabaster");
    assert!(processes_of(&place.sandbox).len() >= 2, "the owner and aider run");
    owner.kill();
    assert_nothing_left(&place.sandbox);
}

#[test]
fn without_its_guardian_the_owner_ends_all() {
    let (place, mut owner) = in_mid_turn("soapstone");
    let guardian = owner.guardian(&place.sandbox).expect("a guardian");
    let pid = rustix::process::Pid::from_raw(i32::try_from(guardian.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let killed = Instant::now();
    while processes_of(&place.sandbox).iter().any(|process| process.command.contains("bin/aider")) {
        assert!(killed.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(owner.outcome().contains("crashed"));
    assert_nothing_left(&place.sandbox);
}

/// aider runs no command of the model's, but a person's test command, which an aider that is killed leaves running.
#[tokio::test]
async fn a_killed_aider_takes_its_test_command_with_it() {
    let place = Place::new();
    place.sandbox.write("child.py", "a = 1\n");
    place.model.on("diatomite", Step::Say(edit("child.py", "a = 1\n", "a = 2\n")));
    let tests = |definition: &mut readyroom::tool::Definition| {
        definition.argv.extend(["--auto-test", "--test-cmd", "setsid sleep 4322 & sleep 4321"].map(String::from));
    };
    let cluster = place.launch_with(place.options(1), tests).await;
    let ticket = cluster.submit(readyroom::Job::new("diatomite").with_file("child.py")).unwrap();
    let sleeping = |seconds: &str| processes_of(&place.sandbox).iter().any(|p| p.command == format!("sleep {seconds}"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !(sleeping("4321") && sleeping("4322")) {
        assert!(Instant::now() < deadline, "the test command does not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = aider_support::pids(&cluster.status().await)[0];
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(ticket.await.error().is_some());
    assert!(!sleeping("4321") && !sleeping("4322"), "it runs on");
    cluster.shutdown().await;
    assert_nothing_left(&place.sandbox);
}
