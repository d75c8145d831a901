//! What holds for all five tools alike: two jobs, two answers, one process, a proven reset between them.

use readyroom::driver::Proof;
use readyroom::{Cluster, Job};
use readyroom_testkit::{Model, Sandbox, Step, use_guardian};

async fn two_jobs_on_one_warm_process(tool: &str) {
    use_guardian();
    let model = Model::start();
    let sandbox = Sandbox::new(tool, &model);
    let (definition, program) = sandbox.definition();
    let cluster = Cluster::launch(definition, &program, sandbox.options().count(1)).await.unwrap();
    let mut pids = Vec::new();
    for word in ["mulberry", "tamarind"] {
        model.on(word, Step::say(format!("answer to {word}")));
        let response = cluster.submit(Job::new(format!("Say something about {word}."))).unwrap().await;
        assert!(response.ok(), "{:?}", response.outcome);
        assert_eq!(response.text().unwrap(), format!("answer to {word}").as_str());
        assert!(response.proof.is_some());
        pids.push(cluster.status().await.instances[0].pid);
        if word == "tamarind" {
            assert_ne!(response.proof, Some(Proof::NewProcess));
        }
    }
    assert_eq!(pids[0], pids[1]);
    let leaked = model.requests_of("tamarind").iter().any(|request| request.holds("mulberry"));
    assert!(!leaked, "the second job saw the first");
    assert_eq!(cluster.shutdown().await.dropped, 0);
}

#[tokio::test]
async fn aider() {
    two_jobs_on_one_warm_process("aider").await;
}

#[tokio::test]
async fn claude() {
    two_jobs_on_one_warm_process("claude").await;
}

#[tokio::test]
async fn codex() {
    two_jobs_on_one_warm_process("codex").await;
}

#[tokio::test]
async fn gemini() {
    two_jobs_on_one_warm_process("gemini").await;
}

#[tokio::test]
async fn opencode() {
    two_jobs_on_one_warm_process("opencode").await;
}
