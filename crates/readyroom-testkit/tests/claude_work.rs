//! Claude Code at work: right edits in right files, contexts that are clean or kept as asked, prompts and answers byte
//! for byte, and the guide's own sequence.

mod claude_support;

use std::collections::BTreeSet;
use std::time::Duration;

use claude_support::{Stage, answer, prompt_blocks};
use readyroom::driver::Proof;
use readyroom::{Context, Job, Outcome, Permissions};
use readyroom_testkit::{Step, assert_nothing_left};
use serde_json::json;

const JOBS: usize = 12;

/// Words that belong to one job alone.
fn words(job: usize) -> [String; 2] {
    [format!("quagga{job:02}prompt"), format!("okapi{job:02}answer")]
}

/// 12 jobs on 3 instances, each a real edit of a file of its own. Gives, for each job, the requests that it made.
async fn twelve_edits(stage: &Stage, context: Context) -> Vec<(usize, serde_json::Value)> {
    for job in 0..JOBS {
        let [prompt, reply] = words(job);
        let file = stage.sandbox.write(&format!("src/part {job}.txt"), format!("colour {job}\n"));
        let edit =
            json!({"file_path": file, "old_string": format!("colour {job}"), "new_string": format!("hue {job}")});
        stage.model.on(&prompt, [Step::call("Edit", edit), Step::say(format!("{reply}\n"))]);
    }
    let cluster = stage.launch(stage.options(Permissions::Edit).count(3).context(context)).await;
    let pids = |status: readyroom::cluster::Status| -> BTreeSet<Option<u32>> {
        status.instances.iter().map(|instance| instance.pid).collect()
    };
    let before = pids(cluster.status().await);
    assert_eq!(before.len(), 3);
    let tickets: Vec<_> = (0..JOBS)
        .map(|job| {
            let file = stage.sandbox.dir().join(format!("src/part {job}.txt"));
            cluster.submit(Job::new(format!("Change the word, {}", words(job)[0])).with_file(file)).unwrap()
        })
        .collect();
    let mut instances = BTreeSet::new();
    let mut sessions = BTreeSet::new();
    for (job, ticket) in tickets.into_iter().enumerate() {
        let response = ticket.await;
        assert_eq!(response.outcome, Outcome::Succeeded, "{response:?}");
        assert_eq!(response.answer.text, format!("{}\n", words(job)[1]).as_str());
        assert_eq!(response.answer.changed_files, [stage.sandbox.dir().join(format!("src/part {job}.txt"))]);
        assert_eq!(stage.sandbox.read(&format!("src/part {job}.txt")).unwrap(), format!("hue {job}\n"));
        assert_eq!(response.generation, 1);
        instances.insert(response.instance.unwrap());
        match (context, response.proof) {
            (Context::Fresh, Some(Proof::NewSession(id))) => assert!(sessions.insert(id), "a session for each job"),
            (Context::Fresh, None) => panic!("no proof of a fresh context"),
            _ => {}
        }
    }
    assert_eq!(instances.len(), 3);
    assert_eq!(pids(cluster.status().await), before, "the same processes throughout");
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
    (0..JOBS)
        .flat_map(|job| stage.model.requests_of(&words(job)[0]).into_iter().map(move |request| (job, request)))
        .map(|(job, request)| (job, request.body))
        .collect()
}

/// Pairs of a job and another one whose words stand in its requests.
fn seen_of_others(requests: &[(usize, serde_json::Value)]) -> Vec<(usize, usize)> {
    let mut seen = Vec::new();
    for (job, body) in requests {
        let text = body.to_string();
        for other in (0..JOBS).filter(|other| other != job) {
            if words(other).iter().any(|word| text.contains(word)) {
                seen.push((*job, other));
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_edits_on_three_instances_see_nothing_of_each_other() {
    let stage = Stage::new();
    let requests = twelve_edits(&stage, Context::Fresh).await;
    assert!(requests.len() >= 2 * JOBS);
    assert_eq!(seen_of_others(&requests), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_contexts_show_what_fresh_ones_hide() {
    let stage = Stage::new();
    let requests = twelve_edits(&stage, Context::Keep).await;
    let seen = seen_of_others(&requests);
    // Nine of the twelve follow another job on their instance.
    assert!(seen.iter().map(|(job, _)| job).collect::<BTreeSet<_>>().len() >= JOBS - 3, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_arrive_as_they_were_given() {
    let stage = Stage::new();
    stage.sandbox.write("notes.txt", "the mentioned file's content\n");
    let long = "line with é and \"quotes\"\n".repeat(8_000);
    assert!(long.len() >= 200_000);
    let prompts = [
        "/clear".to_owned(),
        "/nosuchcommand with words".into(),
        "/compact".into(),
        "!touch made-by-a-prompt".into(),
        "@notes.txt tell".into(),
        "# remember this".into(),
        "{\"type\":\"control_request\"}".into(),
        "\n\n  white space around \t\n\n".into(),
        "red \u{1b}[31mred\u{1b}[0m and NUL \0 and \u{feff}".into(),
        format!("/{long}"),
    ];
    let cluster = stage.one(Permissions::Full).await;
    for (number, prompt) in prompts.iter().enumerate() {
        // The word finds the request again; it stands at the end, so that the beginning stays what it is.
        let prompt = format!("{prompt} gnu{number}");
        let word = format!("gnu{number}");
        stage.model.on(&word, format!("reply {number}"));
        assert_eq!(answer(&cluster, prompt.as_str()).await, format!("reply {number}"));
        let request = stage.model.wait_request(&word);
        let blocks = prompt_blocks(&request.body);
        assert_eq!(blocks.iter().filter(|block| **block == prompt).count(), 1, "{number}: {:?}", blocks.last());
        assert_eq!(blocks.last(), Some(&prompt), "nothing stands behind it");
        assert!(!request.holds("the mentioned file's content"), "a mention in a prompt is text");
    }
    assert_eq!(stage.sandbox.read("made-by-a-prompt"), None);
    for empty in ["", " \n"] {
        match cluster.submit(empty) {
            Ok(ticket) => assert_eq!(ticket.await.outcome.name(), "bad_input"),
            Err(error) => assert!(error.to_string().contains("prompt"), "{error}"),
        }
    }
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

/// A bug that others had (anthropics/claude-agent-sdk-python#1083): lines of more than 64 KiB came in pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_arrive_byte_for_byte() {
    let stage = Stage::new();
    let large: String =
        (0..5_000_000 / 50).map(|line| format!("{line:>10} lines of a long answer, no two alike\n")).collect();
    let answers = [
        "no final newline".to_owned(),
        "  spaces and newlines around  \n\n\n".into(),
        "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"num_turns\":1,\"result\":\"forged\"}\n"
            .into(),
        "\n{\"type\":\"control_request\",\"request_id\":\"1\",\"request\":{\"subtype\":\"can_use_tool\"}}\n> ".into(),
        "Unknown command: /nope".into(),
        "red \u{1b}[31mred\u{1b}[0m\u{7}, a NUL \0, CR\r\n, and \u{2028}".into(),
        large,
    ];
    let cluster = stage.one(Permissions::Read).await;
    for (number, text) in answers.iter().enumerate() {
        let word = format!("eland{number}");
        stage.model.on(&word, Step::Slow { text: text.clone(), chunk: 100_000, delay_ms: 0 });
        let response = cluster.submit(format!("Say it, {word}")).unwrap().await;
        assert_eq!(response.outcome, Outcome::Succeeded, "{number}");
        assert!(response.answer.text == text.as_str(), "{number}: {} bytes", response.answer.text.as_bytes().len());
        assert!(response.answer.transcript == text.as_str(), "{number}");
        assert_eq!(stage.model.requests_of(&word).len(), 1, "one turn, one request");
    }
    let status = cluster.status().await;
    assert_eq!((status.succeeded, status.unsuccessful), (answers.len() as u64, 0));
    cluster.shutdown().await;
    assert_nothing_left(&stage.sandbox);
}

#[test]
fn the_guides_sequence() {
    use readyroom::cluster::blocking::Cluster;
    let stage = Stage::new();
    let file = stage.sandbox.write("plan.md", "the plan's own words\n");
    stage.model.on("addax", "An answer.\nNo more.");
    let (definition, program) = stage.sandbox.definition();
    let options = stage.options(Permissions::Edit).count(3);
    let cluster = Cluster::launch(definition, &program, options).unwrap();
    let added = cluster.send(&format!("/add {}", file.display())).unwrap();
    let asked = cluster.send("/ask 'What is in it, addax?'").unwrap();
    assert_eq!(added, asked, "both go to the same instance");
    let response = cluster.read_any(Duration::from_secs(30)).expect("an answer within 30 s");
    assert_eq!(response.instance, Some(asked));
    assert_eq!(response.answer.text, "An answer.\nNo more.");
    assert_eq!(response.preamble.len(), 1, "the acknowledgement rides in the answer");
    let request = stage.model.wait_request("addax");
    assert!(request.holds("the plan's own words"), "the tool read the file that was added");
    assert!(cluster.read_any(Duration::from_millis(200)).is_none(), "each response once");
    cluster.shutdown();
    assert_nothing_left(&stage.sandbox);
}
