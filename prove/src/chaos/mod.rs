//! Chaos: rounds in each of which a batch is run on the zoo or a real tool while owner, guardian, instances and the model
//! server are killed, stopped and slowed and the disk is filled, and resumed until it is done. After each round all that
//! a batch promises is looked at.

#![expect(clippy::print_stdout, reason = "these are commands for a person")]

mod check;
mod front;
mod plan;
mod round;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use plan::Plan;
use round::Round;

/// How much room the disk of a run has.
const DISK: &str = "1g";
/// Says where that disk is, to the program that was started with it.
const MOUNTED: &str = "READYROOM_CHAOS_DISK";

/// Options of `chaos`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long rounds are begun.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Only this round of the seed.
    #[arg(long)]
    round: Option<u32>,
}

/// What all rounds came to.
#[derive(Debug, Default)]
struct Sums {
    rounds: u32,
    jobs: usize,
    faults: usize,
    kills: usize,
    failed: Vec<u32>,
}

/// Plays rounds; whether all was as it must be in each.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let Some(disk) = std::env::var_os(MOUNTED) else { return on_a_disk_of_its_own() };
    let disk = Path::new(&disk);
    let until = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let mut sums = Sums::default();
    for number in 0.. {
        if options.round.is_some_and(|only| only != number) {
            if options.round < Some(number) {
                break;
            }
            continue;
        }
        if Instant::now() > until {
            break;
        }
        let plan = Plan::of(options.seed, number);
        println!("seed {} round {number}: {plan}", options.seed);
        let began = Instant::now();
        let mut round = Round::new(&plan, disk)?;
        let found = round.play().and_then(|()| check::all(&plan, &round));
        sums.rounds += 1;
        sums.jobs += plan.jobs.len();
        sums.faults += round.done.len();
        let kills = round.done.iter().filter(|fault| fault.kills_owner()).count();
        sums.kills += kills;
        match found {
            Ok(outcomes) => println!(
                "  {outcomes}; {} faults, the owner killed {kills} times; {:.1} s",
                round.done.len(),
                began.elapsed().as_secs_f64()
            ),
            Err(error) => {
                println!("  FAILED: {error:#}\n  what was done: {:?}\n{}", round.done, round.said());
                println!("  again: cargo xtask chaos --seed {} --round {number}", options.seed);
                keep(&round, options.seed, number)?;
                sums.failed.push(number);
            }
        }
    }
    println!(
        "seed {}: {} rounds, {} jobs, {} faults, {} of them killed the owner; failed rounds: {:?}",
        options.seed, sums.rounds, sums.jobs, sums.faults, sums.kills, sums.failed
    );
    Ok(sums.failed.is_empty() && sums.rounds > 0)
}

/// Starts this program again where it has a small disk for all that it and what it starts writes.
fn on_a_disk_of_its_own() -> anyhow::Result<bool> {
    let disk = tempfile::tempdir()?;
    let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@""#;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", script, "sh", DISK]).arg(disk.path()).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(MOUNTED, disk.path()).env("TMPDIR", disk.path());
    // What this run started has its group, so that a person's Ctrl-C reaches all of it.
    command.process_group(0);
    let status = command.status().context("`unshare` (Debian: util-linux) is needed for a disk of its own")?;
    ensure!(status.code().is_some_and(|code| code <= 1), "the run ended with {status}");
    Ok(status.success())
}

/// Copies what a failed round left to where a person finds it.
fn keep(round: &Round, seed: u64, number: u32) -> anyhow::Result<()> {
    let target = readyroom_testkit::tools::workspace().join(format!("target/chaos/seed-{seed}-round-{number}"));
    std::fs::create_dir_all(&target)?;
    let root = round.sandbox.home().parent().context("HOME is below the sandbox")?;
    Command::new("cp").arg("-a").arg(root).arg(&target).status()?;
    println!("  what it left: {}", target.display());
    Ok(())
}
