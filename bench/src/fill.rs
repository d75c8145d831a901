//! How well 4 instances of Claude Code are kept busy: 40 jobs with a model that takes a second each, against the same
//! requests by 4 bare clients that ask the same model one after another and do nothing else, and against 4 instances of
//! the tool over bare pipes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use readyroom::tool::Contract;
use readyroom::{Cluster, Event, Routing, Wait};
use readyroom_testkit::{Model, Request, Sandbox, Step};
use serde_json::json;

use crate::page::{Page, Row};
use crate::pipes::{Pipes, side_by_side};
use crate::stats::{median, ratio};

/// The most that the jobs may take, in the bare clients' time.
const GOAL: f64 = 1.05;
const INSTANCES: usize = 4;
const JOBS: usize = 40;
const SECOND: u64 = 1000;
const LONG: u64 = 8;
/// The prompt of the turns before the measured ones; the bare clients ask what the tool asked for it.
const FIRST: &str = "Say firstword.";
const FIRST_WORD: &str = "firstword";
/// How often each side is measured.
const ROUNDS: usize = 3;

/// Measures.
pub fn run(page: &mut Page) -> anyhow::Result<()> {
    let mut times = [SECOND; JOBS];
    compare(page, "40 jobs of 1 s on 4 instances of Claude Code", &times)?;
    // The long one comes first: the best schedule gives the other three the rest.
    times[0] = LONG * SECOND;
    compare(page, "The same with one of 8 s among them", &times)?;
    page.note(
        "Each clock starts when all instances have had a first turn and are ready again, and stops at the last answer. Claude Code \
         itself takes some 50 to 80 ms of processor time a job (the reset, three git commands behind it, and the way from the \
         prompt to the request). What it takes over bare pipes, with nobody to watch it, is what any use of it takes.",
    );
    Ok(())
}

/// Both sides on one model, by turns.
fn compare(page: &mut Page, what: &str, milliseconds: &[u64]) -> anyhow::Result<()> {
    let model = Model::start();
    model.on(FIRST_WORD, Step::say("ok"));
    for (job, milliseconds) in milliseconds.iter().enumerate() {
        model.on(&word(job), Step::say("done").after(*milliseconds));
    }
    let sandbox = Sandbox::new("claude", &model);
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut clients, mut pipes, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(runtime.block_on(fill(&sandbox, milliseconds.len()))?);
        pipes.push(drive(&sandbox, milliseconds.len())?);
        let request = model.wait_request(FIRST_WORD);
        clients.push(ask(&model, &request, milliseconds.len())?);
    }
    let least = median(&clients);
    let found = ratio(median(&ours), least);
    page.table(format!("{what}, against bare clients of the same model"));
    page.row(Row::times("bare clients", &clients));
    page.row(Row::times("Claude Code over bare pipes", &pipes).ratio(ratio(median(&pipes), least)));
    page.row(Row::times("readyroom", &ours).ratio(found).goal(format!("at most {GOAL}x"), found <= GOAL));
    Ok(())
}

fn word(job: usize) -> String {
    format!("fillword{job}x")
}

/// The time of the jobs, from instances that have each had a first turn and are ready again to the last answer.
async fn fill(sandbox: &Sandbox, jobs: usize) -> anyhow::Result<Duration> {
    let (definition, program) = sandbox.definition();
    let mut options = sandbox.options().count(INSTANCES).routing(Routing::LeastBusy).wait(Wait::All);
    options.ready_timeout = Duration::from_secs(120);
    let cluster = Cluster::launch(definition, &program, options).await?;
    let mut events = cluster.events();
    let firsts: Vec<_> = (0..INSTANCES).map(|_| cluster.submit(FIRST)).collect::<Result<_, _>>()?;
    for first in firsts {
        anyhow::ensure!(first.await.ok(), "a first turn failed");
    }
    let mut ready = 0;
    while ready < INSTANCES {
        match events.recv().await {
            Some(Event::ContextProven { .. }) => ready += 1,
            Some(_) => {}
            None => anyhow::bail!("the cluster is down"),
        }
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

/// The time of the same jobs where nothing is done but to write the tool's lines and to wait for its results: what the tool
/// itself adds to its model.
fn drive(sandbox: &Sandbox, jobs: usize) -> anyhow::Result<Duration> {
    let (definition, program) = sandbox.definition();
    let contract = Contract::resolve(definition, &program, &sandbox.contract())?;
    let launch = || {
        let mut command = Command::new(&contract.program);
        Pipes::spawn(command.args(&contract.args).env_clear().envs(&contract.env).current_dir(&contract.cwd))
    };
    let mut tools: Vec<_> = (0..INSTANCES).map(|_| launch()).collect::<Result<_, _>>()?;
    let next = Mutex::new(0..jobs);
    let ready = Barrier::new(INSTANCES);
    let lane = |tool: &mut Pipes| {
        let first = turn(tool, FIRST).and_then(|()| turn(tool, "/clear"));
        // Also where that failed, as the others wait.
        ready.wait();
        first?;
        let started = Instant::now();
        let mut ended = started;
        while let Some(job) = next.lock().ok().and_then(|mut next| next.next()) {
            turn(tool, &format!("Do {}.", word(job)))?;
            ended = Instant::now();
            turn(tool, "/clear")?;
        }
        anyhow::Ok(ended - started)
    };
    let took = side_by_side(&mut tools, lane)?;
    tools.into_iter().try_for_each(Pipes::end)?;
    Ok(took.into_iter().max().unwrap_or_default())
}

fn turn(tool: &mut Pipes, prompt: &str) -> anyhow::Result<()> {
    let message = json!({"type": "user", "message": {"role": "user", "content": prompt}});
    let result = tool.turn(&format!("{message}\n"), |line| line.starts_with(r#"{"type":"result""#))?;
    anyhow::ensure!(result.contains(r#""is_error":false"#), "{prompt:?} failed: {result}");
    Ok(())
}

/// The time of the same jobs for clients without a tool: each takes the next job when it has its answer.
fn ask(model: &Model, request: &Request, jobs: usize) -> anyhow::Result<Duration> {
    let asked = request.body.to_string();
    anyhow::ensure!(asked.contains(FIRST), "the first turn's request does not hold its prompt");
    let next = Mutex::new(0..jobs);
    let mut clients: Vec<_> =
        (0..INSTANCES).map(|_| TcpStream::connect(("127.0.0.1", model.port()))).collect::<Result<_, _>>()?;
    let started = Instant::now();
    side_by_side(&mut clients, |client| {
        while let Some(job) = next.lock().ok().and_then(|mut next| next.next()) {
            exchange(client, &request.path, &asked.replace(FIRST, &format!("Do {}.", word(job))))?;
        }
        Ok(())
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
