//! Gemini CLI: jobs, turns and failures, for real.

mod acp_support;

use acp_support::turns::{self, Expected};
use acp_support::{Bed, jobs};
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
