//! A round as it is played: the command is started, harmed as the plan says, and resumed until its batch is done.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use readyroom_testkit::sandbox::{Process, guardian_of, parent_of};
use readyroom_testkit::{Model, Sandbox, Step, fake, processes_of, zoo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::front::Front;
use super::plan::{Fault, Plan, Point, Tool};

/// No run of a round's batch takes as long.
const PATIENCE: Duration = Duration::from_secs(120);
/// What of the tool dies with its owner is gone by then.
const GONE: Duration = Duration::from_secs(2);
/// How often a batch that is left alone is resumed before it counts as stuck.
const RESUMES: u32 = 8;

/// A batch and where it runs.
pub struct Round {
    plan: Plan,
    /// Its surroundings.
    pub sandbox: Sandbox,
    front: Option<Front>,
    disk: PathBuf,
    /// The faults that came, in order.
    pub done: Vec<Fault>,
    /// How many descriptors an owner had more than at its first outcome, at most.
    pub more_descriptors: usize,
    /// What the last runs said.
    said: Vec<String>,
}

/// The line that a job adds.
pub fn line_of(job: &str) -> String {
    format!("by {job}")
}

/// What is in each file before.
pub const BEFORE: &str = "one\ntwo\n";

impl Round {
    /// Makes its surroundings.
    pub fn new(plan: &Plan, disk: &Path) -> anyhow::Result<Self> {
        let (front, sandbox) = match plan.tool {
            Tool::Zoo(protocol, habit) => {
                let sandbox = Sandbox::bare("zoo");
                let tools = sandbox.home().join(".config/readyroom/tools");
                fs::create_dir_all(&tools)?;
                fs::write(tools.join("zoo.toml"), zoo::toml(protocol, habit))?;
                (None, sandbox)
            }
            Tool::Real(tool) => {
                let files: Vec<String> = plan.jobs.iter().filter_map(|job| job.file.clone()).collect();
                let front = Front::start(move |model| files.iter().for_each(|file| script(tool, model, file)))?;
                let sandbox = Sandbox::with_model_at(tool, &front.url());
                (Some(front), sandbox)
            }
        };
        for file in plan.jobs.iter().filter_map(|job| job.file.as_ref()) {
            sandbox.write(file, BEFORE);
        }
        sandbox.commit();
        let mut jobs = String::new();
        for job in &plan.jobs {
            let prompt = match (&job.file, plan.tool) {
                (None, _) => format!("{} {}", zoo::TRIGGER, job.id),
                (Some(file), Tool::Zoo(..)) => format!("{} {file} {}", zoo::APPEND, line_of(file)),
                (Some(file), Tool::Real(_)) => format!("Work on {}", word(file)),
            };
            writeln!(
                jobs,
                "{}",
                json!({ "id": job.id, "prompt": prompt, "files": real_files(plan, job.file.as_ref()) })
            )?;
        }
        fs::write(sandbox.home().join("jobs.jsonl"), jobs)?;
        fs::create_dir_all(sandbox.home().join("tmp"))?;
        let disk = disk.to_owned();
        Ok(Self { plan: plan.clone(), sandbox, front, disk, done: Vec::new(), more_descriptors: 0, said: Vec::new() })
    }

    /// Plays it until its batch is done.
    pub fn play(&mut self) -> anyhow::Result<()> {
        let mut running = Some(self.start()?);
        for (point, fault) in self.plan.faults.clone() {
            let mut owner = match running.take() {
                Some(owner) => owner,
                None => self.start()?,
            };
            if !owner.reaches(point, self)? {
                self.ended(owner)?;
                if self.is_done()? {
                    break;
                }
                continue;
            }
            if self.harm(&mut owner, fault)? {
                self.done.push(fault);
            }
            match owner.is_over()? {
                // What left its session lives on until the next run, which knows it by its mark.
                true if fault == Fault::KillBoth => self.said.push(owner.finish()?.1),
                true => self.ended(owner)?,
                false => running = Some(owner),
            }
        }
        let mut resumes = 0;
        loop {
            match running.take() {
                Some(mut owner) => {
                    owner.reaches(Point::Outcomes(usize::MAX), self)?;
                    self.ended(owner)?;
                }
                None if self.is_done()? => break,
                None => {
                    resumes += 1;
                    ensure!(resumes <= RESUMES, "the batch is not done after {RESUMES} resumes that nothing disturbed");
                    running = Some(self.start()?);
                }
            }
        }
        // A run on a batch that is done changes nothing.
        let again = self.readyroom(&["resume"]).output()?;
        ensure!(again.status.code().is_some_and(|code| code < 2), "a resume of what is done: {again:?}");
        Ok(())
    }

    /// What the last runs said, for a person.
    pub fn said(&self) -> String {
        let last: Vec<&str> = self.said.iter().rev().take(4).rev().flat_map(|said| said.lines()).collect();
        last.iter().rev().take(60).rev().map(|line| format!("    {line}\n")).collect()
    }

    /// The command with these words, in the round's surroundings.
    pub fn readyroom(&self, words: &[&str]) -> Command {
        let mut command = Command::new(fake::program("readyroom"));
        self.sandbox.apply(&mut command).args(words).stdin(Stdio::null());
        command.env("TMPDIR", self.sandbox.home().join("tmp"));
        if let Tool::Real(tool) = self.plan.tool {
            let program = readyroom_testkit::tools::program(tool);
            let own = program.parent().map(Path::to_owned).unwrap_or_default();
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = std::iter::once(own).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all).unwrap_or_default());
        }
        command
    }

    /// The jobs as the journal has them; none where nothing was written down yet.
    pub fn jobs(&self) -> anyhow::Result<Vec<Value>> {
        let list = self.readyroom(&["batch", "list", "--json"]).output()?;
        ensure!(list.status.success(), "batch list: {}", String::from_utf8_lossy(&list.stderr));
        let batches = String::from_utf8(list.stdout)?;
        match batches.lines().count() {
            0 => return Ok(Vec::new()),
            1 => {}
            more => bail!("{more} batches where one was begun:\n{batches}"),
        }
        let show = self.readyroom(&["batch", "show", "--json"]).output()?;
        ensure!(show.status.success(), "batch show: {}", String::from_utf8_lossy(&show.stderr));
        String::from_utf8(show.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn is_done(&self) -> anyhow::Result<bool> {
        let jobs = self.jobs()?;
        let over = |job: &Value| matches!(job["state"].as_str(), Some("succeeded" | "failed"));
        let pending = |job: &Value| job["outcome"]["change"]["state"] == "pending";
        Ok(!jobs.is_empty() && jobs.iter().all(|job| over(job) && !pending(job)))
    }

    /// Starts the batch, or goes on with it where it was written down.
    fn start(&mut self) -> anyhow::Result<Owner> {
        let mut command = if self.jobs()?.is_empty() {
            let (file, instances) = (self.sandbox.home().join("jobs.jsonl"), self.plan.instances.to_string());
            let mut command = self.readyroom(&["run", "-t", self.sandbox.tool(), "-j", &instances, "--from"]);
            command.arg(file).args(["--timeout", if self.is_real() { "60s" } else { "6s" }, "--stall", "3s"]);
            command.args(["--retries", "2", "--retry-edits", "-v"]);
            command
        } else {
            self.readyroom(&["resume", "-v"])
        };
        Owner::start(&mut command)
    }

    fn is_real(&self) -> bool {
        matches!(self.plan.tool, Tool::Real(_))
    }

    /// Takes the end of a run: nothing of it may be left.
    fn ended(&mut self, owner: Owner) -> anyhow::Result<()> {
        let (status, said) = owner.finish()?;
        self.said.push(format!("{said}({status})\n"));
        let deadline = Instant::now() + GONE;
        loop {
            let left = processes_of(&self.sandbox);
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "still running {GONE:?} after the end ({status}): {left:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Does what is to be done; false where there is nothing that it could be done to.
    fn harm(&mut self, owner: &mut Owner, fault: Fault) -> anyhow::Result<bool> {
        let pause = |pid: u32, time: Duration| {
            if send(pid, Signal::STOP) {
                thread::sleep(time);
                send(pid, Signal::CONT);
            }
        };
        let own = owner.pid();
        match fault {
            Fault::KillOwner => return owner.kill(),
            Fault::KillBoth => {
                let guardian = guardian_of(&self.sandbox, own);
                // Stopped first, so that neither sees the other's end.
                send(own, Signal::STOP);
                let _ = guardian.is_some_and(|guardian| send(guardian.pid, Signal::KILL));
                return owner.kill();
            }
            Fault::KillGuardian => {
                return Ok(guardian_of(&self.sandbox, own).is_some_and(|found| send(found.pid, Signal::KILL)));
            }
            Fault::StopOwner(time) => pause(own, time),
            Fault::StopGuardian(time) => match guardian_of(&self.sandbox, own) {
                Some(guardian) => pause(guardian.pid, time),
                None => return Ok(false),
            },
            Fault::KillTool(at) | Fault::TermTool(at) | Fault::StopTool(at, _) => {
                let tools = self.tools(own);
                let Some(tool) = tools.get(at % tools.len().max(1)) else { return Ok(false) };
                match fault {
                    Fault::StopTool(_, time) => pause(tool.pid, time),
                    Fault::TermTool(_) => return Ok(send(tool.pid, Signal::TERM)),
                    _ => return Ok(send(tool.pid, Signal::KILL)),
                }
            }
            Fault::FillDisk(time) => {
                let file = self.disk.join("filler");
                fill(&file)?;
                thread::sleep(time);
                fs::remove_file(&file)?;
            }
            Fault::KillModel(_) | Fault::StallModel(_) | Fault::SlowModel(_) => {
                let Some(front) = &self.front else { return Ok(false) };
                match fault {
                    Fault::KillModel(time) => {
                        front.kill();
                        thread::sleep(time);
                        front.revive();
                    }
                    Fault::StallModel(time) => {
                        front.stall(true);
                        thread::sleep(time);
                        front.stall(false);
                    }
                    Fault::SlowModel(time) => {
                        front.slow(Duration::from_millis(100));
                        thread::sleep(time);
                        front.slow(Duration::ZERO);
                    }
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    /// The processes of the tool: all that descend from the guardian.
    fn tools(&self, owner: u32) -> Vec<Process> {
        let Some(guardian) = guardian_of(&self.sandbox, owner) else { return Vec::new() };
        let below =
            |pid: u32| std::iter::successors(Some(pid), |pid| parent_of(*pid)).skip(1).any(|up| up == guardian.pid);
        processes_of(&self.sandbox).into_iter().filter(|found| below(found.pid)).collect()
    }
}

/// The word by which the model knows a file's job.
fn word(file: &str) -> String {
    format!("chaos-{}-", file.replace(['/', '.'], "-"))
}

fn real_files(plan: &Plan, file: Option<&String>) -> Vec<String> {
    // Only aider has to be told which file it may edit.
    if plan.tool == Tool::Real("aider") { file.into_iter().cloned().collect() } else { Vec::new() }
}

/// What a model says to a tool so that it adds the job's line.
fn script(tool: &str, model: &Model, file: &str) {
    let line = line_of(file);
    let step = if tool == "aider" {
        let after = format!("{BEFORE}{line}\n");
        Step::say(format!("{file}\n```\n<<<<<<< SEARCH\n{BEFORE}=======\n{after}>>>>>>> REPLACE\n```\n")).after(300)
    } else {
        let patch = format!("*** Begin Patch\n*** Update File: {file}\n@@\n two\n+{line}\n*** End Patch\n");
        let call = json!({ "cmd": format!("apply_patch <<'EOF'\n{patch}EOF\n") });
        Step::ByAnswers(vec![Step::call("exec_command", call), Step::say("Done.")])
    };
    model.on(&word(file), step);
}

fn send(pid: u32, signal: Signal) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Takes all room that is left.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut file = File::create(file)?;
    for piece in [1 << 20, 1 << 12, 1] {
        let zeros = vec![0; piece];
        while file.write_all(&zeros).is_ok() {}
    }
    Ok(())
}

/// A run of the command.
struct Owner {
    child: Child,
    lines: Receiver<String>,
    said: String,
    /// Descriptors at the first outcome.
    descriptors: Option<usize>,
    over: bool,
}

impl Owner {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("readyroom can't be run")?;
        let err = child.stderr.take().context("stderr is piped")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, lines, said: String::new(), descriptors: None, over: false })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the point; false where the run ends before.
    fn reaches(&mut self, point: Point, round: &mut Round) -> anyhow::Result<bool> {
        let began = Instant::now();
        let (mut outcomes, until) = match point {
            Point::Outcomes(count) => (count, began + PATIENCE),
            Point::Time(time) => (usize::MAX, began + time),
        };
        while outcomes > 0 {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if ["ok ", "failed ", "timed out "].iter().any(|word| line.starts_with(word)) {
                        outcomes -= 1;
                        self.count(round);
                    }
                    self.said.push_str(&line);
                    self.said.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.over = true;
                    return Ok(false);
                }
                Err(RecvTimeoutError::Timeout) if matches!(point, Point::Time(_)) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill()?;
                    bail!("the run said nothing more for {PATIENCE:?}:\n{}", self.said);
                }
            }
        }
        Ok(true)
    }

    fn count(&mut self, round: &mut Round) {
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", self.pid())) else { return };
        let open = open.count();
        let first = *self.descriptors.get_or_insert(open);
        round.more_descriptors = round.more_descriptors.max(open.saturating_sub(first));
    }

    fn kill(&mut self) -> anyhow::Result<bool> {
        let was = self.child.try_wait()?.is_none();
        self.child.kill()?;
        self.over = true;
        Ok(was)
    }

    fn is_over(&mut self) -> anyhow::Result<bool> {
        Ok(self.over || self.child.try_wait()?.is_some())
    }

    fn finish(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill()?;
                    bail!("the run did not end in {PATIENCE:?}:\n{}", self.said);
                }
            }
        }
        Ok((self.child.wait()?, self.said))
    }
}
