//! Gemini CLI, for real: jobs, turns, failures, cancels, deaths, permission levels, and the rules that it taught.

mod acp_support;

use acp_support::levels::{Effects, attempts, prevents};
use acp_support::turns::{self, Expected};
use acp_support::{Bed, cancel, deaths, guide, jobs};
use readyroom::{Context, Permissions};
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
async fn a_turn_can_be_stopped_in_every_state() {
    assert_eq!(cancel::CELLS.len(), 5);
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
    let none = Effects { inside: false, outside: false, shell: false, shell_outside: false };
    assert_eq!(attempts("gemini", Permissions::Read).await, none);
    assert_eq!(prevents("gemini", Permissions::Read), ["writes", "shell", "network"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_prevents_writes_outside_and_shell() {
    let inside = Effects { inside: true, outside: false, shell: false, shell_outside: false };
    assert_eq!(attempts("gemini", Permissions::Edit).await, inside);
    assert_eq!(prevents("gemini", Permissions::Edit), ["writes outside the directory", "shell", "network"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_prevents_what_the_file_tools_do_not_do() {
    let most = Effects { inside: true, outside: false, shell: true, shell_outside: true };
    assert_eq!(attempts("gemini", Permissions::Full).await, most);
    assert_eq!(
        prevents("gemini", Permissions::Full),
        ["writes outside the directory by the tool's own file tools (a shell command can)"]
    );
}
