//! gemini: cancel and timeout in every state, for real.

mod acp_support;

use acp_support::{Bed, cancel};
use readyroom::{Context, Permissions};
use readyroom_testkit::assert_nothing_left;

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_can_be_stopped_in_every_state() {
    assert_eq!(cancel::CELLS.len(), 5);
    let bed = Bed::new("gemini");
    let cluster = bed.cluster(1, Context::Fresh, Permissions::Full).await;
    cancel::every_state(&bed, &cluster).await;
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}
