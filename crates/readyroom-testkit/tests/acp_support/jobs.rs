//! Many jobs on few instances: every edit right, and nothing of one job in another's conversation.

use std::collections::HashSet;

use readyroom::driver::Proof;
use readyroom::{Context, Permissions};
use readyroom_testkit::{Request, Step, assert_nothing_left};

use super::{Bed, pids};

/// Words of more than one job in a request: `(the words, the request's number)`.
fn leaks(requests: &[Request], words: &[String]) -> Vec<(Vec<String>, u64)> {
    let held = requests.iter().map(|request| {
        let held: Vec<String> = words.iter().filter(|word| request.holds(word)).cloned().collect();
        (held, request.id)
    });
    held.filter(|(held, _)| held.len() > 1).collect()
}

/// Runs `count` jobs, each of which changes a file of its own, and checks files and answers. Gives the words.
async fn edits(bed: &Bed, cluster: &readyroom::Cluster, name: &str, count: usize) -> Vec<String> {
    let words: Vec<String> = (0..count).map(|number| format!("WORD-{name}-{number:02}-Z")).collect();
    for (number, word) in words.iter().enumerate() {
        let file = bed.sandbox.write(&format!("{name}{number:02}.py"), format!("print({number})\n"));
        let edit = bed.edit(&file, &format!("print({number})"), &format!("print({number} + 1000)"));
        bed.model.on(word, [edit, Step::say(format!("ANSWER-{word} is done.\n"))]);
    }
    let tickets: Vec<_> = words.iter().map(|word| cluster.submit(format!("Change it: {word}")).unwrap()).collect();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let response = ticket.await;
        let word = &words[number];
        assert_eq!(response.text().expect(word), format!("ANSWER-{word} is done.\n").as_str());
        let file = format!("{name}{number:02}.py");
        assert_eq!(bed.sandbox.read(&file).unwrap(), format!("print({number} + 1000)\n"), "{word}");
        assert_eq!(response.answer.changed_files, [bed.sandbox.dir().join(file)]);
        assert!(response.usage.input_tokens.is_some_and(|tokens| tokens > 0), "{:?}", response.usage);
    }
    words
}

/// Twelve jobs on three warm instances, each in a fresh context; then some that keep theirs, which shows that the
/// check can fail.
pub async fn twelve_jobs_keep_apart(tool: &'static str) {
    let bed = Bed::new(tool);
    let cluster = bed.cluster(3, Context::Fresh, Permissions::Edit).await;
    let before = pids(&cluster).await;
    let mut events = cluster.events();
    let words = edits(&bed, &cluster, "fresh", 12).await;
    assert_eq!(pids(&cluster).await, before);
    assert!(!before.is_empty() && before.len() <= 3, "{before:?}");
    assert_eq!(leaks(&bed.model.requests(), &words), []);
    cluster.shutdown().await;
    drop(cluster);
    let mut sessions = HashSet::new();
    while let Some(event) = events.recv().await {
        if let readyroom::Event::ContextProven { proof: Proof::NewSession(id), .. } = event {
            assert!(sessions.insert(id), "a session was named twice");
        }
    }
    assert!(sessions.len() >= 9, "{} resets were proven", sessions.len());
    assert_nothing_left(&bed.sandbox);

    let cluster = bed.cluster(1, Context::Keep, Permissions::Edit).await;
    let words = edits(&bed, &cluster, "keep", 3).await;
    let found = leaks(&bed.model.requests(), &words);
    assert!(found.iter().any(|(held, _)| held.len() == 3), "kept contexts do not show: {found:?}");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
}
