//! Gemini CLI, for real: jobs, turns, failures, cancels, deaths, permission levels, and the rules that it taught.

mod acp_support;

use std::sync::Arc;
use std::time::Duration;

use acp_support::levels::{Effects, NONE, attempts, attempts_of_a_user, prevents};
use acp_support::turns::{self, Expected};
use acp_support::{Bed, cancel, deaths, eventually, guide, jobs, kind, pids, run, runs, varied};
use readyroom::tool::Definition;
use readyroom::{Cluster, ClusterOptions, Context, FailureKind, Job, Outcome, Permissions};
use readyroom_testkit::sandbox::processes_of;
use readyroom_testkit::{Step, assert_nothing_left};

#[tokio::test(flavor = "multi_thread")]
async fn twelve_jobs_keep_apart() {
    jobs::twelve_jobs_keep_apart("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_whole_and_failures_have_their_kinds() {
    let bed = Bed::impatient("gemini");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Edit).await;
    turns::answers_come_back_as_they_are(&bed, &cluster).await;
    turns::prompts_arrive_as_they_are(&bed, &cluster).await;
    turns::files_are_given(&bed, &cluster).await;
    let cases = [
        ("401", Step::status(401), Expected::Kind("auth")),
        ("429", Step::retry_after(3), Expected::Kind("rate_limited")),
        ("500", Step::status(500), Expected::Kind("model_error")),
        ("404", Step::status(404), Expected::Kind("unknown_model")),
        ("BREAK", Step::Break { after_text: "PARTIAL".into() }, Expected::Kind("model_error")),
        ("NO-FINISH", Step::NoFinish { text: "PARTIAL".into() }, Expected::Kind("model_error")),
        ("HANG", Step::Hang, Expected::TimedOut),
        ("HANG-AFTER", Step::HangAfter { text: "PARTIAL".into() }, Expected::TimedOut),
    ];
    turns::failures_have_their_kinds(&bed, &cluster, &cases).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_gemini_in_every_state() {
    let bed = Bed::new("gemini");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    cancel::every_state(&bed, &cluster).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_tool_fails_its_own_turn() {
    deaths::a_killed_tool_fails_its_own_turn("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_killed_owner() {
    deaths::nothing_outlives_a_killed_owner("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_guardian_the_owner_ends_all() {
    deaths::without_its_guardian_the_owner_ends_all("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_good_turn_leaves_running_is_ended() {
    deaths::what_a_good_turn_leaves_running_is_ended("gemini", &["hup", "session"]).await;
}

#[test]
fn add_ask_and_read() {
    guide::add_ask_and_read("gemini");
}

#[test]
fn many_pairs_before_the_first_read() {
    guide::many_pairs_before_the_first_read("gemini");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_prevents_writes_and_shell() {
    assert_eq!(attempts("gemini", Permissions::Read).await, NONE);
    assert_eq!(prevents("gemini", Permissions::Read), ["writes", "shell", "network fetches", "MCP tools"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_prevents_writes_outside_and_shell() {
    let inside = Effects { inside: true, ..NONE };
    assert_eq!(attempts("gemini", Permissions::Edit).await, inside);
    assert_eq!(
        prevents("gemini", Permissions::Edit),
        [
            "writes outside the directory",
            "writes into what programs run (.git and the tools' own)",
            "shell",
            "network fetches",
            "MCP tools"
        ]
    );
}

/// Settings, rules and trusted servers of the user's, and of the project's, change nothing below `full`.
#[tokio::test(flavor = "multi_thread")]
async fn the_users_own_rules_do_not_outrank_a_level() {
    let allows_all = |bed: &mut Bed| {
        let tools = ["run_shell_command", "write_file", "replace", "web_fetch", "mcp_own_touch"];
        let allowed = serde_json::json!({ "tools": { "allowed": tools } });
        bed.write_home(".gemini/settings.json", &allowed);
        bed.sandbox.write(".gemini/settings.json", allowed.to_string());
        let rule = "[[rule]]\ntoolName = \"*\"\ndecision = \"allow\"\npriority = 999\n\n[[rule]]\nmcpName = \"*\"\n\
                    toolName = \"*\"\ndecision = \"allow\"\npriority = 999\n";
        bed.write_home(".gemini/policies/all.toml", &rule.into());
    };
    assert_eq!(attempts_of_a_user("gemini", Permissions::Read, allows_all).await, NONE);
    let inside = Effects { inside: true, ..NONE };
    assert_eq!(attempts_of_a_user("gemini", Permissions::Edit, allows_all).await, inside);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_prevents_what_the_file_tools_do_not_do() {
    let most = Effects { inside: true, outside: false, hook: false, shell: true, shell_outside: true, own_tool: true };
    assert_eq!(attempts("gemini", Permissions::Full).await, most);
    assert_eq!(
        prevents("gemini", Permissions::Full),
        ["writes outside the directory by the tool's own file tools (a shell command can)"]
    );
}

/// A second prompt in a session would cancel the first: it waits, also in a kept context.
#[tokio::test(flavor = "multi_thread")]
async fn rule_01_a_second_prompt_would_cancel_the_first() {
    let bed = Bed::new("gemini");
    let text = varied(1500);
    bed.model.on("RULE-FIRST-X", Step::Slow { text: text.clone(), chunk: 100, delay_ms: 100 });
    bed.model.on("RULE-SECOND-X", "second");
    let cluster = bed.cluster(1, Context::Keep, Permissions::Read).await;
    let first = cluster.submit("RULE-FIRST-X").unwrap();
    let second = cluster.submit("RULE-SECOND-X").unwrap();
    bed.model.requested("RULE-FIRST-X").await;
    assert!(bed.model.requests_of("RULE-SECOND-X").is_empty());
    assert!(first.await.text().unwrap().to_string_lossy() == text);
    assert_eq!(second.await.text().unwrap(), "second");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// A stream without a finish marker ends as `end_turn`, with the text four times and no usage: no success, also where
/// nothing watches the streams.
#[tokio::test(flavor = "multi_thread")]
async fn rule_03_an_end_without_a_finished_request_is_no_success() {
    let bed = Bed::new("gemini");
    bed.model.on("RULE-BROKEN-X", Step::NoFinish { text: "PARTIAL".into() });
    let (definition, program) = bed.sandbox.definition();
    let mut definition = Definition::clone(&definition);
    definition.prepend_env.clear();
    let options = bed.options().permissions(Permissions::Read);
    let cluster = Cluster::launch(Arc::new(definition), &program, options).await.unwrap();
    let response = run(&cluster, "RULE-BROKEN-X").await;
    assert_eq!(kind(&response), FailureKind::ModelError);
    assert_eq!(response.answer.transcript, "PARTIAL".repeat(4).as_str());
    assert!(response.error().unwrap().evidence.contains("end_turn"));
    assert_eq!(bed.model.requests_of("RULE-BROKEN-X").len(), 4);
    bed.next_job_is_right(&cluster, &["RULE-BROKEN-X", "PARTIAL"]).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// An answer without a finish marker fails as it comes, also behind a tool call, where Gemini by itself takes it for
/// whole. What watches for that is not handed down to the model's commands, and the user's own options are.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_finish_marker_fails() {
    let mut bed = Bed::new("gemini");
    bed.sandbox.set_env("NODE_OPTIONS", "--no-deprecation");
    let broken = Step::NoFinish { text: "PARTIAL".into() };
    bed.model.on("BROKEN-FIRST-X", broken.clone());
    bed.model.on("BROKEN-AFTER-X", [bed.shell("echo \"<$NODE_OPTIONS>\" > options.txt"), broken]);
    let quoted = "It is \"finishReason\": \"STOP\" that ends it.";
    bed.model.on("BROKEN-QUOTE-X", Step::NoFinish { text: quoted.into() });
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    for (word, text) in [("BROKEN-FIRST-X", "PARTIAL"), ("BROKEN-AFTER-X", "PARTIAL"), ("BROKEN-QUOTE-X", quoted)] {
        let response = run(&cluster, word).await;
        assert_eq!(kind(&response), FailureKind::ModelError, "{word}");
        let evidence = format!("{:?}", response.error().unwrap());
        assert!(evidence.contains("ended without a finish reason"), "{word}: {evidence}");
        assert_eq!(response.answer.transcript, text, "{word}");
        bed.next_job_is_right(&cluster, &[word, "PARTIAL"]).await;
    }
    let options = std::fs::read_to_string(bed.sandbox.dir().join("options.txt")).expect("the command ran");
    assert!(options.contains("--no-deprecation") && !options.contains("readyroom"), "{options}");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// It tries ten times, over minutes, and says nothing of it; and it waits for ever for a model that is silent. Only the
/// deadline ends such turns. Its cancel then works, and the process serves the next job.
#[tokio::test(flavor = "multi_thread")]
async fn rule_09_silent_retries_end_at_our_deadline() {
    let bed = Bed::new("gemini");
    bed.model.on("RULE-RETRY-X", Step::status(500));
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Read).await;
    let before = pids(&cluster).await;
    let job = Job::new("RULE-RETRY-X").with_timeout(Duration::from_secs(12));
    let response = run(&cluster, job).await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{}", response.outcome);
    let asked = bed.model.requests_of("RULE-RETRY-X").len();
    assert!(asked >= 2, "{asked}");
    bed.next_job_is_right(&cluster, &["RULE-RETRY-X"]).await;
    assert_eq!(bed.model.requests_of("RULE-RETRY-X").len(), asked, "it went on");
    assert_eq!(pids(&cluster).await, before);
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// A model that begins to answer and falls silent has no event.
#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_hang_ends_at_our_deadline() {
    let bed = Bed::new("gemini");
    bed.model.on("RULE-HANG-X", Step::HangAfter { text: "PARTIAL".into() });
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Read).await;
    let began = std::time::Instant::now();
    let limit = Duration::from_secs(8);
    let response = run(&cluster, Job::new("RULE-HANG-X").with_timeout(limit)).await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{}", response.outcome);
    assert!(began.elapsed() < limit + Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(response.answer.transcript, "PARTIAL");
    bed.model.closed("RULE-HANG-X").await;
    bed.next_job_is_right(&cluster, &["RULE-HANG-X", "PARTIAL"]).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// Two processes: when the launcher is killed alone, its child would live on, and so would a command of the model that
/// left the group.
#[tokio::test(flavor = "multi_thread")]
async fn rule_12_the_launchers_child_outlives_it() {
    let bed = Bed::new("gemini");
    let length = format!("933.{:05}", std::process::id() % 100_000);
    bed.model.on("RULE-TREE-X", bed.shell(&format!("setsid sleep {length} & sleep {length}; true")));
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    let ticket = cluster.submit("RULE-TREE-X").unwrap();
    eventually("the command", || runs(&format!("sleep {length}"))).await;
    assert!(processes_of(&bed.sandbox).iter().filter(|process| process.command.contains("--acp")).count() >= 2);
    deaths::kill(pids(&cluster).await[0]);
    assert!(matches!(kind(&ticket.await), FailureKind::Crashed { .. }));
    assert!(!runs(&format!("sleep {length}")));
    bed.next_job_is_right(&cluster, &[]).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}

/// Its permission requests count from 0, as our requests do from 1: each is answered, and none is taken for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn rule_14_an_agents_request_is_no_answer() {
    let bed = Bed::new("gemini");
    let record = tempfile::tempdir().unwrap();
    let calls = (0..6).map(|number| bed.write(&bed.sandbox.dir().join(format!("n{number}.txt")), "x\n"));
    let steps: Vec<Step> = calls.chain([Step::say("all written")]).collect();
    bed.model.on("RULE-IDS-X", steps);
    let options = ClusterOptions { record: Some(record.path().to_owned()), ..bed.options() };
    let cluster = bed.launch(options.permissions(Permissions::Edit)).await;
    assert_eq!(run(&cluster, "RULE-IDS-X").await.text().unwrap(), "all written");
    assert!((0..6).all(|number| bed.sandbox.read(&format!("n{number}.txt")).is_some()));
    cluster.shutdown().await;
    let files = std::fs::read_dir(record.path()).unwrap();
    let seen: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    // The third is the prompt's own id.
    for id in [0, 3] {
        let asked = format!("\"id\":{id},\"method\":\"session/request_permission\"");
        assert!(seen.replace('\\', "").contains(&asked), "no request {id} in the record");
    }
    assert_nothing_left(&bed.sandbox);
}
