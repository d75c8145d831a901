//! The soak: a great many turns on a few instances. Each answer is the one of its own turn, each context is clean, and
//! what we hold of memory, descriptors and threads at the end is what we held after a tenth.

#![expect(clippy::print_stdout, reason = "these are commands for a person")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use readyroom::tool::Definition;
use readyroom::{Cluster, ClusterOptions, Context, Permissions, Routing, Wait};
use readyroom_testkit::plot::curves;
use readyroom_testkit::zoo::{self, Protocol};
use readyroom_testkit::{Model, Sandbox, Step, assert_nothing_left, fake};

const INSTANCES: usize = 8;
/// How much our memory may grow from a tenth of the turns to the end, in KiB.
const GROWTH: i64 = 5 << 10;
/// How often a run is looked at.
const LOOKS: usize = 100;
/// One turn in so many shows the zoo's habit.
const ODD: usize = 250;
/// The habits that leave an instance alive and its next turns well, under each protocol.
const HABITS: [&str; 4] = ["one-write", "two-ends", "unknown-messages", "own-requests"];
/// The same where all that is said is text.
const HABITS_OF_LINES: [&str; 4] = ["one-write", "two-ends", "progress", "half-a-character"];
const TOOLS: [&str; 5] = ["aider", "claude", "codex", "gemini", "opencode"];

/// Options of `soak`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many turns on the echo and the zoo, half on each.
    #[arg(long, default_value_t = 1_000_000)]
    turns: usize,
    /// How many turns on each real tool.
    #[arg(long, default_value_t = 500)]
    real: usize,
    /// Only runs whose name holds this: `echo`, `zoo acp`, `claude`.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the plot is written.
    #[arg(long, default_value = "bench/soak.svg")]
    plot: PathBuf,
}

/// What we hold.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Resident memory that is our own and not of a file, in KiB.
    memory: i64,
    descriptors: i64,
    threads: i64,
}

/// A run and what was seen in it: turns so far, and what was held then.
struct Seen {
    name: String,
    looks: Vec<(usize, Held)>,
}

/// What is asked in a turn, and what has to come.
type Exchange = Box<dyn Fn(usize) -> (String, String) + Send + Sync>;

/// Soaks everything; whether nothing grew. A wrong end or a context that leaks is an error.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut all = Vec::new();
    let wanted = |name: &str| name.contains(&options.only);
    if wanted("echo") {
        let (definition, program) = fake::echo_definition(&["--interrupt"]);
        // What was said in this context is said back, so that a context that is not clean shows.
        let exchange: Exchange =
            Box::new(|turn| (format!("turn {turn}\n@recall"), format!("turn {turn}\nturn {turn}")));
        let sandbox = Sandbox::bare("echo");
        all.push(runtime.block_on(soak("echo", &sandbox, definition, &program, options.turns / 2, exchange))?);
    }
    let each = options.turns / 2 / Protocol::ALL.len() / HABITS.len();
    for protocol in Protocol::ALL {
        let lines = matches!(protocol, Protocol::Repl | Protocol::Pty);
        for habit in if lines { HABITS_OF_LINES } else { HABITS } {
            let name = format!("zoo {} {habit}", protocol.name());
            if !wanted(&name) {
                continue;
            }
            let (definition, program) = zoo::definition(protocol, habit);
            let exchange: Exchange = Box::new(move |turn| match turn % ODD {
                0 => (format!("{} {turn}", zoo::TRIGGER), zoo::words(protocol, habit).to_owned()),
                _ => (format!("turn {turn}"), format!("prompt 1 here: turn {turn}")),
            });
            let sandbox = Sandbox::bare("zoo");
            all.push(runtime.block_on(soak(&name, &sandbox, definition, &program, each, exchange))?);
        }
    }
    for tool in TOOLS.into_iter().filter(|tool| wanted(tool)) {
        all.push(real(&runtime, tool, options.real)?);
    }
    ensure!(!all.is_empty(), "no run's name holds {:?}", options.only);
    let plot: Vec<(String, Vec<(f64, f64)>)> =
        all.iter().filter(|seen| !seen.name.contains(' ') || seen.name.ends_with(HABITS[0])).map(curve).collect();
    fs::write(
        &options.plot,
        curves("What we hold in memory over a soak, from its first turn to its last", "MiB", &plot),
    )?;
    println!("plot: {}", options.plot.display());
    // Each is told, also behind one that grew.
    let verdicts: Vec<bool> = all.iter().map(Seen::verdict).collect();
    Ok(verdicts.into_iter().all(|well| well))
}

fn curve(seen: &Seen) -> (String, Vec<(f64, f64)>) {
    let last = seen.looks.last().map_or(1, |look| look.0).max(1) as f64;
    let points = seen.looks.iter().map(|(turns, held)| (*turns as f64 / last * 100.0, held.memory as f64 / 1024.0));
    (seen.name.clone(), points.collect())
}

impl Seen {
    /// Prints how it was at a tenth and at the end; whether it is within the bounds.
    fn verdict(&self) -> bool {
        let (Some((turns, last)), Some((at, tenth))) = (
            self.looks.last(),
            self.looks.iter().find(|look| look.0 * 10 >= self.looks.last().map_or(0, |last| last.0)),
        ) else {
            return false;
        };
        let grown = last.memory - tenth.memory;
        let well = grown <= GROWTH && last.descriptors <= tenth.descriptors && last.threads <= tenth.threads;
        println!(
            "{}: {turns} turns; from turn {at}: memory {:+.1} MiB to {:.1}, descriptors {:+} to {}, threads {:+} to {}{}",
            self.name,
            grown as f64 / 1024.0,
            last.memory as f64 / 1024.0,
            last.descriptors - tenth.descriptors,
            last.descriptors,
            last.threads - tenth.threads,
            last.threads,
            if well { "" } else { "  GREW" }
        );
        well
    }
}

/// One run: so many turns on eight instances, each in a clean context.
async fn soak(
    name: &str,
    sandbox: &Sandbox,
    definition: Arc<Definition>,
    program: &Path,
    turns: usize,
    exchange: Exchange,
) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let mut options: ClusterOptions = sandbox.options().count(INSTANCES).routing(Routing::LeastBusy).wait(Wait::All);
    options.context = Context::Fresh;
    options.contract.permissions = Permissions::Read;
    options.timeout = Some(Duration::from_secs(60));
    let cluster = Cluster::launch(definition, program, options).await?;
    let mut looks = Vec::with_capacity(LOOKS + 2);
    let piece = (turns / LOOKS).max(INSTANCES);
    let mut done = 0;
    while done < turns {
        let until = (done + piece).min(turns);
        let mut tickets = std::collections::VecDeque::new();
        let mut next = done;
        while done < until {
            while next < until && tickets.len() < 4 * INSTANCES {
                let (ask, expected) = exchange(next);
                tickets.push_back((next, cluster.submit(ask)?, expected));
                next += 1;
            }
            let (turn, ticket, expected) = tickets.pop_front().context("turns that run")?;
            let response = ticket.await;
            let text = response.text().with_context(|| format!("{name}, turn {turn}: {}", response.outcome))?;
            let text = text.to_string();
            ensure!(text.trim_end() == expected.trim_end(), "{name}, turn {turn}: {text:?}, and not {expected:?}");
            done += 1;
        }
        // Nothing runs now.
        looks.push((done, held()?));
    }
    cluster.shutdown().await;
    assert_nothing_left(sandbox);
    println!("{name}: {turns} turns in {:.1} s", began.elapsed().as_secs_f64());
    Ok(Seen { name: name.to_owned(), looks })
}

/// The same on a real tool. The model's requests say whether a context held what it must not.
fn real(runtime: &tokio::runtime::Runtime, tool: &str, turns: usize) -> anyhow::Result<Seen> {
    const STEP: usize = 25;
    let began = Instant::now();
    let model = Model::start();
    let sandbox = Sandbox::new(tool, &model);
    let (definition, program) = sandbox.definition();
    let mut options: ClusterOptions = sandbox.options().count(2).routing(Routing::LeastBusy).wait(Wait::All);
    options.context = Context::Fresh;
    options.contract.permissions = Permissions::Read;
    options.ready_timeout = Duration::from_secs(120);
    let word = |turn: usize| format!("soakword{turn}x");
    let mut looks = Vec::new();
    runtime.block_on(async {
        let cluster = Cluster::launch(definition, &program, options).await?;
        for first in (0..turns).step_by(STEP) {
            let turns: Vec<usize> = (first..turns.min(first + STEP)).collect();
            model.forget();
            turns.iter().for_each(|turn| model.on(&word(*turn), Step::say(format!("soakreply {turn}"))));
            let tickets = turns.iter().map(|turn| cluster.submit(format!("Say {}.", word(*turn))));
            let tickets: Vec<_> = tickets.collect::<Result<_, _>>()?;
            for (turn, ticket) in turns.iter().zip(tickets) {
                let response = ticket.await;
                let text = response.text().with_context(|| format!("{tool}, turn {turn}: {}", response.outcome))?;
                let text = text.to_string();
                ensure!(text.trim() == format!("soakreply {turn}"), "{tool}, turn {turn}: {text:?}");
            }
            for request in tokio::task::block_in_place(|| model.take_requests()) {
                let body = request.body.to_string();
                let words: std::collections::BTreeSet<&str> =
                    body.match_indices("soakword").filter_map(|(at, _)| body[at..].split('x').next()).collect();
                ensure!(words.len() <= 1, "{tool}: a context leaked: {words:?} in one request");
                let answers = body.matches("soakreply ").count();
                ensure!(request.side || answers == 0, "{tool}: a request holds an answer");
            }
            looks.push((first + turns.len(), held()?));
        }
        cluster.shutdown().await;
        anyhow::Ok(())
    })?;
    assert_nothing_left(&sandbox);
    println!("{tool}: {turns} turns in {:.1} s", began.elapsed().as_secs_f64());
    Ok(Seen { name: tool.to_owned(), looks })
}

/// What this process holds now.
fn held() -> anyhow::Result<Held> {
    let status = fs::read_to_string("/proc/self/status")?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("/proc/self/status")
    };
    Ok(Held {
        memory: number("RssAnon")?,
        descriptors: i64::try_from(fs::read_dir("/proc/self/fd")?.count())?,
        threads: number("Threads")?,
    })
}
