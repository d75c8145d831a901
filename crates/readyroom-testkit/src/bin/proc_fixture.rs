//! A program of bad habits for the tests of the process floor: it forks, hides, stops and ignores signals as it is told.
//! It is the tests' guardian too, and an owner that they can kill.
#![expect(clippy::print_stdout, reason = "what it prints is what the tests read")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use readyroom::process;

fn main() -> anyhow::Result<()> {
    readyroom::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["tool", report, kinds] => tool(report, kinds),
        ["leaf", report, name, habits @ ..] => leaf(report, name, habits),
        ["lose", report] => lose(report),
        ["owner", report, tool_report, kinds] => owner(report, tool_report, kinds),
        ["echo"] => io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).map(drop).map_err(Into::into),
        ["descriptors"] => descriptors(),
        ["no-locks", program, args @ ..] => no_locks(program, args),
        _ => bail!("no such behaviour: {args:?}"),
    }
}

/// Becomes a program that no file is locked for, as on file systems that know no locks.
fn no_locks(program: &str, args: &[&str]) -> anyhow::Result<()> {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
    let lock = |command: i32| {
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command.try_into()?)?;
        anyhow::Ok(SeccompRule::new(vec![is])?)
    };
    let commands = [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
    let fcntl = commands.into_iter().map(lock).collect::<anyhow::Result<Vec<_>>>()?;
    let rules = [(libc::SYS_flock, Vec::new()), (libc::SYS_fcntl, fcntl)];
    let refuse = SeccompAction::Errno(libc::ENOLCK.try_into()?);
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        refuse,
        std::env::consts::ARCH.try_into()?,
    )?;
    let filter: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&filter)?;
    Err(Command::new(program).args(args).exec().into())
}

/// The leader of a tree: starts one process of each kind, says that it is there, and waits for ever. As `deaf-leader` it
/// ignores polite signals itself.
fn tool(report: &str, kinds: &str) -> anyhow::Result<()> {
    if kinds.contains("deaf-leader") {
        return Err(deaf(&["tool", report, &kinds.replace("deaf-leader", "")])?.exec().into());
    }
    for kind in kinds.split(',').filter(|kind| !kind.is_empty()) {
        match kind {
            "child" => start(fixture()?.args(["leaf", report, kind]))?,
            "group" => start(fixture()?.args(["leaf", report, kind]).process_group(0))?,
            "session" => start(fixture()?.args(["leaf", report, kind, "setsid"]))?,
            "deaf" => start(&mut deaf(&["leaf", report, kind])?)?,
            "stopped" => start(fixture()?.args(["leaf", report, kind, "setsid", "stop"]))?,
            "lost" => start(fixture()?.args(["lose", report]))?,
            _ => bail!("no such kind: {kind}"),
        }
    }
    note(report, "leader")?;
    wait()
}

fn leaf(report: &str, name: &str, habits: &[&str]) -> anyhow::Result<()> {
    if habits.contains(&"setsid") {
        rustix::process::setsid()?;
    }
    note(report, name)?;
    if habits.contains(&"stop") {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
    }
    wait()
}

/// Leaves a child behind that has nothing left of where it came from: no parent, no environment, no stream, a session
/// of its own.
fn lose(report: &str) -> anyhow::Result<()> {
    let mut command = deaf(&["leaf", report, "lost", "setsid"])?;
    start(command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Owns a tool through the process floor until somebody kills it.
fn owner(report: &str, tool_report: &str, kinds: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let command = process::Command::new(std::env::current_exe()?).arg("tool").arg(tool_report).arg(kinds);
        let process = process::spawn(&command).await?;
        note(report, "owner")?;
        process.handle.wait().await;
        note(report, &format!("ended:{:?}", process.handle.exit()))?;
        wait()
    })
}

/// Prints the open descriptors, except the one that is needed to list them.
fn descriptors() -> anyhow::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        if !target.starts_with(format!("/proc/{}/fd", std::process::id())) {
            open.push(entry.file_name().to_string_lossy().parse::<u32>()?);
        }
    }
    open.sort_unstable();
    println!("{open:?}");
    Ok(())
}

fn fixture() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// This program with polite signals ignored; a disposition of a shell's `trap ''` outlives exec.
fn deaf(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"trap "" TERM INT HUP QUIT; exec "$@""#, "sh"]).arg(std::env::current_exe()?).args(args);
    Ok(command)
}

fn start(command: &mut Command) -> anyhow::Result<()> {
    command.spawn().map(drop).context("starting a process of the tree")
}

/// Appends `name pid start-time` to the report in one write.
fn note(report: &str, name: &str) -> anyhow::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let started = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).context("no start time")?;
    let line = format!("{name} {} {started}\n", std::process::id());
    let mut file = OpenOptions::new().append(true).create(true).open(Path::new(report))?;
    file.write_all(line.as_bytes()).map_err(Into::into)
}

fn wait() -> ! {
    loop {
        std::thread::park();
    }
}
