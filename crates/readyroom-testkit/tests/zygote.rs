//! Forks of a warmed interpreter are what starts of the program are: the same surroundings, a state of their own, owned and
//! ended as any process; and where no fork can be had, the program is started.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use readyroom::{Cluster, Event, Exit, FailureKind, Job, Outcome, Wait};
use readyroom_testkit::{Sandbox, assert_nothing_left, is_fork, processes_of, use_guardian, zygotes_of};

/// The probe as a script with an interpreter of its own, in a sandbox.
struct Probe {
    sandbox: Sandbox,
    program: PathBuf,
}

impl Probe {
    fn new() -> Self {
        use_guardian();
        let sandbox = Sandbox::bare("probe");
        // What is on PATH may be a shell script that looks for one.
        let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        let python = String::from_utf8(asked.stdout).unwrap();
        let program = sandbox.home().join("probe");
        fs::write(&program, format!("#!{}\n{}", python.trim(), include_str!("zygote_probe.py"))).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { sandbox, program }
    }

    /// So many instances, forked where `imports` are named.
    async fn launch(&self, count: usize, imports: Option<&[&str]>, transport: &str) -> Cluster {
        let zygote =
            imports.map(|imports| format!("[zygote]\nenabled = true\nimports = {imports:?}\n")).unwrap_or_default();
        let text = format!(
            r#"
id = "probe"
driver = "repl"
transport = "{transport}"
argv = [{program:?}, "--word", "a b"]
[repl]
fence = ":fence {{a}} {{b}}"
marker = "{{a}}{{b}}\n"
reset = ":reset"
reset_ack = "context cleared"
{zygote}[permissions.full]
[permissions.edit]
"#,
            program = self.program
        );
        let definition = toml::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let options = self.sandbox.options().count(count).wait(Wait::All);
        Cluster::launch(Arc::new(definition), &self.program, options).await.unwrap()
    }
}

async fn said(cluster: &Cluster, prompt: &str) -> String {
    let response = cluster.submit(Job::new(prompt).with_timeout(Duration::from_secs(30))).unwrap().await;
    response.text().unwrap_or_else(|outcome| panic!("{prompt}: {outcome}")).to_string()
}

async fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.status().await.instances.iter().map(|instance| instance.pid.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_finds_what_a_start_finds() {
    for transport in ["pipe", "merged", "pty"] {
        let probe = Probe::new();
        let started = probe.launch(1, None, transport).await;
        let expected = said(&started, "facts").await;
        assert!(!is_fork(pids(&started).await[0]));
        started.shutdown().await;
        let forked = probe.launch(1, Some(&["json"]), transport).await;
        let found = said(&forked, "facts").await;
        assert!(is_fork(pids(&forked).await[0]));
        let differ: Vec<_> = expected.lines().zip(found.lines()).filter(|(one, other)| one != other).collect();
        assert!(differ.is_empty() && expected.lines().count() == found.lines().count(), "{transport}: {differ:#?}");
        assert!(expected.contains("asked 1") && expected.contains("leads True True"), "{expected}");
        forked.shutdown().await;
        assert_nothing_left(&probe.sandbox);
    }
}

/// A zygote works in the project's directory and outside of all confinement.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_in_the_projects_directory_is_not_imported() {
    let probe = Probe::new();
    let trace = probe.sandbox.home().join("imported");
    for module in ["json", "socket", "struct", "importlib", "ctypes", "resource", "runpy", "colorsys"] {
        let text = format!("open({:?}, 'a').write('{module}')\n", trace.display().to_string());
        fs::write(probe.sandbox.dir().join(format!("{module}.py")), text).unwrap();
    }
    let cluster = probe.launch(1, Some(&["colorsys"]), "pipe").await;
    assert!(is_fork(pids(&cluster).await[0]));
    assert!(said(&cluster, "facts").await.contains("asked 1\n"));
    cluster.shutdown().await;
    assert_eq!(fs::read_to_string(trace).unwrap_or_default(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_are_of_one_zygote_and_each_has_a_state_of_its_own() {
    let probe = Probe::new();
    // What NumPy has, as far as it matters here.
    let numbers = probe.sandbox.home().join("numpy/random.py");
    fs::create_dir_all(numbers.parent().unwrap()).unwrap();
    fs::write(numbers.with_file_name("__init__.py"), "").unwrap();
    fs::write(&numbers, "import random as own\n_state = own.Random(1)\nseed = _state.seed\nrandom = _state.random\n")
        .unwrap();
    let cluster = probe.launch(4, Some(&["random", "uuid", "numpy.random"]), "pipe").await;
    let (mut parents, mut numbers) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for (index, pid) in pids(&cluster).await.into_iter().enumerate() {
        assert!(is_fork(pid));
        let ask = |prompt: &str| cluster.turn().on(index).prompt(prompt).unwrap();
        let (parent, own) = ask("parent")
            .await
            .text()
            .unwrap()
            .to_string()
            .trim()
            .split_once(' ')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert_eq!(own, pid.to_string());
        parents.insert(parent);
        numbers.extend(ask("random").await.text().unwrap().to_string().split_whitespace().map(str::to_owned));
        assert!(ask("facts").await.text().unwrap().to_string().contains("asked 1\n"));
    }
    assert_eq!(parents.len(), 1, "all are the guardian's own children");
    assert_eq!(numbers.len(), 12, "no two draw the same");
    assert_eq!(zygotes_of(&probe.sandbox).len(), 1);
    cluster.shutdown().await;
    drop(cluster);
    assert_nothing_left(&probe.sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forks_end_is_seen_its_strays_are_ended_and_the_next_life_is_a_fork() {
    let probe = Probe::new();
    let cluster = probe.launch(1, Some(&["json"]), "pipe").await;
    let mut events = cluster.events();
    assert_eq!(said(&cluster, "stray").await, "left one\n");
    let strays = || processes_of(&probe.sandbox).into_iter().filter(|found| found.command == "sleep 1000").count();
    // A program that has just begun shows no words yet.
    let deadline = Instant::now() + Duration::from_secs(30);
    while strays() != 1 {
        assert!(Instant::now() < deadline, "{:#?}", processes_of(&probe.sandbox));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let response = cluster.submit(Job::new("exit 7")).unwrap().await;
    let Outcome::Failed(failure) = &response.outcome else { panic!("{response:#?}") };
    assert_eq!(failure.kind, FailureKind::Crashed { exit: Some(Exit::Status(7)) }, "{failure:#?}");
    assert!(said(&cluster, "facts").await.contains("asked 1\n"));
    assert_eq!(strays(), 0, "it left its parent's session, and ended with its tree");
    let pid = pids(&cluster).await[0];
    assert!(is_fork(pid));
    let hanging = cluster.submit(Job::new("hang")).unwrap();
    while !matches!(events.recv().await.unwrap(), Event::TurnStarted { turn, .. } if turn == hanging.id()) {}
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let Outcome::Failed(failure) = hanging.await.outcome else { panic!("it was killed") };
    assert_eq!(failure.kind, FailureKind::Crashed { exit: Some(Exit::Signal(9)) });
    cluster.shutdown().await;
    drop(cluster);
    assert_nothing_left(&probe.sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_use_in_a_zygote_the_program_is_started() {
    let probe = Probe::new();
    let threads = probe.sandbox.home().join("threads");
    fs::create_dir_all(&threads).unwrap();
    fs::write(
        threads.join("starts_one.py"),
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
    )
    .unwrap();
    fs::write(threads.join("ends_it.py"), "import os\nos._exit(3)\n").unwrap();
    for module in ["no_such_module_at_all", "starts_one", "ends_it"] {
        let mut probe = Probe::new();
        probe.sandbox.set_env("PYTHONPATH", threads.display().to_string());
        let cluster = probe.launch(2, Some(&[module]), "pipe").await;
        for pid in pids(&cluster).await {
            assert!(!is_fork(pid), "{module}");
        }
        assert!(said(&cluster, "facts").await.contains("asked 1\n"));
        cluster.shutdown().await;
        drop(cluster);
        assert_nothing_left(&probe.sandbox);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_is_killed_is_done_without() {
    let probe = Probe::new();
    let cluster = probe.launch(2, Some(&["json"]), "pipe").await;
    let own = pids(&cluster).await;
    let zygote = zygotes_of(&probe.sandbox).remove(0);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(zygote.pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    // Those that it forked go on, and what comes is started.
    assert!(said(&cluster, "facts").await.contains("asked 1\n"));
    cluster.restart_instance(0, true).await.unwrap();
    cluster.wait_ready(Wait::All).await.unwrap();
    let now = pids(&cluster).await;
    assert!(!is_fork(now[0]) && now[1] == own[1]);
    assert!(said(&cluster, "facts").await.contains("asked"));
    cluster.shutdown().await;
    drop(cluster);
    assert_nothing_left(&probe.sandbox);
}
