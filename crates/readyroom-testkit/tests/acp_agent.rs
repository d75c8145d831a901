//! Any agent of the Agent Client Protocol, from a definition alone, with the habits that agents have.

mod acp_support;

use std::time::{Duration, Instant};

use acp_support::{kind, pids, run};
use readyroom::cluster::{InstanceState, LaunchError, Wait};
use readyroom::driver::{Activity, Proof};
use readyroom::{Cluster, ClusterOptions, Context, Event, Job, Outcome, Permissions};
use readyroom_testkit::{Sandbox, assert_nothing_left, fake, use_guardian};

async fn launch(sandbox: &Sandbox, args: &[&str], options: ClusterOptions) -> Result<Cluster, LaunchError> {
    use_guardian();
    let (definition, program) = fake::acp_definition(args);
    let contract = readyroom::tool::ContractOptions { permissions: options.contract.permissions, ..sandbox.contract() };
    Cluster::launch(definition, &program, ClusterOptions { contract, ..options }).await
}

async fn agent(sandbox: &Sandbox, args: &[&str], count: usize, context: Context) -> Cluster {
    let options =
        ClusterOptions::default().count(count).context(context).permissions(Permissions::Full).wait(Wait::All);
    launch(sandbox, args, options).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn said(cluster: &Cluster, prompt: &str) -> String {
    let response = run(cluster, prompt).await;
    response.text().unwrap_or_else(|outcome| panic!("{prompt:?}: {outcome}")).to_string()
}

/// A bug that others had (openclaw/acpx#264): a session that was called persistent got a new process for each turn.
#[tokio::test(flavor = "multi_thread")]
async fn turns_are_whole_whatever_else_the_agent_says() {
    let sandbox = Sandbox::bare("acp");
    let cluster = agent(&sandbox, &[], 1, Context::Fresh).await;
    let mut events = cluster.events();
    let before = pids(&cluster).await;
    assert_eq!(said(&cluster, "hello\nworld").await, "hello\nworld\n");
    // What begins like a command has one invisible character in a block before it.
    assert_eq!(said(&cluster, "/help me").await, "\u{2060}\n/help me\n");
    let odd = "one\n@malformed {\"jsonrpc\":\n@malformed {\"id\":3,\"result\":3\n@update a_new_kind\n@request fs/read_text_file\n@request _new/thing\ntwo";
    let text = said(&cluster, odd).await;
    assert!(text.starts_with("one\n") && text.ends_with("two\n") && text.matches("-32601").count() == 2, "{text}");
    // Said after the end: it is nobody's, also not the next turn's.
    assert_eq!(said(&cluster, "early\n@late this is late").await, "early\n");
    assert_eq!(said(&cluster, "next").await, "next\n");
    let long = said(&cluster, "@print 5000000").await;
    assert!(long.len() == 5_000_000 && long.bytes().all(|byte| byte == b'x'), "{}", long.len());
    let answer = run(&cluster, Job::new("look").with_file("README.md")).await.answer.text.to_string();
    assert_eq!(answer, format!("look\nfile: file://{}\n", sandbox.dir().join("README.md").display()));
    assert_eq!(pids(&cluster).await, before);
    cluster.shutdown().await;
    drop(cluster);
    let mut anomalies = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::AnomalySeen { what, .. } = event {
            anomalies.push(what);
        }
    }
    for what in ["not JSON", "an update of an unknown kind", "a request of an unknown kind", "news of"] {
        assert!(anomalies.iter().any(|anomaly| anomaly.contains(what)), "{what}: {anomalies:?}");
    }
    assert_nothing_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_is_kept_or_proven_new() {
    let sandbox = Sandbox::bare("acp");
    let cluster = agent(&sandbox, &[], 1, Context::Fresh).await;
    said(&cluster, "a secret").await;
    let response = run(&cluster, "@recall").await;
    assert!(matches!(response.proof, Some(Proof::NewSession(_))), "{:?}", response.proof);
    assert_eq!(response.text().unwrap(), "\n");
    cluster.shutdown().await;

    let cluster = agent(&sandbox, &[], 1, Context::Keep).await;
    said(&cluster, "a secret").await;
    assert_eq!(said(&cluster, "@recall").await, "a secret\n");
    // After a failure it is reset, and says so.
    assert!(!run(&cluster, "@error 500 no").await.ok());
    let response = run(&cluster, "@recall").await;
    assert_eq!((response.text().unwrap().to_string_lossy(), response.context_lost), ("\n".into(), true));
    cluster.shutdown().await;

    // A session that has the name of one before it is no proof: the process is recycled, and gives one.
    let cluster = agent(&sandbox, &["--same-session"], 1, Context::Fresh).await;
    said(&cluster, "a secret").await;
    let response = run(&cluster, "@recall").await;
    assert_eq!((response.text().unwrap().to_string_lossy(), response.generation), ("\n".into(), 2));
    cluster.shutdown().await;
    assert_nothing_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_and_errors_have_their_kinds() {
    let sandbox = Sandbox::bare("acp");
    let cluster = agent(&sandbox, &[], 1, Context::Fresh).await;
    for (prompt, name) in [
        ("text\n@stop max_tokens", "model_error"),
        ("text\n@stop refusal", "model_error"),
        ("text\n@stop max_turn_requests", "model_error"),
        ("text\n@stop cancelled", "protocol"),
        ("text\n@stop of_its_own", "protocol"),
        ("@stop end_turn", "model_error"),
        ("text\n@error 401 no", "auth"),
        ("text\n@error -32000 log in first", "auth"),
        ("text\n@error 429 slow down", "rate_limited"),
        ("text\n@error 404 what?", "unknown_model"),
        ("text\n@error -32603 internal", "model_error"),
        ("text\n@error -32602 what?", "protocol"),
        ("text\n@die 0", "crashed"),
    ] {
        let response = run(&cluster, prompt).await;
        assert_eq!(kind(&response).name(), name, "{prompt:?}: {}", response.outcome);
        assert!(response.answer.transcript.is_empty() || response.answer.transcript == "text\n");
        assert_eq!(said(&cluster, "next").await, "next\n");
    }
    cluster.shutdown().await;
    assert_nothing_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_for_once_or_not_at_all() {
    let sandbox = Sandbox::bare("acp");
    let cluster = agent(&sandbox, &[], 1, Context::Fresh).await;
    let mut events = cluster.events();
    let text = said(&cluster, "@permission execute allow_always allow_always allow_once reject_once").await;
    assert!(text.contains("option-2"), "{text}");
    let text = said(&cluster, "@permission execute allow_always reject_always\nand on").await;
    assert_eq!(text, "leave: {\"outcome\":\"cancelled\"}\nand on\n");
    let granted = loop {
        if let Some(Event::TurnProgressed { activity: Activity::Granted(what), .. }) = events.recv().await {
            break what;
        }
    };
    assert!(granted.starts_with("execute"), "{granted}");
    cluster.shutdown().await;

    let options = ClusterOptions::default().count(1).permissions(Permissions::Edit);
    let cluster = launch(&sandbox, &[], options).await.unwrap_or_else(|error| panic!("{error}"));
    for (kind, granted) in [("read", true), ("execute", false), ("fetch", false), ("edit", false), ("other", false)] {
        let response = run(&cluster, format!("@permission {kind} allow_once reject_once").as_str()).await;
        let expected = if granted { "option-0" } else { "option-1" };
        assert!(response.answer.text.to_string().contains(expected), "{kind}: {}", response.answer.text);
    }
    cluster.shutdown().await;
    assert_nothing_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_end_by_the_agents_means_or_by_ours() {
    let sandbox = Sandbox::bare("acp");
    for (args, prompt, lives) in
        [(&[][..], "text\n@hang", 1), (&["--deaf-to-cancel"][..], "text\n@hang", 2), (&[][..], "text\n@never", 2)]
    {
        let cluster = agent(&sandbox, args, 1, Context::Fresh).await;
        let mut events = cluster.events();
        let ticket = cluster.submit(prompt).unwrap();
        while !matches!(events.recv().await, Some(Event::TurnProgressed { activity: Activity::Text(_), .. })) {}
        ticket.cancel();
        let response = ticket.await;
        assert_eq!(response.outcome, Outcome::Cancelled);
        // Where the process had to be ended, what it had said is gone with it.
        assert!(lives > 1 || response.answer.transcript == "text\n", "{}", response.answer.transcript);
        let response = run(&cluster, Job::new("text\n@hang").with_timeout(Duration::from_millis(300))).await;
        assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{}", response.outcome);
        let next = run(&cluster, "next").await;
        assert_eq!(next.text().unwrap(), "next\n");
        assert!(next.generation >= lives, "{args:?} {prompt:?}: life {}", next.generation);
        cluster.shutdown().await;
    }
    assert_nothing_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_a_process_and_stay_apart() {
    let sandbox = Sandbox::bare("acp");
    let options = ClusterOptions::default().count(3).permissions(Permissions::Read).wait(Wait::All);
    let cluster = launch(&sandbox, &[], options).await.unwrap_or_else(|error| panic!("{error}"));
    let before = pids(&cluster).await;
    assert_eq!((before.len(), before.iter().collect::<std::collections::HashSet<_>>().len()), (3, 1), "{before:?}");
    // Two that hang do not hold up the third.
    let hang: Vec<_> = (0..2).map(|at| cluster.turn().on(at).prompt("text\n@hang").unwrap()).collect();
    for _ in 0..5 {
        let response = cluster.turn().on(2).prompt("quick").unwrap().await;
        assert_eq!(response.text().unwrap(), "quick\n");
    }
    hang[0].cancel();
    let [first, second] = hang.try_into().unwrap();
    assert_eq!(first.await.outcome, Outcome::Cancelled);
    assert_eq!(cluster.turn().on(0).prompt("again").unwrap().await.text().unwrap(), "again\n");
    // When the process dies, every turn in it has crashed, and the instances come back.
    assert_eq!(kind(&cluster.turn().on(2).prompt("@die 0").unwrap().await).name(), "crashed");
    assert_eq!(kind(&second.await).name(), "crashed");
    while cluster.status().await.instances.iter().any(|now| now.generation < 2 || now.state != InstanceState::Idle) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for at in 0..3 {
        assert_eq!(cluster.turn().on(at).prompt("back").unwrap().await.text().unwrap(), "back\n");
    }
    cluster.shutdown().await;
    assert_nothing_left(&sandbox);
}

/// Neither its work nor what it prints is taken for that of a turn beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_hangs_is_given_up_however_busy_its_process_is() {
    let sandbox = Sandbox::bare("acp");
    let stall = Some(Duration::from_secs(5));
    let options = ClusterOptions { stall, ..ClusterOptions::default().count(2).permissions(Permissions::Read) };
    let cluster = launch(&sandbox, &[], options.wait(Wait::All)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(pids(&cluster).await.into_iter().collect::<std::collections::HashSet<_>>().len(), 1);
    let mut hung = std::pin::pin!(async { cluster.turn().on(0).prompt("@hang").unwrap().await });
    let began = Instant::now();
    let response = loop {
        tokio::select! {
            response = &mut hung => break response,
            response = async { cluster.turn().on(1).prompt("@print 4000000").unwrap().await } => assert!(response.ok()),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it still counts as at work");
    };
    assert_eq!(kind(&response).name(), "stalled");
    cluster.shutdown().await;
    assert_nothing_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_come_up_says_why() {
    let sandbox = Sandbox::bare("acp");
    for (args, wanted) in [
        (&["--crash-start"][..], "exit status 3"),
        (&["--refuse-sessions"][..], "no more sessions"),
        (&["--never-ready"][..], "not_ready"),
    ] {
        let mut options = ClusterOptions::default().count(1).permissions(Permissions::Full);
        options.ready_timeout = Duration::from_secs(if args[0] == "--never-ready" { 1 } else { 30 });
        let error = launch(&sandbox, args, options).await.expect_err("it does not come up");
        assert!(matches!(&error, LaunchError::NotReady { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains(wanted) || told.contains("within 1 s"), "{args:?}: {told}");
    }
    assert_nothing_left(&sandbox);
}
