//! One turn on an echo tool, through the cluster, against a bare blocking ping-pong over pipes with the same tool.

use std::process::Command;
use std::time::{Duration, Instant};

use readyroom::cluster::blocking;
use readyroom::{Cluster, ClusterOptions, Context, Routing, Wait};
use readyroom_testkit::fake;

use crate::others;
use crate::page::{Page, Row, Unit};
use crate::pipes::{Pipes, side_by_side};
use crate::stats::{median, ratio};

/// The most that a turn through the asynchronous cluster may cost, in bare ping-pongs.
const GOAL: f64 = 4.0;

/// How often each number of instances is measured.
const ROUNDS: usize = 3;

/// How many instances the launch of many has.
const MANY: usize = 500;

/// The echo over bare pipes.
fn echo() -> anyhow::Result<Pipes> {
    Pipes::spawn(&mut Command::new(fake::program("readyroom-echo")))
}

/// A turn on it.
fn ping(echo: &mut Pipes) -> anyhow::Result<()> {
    let fence = "0123456789abcdef0123456789abcdef\n";
    echo.turn("hello\n:fence 0123456789abcdef 0123456789abcdef\n", |line| line == fence).map(drop)
}

/// The time of a turn with `instances` bare processes side by side, one blocking thread each.
fn bare(instances: usize, turns: usize) -> anyhow::Result<Duration> {
    let mut processes = (0..instances).map(|_| echo()).collect::<anyhow::Result<Vec<_>>>()?;
    for process in &mut processes {
        ping(process)?;
    }
    let each = turns / instances;
    let started = Instant::now();
    side_by_side(&mut processes, |process| (0..each).try_for_each(|_| ping(process)))?;
    let took = started.elapsed() / u32::try_from(each * instances)?;
    processes.into_iter().try_for_each(Pipes::end)?;
    Ok(took)
}

fn options(instances: usize, context: Context) -> ClusterOptions {
    ClusterOptions {
        wait: Wait::All,
        routing: Routing::LeastBusy,
        context,
        ..ClusterOptions::default().count(instances)
    }
}

async fn asynchronous(instances: usize, turns: usize, context: Context) -> anyhow::Result<Duration> {
    let (definition, program) = fake::echo_definition(&[]);
    let cluster = Cluster::launch(definition, &program, options(instances, context)).await?;
    for _ in 0..instances {
        cluster.submit("hello")?.await;
    }
    let each = turns / instances;
    let started = Instant::now();
    let callers: Vec<_> = (0..instances)
        .map(|_| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    let response = cluster.submit("hello")?.await;
                    anyhow::ensure!(response.ok(), "{}", response.outcome);
                }
                Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let took = started.elapsed() / u32::try_from(each * instances)?;
    cluster.shutdown().await;
    Ok(took)
}

/// The time of a turn with the blocking interface.
pub fn blocking(turns: usize) -> anyhow::Result<Duration> {
    let (definition, program) = fake::echo_definition(&[]);
    let cluster = blocking::Cluster::launch(definition, &program, options(1, Context::Keep))?;
    cluster.submit("hello")?.wait();
    let started = Instant::now();
    for _ in 0..turns {
        cluster.send("hello")?;
        let response = cluster.read_any(Duration::from_secs(10));
        anyhow::ensure!(response.is_some_and(|response| response.ok()), "a turn failed");
    }
    let took = started.elapsed() / u32::try_from(turns)?;
    cluster.shutdown();
    Ok(took)
}

/// How long after a turn's end, as the engine saw it, `read_any` has it, where seven of eight instances are busy.
fn late() -> anyhow::Result<Vec<Duration>> {
    const BUSY: usize = 7;
    let (definition, program) = fake::echo_definition(&["--interrupt"]);
    let cluster = blocking::Cluster::launch(definition, &program, options(BUSY + 1, Context::Keep))?;
    for instance in 0..BUSY {
        cluster.send_to(instance, "@hang")?;
    }
    let mut late = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        cluster.send_to(BUSY, "@sleep 5")?;
        let response = cluster.read_any(Duration::from_secs(10)).ok_or_else(|| anyhow::anyhow!("no answer"))?;
        let timings = response.timings;
        late.push(began.elapsed().saturating_sub(timings.queued + timings.reset + timings.turn));
    }
    cluster.shutdown();
    Ok(late)
}

fn own_memory() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(pages * 4096)
}

/// The times of a turn, round by round, so that what else the machine does weighs on all.
#[derive(Default)]
struct Sides {
    bare: Vec<Duration>,
    ours: Vec<Duration>,
    on_one_thread: Vec<Duration>,
    fresh: Vec<Duration>,
}

impl Sides {
    fn measure(instances: usize, turns: usize, rounds: usize) -> anyhow::Result<Self> {
        let many = tokio::runtime::Runtime::new()?;
        let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut sides = Self::default();
        for _ in 0..rounds {
            sides.push([
                bare(instances, turns)?,
                many.block_on(asynchronous(instances, turns, Context::Keep))?,
                one.block_on(asynchronous(instances, turns, Context::Keep))?,
                many.block_on(asynchronous(instances, turns, Context::Fresh))?,
            ]);
        }
        Ok(sides)
    }

    fn push(&mut self, [bare, ours, on_one_thread, fresh]: [Duration; 4]) {
        self.bare.push(bare);
        self.ours.push(ours);
        self.on_one_thread.push(on_one_thread);
        self.fresh.push(fresh);
    }
}

fn rows(page: &mut Page, sides: &Sides, goal: Option<f64>) {
    let bare = median(&sides.bare);
    page.row(Row::times("bare pipes, blocking", &sides.bare));
    let found = ratio(median(&sides.ours), bare);
    let row = Row::times("readyroom", &sides.ours).ratio(found);
    page.row(match goal {
        Some(goal) => row.goal(format!("at most {goal}x the bare pipes"), found <= goal),
        None => row,
    });
    for (name, times) in [
        ("readyroom, in a runtime of one thread", &sides.on_one_thread),
        ("readyroom, with a proven reset (two turns)", &sides.fresh),
    ] {
        page.row(Row::times(name, times).ratio(ratio(median(times), bare)));
    }
}

/// The same in a process that has one core, as have all that it starts.
fn on_one_core(instances: usize, turns: usize, rounds: usize) -> anyhow::Result<Sides> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(std::env::current_exe()?).arg("one-core");
    let output = command.args([instances, turns, rounds].map(|number| number.to_string())).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut sides = Sides::default();
    for line in String::from_utf8(output.stdout)?.lines() {
        let times = line.split_whitespace().map(|word| Ok(Duration::from_nanos(word.parse()?)));
        let times: Vec<Duration> = times.collect::<anyhow::Result<_>>()?;
        sides.push(times.try_into().map_err(|_| anyhow::anyhow!("four times were expected: {line}"))?);
    }
    Ok(sides)
}

/// Measures and prints the four sides, for who has put this process on one core.
#[expect(clippy::print_stdout, reason = "the process that asked reads it")]
pub fn print_sides(instances: usize, turns: usize, rounds: usize) -> anyhow::Result<()> {
    let sides = Sides::measure(instances, turns, rounds)?;
    for round in 0..rounds {
        let of = |times: &[Duration]| times[round].as_nanos();
        println!("{} {} {} {}", of(&sides.bare), of(&sides.ours), of(&sides.on_one_thread), of(&sides.fresh));
    }
    Ok(())
}

/// Measures.
pub fn run(page: &mut Page, turns: usize, rounds: usize) -> anyhow::Result<()> {
    for instances in [1, 8] {
        let sides = on_one_core(instances, turns, rounds)?;
        page.table(format!("A turn on the echo, {instances} at once, all of it on one core"));
        rows(page, &sides, Some(GOAL));
    }
    page.note(
        "On one core the two sides of a pipe hand the processor to each other. Where the scheduler puts them on two, each turn waits for \
         a processor to wake, ten times as long as all that either side does: the next tables.",
    );
    let runtime = tokio::runtime::Runtime::new()?;
    for instances in [1, 8] {
        let sides = Sides::measure(instances, turns, rounds)?;
        page.table(format!("A turn on the echo, {instances} at once, where the scheduler puts it"));
        rows(page, &sides, None);
        if instances == 1 {
            let bare = median(&sides.bare);
            let blocked = (0..rounds).map(|_| blocking(turns)).collect::<anyhow::Result<Vec<_>>>()?;
            let row = Row::times("readyroom, blocking send and read_any", &blocked);
            page.row(row.ratio(ratio(median(&blocked), bare)));
            others::rows(page, turns, rounds, bare)?;
            page.note(
                "A turn is three system calls (a wait, a read, a write; the bare pipes need the last two) and six messages between \
                 caller, pool, instance and process. A runtime of several threads hands a chain of more than three messages on to another \
                 thread, which a turn that is alone has to wait for.",
            );
        }
    }

    page.table("A turn on the echo by how many are busy at once");
    for instances in [1, 2, 4, 8, 16, 32, 64] {
        let at_once = |ours: bool| -> anyhow::Result<Duration> {
            match ours {
                true => runtime.block_on(asynchronous(instances, turns, Context::Keep)),
                false => bare(instances, turns),
            }
        };
        let bares = (0..ROUNDS).map(|_| at_once(false)).collect::<anyhow::Result<Vec<_>>>()?;
        let ours = (0..ROUNDS).map(|_| at_once(true)).collect::<anyhow::Result<Vec<_>>>()?;
        page.row(Row::times(format!("bare pipes, {instances} threads"), &bares));
        let name = format!("readyroom, {instances} instances");
        page.row(Row::times(name, &ours).ratio(ratio(median(&ours), median(&bares))));
    }
    let late = late()?;
    page.table("How long after an answer read_any returns");
    page.row(Row::times("readyroom", &late));

    let before = own_memory()?;
    let started = Instant::now();
    let (definition, program) = fake::echo_definition(&[]);
    let launched = runtime.block_on(async {
        let launched = Cluster::launch(definition, &program, options(MANY, Context::Keep)).await?;
        anyhow::Ok((launched, started.elapsed()))
    })?;
    let (cluster, took) = launched;
    let each = own_memory()?.saturating_sub(before) / MANY as u64;
    runtime.block_on(cluster.shutdown());
    page.table(format!("{MANY} instances of the echo"));
    page.row(Row::times("readyroom: all launched", &[took]));
    page.row(Row::value("readyroom: our memory an instance", Unit::Bytes, each as f64));
    Ok(())
}
