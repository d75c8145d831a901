//! Many jobs on a few warm aiders: real edits, right answers, the same processes throughout, nothing leaked; and what
//! one crash takes with it.

mod aider_support;

use std::collections::BTreeSet;
use std::time::Duration;

use aider_support::{Place, Room, edit, pids};
use readyroom::driver::Proof;
use readyroom::{Context, FailureKind, Job, Outcome};
use readyroom_testkit::{Step, assert_nothing_left};

/// Twelve jobs that each change a file of their own; gives the pairs of jobs of which one's words were in the other's
/// requests.
async fn twelve_jobs(context: Context) -> BTreeSet<(usize, usize)> {
    let place = Place::new();
    for n in 0..12 {
        place.sandbox.write(&format!("src/f{n:02}.py"), format!("value = {n}\n"));
        let file = format!("src/f{n:02}.py");
        let answer = edit(&file, &format!("value = {n}\n"), &format!("value = {}\n", n + 100));
        place.model.on(&format!("promptword{n:02}"), format!("answerword{n:02}\n\n{answer}"));
    }
    place.sandbox.commit();
    let cluster = place.launch(place.options(3).context(context)).await;
    let before = pids(&cluster.status().await);
    let tickets: Vec<_> = (0..12)
        .map(|n| cluster.submit(Job::new(format!("promptword{n:02}: raise it")).with_file(format!("src/f{n:02}.py"))))
        .collect();
    let mut instances = BTreeSet::new();
    for (n, ticket) in tickets.into_iter().enumerate() {
        let response = ticket.unwrap().await;
        let answer = edit(&format!("src/f{n:02}.py"), &format!("value = {n}\n"), &format!("value = {}\n", n + 100));
        assert_eq!(response.text().unwrap(), format!("answerword{n:02}\n\n{answer}").as_str());
        assert_eq!(response.answer.changed_files, [std::path::PathBuf::from(format!("src/f{n:02}.py"))]);
        assert_eq!(place.sandbox.read(&format!("src/f{n:02}.py")).unwrap(), format!("value = {}\n", n + 100));
        assert!(response.usage.input_tokens.is_some_and(|tokens| tokens > 0));
        assert!(
            matches!(&response.preamble[..], [reply] if reply.result.as_ref().is_ok_and(|text| text.starts_with("Added ")))
        );
        instances.insert(response.instance.unwrap());
        if context == Context::Fresh {
            assert!(matches!(response.proof, Some(Proof::NewProcess | Proof::Acknowledged(_))));
        }
    }
    assert_eq!(instances, BTreeSet::from([0, 1, 2]));
    assert_eq!(pids(&cluster.status().await), before, "the same three processes throughout");
    let mut leaked = BTreeSet::new();
    for n in 0..12 {
        for request in place.model.requests_of(&format!("promptword{n:02}")) {
            for other in (0..12).filter(|other| *other != n) {
                if ["promptword", "answerword"].iter().any(|word| request.holds(&format!("{word}{other:02}"))) {
                    leaked.insert((other, n));
                }
            }
        }
    }
    assert_eq!(cluster.shutdown().await.dropped, 0);
    assert_nothing_left(&place.sandbox);
    // aider writes nothing of its own into a repository.
    assert_eq!(place.sandbox.git(&["status", "--porcelain", "--ignored"]).lines().count(), 12);
    leaked
}

#[tokio::test]
async fn twelve_fresh_jobs_on_three_aiders_know_nothing_of_each_other() {
    assert_eq!(twelve_jobs(Context::Fresh).await, BTreeSet::new());
}

/// The check of the test above, against a fault planted on purpose: without resets it must find leaks.
#[tokio::test]
async fn twelve_kept_jobs_on_three_aiders_see_the_jobs_before_them() {
    let leaked = twelve_jobs(Context::Keep).await;
    // Round robin: job 11 ran where 2, 5 and 8 had run.
    assert!([2, 5, 8].iter().all(|before| leaked.contains(&(*before, 11))), "{leaked:?}");
}

/// A bug that others had (NousResearch/hermes-agent#55444): a dead process that nobody had waited for counted as
/// alive, and its place was never free again.
#[tokio::test]
async fn a_killed_aider_fails_its_turn_only_and_comes_back() {
    let place = Place::new();
    place.model.on("granite", Step::Slow { text: "word ".repeat(600), chunk: 50, delay_ms: 50 });
    place.model.on("basalt", Step::say("basalt it is").after(2_000));
    let cluster = place.launch(place.options(2)).await;
    let killed = cluster.turn().on(0).prompt("granite").unwrap();
    let other = cluster.turn().on(1).prompt("basalt").unwrap();
    place.model.requested("granite").await;
    place.model.requested("basalt").await;
    let before = pids(&cluster.status().await);
    let pid = rustix::process::Pid::from_raw(i32::try_from(before[0]).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let response = killed.await;
    assert!(
        matches!(&response.error().unwrap().kind, FailureKind::Crashed { exit: Some(readyroom::Exit::Signal(9)) }),
        "{:?}",
        response.outcome
    );
    assert_eq!(other.await.text().unwrap(), "basalt it is");
    let next = cluster.turn().on(0).prompt("slate").unwrap().await;
    assert_eq!((next.text().unwrap().to_string().as_str(), next.generation), ("ok", 2));
    let after = pids(&cluster.status().await);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1], "the other process did not notice");
    cluster.shutdown().await;
    assert_nothing_left(&place.sandbox);
}

/// The calls of the guide, in its order, and its loops.
#[test]
fn the_guides_calls_work_on_three_aiders() {
    let place = Place::new();
    for name in ["a.py", "b b.py", "c.py"] {
        place.sandbox.write(name, "pass\n");
    }
    place.sandbox.commit();
    let (definition, program) = place.sandbox.definition();
    let cluster = readyroom::cluster::blocking::Cluster::launch(definition, &program, place.options(3))
        .expect("aiders are ready");
    let answer = "It does nothing.\n\n> \n`pass`";
    place.model.on("What does", answer);
    let read = || cluster.read_any(Duration::from_secs(30)).expect("a response within 30 s");
    let added = cluster.send("/add a.py").unwrap();
    let asked = cluster.send("/ask 'What does it do?'").unwrap();
    assert_eq!(added, asked);
    let response = read();
    assert_eq!(response.text().unwrap(), answer);
    assert_eq!(response.instance, Some(added));
    assert_eq!(response.preamble[0].result.as_deref(), Ok("Added a.py to the chat"));
    assert_eq!(place.sandbox.read("a.py").unwrap(), "pass\n");
    assert!(place.prompt_of("What does").contains("'What does it do?'"));

    // Three context commands, then three reads.
    for name in ["a.py", "b b.py", "missing.py"] {
        cluster.send(&format!("/add {name}")).unwrap();
    }
    let acknowledged: Vec<_> = (0..3).map(|_| read()).collect();
    assert_eq!(acknowledged[1].text().unwrap(), "Added b b.py to the chat");
    assert_eq!(acknowledged[2].error().unwrap().kind, FailureKind::BadInput);
    assert!(!place.sandbox.dir().join("missing.py").exists(), "a missing file is not created");
    // The prompt joins the turn of the three, and so fails with the one that failed.
    cluster.send("well?").unwrap();
    assert_eq!(read().error().unwrap().kind, FailureKind::BadInput);

    // All pairs are sent before the first is read.
    for n in 0..218 {
        let file = ["a.py", "b b.py", "c.py"][n % 3];
        let at = cluster.send(&format!("/add {file}")).unwrap();
        assert_eq!(cluster.send(&format!("/ask What does number {n} do?")).unwrap(), at);
    }
    for _ in 0..218 {
        let response = read();
        assert_eq!(response.text().unwrap(), answer);
        assert!(response.preamble[0].result.is_ok());
    }
    assert!(cluster.read_any(Duration::from_millis(10)).is_none());
    let asked = place.model.requests_of("What does");
    let numbers: BTreeSet<_> = asked
        .iter()
        .filter_map(|request| {
            aider_support::last_user(&request.body)
                .trim()
                .strip_prefix("What does number ")?
                .split(' ')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .collect();
    assert_eq!(numbers, (0..218).collect());
    assert_eq!(cluster.shutdown().dropped, 0);
    assert_nothing_left(&place.sandbox);
}

#[test]
fn prompts_of_one_job_share_a_context_and_the_first_failure_ends_it() {
    let room = Room::get();
    room.model().on("feldspar", "seen feldspar");
    room.model().on("hornfels", "seen hornfels");
    room.model().on("mudstone", Step::status(401));
    let job = Job { prompts: vec!["feldspar".into(), "hornfels".into()], ..Job::default() };
    let response = room.run(job);
    assert_eq!(response.text().unwrap(), "seen hornfels");
    assert_eq!(response.turns.len(), 2);
    assert!(room.model().requests_of("hornfels")[0].holds("seen feldspar"));
    let job = Job { prompts: vec!["mudstone".into(), "hornfels again".into()], ..Job::default() };
    let response = room.run(job);
    assert!(matches!(&response.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Auth));
    assert_eq!(response.turns.len(), 1);
    assert_eq!(room.model().requests_of("hornfels").len(), 1);
}
