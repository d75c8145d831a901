//! The cluster over real REPLs: turns, contexts, callers, crashes, restarts, shutdown.

use std::sync::Arc;
use std::time::Duration;

use readyroom::cluster::{InstanceState, blocking};
use readyroom::tool::Definition;
use readyroom::{Cluster, ClusterOptions, Context, Event, FailureKind, Job, Outcome, Permissions, Routing, Wait};

/// Python as a REPL: each job is executed as a whole, and nothing proves a reset, so fresh means a new process.
fn python() -> Arc<Definition> {
    readyroom::process::use_program(env!("CARGO_BIN_EXE_readyroom-proc-fixture"));
    let text = r#"
        id = "python"
        driver = "repl"
        transport = "merged"
        argv = ["python3", "-i", "-q", "-u"]
        [repl]
        frame = "python_exec"
        start = "import sys;sys.ps1=sys.ps2='';sys.stdin=open('/dev/null')\n"
        fence = "print(\"\\n{a}\"+\"{b}\")\n"
        marker = "\n{a}{b}\n"
        interrupt = true
    "#;
    Arc::new(toml::from_str(text).unwrap())
}

async fn launch(options: ClusterOptions) -> Cluster {
    Cluster::launch(python(), "python3".as_ref(), options).await.unwrap()
}

fn options(count: usize, context: Context) -> ClusterOptions {
    ClusterOptions::default().count(count).context(context).permissions(Permissions::Full)
}

#[tokio::test]
async fn a_job_is_answered() {
    let cluster = launch(options(1, Context::Keep)).await;
    let response = cluster.submit("print('hello', end='')").unwrap().await;
    assert_eq!(response.text().unwrap(), "hello");
    assert_eq!(response.instance, Some(0));
    assert_eq!(cluster.shutdown().await.dropped, 0);
}

#[tokio::test]
async fn keep_keeps_and_fresh_forgets() {
    let keep = launch(options(1, Context::Keep)).await;
    keep.submit("x = 41").unwrap().await;
    let response = keep.submit("print(x + 1)").unwrap().await;
    assert_eq!(response.text().unwrap(), "42\n");
    keep.shutdown().await;

    let fresh = launch(options(1, Context::Fresh)).await;
    fresh.submit("x = 41").unwrap().await;
    let response = fresh.submit("print('x' in globals())").unwrap().await;
    assert_eq!(response.text().unwrap(), "False\n");
    assert!(response.proof.is_some());
    assert_eq!(response.generation, 2);
    fresh.shutdown().await;
}

#[tokio::test]
async fn prompts_of_one_job_share_a_context() {
    let cluster = launch(options(2, Context::Fresh)).await;
    let job = Job { prompts: vec!["y = 'a'".into(), "y += 'b'".into(), "print(y)".into()], ..Job::default() };
    let response = cluster.submit(job).unwrap().await;
    assert_eq!(response.text().unwrap(), "ab\n");
    assert_eq!(response.turns.len(), 3);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_crash_fails_its_turn_and_the_next_life_takes_over() {
    let cluster = launch(options(1, Context::Keep)).await;
    let response = cluster.submit("import os; os._exit(7)").unwrap().await;
    let failure = response.error().unwrap();
    assert!(matches!(failure.kind, FailureKind::Crashed { exit: Some(readyroom::Exit::Status(7)) }), "{failure:?}");
    let response = cluster.submit("print('back')").unwrap().await;
    assert_eq!(response.text().unwrap(), "back\n");
    assert_eq!(response.generation, 2);
    assert!(response.context_lost);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_late_turn_times_out_and_is_cancelled() {
    let cluster = launch(options(1, Context::Keep)).await;
    let job = Job::new("import time; time.sleep(60)").with_timeout(Duration::from_millis(300));
    let response = cluster.submit(job).unwrap().await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
    let ticket = cluster.submit("import time; time.sleep(60)").unwrap();
    let mut events = cluster.events();
    cluster.submit("1").unwrap();
    while !matches!(events.recv().await, Some(readyroom::Event::TurnStarted { turn, .. }) if turn == ticket.id()) {}
    ticket.cancel();
    assert_eq!(ticket.await.outcome, Outcome::Cancelled);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_refused_with_its_evidence() {
    let missing = Cluster::launch(python(), "/nowhere/python3".as_ref(), options(2, Context::Keep)).await;
    let error = missing.unwrap_err().to_string();
    assert!(error.contains("/nowhere/python3"), "{error}");
}

#[tokio::test]
async fn a_tool_that_crashes_at_each_start_is_quarantined() {
    let mut definition = Definition::clone(&python());
    definition.argv = vec!["python3".into(), "-c".into(), "import sys; sys.exit('broken')".into()];
    let launched = Cluster::launch(Arc::new(definition), "python3".as_ref(), options(2, Context::Keep)).await;
    let error = launched.unwrap_err().to_string();
    assert!(error.contains("not_ready"), "{error}");
}

#[tokio::test]
async fn a_restart_by_hand_waits_for_the_turn() {
    let cluster = launch(ClusterOptions { wait: Wait::All, ..options(2, Context::Keep) }).await;
    let before = cluster.status().await.instances[0].pid;
    cluster.restart_instance(0, false).await.unwrap();
    let status = cluster.status().await;
    assert_ne!(status.instances[0].pid, before);
    assert_eq!(status.instances[0].state, InstanceState::Idle);
    assert_eq!((status.alive, status.dead), (2, 0));
    cluster.shutdown().await;
}

#[tokio::test]
async fn one_shot_uses_a_process_for_each_job() {
    let cluster = launch(ClusterOptions { one_shot: true, ..options(2, Context::Fresh) }).await;
    let tickets: Vec<_> = (0..4).map(|_| cluster.submit("import os; print(os.getpid())").unwrap()).collect();
    let mut pids = std::collections::HashSet::new();
    for ticket in tickets {
        assert!(pids.insert(ticket.await.text().unwrap().to_string()));
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_slow_job_holds_up_none_of_the_others() {
    let cluster = launch(options(4, Context::Keep).routing(Routing::LeastBusy)).await;
    let gate = tempfile::NamedTempFile::new().unwrap();
    let slow = format!("import os, time\nwhile os.path.exists({:?}): time.sleep(0.01)\n", gate.path());
    let slow = cluster.submit(slow).unwrap();
    let others: Vec<_> = (0..39).map(|n| cluster.submit(format!("print({n})")).unwrap()).collect();
    for (n, other) in others.into_iter().enumerate() {
        assert_eq!(other.await.text().unwrap(), format!("{n}\n").as_str());
    }
    drop(gate);
    assert!(slow.await.ok());
    cluster.shutdown().await;
}

#[test]
fn a_thread_reads_what_it_sent_and_each_response_once() {
    let cluster = blocking::Cluster::launch(python(), "python3".as_ref(), options(3, Context::Keep)).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let cluster = cluster.clone();
            std::thread::spawn(move || {
                for turn in 0..10 {
                    cluster.send(&format!("print({n}, {turn})")).unwrap();
                }
                let mut seen = Vec::new();
                for _ in 0..10 {
                    let response = cluster.read_any(Duration::from_secs(30)).unwrap();
                    seen.push(response.text().unwrap().to_string());
                }
                seen.sort();
                let mut sent: Vec<_> = (0..10).map(|turn| format!("{n} {turn}\n")).collect();
                sent.sort();
                assert_eq!(seen, sent);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(cluster.metrics().total_sent, 40);
    assert_eq!(cluster.metrics().total_received, 40);
    assert!(cluster.read_any(Duration::from_millis(1)).is_none());
    cluster.shutdown();
}

#[test]
fn context_commands_and_their_prompt_are_one_turn() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("my file.py"), "").unwrap();
    let cluster =
        blocking::Cluster::launch(python(), "python3".as_ref(), options(3, Context::Keep).cwd(directory.path()))
            .unwrap();
    let first = cluster.send("/add my file.py").unwrap();
    let second = cluster.send("print('one turn')").unwrap();
    assert_eq!(first, second);
    let response = cluster.read_any(Duration::from_secs(30)).unwrap();
    assert_eq!(response.text().unwrap(), "one turn\n");
    assert_eq!(response.preamble.len(), 1);

    // Three context commands owe three acknowledgements; the prompt that follows still joins.
    let at = cluster.send("/add my file.py").unwrap();
    cluster.send("/drop my file.py").unwrap();
    cluster.send("/add missing.py").unwrap();
    let read = |_| cluster.read_any(Duration::from_secs(30)).unwrap();
    let acknowledgements: Vec<_> = (0..3).map(read).collect();
    assert!(acknowledgements[0].ok() && acknowledgements[1].ok());
    assert_eq!(acknowledgements[2].error().unwrap().kind, FailureKind::BadInput);
    assert_eq!(acknowledgements[0].instance, Some(at));
    // After a read acknowledgement a further context command opens a turn of its own.
    assert_ne!(cluster.send("/add my file.py").unwrap(), at);
    cluster.send("print('second')").unwrap();
    let response = cluster.read_any(Duration::from_secs(30)).unwrap();
    assert_eq!(response.text().unwrap(), "second\n");
    assert_eq!(cluster.shutdown().dropped, 0);
}

/// Ends the process of an instance from outside, and waits until its cluster has seen that.
fn kill(cluster: &blocking::Cluster, at: usize) {
    let before = cluster.get_status().instances[at].clone();
    let pid = rustix::process::Pid::from_raw(before.pid.unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let seen = || cluster.get_status().instances[at].pid != before.pid;
    while !seen() {
        std::thread::yield_now();
    }
}

#[test]
fn a_turn_whose_process_dies_before_its_prompt_goes_on_in_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.py"), "").unwrap();
    let options = options(1, Context::Fresh).cwd(directory.path());
    let cluster = blocking::Cluster::launch(python(), "python3".as_ref(), options).unwrap();
    let read = || cluster.read_any(Duration::from_secs(30)).unwrap();
    let at = cluster.send("/add a.py").unwrap();
    assert!(read().ok());
    let generation = cluster.get_status().instances[at].generation;
    kill(&cluster, at);
    cluster.send("print('still one turn')").unwrap();
    let response = read();
    assert_eq!(response.text().unwrap(), "still one turn\n");
    assert_eq!((response.preamble.len(), response.generation), (0, generation + 1), "its one answer was read before");

    // Where the processes keep dying it fails, and its prompt with it: that would run without the file.
    cluster.send("/add a.py").unwrap();
    assert!(read().ok());
    for _ in 0..2 {
        while !matches!(cluster.get_status().instances[at].state, InstanceState::Busy { .. }) {
            std::thread::yield_now();
        }
        kill(&cluster, at);
    }
    cluster.send("print('not run')").unwrap();
    let response = read();
    assert!(matches!(response.error().unwrap().kind, FailureKind::Crashed { .. }), "{response:?}");
    cluster.send("print('next')").unwrap();
    assert_eq!(read().text().unwrap(), "next\n");
    assert_eq!(cluster.shutdown().dropped, 0);
}

#[tokio::test]
async fn events_end_with_the_shutdown() {
    let cluster = launch(options(1, Context::Keep)).await;
    let mut events = cluster.events();
    cluster.submit("print(1)").unwrap().await;
    cluster.shutdown().await;
    let mut ended = 0;
    while let Some(event) = events.recv().await {
        ended += usize::from(matches!(event, Event::TurnEnded { .. } | Event::InstanceEnded { .. }));
    }
    assert_eq!(ended, 2);
    assert!(cluster.events().recv().await.is_none());
}

#[tokio::test]
async fn a_ticket_does_not_outlive_its_cluster() {
    let cluster = launch(options(1, Context::Keep)).await;
    let ticket = cluster.submit("import time; time.sleep(600)").unwrap();
    drop(cluster);
    assert_eq!(ticket.await.outcome, Outcome::Cancelled);
}

#[test]
fn a_turn_is_joined_or_closed_by_what_is_sent_to_one_instance() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.py"), "").unwrap();
    let options = ClusterOptions { wait: Wait::All, ..options(2, Context::Keep) }.cwd(directory.path());
    let cluster = blocking::Cluster::launch(python(), "python3".as_ref(), options).unwrap();
    let at = cluster.send("/add a.py").unwrap();
    cluster.send_to(at, "print('joined')").unwrap();
    let response = cluster.read(at, Duration::from_secs(30)).unwrap();
    assert_eq!((response.text().unwrap().to_string().as_str(), response.preamble.len()), ("joined\n", 1));

    // What goes elsewhere closes the turn, so that its instance is free for the next one at once.
    let at = cluster.send("/add a.py").unwrap();
    assert!(cluster.read(at, Duration::from_secs(30)).unwrap().ok());
    cluster.send_to(1 - at, "print('elsewhere')").unwrap();
    assert!(cluster.read(1 - at, Duration::from_secs(30)).unwrap().ok());
    cluster.send_to(at, "print('free')").unwrap();
    assert_eq!(cluster.read(at, Duration::from_secs(30)).unwrap().text().unwrap(), "free\n");
    assert_eq!(cluster.shutdown().dropped, 0);
}

/// A turn is closed from below when it waits too long for its prompt, and when the cluster is drained.
#[test]
fn a_prompt_whose_turn_was_closed_meanwhile_still_gets_its_files() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.py", "b.py"] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    let options = ClusterOptions { wait: Wait::All, ..options(1, Context::Keep) }.cwd(directory.path());
    let cluster = blocking::Cluster::launch(python(), "python3".as_ref(), options).unwrap();
    let read = || cluster.read(0, Duration::from_secs(30)).unwrap();

    cluster.send("/add a.py").unwrap();
    cluster.drain();
    cluster.send("/add b.py").unwrap();
    cluster.drain();
    cluster.send("print('asked')").unwrap();
    let response = read();
    assert_eq!(response.preamble.len(), 2, "each answer once: {response:#?}");
    assert!(response.ok());

    cluster.send("/add a.py").unwrap();
    assert!(read().ok());
    cluster.drain();
    cluster.send("print('asked')").unwrap();
    let response = read();
    assert_eq!((response.ok(), response.preamble.len()), (true, 0), "it was read before: {response:#?}");

    // What went with the closed turn is still in force: a file that is gone by now fails the prompt.
    cluster.send("/add a.py").unwrap();
    cluster.drain();
    std::fs::remove_file(directory.path().join("a.py")).unwrap();
    cluster.send("print('asked')").unwrap();
    assert_eq!(read().error().unwrap().kind, FailureKind::BadInput);
    assert!(cluster.read_any(Duration::ZERO).is_none());
    cluster.shutdown();
}

#[test]
fn a_turn_that_never_came_to_its_instance_is_read_there() {
    let options = ClusterOptions { wait: Wait::None, ..options(1, Context::Keep) };
    let cluster = blocking::Cluster::launch(python(), "/nowhere/python3".as_ref(), options).unwrap();
    if cluster.send_to(0, "print(1)").is_ok() {
        let response = cluster.read(0, Duration::from_secs(30)).unwrap();
        assert_eq!(response.error().unwrap().kind, FailureKind::ToolMissing);
    }
    assert_eq!(cluster.send_to(0, "print(1)").unwrap_err().to_string(), "not_ready: no instance is left");
    cluster.shutdown();
}
