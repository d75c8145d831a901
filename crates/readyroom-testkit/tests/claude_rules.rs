//! Rules that Claude Code taught, each shown on the real tool. `docs/design/rules.md` lists them.

mod claude_support;

use std::time::Duration;

use claude_support::{Stage, activity, answer, bash, prompt_blocks, write};
use readyroom::driver::Activity;
use readyroom::job::Mode;
use readyroom::{Context, Denials, Event, Exit, FailureKind, Job, Permissions};
use readyroom_testkit::{Step, assert_nothing_left};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_02_an_exit_status_of_zero_proves_nothing() {
    let stage = Stage::new();
    stage.model.on("dik", Step::HangAfter { text: "half of it".into() });
    let cluster = stage.one(Permissions::Edit).await;
    let mut events = cluster.events();
    let ticket = cluster.submit("Do it, dik").unwrap();
    activity(&mut events, ticket.id(), |seen| matches!(seen, Activity::Text(_))).await;
    let pid = cluster.status().await.instances[0].pid.unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let response = ticket.await;
    // In some of the cases the tool still says that the turn was aborted, in others it says nothing.
    assert_eq!(response.outcome.name(), "crashed", "{response:?}");
    let exit = loop {
        match tokio::time::timeout(Duration::from_secs(10), events.recv()).await.expect("the process ends") {
            Some(Event::InstanceEnded { failure: Some(failure), .. }) => break failure.kind,
            Some(_) => {}
            None => panic!("the cluster is gone"),
        }
    };
    assert_eq!(exit, FailureKind::Crashed { exit: Some(Exit::Status(0)) });
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_03_a_success_marker_may_hold_a_failure() {
    let stage = Stage::new();
    let mut options = stage.options(Permissions::Read);
    let record = stage.sandbox.home().join("record");
    std::fs::create_dir(&record).unwrap();
    options.record = Some(record.clone());
    let cluster = stage.launch(options).await;
    stage.model.on("topi1", Step::status(403));
    stage.model.on("topi2", Step::NoFinish { text: "half".into() });
    stage.model.on("topi3", [write(&stage.path("denied.txt"), "x"), Step::say("I could not.")]);
    let auth = cluster.submit("Do it, topi1").unwrap().await;
    assert_eq!(auth.outcome.name(), "auth");
    let cut = cluster.submit("Do it, topi2").unwrap().await;
    assert_eq!(cut.outcome.name(), "model_error");
    let denied = cluster.submit("Do it, topi3").unwrap().await;
    assert_eq!(denied.answer.denials, Denials::Known(vec![format!("Write {}", stage.path("denied.txt"))]));
    cluster.shutdown().await;
    // All three ended with the marker of success.
    let said = std::fs::read_to_string(record.join("instance-0.generation-1.jsonl")).unwrap();
    assert!(said.matches(r#"\"type\":\"result\",\"subtype\":\"success\""#).count() >= 3, "{said}");
    assert_nothing_left(&stage.sandbox);
}

/// What a turn leaves running in the background would speak up in the next job's session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_04_what_a_turn_leaves_behind_never_reaches_the_next() {
    let stage = Stage::new();
    let background =
        serde_json::json!({"command": "sleep 0.4; echo over", "description": "later", "run_in_background": true});
    let script = [Step::call("Bash", background), Step::say("started")];
    stage.model.on("goral", script.clone());
    stage.model.on("chiru", Step::say("alone").after(1000));
    // As the definition has it, there are no background commands.
    let cluster = stage.one(Permissions::Full).await;
    assert_eq!(answer(&cluster, "Do it, goral").await, "started");
    assert!(stage.model.requests_of("goral").last().unwrap().holds("run_in_background"));
    assert_eq!(cluster.status().await.instances[0].generation, 1);
    cluster.shutdown().await;
    stage.model.on("goral", script);
    // A caller who allows them gets a new process behind such a turn.
    let mut options = stage.options(Permissions::Full);
    options.contract.env.insert("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS".into(), String::new());
    let cluster = stage.launch(options).await;
    assert_eq!(answer(&cluster, "Do it, goral").await, "started");
    let response = cluster.submit("Do it, chiru").unwrap().await;
    assert_eq!(response.answer.text, "alone", "{response:?}");
    assert_eq!(response.generation, 2);
    for request in stage.model.requests_of("chiru") {
        // The notice would be a message; the tool's own description of its commands speaks of it, too.
        let messages = request.body["messages"].to_string();
        assert!(!messages.contains("<task-notification>"), "{messages}");
    }
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

/// Shown in both directions: a conversation that is cleared before each turn, and one whose tool is driven by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_06_what_failed_stays_in_the_context_until_it_is_reset() {
    let stage = Stage::new();
    stage.model.on("wapiti1", Step::status(403));
    stage.model.on("wapiti2", "fine");
    // The tool by itself merges what failed into what comes next.
    let (definition, program) = stage.sandbox.definition();
    let mut command = std::process::Command::new(program);
    command.args(&definition.argv[1..]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = stage.sandbox.apply(&mut command).spawn().unwrap();
    for prompt in ["Do it, wapiti1", "Do it, wapiti2"] {
        let line = serde_json::json!({"type": "user", "message": {"role": "user", "content": prompt}});
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{line}\n").as_bytes()).unwrap();
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(stage.model.wait_request("wapiti2").holds("wapiti1"), "this tool has learnt to forget");
    // Under the driver it is gone, in both kinds of context.
    for context in [Context::Fresh, Context::Keep] {
        stage.model.on("wapiti2", "fine");
        let cluster = stage.launch(stage.options(Permissions::Edit).context(context)).await;
        assert_eq!(cluster.submit("Do it, wapiti1").unwrap().await.outcome.name(), "auth");
        let response = cluster.submit("Do it, wapiti2").unwrap().await;
        assert_eq!(response.answer.text, "fine");
        assert_eq!(response.context_lost, context == Context::Keep);
        assert!(!stage.model.requests_of("wapiti2").pop().unwrap().holds("wapiti1"));
        cluster.shutdown().await;
    }
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_07_what_survives_a_reset_is_known() {
    let stage = Stage::new();
    std::fs::create_dir(stage.sandbox.dir().join("sub")).unwrap();
    stage.model.on("hirola1", [bash("cd sub && export LEFT=behind && pwd"), Step::say("first")]);
    stage.model.on("hirola2", [bash("echo at $(pwd) with [$LEFT]"), Step::say("second")]);
    let cluster = stage.one(Permissions::Full).await;
    let first = cluster.submit("Do it, hirola1").unwrap().await;
    let second = cluster.submit("Do it, hirola2").unwrap().await;
    // The tool's totals go on over a reset: the second turn's cost is a difference.
    let cost = |response: &readyroom::cluster::Response| response.usage.cost_usd.unwrap();
    assert!(cost(&first) > 0.0);
    assert!(cost(&second) < 1.9 * cost(&first), "{} after {}", cost(&second), cost(&first));
    // The shell's directory and variables do not.
    let seen = stage.model.requests_of("hirola2").pop().unwrap();
    assert!(seen.holds(&format!("at {} with []", stage.sandbox.dir().display())), "{}", seen.body);
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_08_a_prompt_is_data_whatever_it_begins_with() {
    let stage = Stage::new();
    let cluster = stage.one(Permissions::Edit).await;
    for (number, prompt) in
        ["/cost zebu0", "/clear zebu1", "!id zebu2", "@README.md zebu3", "{zebu4}"].iter().enumerate()
    {
        stage.model.on(&format!("zebu{number}"), "as given");
        assert_eq!(answer(&cluster, *prompt).await, "as given");
        let request = stage.model.wait_request(&format!("zebu{number}"));
        assert_eq!(prompt_blocks(&request.body).last().map(String::as_str), Some(*prompt));
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_09_retries_are_few_and_shown() {
    let stage = Stage::new();
    stage.model.on("urial", Step::status(500));
    let cluster = stage.one(Permissions::Edit).await;
    let mut events = cluster.events();
    let ticket = cluster.submit("Do it, urial").unwrap();
    activity(&mut events, ticket.id(), |seen| matches!(seen, Activity::Retrying { attempt: 1, .. })).await;
    assert_eq!(ticket.await.outcome.name(), "model_error");
    assert_eq!(stage.model.requests_of("urial").len(), 2, "once, and once more");
    cluster.shutdown().await;
}

/// A bug that others had (anthropics/claude-code#19433): a shell that the agent had started lived on behind the
/// agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_12_the_group_is_not_the_tree() {
    let stage = Stage::new();
    stage.model.on("argali", bash("sleep 3603; true"));
    let cluster = stage.one(Permissions::Full).await;
    let ticket = cluster.submit("Do it, argali").unwrap();
    stage.until_running("sleep 3603", true).await;
    let pid = cluster.status().await.instances[0].pid.unwrap();
    // The command has left the tool's group, so a kill of that group would not reach it.
    let group = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().parse::<u32>().unwrap()
    };
    // The shell that will start it has the words in its own command line, so it may not be there yet.
    let sleeping = async {
        loop {
            let processes = readyroom_testkit::sandbox::processes_of(&stage.sandbox);
            if let Some(found) = processes.into_iter().find(|process| process.command.starts_with("sleep 3603")) {
                break found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let command = tokio::time::timeout(std::time::Duration::from_secs(20), sleeping).await.expect("the command runs");
    assert_ne!(group(command.pid), group(pid));
    assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    let response = ticket.await;
    assert_eq!(response.outcome.name(), "crashed");
    assert!(stage.running("sleep 3603").is_empty(), "the turn has ended, and so has all that it started");
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

/// The user's own settings allow everything; the level holds all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_16_defaults_differ_so_levels_are_mapped() {
    let stage = Stage::new();
    let generous =
        r#"{"permissions":{"allow":["Bash","Bash(*)","Write","Edit","WebFetch"],"defaultMode":"acceptEdits"}}"#;
    let settings = stage.sandbox.home().join(".claude/settings.json");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(settings, generous).unwrap();
    stage.sandbox.write(".claude/settings.json", generous);
    // Even a command that the tool takes for harmless is not run.
    stage.model.on("ibex", [bash("echo ran; touch ran"), bash("ls"), Step::say("done")]);
    stage.model.on("markhor", [write(&stage.path("asked.txt"), "x"), Step::say("done")]);
    let cluster = stage.one(Permissions::Edit).await;
    let mut events = cluster.events();
    let response = cluster.submit("Do it, ibex").unwrap().await;
    assert_eq!(response.answer.denials, Denials::Known(vec!["Bash echo ran; touch ran".into(), "Bash ls".into()]));
    assert_eq!(stage.sandbox.read("ran"), None);
    let question = cluster.submit(Job::new("Do it, markhor").with_mode(Mode::Ask)).unwrap().await;
    assert_eq!(question.answer.denials, Denials::Known(vec![format!("Write {}", stage.path("asked.txt"))]));
    assert_eq!(stage.sandbox.read("asked.txt"), None);
    cluster.shutdown().await;
    let mut denied = 0;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
        denied += usize::from(matches!(event, Event::TurnProgressed { activity: Activity::Denied(_), .. }));
    }
    assert_eq!(denied, 3, "each denial is an event");
    assert_nothing_left(&stage.sandbox);
}
