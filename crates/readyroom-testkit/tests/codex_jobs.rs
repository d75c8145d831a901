//! Codex does jobs: real edits in contexts that know nothing of each other, and the guide's own calls.

mod codex_support;

use std::sync::Arc;
use std::time::Duration;

use codex_support::{Place, patch, pids, prompt_of, thread};
use readyroom::cluster::blocking;
use readyroom::tool::Definition;
use readyroom::{Cluster, Context, Job, Response};
use readyroom_testkit::{Request, Step, assert_nothing_left};

const JOBS: usize = 12;

fn asked(job: usize) -> String {
    format!("quartz-{job:02}")
}

fn answered(job: usize) -> String {
    format!("Finished marble-{job:02}.")
}

fn file(job: usize) -> String {
    format!("src/file_{job:02}.txt")
}

/// Runs the twelve jobs, and asserts that each did its own work.
async fn work(place: &Place, cluster: &Cluster) -> Vec<Response> {
    for job in 0..JOBS {
        let edit = patch(&file(job), &format!("text {job}"));
        place.model.on(&asked(job), [edit, Step::say(answered(job))]);
    }
    let tickets: Vec<_> =
        (0..JOBS).map(|job| cluster.submit(format!("Write the file of {}", asked(job))).unwrap()).collect();
    let mut responses = Vec::new();
    for (job, ticket) in tickets.into_iter().enumerate() {
        let response = ticket.await;
        assert_eq!(response.text().unwrap(), answered(job).as_str());
        assert_eq!(place.sandbox.read(&file(job)).as_deref(), Some(format!("text {job}\n").as_str()));
        assert_eq!(response.answer.changed_files, [place.sandbox.dir().join(file(job))]);
        responses.push(response);
    }
    responses
}

/// The requests in which a job's request holds a word of another job.
fn strangers(requests: &[Request]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for request in requests.iter().filter(|request| !request.side) {
        let Some(own) = &request.word else { continue };
        for job in 0..JOBS {
            for word in [asked(job), answered(job)] {
                if *own != asked(job) && request.holds(&word) {
                    found.push((own.clone(), word));
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn twelve_fresh_jobs_edit_twelve_files_and_know_nothing_of_each_other() {
    let place = Place::new();
    let cluster = place.launch(place.options(3)).await;
    let before = pids(&cluster.status().await);
    let responses = work(&place, &cluster).await;
    let mut threads: Vec<_> = responses.iter().map(|response| thread(&response.proof)).collect();
    threads.sort();
    threads.dedup();
    assert_eq!(threads.len(), JOBS, "each job had a thread of its own");
    assert_eq!(pids(&cluster.status().await), before, "the same processes throughout");
    let requests = place.model.requests();
    assert!(requests.iter().filter(|request| request.word.is_some()).count() >= 2 * JOBS);
    assert_eq!(strangers(&requests), []);
    place.end(cluster).await;
}

/// The same in `keep`: the check above is worth something, since here it finds what it looks for.
#[tokio::test]
async fn twelve_kept_jobs_know_of_each_other() {
    let place = Place::new();
    let cluster = place.launch(place.options(3).context(Context::Keep)).await;
    let before = pids(&cluster.status().await);
    work(&place, &cluster).await;
    assert_eq!(pids(&cluster.status().await), before);
    let found = strangers(&place.model.requests());
    // Three instances with four jobs each: the second knows one job, the third two, the fourth three.
    assert!(found.len() >= 3 * (1 + 2 + 3) * 2, "{found:?}");
    place.end(cluster).await;
}

#[tokio::test]
async fn files_are_named_beside_the_prompt() {
    let place = Place::new();
    place.sandbox.write("my file.py", "");
    let cluster = place.launch(place.options(1)).await;
    let job = Job::new("/status basalt").with_file("my file.py");
    assert!(cluster.submit(job).unwrap().await.ok());
    let request = place.model.requests().into_iter().find(|request| request.holds("basalt")).unwrap();
    let named = format!("Files to work on:\n- {}", place.sandbox.dir().join("my file.py").display());
    assert_eq!(prompt_of(&request), [named, "/status basalt".to_owned()]);
    place.end(cluster).await;
}

/// Threads are never freed, so a process gets a limited number of them; no job notices its end.
///
/// A bug that others had (openai/codex#38925): what each conversation had started was never ended, until the
/// machine was full.
#[tokio::test]
async fn a_process_is_replaced_after_so_many_threads() {
    let place = Place::new();
    let (definition, program) = place.sandbox.definition();
    let mut definition = Definition::clone(&definition);
    definition.limits.recycle_sessions = 2;
    let cluster = Cluster::launch(Arc::new(definition), &program, place.options(1)).await.unwrap();
    let mut generations = Vec::new();
    for job in 0..5 {
        let response = cluster.submit(format!("Job {job}")).unwrap().await;
        assert_eq!(response.text().unwrap(), "ok");
        generations.push(response.generation);
    }
    assert_eq!(generations, [1, 1, 2, 2, 3]);
    assert_eq!(cluster.status().await.instances[0].restarts, 0, "that is no failure");
    place.end(cluster).await;
}

#[test]
fn the_guides_calls() {
    let place = Place::new();
    place.sandbox.write("my_file.py", "x = 1\n");
    place.model.on("Add type hints", "Use `x: int = 1`.\n\n  Done.");
    let (definition, program) = place.sandbox.definition();
    let cluster = blocking::Cluster::launch(definition, &program, place.options(3)).unwrap();

    let added = cluster.send("/add my_file.py").unwrap();
    let asked = cluster.send("/ask 'Add type hints'").unwrap();
    assert_eq!(added, asked, "both reach the same instance");
    let response = cluster.read_any(Duration::from_secs(30)).unwrap();
    assert_eq!(response.instance, Some(added));
    assert_eq!(response.text().unwrap(), "Use `x: int = 1`.\n\n  Done.");
    let request = place.model.requests_of("Add type hints").remove(0);
    assert!(prompt_of(&request)[0].contains("my_file.py"));

    // Three `/add`, then three reads.
    for name in ["a.py", "b.py", "c.py"] {
        place.sandbox.write(name, "");
        cluster.send(&format!("/add {name}")).unwrap();
    }
    for _ in 0..3 {
        assert!(cluster.read_any(Duration::from_secs(30)).unwrap().ok());
    }
    cluster.send("/ask 'Close the turn'").unwrap();
    assert!(cluster.read_any(Duration::from_secs(30)).unwrap().ok());

    // 218 pairs before the first read.
    for number in 0..218 {
        let added = cluster.send("/add my_file.py").unwrap();
        let asked = cluster.send(&format!("/ask 'Question {number}'")).unwrap();
        assert_eq!(added, asked);
    }
    for _ in 0..218 {
        let response = cluster.read_any(Duration::from_secs(60)).unwrap();
        assert_eq!(response.text().unwrap(), "ok");
        assert_eq!(response.preamble.len(), 1);
    }
    assert!(cluster.read_any(Duration::from_millis(1)).is_none());
    assert_eq!(cluster.shutdown().dropped, 0);
    assert_nothing_left(&place.sandbox);
}
