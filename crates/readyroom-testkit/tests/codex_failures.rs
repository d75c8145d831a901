//! What the model's failures become, and that the next job is right after each.

mod codex_support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use codex_support::{Place, pids};
use readyroom::driver::Activity;
use readyroom::{Event, FailureKind, Job, Outcome};
use readyroom_testkit::{Script, Step};

fn status(code: u16, body: &str) -> Step {
    Step::Status { code, headers: BTreeMap::new(), body: body.into() }
}

/// Each failure of the model, its kind, and how often Codex asked the model: what it retries, it retries twice.
#[tokio::test]
async fn each_failure_has_its_own_kind() {
    let reset = seconds_from_now(7200);
    let window =
        format!(r#"{{"error":{{"type":"usage_limit_reached","message":"m","plan_type":"plus","resets_at":{reset}}}}}"#);
    let quota = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"m"}}"#;
    let cases: [(&str, Step, &str, usize); 11] = [
        ("400", Step::status(400), "model_error", 1),
        ("401", Step::status(401), "auth", 3),
        ("403", Step::status(403), "auth", 3),
        ("404", Step::status(404), "unknown_model", 1),
        ("429", Step::status(429), "rate_limited", 1),
        ("429-after", Step::retry_after(1), "rate_limited", 3),
        ("window", status(429, &window), "usage_window", 1),
        ("quota", status(429, quota), "usage_window", 1),
        ("500", Step::status(500), "model_error", 3),
        ("break", Step::Break { after_text: "Half an ans".into() }, "model_error", 3),
        ("no-finish", Step::NoFinish { text: "Half an ans".into() }, "model_error", 3),
    ];
    let place = Place::new();
    let cluster = place.launch(place.options(3)).await;
    let before = pids(&cluster.status().await);
    place.model.on("limestone-next", "all is well");
    let tickets: Vec<_> = cases
        .iter()
        .map(|(name, step, ..)| {
            place.model.on(&format!("limestone-{name}!"), step.clone());
            cluster.submit(format!("Say limestone-{name}!")).unwrap()
        })
        .collect();
    for ((name, _, kind, asked), ticket) in cases.iter().zip(tickets) {
        let response = ticket.await;
        let failure = response.error().unwrap_or_else(|| panic!("{name}: {:?}", response.outcome));
        assert_eq!(failure.kind.name(), *kind, "{name}: {failure} {}", failure.evidence);
        assert!(!failure.evidence.is_empty(), "{name}");
        assert_eq!(place.model.requests_of(&format!("limestone-{name}!")).len(), *asked, "{name}");
        if *name == "window" {
            let FailureKind::UsageWindow { resets_at: Some(at) } = failure.kind else { panic!("{failure:?}") };
            assert!((reset..=reset + 60).contains(&at.as_second()), "{at} for {reset}");
        }
        let next = cluster.turn().on(response.instance.unwrap()).prompt("Say limestone-next").unwrap().await;
        assert_eq!(next.text().unwrap(), "all is well", "after {name}");
    }
    assert_eq!(pids(&cluster.status().await), before, "every instance stayed usable");
    for request in place.model.requests_of("limestone-next") {
        assert!(cases.iter().all(|(name, ..)| !request.holds(&format!("limestone-{name}!"))), "a failed prompt stayed");
    }
    place.end(cluster).await;
}

fn seconds_from_now(seconds: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// A hang, and a wait that the provider asks for, both longer than the job may run: the deadline ends them.
#[tokio::test]
async fn what_takes_longer_than_the_job_may_times_out() {
    let place = Place::new();
    place.model.on("schist-hang", Step::Hang);
    place.model.on("schist-silence", Step::HangAfter { text: "Half an answer".into() });
    place.model.on("schist-wait", Step::retry_after(60));
    place.model.on("schist-next", "all is well");
    let cluster = place.launch(place.options(3)).await;
    let limit = Duration::from_secs(8);
    let began = Instant::now();
    let jobs = ["schist-hang", "schist-silence", "schist-wait"];
    let tickets: Vec<_> =
        jobs.iter().map(|job| cluster.submit(Job::new(format!("Say {job}")).with_timeout(limit)).unwrap()).collect();
    let mut instances = Vec::new();
    for (job, ticket) in jobs.iter().zip(tickets) {
        let response = ticket.await;
        let Outcome::TimedOut { after, evidence } = &response.outcome else { panic!("{job}: {:?}", response.outcome) };
        assert_eq!(*after, limit);
        assert_eq!(*job == "schist-wait", evidence.contains("429"), "{job}: what was announced is kept: {evidence:?}");
        assert!(began.elapsed() < limit + Duration::from_secs(5), "{job} took {:?}", began.elapsed());
        instances.push(response.instance.unwrap());
    }
    for (job, instance) in jobs.iter().zip(instances) {
        let next = cluster.turn().on(instance).prompt("Say schist-next").unwrap().await;
        assert_eq!(next.text().unwrap(), "all is well", "after {job}");
        assert_eq!(next.generation, 1);
    }
    place.end(cluster).await;
}

/// Codex begins its answer again after a dropped stream; neither the text nor the job notices.
#[tokio::test]
async fn a_retry_that_helps_leaves_no_trace_in_the_answer() {
    let place = Place::new();
    let half = || Step::Break { after_text: "The whole".into() };
    place.model.on("dolomite", Script::new([half(), half(), Step::say("The whole answer.")]));
    let cluster = place.launch(place.options(1)).await;
    let mut events = cluster.events();
    let response = cluster.submit("Say dolomite").unwrap().await;
    assert_eq!(response.text().unwrap(), "The whole answer.");
    assert_eq!(response.answer.transcript, "The whole answer.");
    let mut announced = Vec::new();
    loop {
        match events.recv().await {
            Some(Event::TurnProgressed { activity: Activity::Retrying { attempt, .. }, .. }) => announced.push(attempt),
            Some(Event::TurnEnded { .. }) | None => break,
            Some(_) => {}
        }
    }
    assert_eq!(announced, [1, 2]);
    place.end(cluster).await;
}
