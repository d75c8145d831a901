//! Commands that run once a turn: those of `docs/definitions.md`, and some that misbehave.

mod repl_support;

use std::collections::BTreeSet;
use std::time::Duration;

use readyroom::driver::Proof;
use readyroom::tool::Definition;
use readyroom::{Context, Exit, FailureKind, Job, Outcome};
use repl_support::Bench;

/// The page's command with a prompt on stdin, made to run this shell script instead.
async fn shell(script: &str, count: usize) -> Bench {
    let change = |definition: &mut Definition| {
        definition.argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
    };
    Bench::with_program("tr", "/bin/sh", |options| options.count(count).context(Context::Fresh), change).await
}

#[tokio::test]
async fn a_prompt_on_stdin_is_answered_byte_for_byte() {
    let upper = Bench::new("tr").await;
    assert_eq!(upper.answer("one\n  two\u{0}\u{1b}[1m").await, "ONE\n  TWO\u{0}\u{1b}[1M");
    assert_eq!(upper.answer("/add !x @y {z").await, "/ADD !X @Y {Z");
    let long = "words and words\n".repeat(200_000);
    assert!(upper.answer(&long).await == long.to_uppercase());
    let response = upper.run("again").await;
    assert_eq!((response.text().unwrap().to_string().as_str(), response.proof), ("AGAIN", Some(Proof::NewProcess)));
    upper.end().await;
}

#[tokio::test]
async fn a_prompt_as_an_argument_arrives_as_it_is() {
    let python = Bench::new("python-once").await;
    assert_eq!(
        python.answer("print('it\\'s', \"$HOME `x` \\\\ é\u{3041}\")\nprint(2)").await,
        "it's $HOME `x` \\ é\u{3041}\n2\n"
    );
    let response = python.run("import sys\n_ = sys.stdout.buffer.write(b'\\xff\\x00\\xfe')").await;
    assert_eq!(response.text().unwrap().as_bytes(), b"\xff\x00\xfe");
    assert_eq!(python.answer("import sys; print(repr(sys.stdin.read()))").await, "''\n");
    let response = python.run("print('before')\nimport sys; sys.exit(3)").await;
    assert_eq!(response.error().unwrap().kind, FailureKind::Crashed { exit: Some(Exit::Status(3)) });
    assert_eq!(response.answer.text, "before\n");
    assert_eq!(python.run("print(").await.error().unwrap().kind, FailureKind::BadInput, "by the definition's rule");
    for (prompt, why) in [("a\0b".to_owned(), "NUL"), ("#".repeat(200_000), "131071")] {
        let response = python.run(&prompt).await;
        let failure = response.error().unwrap();
        assert!(failure.kind == FailureKind::BadInput && failure.message.contains(why), "{failure}");
    }
    python.end().await;
}

#[tokio::test]
async fn files_are_named_before_the_prompt_or_given_as_arguments() {
    let upper = Bench::new("tr").await;
    let file = upper.sandbox.write("a b.txt", "");
    let response = upper.cluster.submit(Job::new("go").with_file("a b.txt")).unwrap().await;
    let expected = format!("Files to work on:\n- {}\n\ngo", file.display());
    assert_eq!(response.text().unwrap(), expected.to_uppercase().as_str());
    let missing = upper.cluster.submit(Job::new("go").with_file("missing")).unwrap().await;
    assert_eq!(missing.error().unwrap().kind, FailureKind::BadInput);
    upper.end().await;

    let change = |definition: &mut Definition| {
        definition.argv = vec!["/bin/cat".into()];
        definition.oneshot.as_mut().unwrap().file_args = vec!["{}".into(), "-".into()];
    };
    let cat = Bench::with_program("tr", "/bin/cat", |options| options, change).await;
    cat.sandbox.write("it's $x.txt", "in the file, ");
    let response = cat.cluster.submit(Job::new("on stdin").with_file("it's $x.txt")).unwrap().await;
    assert_eq!(response.text().unwrap(), "in the file, on stdin");
    cat.end().await;
}

#[tokio::test]
async fn only_status_zero_at_the_end_of_the_output_is_success() {
    for (script, kind, said) in [
        ("cat >/dev/null; echo part; echo why >&2; exit 7", Some(Exit::Status(7)), "part\n"),
        ("cat >/dev/null; echo part; kill -SEGV $$", Some(Exit::Signal(11)), "part\n"),
        ("exit 1", Some(Exit::Status(1)), ""),
        ("echo whole", None, "whole\n"),
        ("cat >/dev/null; (sleep 0.3; echo late) & echo early", None, "early\n"),
    ] {
        let bench = shell(script, 1).await;
        // More often than crashes in a row are forgiven: a failing command is its turn's failure, not its tool's.
        for _ in 0..5 {
            let response = bench.run("p").await;
            let found = response.error().map(|failure| failure.kind.clone());
            assert_eq!(found, kind.map(|exit| FailureKind::Crashed { exit: Some(exit) }), "{script}");
            assert!(response.answer.text.to_string_lossy().starts_with(said), "{script}: {:?}", response.answer.text);
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn each_turn_has_a_process_of_its_own_and_several_run_at_once() {
    // Each waits until four have begun: if they ran one after the other, the first would never end.
    let script = "cat; echo >> begun; until test $(wc -l < begun) -ge 4; do sleep 0.02; done; echo $$";
    let bench = shell(script, 4).await;
    let job = |n: usize| Job::new(format!("{n} ")).with_timeout(Duration::from_secs(60));
    let tickets: Vec<_> = (0..8).map(|n| bench.cluster.submit(job(n)).unwrap()).collect();
    let mut answers = BTreeSet::new();
    for (n, ticket) in tickets.into_iter().enumerate() {
        let answer = ticket.await.text().unwrap().to_string();
        assert!(answer.starts_with(&format!("{n} ")));
        answers.insert(answer.split(' ').nth(1).unwrap().to_owned());
    }
    assert_eq!(answers.len(), 8, "eight processes");
    bench.end().await;
}

#[tokio::test]
async fn a_command_that_does_not_end_is_cancelled_or_late_and_all_of_it_is_ended() {
    let bench = shell("trap '' INT TERM; cat; setsid sleep 4321 & sleep 4321", 1).await;
    let mut events = bench.cluster.events();
    let ticket = bench.cluster.submit("begun").unwrap();
    while !matches!(events.recv().await.unwrap(), readyroom::Event::TurnProgressed { .. }) {}
    ticket.cancel();
    let response = ticket.await;
    assert_eq!(response.outcome, Outcome::Cancelled);
    assert_eq!(response.answer.text, "begun");
    let late = bench.cluster.submit(Job::new("x").with_timeout(Duration::from_millis(300))).unwrap().await;
    assert!(matches!(late.outcome, Outcome::TimedOut { .. }), "{:?}", late.outcome);
    bench.end().await;
}

#[tokio::test]
async fn a_command_that_prints_without_end_is_stopped() {
    let script = "cat >/dev/null; yes";
    let change = |definition: &mut Definition| {
        definition.argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
        definition.limits.output_bytes = 1 << 20;
    };
    let bench = Bench::with_program("tr", "/bin/sh", |options| options, change).await;
    assert_eq!(bench.run("p").await.error().unwrap().kind, FailureKind::OutputLimit);
    bench.end().await;
}
