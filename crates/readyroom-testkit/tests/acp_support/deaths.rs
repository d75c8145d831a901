//! What happens when a process dies: the tool's own, and that of its owner.

use readyroom::{Context, FailureKind, Permissions};
use readyroom_testkit::{Owner, Step, assert_nothing_left};

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
    let generation = cluster.status().await.instances[1].generation;
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
        ("the next answer".into(), 2)
    );
    let status = cluster.status().await;
    assert_eq!((status.instances[1].generation, status.alive, status.dead), (generation, 2, 0), "{status:?}");
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
