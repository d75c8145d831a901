//! The rules for all drivers, each on the tool that taught it: here those of aider.

mod aider_support;

use std::time::{Duration, Instant};

use aider_support::{Place, Room, edit};
use readyroom::driver::Proof;
use readyroom::tool::Definition;
use readyroom::{Context, FailureKind, Job, Outcome};
use readyroom_testkit::Step;

#[test]
fn rule_05_a_fence_is_fresh_each_time_and_goes_with_its_prompt() {
    let place = Place::new();
    let records = tempfile::tempdir().unwrap();
    let (definition, program) = place.sandbox.definition();
    let options = readyroom::ClusterOptions { record: Some(records.path().to_owned()), ..place.options(1) };
    let cluster = readyroom::cluster::blocking::Cluster::launch(definition, &program, options).unwrap();
    for _ in 0..3 {
        // The answer repeats an older fence's marker: every fence that was ever sent is known to the model by now.
        let sent = recorded(records.path());
        let old = sent.iter().rev().find_map(|line| line.strip_prefix("/fence-")).unwrap_or("0000").to_owned();
        place.model.on("amethyst", Step::Say(format!("x\nInvalid command: /fence-{old}\n\n> y")));
        let response = cluster.submit("amethyst").unwrap().wait();
        assert_eq!(response.text().unwrap(), format!("x\nInvalid command: /fence-{old}\n\n> y").as_str());
    }
    cluster.shutdown();
    let fences: Vec<String> = recorded(records.path()).into_iter().filter(|line| line.starts_with("/fence-")).collect();
    let mut different = fences.clone();
    different.sort();
    different.dedup();
    assert!(fences.len() >= 6 && different.len() == fences.len(), "{fences:?}");
    // Neither the model nor the context ever sees one.
    assert!(place.model.requests().iter().all(|request| fences.iter().all(|fence| !request.holds(fence))));
}

/// The lines that were written to the tool, from a record's files.
fn recorded(directory: &std::path::Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        for line in std::fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["dir"] == "in" {
                lines.extend(line["text"].as_str().unwrap().lines().map(str::to_owned));
            }
        }
    }
    lines
}

/// A failed prompt stays in aider's context; a job of its own never sees it, and `keep` says that it lost its own.
#[tokio::test]
async fn rule_06_a_failed_prompt_reaches_no_later_one() {
    let place = Place::new();
    place.model.on("carnelian", Step::status(401));
    let cluster = place.launch(place.options(1).context(Context::Keep)).await;
    assert!(cluster.submit("remember heliodor").unwrap().await.ok());
    let failed = cluster.submit("carnelian").unwrap().await;
    assert_eq!(failed.error().unwrap().kind, FailureKind::Auth);
    let next = cluster.submit("what was it?").unwrap().await;
    assert!(next.ok() && next.context_lost);
    assert!(matches!(next.proof, Some(Proof::Acknowledged(_))));
    let requests = place.model.requests();
    let last = requests.iter().rfind(|request| request.holds("what was it?")).unwrap();
    assert!(!last.holds("carnelian") && !last.holds("heliodor"));
    // The planted fault: what succeeds is kept, so that the check above can fail.
    cluster.submit("and now?").unwrap().await;
    assert!(place.model.requests().iter().any(|request| request.holds("and now?") && request.holds("what was it?")));
    cluster.shutdown().await;
}

/// aider's chat mode survives its reset. A question leaves the mode that it found.
#[test]
fn rule_07_the_chat_mode_is_back_after_a_question() {
    let room = Room::get();
    room.place.sandbox.write("mode.py", "a = 1\n");
    for n in 0..2 {
        room.cluster.send_to(0, "/ask what is sunstone?").unwrap();
        assert!(room.cluster.read(0, Duration::from_secs(30)).unwrap().ok());
        room.model()
            .on("moonstone", Step::Say(edit("mode.py", &format!("a = {}\n", n + 1), &format!("a = {}\n", n + 2))));
        room.cluster.send_to(0, "/add mode.py").unwrap();
        room.cluster.send_to(0, "moonstone").unwrap();
        let response = room.cluster.read(0, Duration::from_secs(30)).unwrap();
        assert!(response.ok(), "{:?}", response.outcome);
        assert!(matches!(response.proof, Some(Proof::Acknowledged(_))));
        assert_eq!(room.place.sandbox.read("mode.py").unwrap(), format!("a = {}\n", n + 2));
    }
}

/// The session's cost never resets: what a job cost is what its own requests cost.
#[test]
fn rule_07_the_cost_is_the_jobs_own() {
    let room = Room::get();
    let costs: Vec<f64> = (0..3).map(|_| room.run("chalcedony").usage.cost_usd.unwrap()).collect();
    assert!(costs.iter().all(|cost| (cost - costs[0]).abs() < costs[0] / 2.0), "{costs:?}");
}

#[test]
fn rule_08_what_begins_like_a_command_is_a_prompt() {
    let room = Room::get();
    for (nth, text) in ["/add agate.py", "!touch agate.py", "@agate", "{agate"].into_iter().enumerate() {
        let word = format!("bloodstone{nth}");
        let prompt = format!("{text} {word}");
        assert_eq!(room.run(prompt.as_str()).text().unwrap(), "ok");
        assert_eq!(room.place.prompt_of(&word), format!("\n{prompt}\n"));
    }
    assert!(room.place.sandbox.read("agate.py").is_none());
}

/// Left to itself aider retries a 429 for two minutes.
#[test]
fn rule_09_its_own_retries_are_shown_and_cut_short() {
    let room = Room::get();
    room.model().on("tourmaline", Step::retry_after(1));
    let began = Instant::now();
    let response = room.run("tourmaline");
    assert!(matches!(response.error().unwrap().kind, FailureKind::RateLimited { .. }));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// aider gives the status only as text; the definition's rules read it, in order.
#[test]
fn rule_10_each_class_of_error_has_its_kind() {
    let definition = Room::get().place.sandbox.definition().0;
    let kind = |text: &str| definition.classify(text).unwrap();
    assert_eq!(kind("litellm.AuthenticationError: x"), FailureKind::Auth);
    assert_eq!(kind("litellm.RateLimitError: Rate limit reached"), FailureKind::RateLimited { retry_after: None });
    let quota = "litellm.RateLimitError: You exceeded your current quota, please check";
    assert_eq!(kind(quota), FailureKind::UsageWindow { resets_at: None });
    assert_eq!(kind("litellm.NotFoundError: The model `x` does not exist"), FailureKind::UnknownModel);
    for class in
        ["BadRequestError", "APIError", "InternalServerError", "Timeout", "APIConnectionError", "BadGatewayError"]
    {
        assert_eq!(kind(&format!("litellm.{class}: x")), FailureKind::ModelError, "{class}");
    }
}

#[test]
fn rule_11_a_hang_ends_by_the_deadline() {
    let room = Room::get();
    room.model().on("labradorite", Step::Hang);
    let response = room.run(Job::new("labradorite").with_timeout(Duration::from_secs(2)));
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
}

/// A command that a person set up for tests inherits aider's stdin, and can eat what is written there. The turn ends by
/// its deadline then, and takes the command with it.
#[tokio::test]
async fn rule_13_a_child_that_reads_stdin_ends_with_its_turn() {
    let place = Place::new();
    place.sandbox.write("child.py", "a = 1\n");
    place.model.on("sodalite", Step::Say(edit("child.py", "a = 1\n", "a = 2\n")));
    let reads = |definition: &mut Definition| {
        let test = ["--auto-test", "--test-cmd", "head -n 9 >eaten"];
        definition.argv.extend(test.map(String::from));
    };
    let cluster = place.launch_with(place.options(1), reads).await;
    let job = Job::new("sodalite").with_file("child.py").with_timeout(Duration::from_secs(4));
    let response = cluster.submit(job).unwrap().await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
    assert!(place.sandbox.read("eaten").is_some(), "the command ran");
    place.model.on("sodalite", Step::say("again"));
    assert_eq!(cluster.submit("sodalite again").unwrap().await.text().unwrap(), "again");
    let left = readyroom_testkit::processes_of(&place.sandbox);
    assert!(left.iter().all(|process| process.command.contains("bin/aider")), "{left:?}");
    cluster.shutdown().await;
}

/// aider would run `git init`, write `.gitignore` and histories, and open a browser on some errors.
#[tokio::test]
async fn rule_15_it_writes_nothing_of_its_own() {
    let place = Place::new();
    std::fs::remove_dir_all(place.sandbox.dir().join(".git")).unwrap();
    let body = r#"{"error":{"message":"see https://example.invalid/keys","type":"t","code":"invalid_api_key"}}"#;
    place.model.on("azurite", Step::Status { code: 401, headers: Default::default(), body: body.into() });
    let cluster = place.launch(place.options(1)).await;
    assert!(cluster.submit("hello").unwrap().await.ok());
    assert_eq!(cluster.submit("azurite").unwrap().await.error().unwrap().kind, FailureKind::Auth);
    cluster.shutdown().await;
    let left: Vec<_> =
        std::fs::read_dir(place.sandbox.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["README.md"]);
    assert_eq!(place.sandbox.definition().0.env["BROWSER"], "true");
}
