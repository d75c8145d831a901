//! The same turn on the echo by those who talk to terminal programs: pexpect and expectrl.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use expectrl::Expect as _;
use readyroom_testkit::fake;

use crate::page::{Page, Row};
use crate::stats::{median, ratio};

/// Adds a row for each to the table that is open, against `bare`.
pub fn rows(page: &mut Page, turns: usize, rounds: usize, bare: Duration) -> anyhow::Result<()> {
    let expectrl = (0..rounds).map(|_| expectrl(turns)).collect::<anyhow::Result<Vec<_>>>()?;
    page.row(Row::times("expectrl (a terminal)", &expectrl).ratio(ratio(median(&expectrl), bare)));
    let pexpect = (0..rounds).map(|_| pexpect(turns)).collect::<anyhow::Result<Vec<_>>>()?;
    page.row(Row::times("pexpect (a terminal, Python)", &pexpect).ratio(ratio(median(&pexpect), bare)));
    Ok(())
}

fn expectrl(turns: usize) -> anyhow::Result<Duration> {
    let mut session = expectrl::Session::spawn(Command::new(fake::program("readyroom-echo")))?;
    session.set_expect_timeout(Some(Duration::from_secs(10)));
    let mut began = Instant::now();
    for turn in 0..=turns {
        if turn == 1 {
            began = Instant::now();
        }
        session.send("hello\n:fence 0123456789abcdef 0123456789abcdef\n")?;
        session.expect("0123456789abcdef0123456789abcdef\r\n")?;
    }
    Ok(began.elapsed() / u32::try_from(turns)?)
}

fn pexpect(turns: usize) -> anyhow::Result<Duration> {
    let python = std::env::var_os("READYROOM_BENCH_PYTHON").context("run it by `cargo xtask bench`")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pexpect_turn.py");
    let output =
        Command::new(python).arg(script).arg(fake::program("readyroom-echo")).arg(turns.to_string()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Duration::from_secs_f64(String::from_utf8(output.stdout)?.trim().parse()?))
}
