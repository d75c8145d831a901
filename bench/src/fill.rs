//! How well 4 instances of Claude Code are kept busy: 40 jobs with a model that takes a second each, against the same
//! requests by 4 bare clients that ask the same model one after another and do nothing else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use readyroom::{Cluster, Routing, Wait};
use readyroom_testkit::{Model, Request, Sandbox, Step};

use crate::page::{Page, Row};
use crate::stats::ratio;

/// The most that the jobs may take, in the bare clients' time.
const GOAL: f64 = 1.05;
const INSTANCES: usize = 4;
const JOBS: usize = 40;
const SECOND: u64 = 1000;
const LONG: u64 = 8;
/// The prompt of the turns before the measured ones; the bare clients ask what the tool asked for it.
const FIRST: &str = "Say firstword.";

/// Measures.
pub fn run(page: &mut Page) -> anyhow::Result<()> {
    let mut times = [SECOND; JOBS];
    compare(page, "40 jobs of 1 s on 4 instances of Claude Code", &times)?;
    // The long one comes first: the best schedule gives the other three the rest.
    times[0] = LONG * SECOND;
    compare(page, "The same with one of 8 s among them", &times)?;
    page.note(
        "Claude Code itself takes some 50 to 80 ms of processor time a turn (the reset, three git commands behind it, and the way \
         from the prompt to the request), which nothing outside of it can hide.",
    );
    Ok(())
}

/// Both sides on one model, one after the other.
fn compare(page: &mut Page, what: &str, milliseconds: &[u64]) -> anyhow::Result<()> {
    let model = Model::start();
    for (job, milliseconds) in milliseconds.iter().enumerate() {
        model.on(&word(job), Step::say("done").after(*milliseconds));
    }
    let took = tokio::runtime::Runtime::new()?.block_on(fill(&model, milliseconds.len()))?;
    let request = model.wait_request("firstword");
    let bare = ask(&model, &request, milliseconds.len())?;
    let found = ratio(took, bare);
    page.table(format!("{what}, against bare clients of the same model"));
    page.row(Row::times("bare clients", &[bare]));
    page.row(Row::times("readyroom", &[took]).ratio(found).goal(format!("at most {GOAL}x"), found <= GOAL));
    Ok(())
}

fn word(job: usize) -> String {
    format!("fillword{job}x")
}

/// The time of the jobs on warm instances; launch and first turns are not counted.
async fn fill(model: &Model, jobs: usize) -> anyhow::Result<Duration> {
    model.on("firstword", Step::say("ok"));
    let sandbox = Sandbox::new("claude", model);
    let (definition, program) = sandbox.definition();
    let mut options = sandbox.options().count(INSTANCES).routing(Routing::LeastBusy).wait(Wait::All);
    options.ready_timeout = Duration::from_secs(120);
    let cluster = Cluster::launch(definition, &program, options).await?;
    let firsts: Vec<_> = (0..INSTANCES).map(|_| cluster.submit(FIRST)).collect::<Result<_, _>>()?;
    for first in firsts {
        anyhow::ensure!(first.await.ok(), "a first turn failed");
    }
    let started = Instant::now();
    let tickets: Vec<_> =
        (0..jobs).map(|job| cluster.submit(format!("Do {}.", word(job)))).collect::<Result<_, _>>()?;
    for ticket in tickets {
        let response = ticket.await;
        anyhow::ensure!(response.ok(), "{}", response.outcome);
    }
    let took = started.elapsed();
    cluster.shutdown().await;
    Ok(took)
}

/// The time of the same jobs for clients without a tool: each takes the next job when it has its answer.
fn ask(model: &Model, request: &Request, jobs: usize) -> anyhow::Result<Duration> {
    let asked = request.body.to_string();
    anyhow::ensure!(asked.contains(FIRST), "the first turn's request does not hold its prompt");
    let next = Mutex::new(0..jobs);
    let mut clients: Vec<_> =
        (0..INSTANCES).map(|_| TcpStream::connect(("127.0.0.1", model.port()))).collect::<Result<_, _>>()?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(|| {
                    while let Some(job) = next.lock().ok().and_then(|mut next| next.next()) {
                        exchange(client, &request.path, &asked.replace(FIRST, &format!("Do {}.", word(job))))?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    Ok(started.elapsed())
}

/// One request and its answer, to the end of its stream.
fn exchange(client: &mut TcpStream, path: &str, body: &str) -> anyhow::Result<()> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: model\r\nx-api-key: none\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\r\n0\r\n\r\n") {
        match client.read(&mut part).context("the model's answer")? {
            0 => anyhow::bail!("the model closed the connection"),
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "the model answered {}", String::from_utf8_lossy(&answer));
    Ok(())
}
