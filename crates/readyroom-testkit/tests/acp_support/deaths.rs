//! What happens when a process dies: the tool's own, and that of its owner.

use std::time::{Duration, Instant};

use readyroom::{Context, Event, FailureKind, Permissions};
use readyroom_testkit::{Owner, Step, assert_nothing_left, processes_of};

use super::{Bed, eventually, runs, varied};

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
}

/// kill -9 of one tool's process in mid-turn, while a command of its model runs.
pub async fn a_killed_tool_fails_its_own_turn(tool: &'static str) {
    let bed = Bed::new(tool);
    let sleep = format!("sleep 931.{:05}", std::process::id() % 100_000);
    let slow = varied(4000);
    bed.model.on("TURN-DIES-X", bed.shell(&sleep));
    bed.model.on("TURN-LIVES-X", Step::Slow { text: slow.clone(), chunk: 100, delay_ms: 100 });
    bed.model.on("TURN-NEXT-X", "the next answer");
    let cluster = bed.cluster(2, Context::Fresh, Permissions::Full).await;
    let generations: Vec<u32> = cluster.status().await.instances.iter().map(|instance| instance.generation).collect();
    // Where two first starts in one HOME have got into each other's way, a life has gone by.
    let [killed, other] = [0, 1].map(|instance| generations[instance]);
    let dies = cluster.turn().on(0).prompt("TURN-DIES-X").expect("it is taken");
    let lives = cluster.turn().on(1).prompt("TURN-LIVES-X").expect("it is taken");
    eventually("the shell command", || runs(&sleep)).await;
    kill(cluster.status().await.instances[0].pid.expect("it runs"));
    let response = dies.await;
    assert!(matches!(super::kind(&response), FailureKind::Crashed { .. }), "{}", response.outcome);
    assert!(!runs(&sleep), "its command outlived it");
    let lives = lives.await;
    assert!(lives.text().unwrap_or_else(|outcome| panic!("{outcome}")).to_string_lossy() == slow);
    let next = cluster.turn().on(0).prompt("TURN-NEXT-X").expect("it is taken").await;
    assert_eq!(
        (next.text().expect("it is answered").to_string_lossy(), next.generation),
        ("the next answer".into(), killed + 1)
    );
    let status = cluster.status().await;
    assert_eq!((status.instances[1].generation, status.alive, status.dead), (other, 2, 0), "{status:?}");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// kill -9 of the owner in mid-turn, with commands of the model running: one where the tool put it, one that has left
/// its group and session and ignores signals.
pub async fn nothing_outlives_a_killed_owner(tool: &'static str) {
    let bed = Bed::new(tool);
    let length = format!("932.{:05}", std::process::id() % 100_000);
    let command = format!("setsid sh -c 'trap \"\" TERM HUP INT; sleep {length}; true' & sleep {length}; true");
    bed.model.on("OWNER-DIES-X", bed.shell(&command));
    let mut owner = Owner::start(&bed.sandbox, Permissions::Full, "OWNER-DIES-X");
    eventually("the shell command", || runs(&format!("sleep {length}"))).await;
    owner.kill();
    assert_nothing_left(&bed.sandbox);
}

/// kill -9 of the guardian alone: the owner sees it, ends all, and its turn has crashed.
pub async fn without_its_guardian_the_owner_ends_all(tool: &'static str) {
    let bed = Bed::new(tool);
    let length = format!("933.{:05}", std::process::id() % 100_000);
    let command = format!("setsid sh -c 'trap \"\" TERM HUP INT; sleep {length}; true' & sleep {length}; true");
    bed.model.on("GUARDIAN-DIES-X", bed.shell(&command));
    let mut owner = Owner::start(&bed.sandbox, Permissions::Full, "GUARDIAN-DIES-X");
    eventually("the shell command", || runs(&format!("sleep {length}"))).await;
    let before: Vec<_> = processes_of(&bed.sandbox).iter().map(|process| process.pid).collect();
    kill(owner.guardian(&bed.sandbox).expect("a guardian").pid);
    let killed = Instant::now();
    // The owner lives on, and starts the tool anew.
    let alive = |pid: &u32| *pid != owner.pid() && processes_of(&bed.sandbox).iter().any(|process| process.pid == *pid);
    eventually("the end of all that ran", || !before.iter().any(alive)).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    let outcome = tokio::task::block_in_place(|| owner.outcome());
    assert!(outcome.contains("crashed"), "{outcome}");
    assert_nothing_left(&bed.sandbox);
}

/// What a turn that went well left running is ended before the next turn may begin there, and told, where the tool has
/// `left` it: one in the background, one that hangs on, one in a session of its own.
pub async fn what_a_good_turn_leaves_running_is_ended(tool: &'static str, left: &[&str]) {
    let bed = Bed::new(tool);
    let mut seen = Vec::new();
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    let mut events = cluster.events();
    let length = |kind: &str| format!("{}.{:05}", 934 + kind.len(), std::process::id() % 100_000);
    for (kind, before) in [("bg", ""), ("hup", "nohup "), ("session", "setsid ")] {
        let word = format!("LEAVES-{kind}-X");
        let sleep = format!("sleep {}", length(kind));
        let command = format!("{before}{sleep} > /dev/null 2>&1 < /dev/null &");
        // The sleep itself runs when the turn goes on (`nohup` becomes it once it hears no HUP), so that what is gone later
        // was ended.
        let shell = bed.shell(&format!("{command} until pgrep -f '^[s]{}'; do :; done", &sleep[1..]));
        bed.model.on(&word, readyroom_testkit::Script::new([shell, Step::say("done")]));
        let response = cluster.submit(word.as_str()).expect("it is taken").await;
        assert_eq!(response.text().unwrap_or_else(|outcome| panic!("{outcome}")), "done");
        let next = format!("AFTER-{kind}-X");
        bed.model.on(&next, Step::say("next").after(300));
        let ticket = cluster.submit(next.as_str()).expect("it is taken");
        bed.model.requested(&next).await;
        assert!(!runs(&sleep), "`{command}` left it running for the next job");
        let response = ticket.await;
        assert_eq!(response.text().unwrap_or_else(|outcome| panic!("{outcome}")), "next");
        let mut told = Vec::new();
        loop {
            match events.recv().await.expect("the cluster is there") {
                Event::StraysEnded { commands, .. } => told.extend(commands),
                Event::TurnEnded { turn, .. } if turn == response.turn => break,
                _ => {}
            }
        }
        seen.extend(told.iter().any(|command| command.contains(&sleep)).then_some(kind));
    }
    assert_eq!(seen, left, "those that the tool itself leaves running");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}
