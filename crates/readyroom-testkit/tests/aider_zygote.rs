//! Real aiders as forks of one interpreter: what they ask the model, and what they answer, is what a started one does.
#![cfg(target_os = "linux")]

mod aider_support;

use aider_support::{Place, edit, pids};
use readyroom::tool::Zygote;
use readyroom::{Context, Permissions};
use readyroom_testkit::{Owner, Step, assert_nothing_left, is_fork, processes_of, zygotes_of};
use serde_json::Value;

/// What two aiders asked, an edit and a question, and what they answered.
async fn conversation(forked: bool) -> (Vec<Value>, Vec<String>) {
    let place = Place::new();
    place.sandbox.write("sum.py", "def add(a, b):\n    return 0\n");
    place.sandbox.commit();
    place.model.on("wallaby", Step::say(edit("sum.py", "    return 0\n", "    return a + b\n")));
    place.model.on("bandicoot", "It adds.");
    let cluster = place
        .launch_with(place.options(2).context(Context::Fresh), |definition| {
            let zygote = definition.zygote.get_or_insert_with(Zygote::default);
            zygote.enabled = forked;
        })
        .await;
    assert!(pids(&cluster.status().await).iter().all(|pid| is_fork(*pid) == forked));
    let mut answers = Vec::new();
    for (index, prompt) in [(0, "Mend it for the wallaby"), (1, "What does it do, bandicoot?")] {
        let response = cluster.turn().add("sum.py").on(index).prompt(prompt).unwrap().await;
        answers.push(format!("{} {:?}", response.text().unwrap(), response.answer.changed_files));
    }
    assert_eq!(place.sandbox.read("sum.py").unwrap(), "def add(a, b):\n    return a + b\n");
    cluster.shutdown().await;
    drop(cluster);
    assert_nothing_left(&place.sandbox);
    let root = place.sandbox.dir().display().to_string();
    let here = |text: String| text.replace(&root, "ROOT");
    let asked = place.model.requests();
    let asked = asked.iter().map(|request| serde_json::from_str(&here(request.body.to_string())).unwrap());
    (asked.collect(), answers.into_iter().map(here).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_aiders_ask_and_answer_as_started_ones() {
    let (started, forked) = (conversation(false).await, conversation(true).await);
    assert_eq!(started.0.len(), 2);
    assert_eq!(started, forked);
}

/// The whole tree ends with its owner, the zygote included.
#[test]
fn a_killed_owner_leaves_no_fork_and_no_zygote() {
    let place = Place::new();
    place.model.on("numbat", Step::Hang);
    let mut owner = Owner::start(&place.sandbox, Permissions::Edit, "Wait for the numbat");
    place.model.wait_request("numbat");
    let found = processes_of(&place.sandbox);
    let aider = found.iter().filter(|found| found.command.contains("/aider --yes-always") && is_fork(found.pid));
    assert!(aider.count() == 1 && zygotes_of(&place.sandbox).len() == 1, "{found:#?}");
    owner.kill();
    assert_nothing_left(&place.sandbox);
}
