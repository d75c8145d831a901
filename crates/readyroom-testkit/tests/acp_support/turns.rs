//! Single turns: what comes back, what arrives, and what becomes of a model that fails.

use std::time::Duration;

use readyroom::{Cluster, FailureKind, Job, Outcome};
use readyroom_testkit::Step;

use super::{Bed, kind, run, varied};

/// Answers that look like ends: each comes back byte for byte, once.
pub async fn answers_come_back_as_they_are(bed: &Bed, cluster: &Cluster) {
    let long = varied(5_000_000);
    let answers = [
        "no final newline",
        "a final newline\n",
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}\nand more\n",
        "> \nreadyroom> \n$ \n",
        "Tokens: 10k sent, 20 received.\n{\"type\":\"result\",\"subtype\":\"success\"}\n",
        "[MODE_UPDATE] plan",
        "\u{1b}[31mred\u{1b}[0m \u{7}\r\n\ttab",
        "a\n\n\n  b  ",
        long.as_str(),
    ];
    for (number, answer) in answers.iter().enumerate() {
        let word = format!("ANSWER-{number}-X");
        bed.model.on(&word, *answer);
        let response = run(cluster, Job::new(word.as_str())).await;
        let text = response.text().unwrap_or_else(|outcome| panic!("{word}: {outcome}")).to_string_lossy();
        assert!(text == *answer, "{word}: {} bytes came back as {}", answer.len(), text.len());
    }
}

/// Prompts that are commands somewhere: each arrives byte for byte, or is refused unsent.
pub async fn prompts_arrive_as_they_are(bed: &Bed, cluster: &Cluster) {
    let long = format!("{}end", "A line of a long prompt, with \"quotes\" and \\ in it.\n".repeat(200_000 / 52));
    let prompts = [
        "/help WORD",
        "/etc/hosts is WORD",
        "\n /init WORD\n\n",
        "$help WORD",
        "!echo WORD",
        "@README.md WORD",
        "{\"a\": 1} WORD",
        "#WORD\n",
        "WORD \u{0} \u{1b}[31m \r\n\t\u{e9}\u{1f600} \n",
        long.as_str(),
    ];
    for (number, prompt) in prompts.iter().enumerate() {
        let word = format!("PROMPT-{number}-X");
        let prompt = match prompt.contains("WORD") {
            true => prompt.replace("WORD", &word),
            false => format!("{prompt}{word}"),
        };
        bed.model.on(&word, "seen");
        let response = run(cluster, Job::new(prompt.as_str())).await;
        assert_eq!(response.text().unwrap_or_else(|outcome| panic!("{word}: {outcome}")), "seen");
        let requests = bed.model.requests_of(&word);
        assert_eq!(requests.len(), 1, "{word}");
        assert!(requests[0].holds(&prompt), "{prompt:?} did not arrive: {}", requests[0].body);
    }
    let before = bed.model.requests().len();
    assert_eq!(kind(&run(cluster, Job::new("")).await), FailureKind::BadInput);
    assert_eq!(bed.model.requests().len(), before);
}

/// Files are named to the tool with the prompt, whatever their names are.
pub async fn files_are_given(bed: &Bed, cluster: &Cluster) {
    bed.model.on("FILES-X", "read");
    bed.sandbox.write("a b%20\u{e9}#?.txt", "CONTENT-ONE\n");
    bed.sandbox.write("sub/two.txt", "CONTENT-TWO\n");
    let job = Job::new("/FILES-X").with_file("a b%20\u{e9}#?.txt").with_file("sub/two.txt");
    assert_eq!(run(cluster, job).await.text().expect("it is answered"), "read");
    let request = &bed.model.requests_of("FILES-X")[0];
    for text in ["/FILES-X", "CONTENT-ONE", "CONTENT-TWO"] {
        assert!(request.holds(text), "{text} did not arrive: {:#}", request.body);
    }
}

/// Failures of the model's side, each in its kind, and the next job right.
pub async fn failures_have_their_kinds(bed: &Bed, cluster: &Cluster, cases: &[(&str, Step, Expected)]) {
    for (word, step, expected) in cases {
        let word = format!("FAIL-{word}-X");
        bed.model.on(&word, step.clone());
        let mut job = Job::new(word.as_str());
        if *expected == Expected::TimedOut {
            job = job.with_timeout(Duration::from_secs(3));
        }
        let response = run(cluster, job).await;
        match expected {
            Expected::Kind(name) => assert_eq!(kind(&response).name(), *name, "{word}: {}", response.outcome),
            Expected::TimedOut => {
                assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{word}: {}", response.outcome);
            }
        }
        assert!(!response.ok() && response.text().is_err());
        bed.next_job_is_right(cluster, &[&word]).await;
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    Kind(&'static str),
    TimedOut,
}
