//! Whole turns, as they were captured from Codex.

use proptest::prelude::*;

use super::*;
use crate::job::{Denials, Usage};

#[test]
fn a_turn_with_an_edit() {
    let effects = whole(EDIT);
    assert!(effects.contains(&Effect::Ready { version: Some("0.169.0".into()) }));
    let end = only_end(&effects);
    assert_eq!(end.status, TurnStatus::Succeeded);
    assert_eq!(end.answer.text, "All done.");
    assert_eq!(end.answer.transcript, "I will edit.\n\nAll done.");
    assert_eq!(end.answer.changed_files, [PathBuf::from("/srv/work/cx.txt")]);
    // 100 + 200 and 10 + 20: the thread's total, which is the sum of what each model call told.
    assert_eq!(end.answer.usage, Usage { input_tokens: Some(300), output_tokens: Some(30), cost_usd: None });
    assert_eq!(
        activities(&effects),
        [
            Activity::Text("I will edit.".into()),
            Activity::ToolStarted("edit /srv/work/cx.txt".into()),
            Activity::ToolEnded("edit /srv/work/cx.txt".into()),
            Activity::Text("All done.".into()),
        ]
    );
    assert_eq!(anomalies(&effects), <[&str; 0]>::default());
}

#[test]
fn what_is_sent_for_a_turn() {
    let sent = sent(&whole(EDIT));
    assert_eq!(sent[0]["method"], "initialize");
    assert_eq!(sent[1], json!({"method": "initialized", "params": {}}));
    assert_eq!(sent[2], json!({"id": 2, "method": "config/read", "params": {"cwd": "/srv/work"}}));
    assert_eq!(
        sent[3]["params"],
        json!({
            "cwd": "/srv/work",
            "ephemeral": true,
            "approvalPolicy": "on-request",
            "approvalsReviewer": "user",
            "sandbox": "workspace-write",
            "config": {"model_providers.mock.request_max_retries": 0, "model_providers.mock.stream_max_retries": 2},
        })
    );
    let begin = &sent[4]["params"];
    assert_eq!(begin["input"], json!([{"type": "text", "text": "Add a file", "text_elements": []}]));
    assert_eq!(begin["sandboxPolicy"]["excludeSlashTmp"], true);
    assert!(sent.iter().all(|message| message.get("jsonrpc").is_none()));
}

#[test]
fn two_threads_stay_apart() {
    let effects = whole(TWO);
    for (slot, text, input) in [(0, "A0 A1 A2 ", 10), (1, "B0 B1 B2 ", 20)] {
        let ends = ends(&effects, slot);
        assert_eq!(ends.len(), 1);
        assert_eq!((&ends[0].status, &ends[0].answer.text), (&TurnStatus::Succeeded, &text.into()));
        assert_eq!(ends[0].answer.usage.input_tokens, Some(input));
    }
    let proofs: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Fresh { proof: Proof::NewSession(id), .. } => Some(id),
            _ => None,
        })
        .collect();
    assert_eq!(proofs.len(), 2);
    assert_ne!(proofs[0], proofs[1]);
    // The test is worth something only if the turns were interleaved.
    let order: Vec<u32> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Activity { slot, .. } => Some(slot.0),
            _ => None,
        })
        .collect();
    assert!(order.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 4, "{order:?}");
}

#[test]
fn a_cancelled_turn_ends_when_its_command_has_been_ended() {
    let effects = whole(CANCEL);
    let ends = ends(&effects, 0);
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[0].status, TurnStatus::Cancelled);
    assert_eq!((&ends[1].status, &ends[1].answer.text), (&TurnStatus::Succeeded, &"fine".into()));
    let at = |wanted: &str| {
        effects.iter().position(
            |effect| matches!(effect, Effect::Write(bytes) if String::from_utf8_lossy(bytes).contains(wanted)),
        )
    };
    let ended = effects.iter().position(|effect| matches!(effect, Effect::Ended { .. })).unwrap();
    assert!(at("turn/interrupt").unwrap() < at("backgroundTerminals/clean").unwrap());
    assert!(at("backgroundTerminals/clean").unwrap() < ended);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Fresh { .. })).count(), 2);
}

#[test]
fn a_dropped_stream_is_no_part_of_the_answer() {
    let effects = whole(RETRY);
    let end = only_end(&effects);
    assert_eq!((&end.status, &end.answer.text), (&TurnStatus::Succeeded, &"Half and whole.".into()));
    assert_eq!(end.answer.transcript, "Half and whole.");
    let retries: Vec<_> = activities(&effects)
        .into_iter()
        .filter_map(|activity| match activity {
            Activity::Retrying { attempt, why } => Some((attempt, why)),
            _ => None,
        })
        .collect();
    let why = "stream disconnected before completion: stream closed before response.completed";
    assert_eq!(retries, [(1, why.to_owned()), (2, why.to_owned())]);
}

#[test]
fn what_the_level_does_not_hold_is_declined_and_told() {
    let effects = whole(DENIED);
    let end = only_end(&effects);
    assert_eq!((&end.status, &end.answer.text), (&TurnStatus::Succeeded, &"I could not.".into()));
    let denied = ["edit /srv/outside.txt".to_owned(), "/bin/bash -lc 'touch /srv/x'".to_owned()];
    assert_eq!(end.answer.denials, Denials::Known(denied.to_vec()));
    assert!(end.answer.changed_files.is_empty());
    let answers: Vec<_> = sent(&effects).into_iter().filter(|message| message.get("result").is_some()).collect();
    assert_eq!(
        answers,
        [json!({"id": 0, "result": {"decision": "decline"}}), json!({"id": 1, "result": {"decision": "decline"}})]
    );
}

#[test]
fn refused_credentials() {
    let effects = whole(UNAUTHORIZED);
    let TurnStatus::Failed(failure) = only_end(&effects).status else { panic!() };
    assert_eq!(failure.kind, FailureKind::Auth);
    assert!(failure.message.contains("401 Unauthorized"));
    assert!(failure.evidence.contains("Reconnecting... 2/2"), "{}", failure.evidence);
}

#[test]
fn what_a_turn_spawned_is_ended_before_the_turn() {
    let effects = whole(SPAWNED);
    let end = only_end(&effects);
    assert_eq!((&end.status, &end.answer.text), (&TurnStatus::Succeeded, &"parent done".into()));
    let written = methods(&effects);
    assert_eq!(
        written[5..],
        ["turn/interrupt", "thread/backgroundTerminals/clean", "thread/backgroundTerminals/clean"],
        "{written:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_split_of_the_stream_gives_the_same_effects(
        which in 0..ALL.len(),
        pieces in prop::collection::vec(1_usize..400, 1..20),
    ) {
        prop_assert_eq!(play(ALL[which], &pieces), whole(ALL[which]));
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_ends_nothing_more(which in 0..ALL.len(), keep in 0.0..1.0_f64) {
        let transcript = ALL[which];
        let cut = (transcript.len() as f64 * keep) as usize;
        let cut = (cut..).find(|&at| transcript.is_char_boundary(at)).unwrap();
        let whole = whole(transcript);
        // A cut within a line of ours would ask for something else.
        let kept = &transcript[..cut];
        let kept = if kept.lines().last().is_some_and(|line| line.starts_with('#')) { &kept[..kept.rfind('#').unwrap()] } else { kept };
        let effects = play(kept, &[usize::MAX]);
        prop_assert_eq!(&whole[..effects.len()], &effects[..]);
    }
}
