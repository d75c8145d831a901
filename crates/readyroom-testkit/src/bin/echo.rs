//! A line echo with a fence, a reset, and bad habits on command: the fastest possible tool, and the worst.
//!
//! A line is printed back. Lines that begin with `@` do something first (see [`obey`]); `:fence A B` prints `AB`,
//! `:reset` forgets what was said. Arguments set habits for the whole life (see [`Habits`]). The program can also be a
//! test's guardian.
#![expect(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "it is a tool under test")]

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What it does by itself.
#[derive(Debug, Default)]
struct Habits {
    /// `--delay MS`: before each turn's answer.
    delay: Duration,
    /// `--crash-at N`: dies in its Nth turn.
    crash_at: Option<usize>,
    /// `--crash-start TEXT`: prints the text on stderr and dies before it is ready.
    crash_start: Option<String>,
    /// `--hang-start`: reads nothing.
    hang_start: bool,
    /// `--deaf`: ignores TERM, INT and HUP.
    deaf: bool,
    /// `--stray`: starts a child that leaves its group and session.
    stray: bool,
    /// `--interrupt`: SIGINT ends a turn and not the program.
    interrupt: bool,
    /// `--log FILE`: appends `PID LINE` for every line of a turn.
    log: Option<String>,
    /// `--banner TEXT`: printed at the start.
    banner: Option<String>,
}

fn main() -> anyhow::Result<()> {
    readyroom::init();
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--leaf"] {
        rustix::process::setsid()?;
        println!("left");
        loop {
            std::thread::park();
        }
    }
    // A definition may carry the program's version flag.
    if args == ["--version"] {
        println!("readyroom-echo 1.0.0");
        return Ok(());
    }
    let habits = habits(&args)?;
    if habits.deaf {
        // What a shell's `trap ''` ignores stays ignored through exec.
        args.retain(|arg| arg != "--deaf");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"trap "" TERM INT HUP; exec "$@""#, "sh"]).arg(std::env::current_exe()?).args(args);
        return Err(shell.exec().into());
    }
    if habits.stray {
        stray()?;
    }
    if let Some(text) = &habits.crash_start {
        eprintln!("{text}");
        std::process::exit(3);
    }
    if habits.hang_start {
        loop {
            std::thread::park();
        }
    }
    serve(&habits)
}

fn habits(args: &[String]) -> anyhow::Result<Habits> {
    let mut habits = Habits::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value")).cloned();
        match arg.as_str() {
            "--delay" => habits.delay = Duration::from_millis(value()?.parse()?),
            "--crash-at" => habits.crash_at = Some(value()?.parse()?),
            "--crash-start" => habits.crash_start = Some(value()?),
            "--hang-start" => habits.hang_start = true,
            "--deaf" => habits.deaf = true,
            "--stray" => habits.stray = true,
            "--interrupt" => habits.interrupt = true,
            "--log" => habits.log = Some(value()?),
            "--banner" => habits.banner = Some(value()?),
            _ => bail!("no such habit: {arg}"),
        }
    }
    Ok(habits)
}

/// Whether SIGINT has come since it was last asked, and waiting for it.
#[derive(Default)]
struct Interrupt {
    pending: Mutex<bool>,
    came: Condvar,
}

impl Interrupt {
    fn listen(self: &Arc<Self>) -> anyhow::Result<()> {
        let interrupt = Arc::clone(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
                let _ = ready.send(());
                while signals.recv().await.is_some() {
                    *interrupt.pending.lock().expect("nobody panics with it") = true;
                    interrupt.came.notify_all();
                }
                io::Result::Ok(())
            })
        });
        listening.recv().context("no signal handler")
    }

    /// Waits; true when SIGINT cut it short.
    fn pause(&self, time: Option<Duration>) -> bool {
        let deadline = time.map(|time| Instant::now() + time);
        let mut pending = self.pending.lock().expect("nobody panics with it");
        loop {
            if std::mem::take(&mut *pending) {
                return true;
            }
            let left = deadline.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            pending = self.came.wait_timeout(pending, left).expect("nobody panics with it").0;
        }
    }
}

/// Reads and answers until stdin ends.
fn serve(habits: &Habits) -> anyhow::Result<()> {
    let interrupt = Arc::new(Interrupt::default());
    if habits.interrupt {
        interrupt.listen()?;
    }
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    if let Some(banner) = &habits.banner {
        writeln!(out, "{banner}")?;
        out.flush()?;
    }
    let mut input = io::BufReader::with_capacity(64 << 10, io::stdin().lock());
    let mut said: Vec<Vec<u8>> = Vec::new();
    let (mut turns, mut in_turn, mut cut) = (0, false, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(out.flush()?);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Some(halves) = text.strip_prefix(b":fence ") {
            out.write_all(&halves.iter().copied().filter(|byte| *byte != b' ').collect::<Vec<u8>>())?;
            out.write_all(b"\n")?;
            (in_turn, cut) = (false, false);
        } else if text == b":reset" {
            said.clear();
            out.write_all(b"context cleared\n")?;
        } else if !cut {
            if !in_turn {
                in_turn = true;
                turns += 1;
                if habits.crash_at == Some(turns) {
                    out.flush()?;
                    std::process::abort();
                }
                if !habits.delay.is_zero() {
                    out.flush()?;
                    cut = interrupt.pause(Some(habits.delay));
                }
            }
            if let Some(file) = &habits.log {
                let mut entry = format!("{} ", std::process::id()).into_bytes();
                entry.extend_from_slice(text);
                entry.push(b'\n');
                OpenOptions::new().append(true).create(true).open(file)?.write_all(&entry)?;
            }
            if !cut {
                cut = obey(text, &said, &interrupt, &mut out)?;
            }
            said.push(text.to_vec());
        }
        if input.buffer().is_empty() {
            out.flush()?;
        }
    }
}

/// Carries a line out; true when it was interrupted.
fn obey(line: &[u8], said: &[Vec<u8>], interrupt: &Interrupt, out: &mut impl Write) -> anyhow::Result<bool> {
    let text = String::from_utf8_lossy(line).into_owned();
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    match word {
        // `@sleep MS`
        "@sleep" => {
            out.flush()?;
            if interrupt.pause(Some(Duration::from_millis(rest.parse()?))) {
                return Ok(true);
            }
            writeln!(out, "slept {rest}")?;
        }
        "@hang" => {
            out.flush()?;
            return Ok(interrupt.pause(None));
        }
        // `@exit CODE`
        "@exit" => {
            out.flush()?;
            std::process::exit(rest.parse()?);
        }
        "@crash" => {
            out.flush()?;
            std::process::abort();
        }
        // `@print BYTES`: lines of 64 bytes.
        "@print" => {
            let bytes: usize = rest.parse()?;
            let piece = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n".repeat(1024);
            let mut left = bytes;
            while left > 0 {
                let count = left.min(piece.len());
                out.write_all(&piece[..count])?;
                left -= count;
            }
        }
        // `@bytes HEX`: these bytes and no newline.
        "@bytes" => {
            for at in (0..rest.len() / 2).map(|pair| pair * 2) {
                out.write_all(&[u8::from_str_radix(&rest[at..at + 2], 16)?])?;
            }
        }
        // `@edit FILE TEXT`
        "@edit" => {
            let (file, content) = rest.split_once(' ').context("@edit FILE TEXT")?;
            std::fs::write(file, format!("{content}\n"))?;
            writeln!(out, "edited {file}")?;
        }
        // `@sh COMMAND`
        "@sh" => {
            out.flush()?;
            let ran = Command::new("/bin/sh").args(["-c", rest]).stdin(Stdio::null()).output()?;
            out.write_all(&ran.stdout)?;
            out.write_all(&ran.stderr)?;
        }
        // `@until N FILE TEXT`: the text, for the first N times that a turn says so with this file.
        "@until" => {
            let mut words = rest.splitn(3, ' ');
            let (Some(count), Some(file), Some(text)) = (words.next(), words.next(), words.next()) else {
                bail!("@until N FILE TEXT");
            };
            writeln!(out, "{}", if is_one_of(count.parse()?, file)? { text } else { "fine" })?;
        }
        // `@crash-until N FILE`: dies, for the first N times.
        "@crash-until" => {
            let (count, file) = rest.split_once(' ').context("@crash-until N FILE")?;
            if is_one_of(count.parse()?, file)? {
                std::process::abort();
            }
            writeln!(out, "fine")?;
        }
        // `@stderr TEXT`
        "@stderr" => eprintln!("{rest}"),
        "@stray" => {
            stray()?;
            writeln!(out, "left one behind")?;
        }
        "@pid" => writeln!(out, "{}", std::process::id())?,
        "@cwd" => writeln!(out, "{}", std::env::current_dir()?.display())?,
        // What was said since the last reset.
        "@recall" => {
            for line in said {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            }
        }
        _ => {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(false)
}

/// Whether this is one of the first `count` turns that say so with this file, and counts it there. Several may at once.
fn is_one_of(count: u64, file: &str) -> anyhow::Result<bool> {
    if count == 0 {
        return Ok(false);
    }
    let mut counted = OpenOptions::new().create(true).append(true).open(file)?;
    counted.lock()?;
    let first = counted.metadata()?.len() < count;
    if first {
        counted.write_all(b"x")?;
    }
    Ok(first)
}

/// Starts a child and returns when it is in a session of its own, where it stays when its parent goes.
fn stray() -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--leaf").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().context("starting a child")?;
    let mut left = String::new();
    BufReader::new(child.stdout.expect("it is piped")).read_line(&mut left).context("waiting for the child")?;
    anyhow::ensure!(left == "left\n", "the child did not leave");
    Ok(())
}
