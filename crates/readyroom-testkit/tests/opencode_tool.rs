//! opencode, for real: jobs, turns, failures, cancels, deaths, permission levels, and the rules that it taught.

mod acp_support;

use std::time::Duration;

use acp_support::levels::{Effects, NONE, attempts, attempts_of_a_user, prevents};
use acp_support::turns::{self, Expected};
use acp_support::{Bed, cancel, deaths, guide, jobs, kind, pids, run};
use readyroom::driver::Activity;
use readyroom::{Context, Event, FailureKind, Job, Outcome, Permissions};
use readyroom_testkit::{Step, assert_nothing_left};

#[tokio::test(flavor = "multi_thread")]
async fn twelve_jobs_keep_apart() {
    jobs::twelve_jobs_keep_apart("opencode").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_whole_and_failures_have_their_kinds() {
    let bed = Bed::impatient("opencode");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Edit).await;
    turns::answers_come_back_as_they_are(&bed, &cluster).await;
    turns::prompts_arrive_as_they_are(&bed, &cluster).await;
    turns::files_are_given(&bed, &cluster).await;
    let cases = [
        ("401", Step::status(401), Expected::Kind("auth")),
        ("429", Step::retry_after(0), Expected::Kind("rate_limited")),
        ("500", Step::status(500), Expected::TimedOut),
        ("BREAK", Step::Break { after_text: "PARTIAL".into() }, Expected::TimedOut),
        ("NO-FINISH", Step::NoFinish { text: "PARTIAL".into() }, Expected::TimedOut),
        ("HANG", Step::Hang, Expected::TimedOut),
        ("HANG-AFTER", Step::HangAfter { text: "PARTIAL".into() }, Expected::TimedOut),
    ];
    turns::failures_have_their_kinds(&bed, &cluster, &cases).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_opencode_in_every_state() {
    let bed = Bed::new("opencode");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    cancel::every_state(&bed, &cluster).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_tool_fails_its_own_turn() {
    deaths::a_killed_tool_fails_its_own_turn("opencode").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_killed_owner() {
    deaths::nothing_outlives_a_killed_owner("opencode").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_guardian_the_owner_ends_all() {
    deaths::without_its_guardian_the_owner_ends_all("opencode").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_good_turn_leaves_running_is_ended() {
    deaths::what_a_good_turn_leaves_running_is_ended("opencode", &["bg", "hup", "session"]).await;
}

#[test]
fn add_ask_and_read() {
    guide::add_ask_and_read("opencode");
}

#[test]
fn many_pairs_before_the_first_read() {
    guide::many_pairs_before_the_first_read("opencode");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_prevents_writes_and_shell() {
    assert_eq!(attempts("opencode", Permissions::Read).await, NONE);
    assert_eq!(prevents("opencode", Permissions::Read), ["writes", "shell", "network fetches", "MCP tools"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_prevents_writes_outside_and_shell() {
    let inside = Effects { inside: true, ..NONE };
    assert_eq!(attempts("opencode", Permissions::Edit).await, inside);
    assert_eq!(
        prevents("opencode", Permissions::Edit),
        [
            "writes outside the directory",
            "writes into what programs run (.git and the tools' own)",
            "shell",
            "network fetches",
            "MCP tools"
        ]
    );
}

/// Rules of the user's and of the project's that allow everything, for all agents, for the usual one, for one that is the
/// user's default and for one of the same name as ours, in files and in the variable, change nothing below `full`.
#[tokio::test(flavor = "multi_thread")]
async fn the_users_own_rules_do_not_outrank_a_level() {
    let allows_all = |bed: &mut Bed| {
        let all = serde_json::json!({ "bash": "allow", "edit": "allow", "webfetch": "allow", "b*": "allow", "own_touch": "allow", "*": "allow" });
        let agent = serde_json::json!({ "mode": "primary", "permission": all });
        let settings = serde_json::json!({
            "permission": all, "default_agent": "mine", "agent": { "build": agent, "mine": agent, "readyroom": agent },
        });
        bed.write_home(".config/opencode/opencode.json", &settings);
        bed.sandbox.write("opencode.json", settings.to_string());
        bed.sandbox.set_env("OPENCODE_CONFIG_CONTENT", settings.to_string());
        let text = "---\ndescription: Does it all.\nmode: primary\npermission:\n  bash: allow\n  edit: allow\n  \"*\": allow\n---\nAll.\n";
        bed.write_home(".config/opencode/agent/readyroom.md", &text.into());
        bed.sandbox.write(".opencode/agent/readyroom.md", text);
    };
    assert_eq!(attempts_of_a_user("opencode", Permissions::Read, allows_all).await, NONE);
    let inside = Effects { inside: true, ..NONE };
    assert_eq!(attempts_of_a_user("opencode", Permissions::Edit, allows_all).await, inside);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_prevents_nothing() {
    let all = Effects { inside: true, outside: true, hook: true, shell: true, shell_outside: true, own_tool: true };
    assert_eq!(attempts("opencode", Permissions::Full).await, all);
    assert!(prevents("opencode", Permissions::Full).is_empty());
}

/// A cancel that comes at once is answered with `end_turn`: it stays a cancel, and its prompt reaches no later turn.
#[tokio::test(flavor = "multi_thread")]
async fn rule_03_a_cancelled_turn_stays_cancelled_whatever_it_is_called() {
    let bed = Bed::new("opencode");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Read).await;
    let mut events = cluster.events();
    for number in 0..3 {
        let word = format!("RULE-QUICK-{number}-X");
        bed.model.on(&word, Step::Hang);
        let ticket = cluster.submit(word.as_str()).unwrap();
        while !matches!(events.recv().await, Some(Event::TurnStarted { turn, .. }) if turn == ticket.id()) {}
        ticket.cancel();
        assert_eq!(ticket.await.outcome, Outcome::Cancelled);
        bed.next_job_is_right(&cluster, &[&word]).await;
    }
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// An "always" would hold in every later session of the process. So each conversation asks again, and is granted once.
#[tokio::test(flavor = "multi_thread")]
async fn rule_07_a_grant_is_for_once_since_always_survives_a_reset() {
    let bed = Bed::new("opencode");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    let mut events = cluster.events();
    let before = pids(&cluster).await;
    for number in 0..2 {
        let word = format!("RULE-GRANT-{number}-X");
        let first = bed.shell("echo the same command > same.txt");
        bed.model.on(&word, [first.clone(), first, Step::say("done")]);
        assert_eq!(run(&cluster, word.as_str()).await.text().unwrap(), "done");
    }
    assert_eq!(pids(&cluster).await, before);
    cluster.shutdown().await;
    drop(cluster);
    let mut granted = 0;
    while let Some(event) = events.recv().await {
        granted += usize::from(matches!(event, Event::TurnProgressed { activity: Activity::Granted(_), .. }));
    }
    assert_eq!(granted, 4);
    assert_nothing_left(&bed.sandbox);
}

/// A prompt that begins with `/`, also behind white space, would never reach the model.
#[tokio::test(flavor = "multi_thread")]
async fn rule_08_a_prompt_that_begins_with_a_slash_is_no_command() {
    let bed = Bed::new("opencode");
    bed.sandbox.write("a.txt", "CONTENT-OF-A\n");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Read).await;
    for (number, prompt) in ["/init WORD", "/nosuch WORD", " \n/etc/hosts WORD\n", "/"].iter().enumerate() {
        let word = format!("RULE-SLASH-{number}-X");
        bed.model.on(&word, "seen");
        let prompt = if *prompt == "/" { format!("/{word}") } else { prompt.replace("WORD", &word) };
        let response = run(&cluster, Job::new(prompt.as_str()).with_file("a.txt")).await;
        assert_eq!(response.text().unwrap_or_else(|outcome| panic!("{prompt:?}: {outcome}")), "seen");
        let request = &bed.model.requests_of(&word)[0];
        let parts = request.body["messages"].as_array().unwrap().last().unwrap()["content"].as_array().unwrap().clone();
        assert_eq!(parts[0]["text"], prompt, "the model sees the prompt as it is, and nothing before it");
        assert!(request.holds("CONTENT-OF-A"));
    }
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// A stream without a finish marker is asked for again without end, and without a word.
#[tokio::test(flavor = "multi_thread")]
async fn rule_09_endless_retries_end_at_our_deadline() {
    let bed = Bed::new("opencode");
    bed.model.on("RULE-ENDLESS-X", Step::NoFinish { text: "PARTIAL".into() });
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Read).await;
    let response = run(&cluster, Job::new("RULE-ENDLESS-X").with_timeout(Duration::from_secs(10))).await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{}", response.outcome);
    let asked = bed.model.requests_of("RULE-ENDLESS-X").len();
    assert!(asked >= 3, "{asked}");
    assert_eq!(response.answer.text, "PARTIAL", "the last try alone is the answer");
    bed.next_job_is_right(&cluster, &["RULE-ENDLESS-X", "PARTIAL"]).await;
    assert_eq!(bed.model.requests_of("RULE-ENDLESS-X").len(), asked, "it went on");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// It asks for nothing by itself. Where something of the user's allows it all the same (a plugin; here the level is taken
/// away) a command that was not asked for ends the turn, and is no success.
#[tokio::test(flavor = "multi_thread")]
async fn rule_16_what_a_users_own_settings_allow_is_found_out() {
    let bed = Bed::new("opencode");
    let path = bed.sandbox.home().join(".config/opencode/opencode.json");
    let mut settings: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    settings["agent"]["build"]["permission"] = serde_json::json!({"edit": "allow", "bash": "allow"});
    std::fs::write(&path, settings.to_string()).unwrap();
    bed.model
        .on("RULE-UNASKED-X", [bed.shell("echo x > by-shell.txt"), bed.shell("echo x > again.txt"), Step::say("ok")]);
    let inside = bed.sandbox.dir().join("inside.txt");
    bed.model.on("RULE-WRITE-X", [bed.write(&inside, "x\n"), Step::say("written")]);
    let mut options = bed.options();
    options.contract.permissions = Permissions::Edit;
    let (definition, program) = bed.sandbox.definition();
    let mut weak = readyroom::tool::Definition::clone(&definition);
    weak.permissions.get_mut(&Permissions::Edit).unwrap().json_env.clear();
    let cluster = readyroom::Cluster::launch(std::sync::Arc::new(weak), &program, options).await.unwrap();
    let response = run(&cluster, "RULE-UNASKED-X").await;
    assert_eq!(kind(&response), FailureKind::PermissionDenied);
    assert!(response.error().unwrap().message.contains("by-shell.txt"), "{}", response.outcome);
    assert_eq!(run(&cluster, "RULE-WRITE-X").await.text().unwrap(), "written");
    cluster.shutdown().await;
    // A model that the tool does not know is refused by name, and not answered by another.
    let mut options = bed.options();
    options.contract.model = Some("local/no-such-model".into());
    let (definition, program) = bed.sandbox.definition();
    let error = readyroom::Cluster::launch(definition, &program, options).await.unwrap_err();
    assert!(error.to_string().contains("unknown_model"), "{error}");
    assert_nothing_left(&bed.sandbox);
}
