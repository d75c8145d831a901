//! The same work three ways, for real and on disk: 24 files edited by 4 warm aiders, by a process a job with 4 at once,
//! and by one process after the other.

#![expect(clippy::print_stdout, reason = "printing is what a demonstration is for")]

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use readyroom_testkit::{Model, Sandbox, Step, fake, tools};

use crate::stats::{ratio, short};

const FILES: usize = 24;
const AT_ONCE: usize = 4;
/// How many files the processes one after the other get, where not all.
const PART: usize = 6;
const PROMPT: &str = "Add type hints to {}";

/// What the person chose.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Ask your own model with your own keys and settings, as aider finds them, instead of the local model.
    #[arg(long)]
    real: bool,
    /// The model's name, with --real; else aider's own default.
    #[arg(long, requires = "real")]
    model: Option<String>,
    /// How long the local model thinks.
    #[arg(long, default_value_t = 1000, value_name = "MS", conflicts_with = "real")]
    latency: u64,
    /// Let the processes one after the other do all the files, not a part.
    #[arg(long)]
    all: bool,
}

/// Who does the work, and where.
pub struct Demo {
    /// Where the files are.
    pub sandbox: Sandbox,
    /// The local model; none where the person's own is asked.
    model: Option<Model>,
    name: Option<String>,
    /// The files, as seen from the sandbox's directory.
    pub files: Vec<String>,
    at_once: usize,
}

/// Shows it.
///
/// # Errors
/// Somebody did not do all of the work.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let latency = (!options.real).then_some(options.latency);
    let demo = Demo::new(FILES, AT_ONCE, latency, options.model.clone());
    println!("A repository of {FILES} files; the work: {PROMPT:?}.");
    match (&demo.model, &demo.name) {
        (Some(_), _) => println!("The model is a local one that thinks for {} ms.", options.latency),
        (None, Some(name)) => println!("The model is your own: {name}."),
        (None, None) => println!("The model is your own, as aider finds it."),
    }

    println!("\n== {AT_ONCE} warm aiders: readyroom run -t aider -j {AT_ONCE} {PROMPT:?} src/*.py");
    let warm = demo.warm()?;
    demo.check(FILES)?;

    println!("\n== a process a job, {AT_ONCE} at once: xargs -P {AT_ONCE} -I{{}} aider --message {PROMPT:?} {{}}");
    let parallel = demo.processes(FILES, AT_ONCE)?;
    demo.check(FILES)?;

    let gnu = if on_path("parallel") {
        println!("\n== the same with GNU parallel: parallel -j {AT_ONCE} aider --message {PROMPT:?} {{}} ::: src/*.py");
        let took = demo.parallel(FILES)?;
        demo.check(FILES)?;
        Some(took)
    } else {
        None
    };

    let part = if options.all { FILES } else { PART };
    println!("\n== a process a job, one after the other, {part} of {FILES} files");
    let measured = demo.processes(part, 1)?;
    demo.check(part)?;
    let serial = measured * (FILES as u32) / (part as u32);
    let scaled = if part == FILES { String::new() } else { format!(" (scaled from {part} files)") };

    println!("\n{:<24}{:>10}    against readyroom", format!("{FILES} files"), "time");
    let row = |who: String, took: Duration, note: &str| {
        println!("{who:<24}{:>10}    {:.1}x{note}", short(took), ratio(took, warm));
    };
    row(format!("readyroom run -j {AT_ONCE}"), warm, "");
    row(format!("xargs -P {AT_ONCE} aider"), parallel, "");
    if let Some(gnu) = gnu {
        row(format!("parallel -j {AT_ONCE} aider"), gnu, "");
    }
    row("aider, one by one".to_owned(), serial, &scaled);
    Ok(())
}

impl Demo {
    /// So many files, and so many workers at once. The local model thinks for `latency` milliseconds; without, the person's own
    /// is asked, by `name`.
    pub fn new(count: usize, at_once: usize, latency: Option<u64>, name: Option<String>) -> Self {
        let model = latency.map(|_| Model::start());
        let sandbox = match &model {
            Some(model) => Sandbox::new("aider", model),
            None => Sandbox::bare("aider"),
        };
        let files: Vec<String> = (1..=count).map(|number| format!("src/part_{number:03}.py")).collect();
        for (number, file) in files.iter().enumerate() {
            sandbox.write(file, before(number));
            if let (Some(model), Some(latency)) = (&model, latency) {
                model.on(file, Step::say(edit(file, number)).after(latency));
            }
        }
        // Where a person has no name in git, each aider gives the repository one, and several at once get into each
        // other's way.
        sandbox.git(&["config", "user.name", "readyroom demo"]);
        sandbox.git(&["config", "user.email", "demo@localhost"]);
        sandbox.commit();
        Self { sandbox, model, name, files, at_once }
    }

    /// Puts a command into the sandbox; with the person's own model only into its directory.
    fn placed<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match &self.model {
            Some(_) => self.sandbox.apply(command),
            None => command.current_dir(self.sandbox.dir()),
        }
    }

    /// Does all of them by `readyroom run`.
    pub fn warm(&self) -> anyhow::Result<Duration> {
        let mut command = Command::new(fake::program("readyroom"));
        command.args(["run", "-t", "aider", "-j", &self.at_once.to_string()]);
        command.args(self.name.iter().flat_map(|name| ["--model", name]));
        command.arg(PROMPT).args(&self.files);
        self.by_name(&mut command)
    }

    /// Runs a command that knows aider by its name: here that is the one that was installed for this.
    pub fn by_name(&self, command: &mut Command) -> anyhow::Result<Duration> {
        self.timed(command.env("PATH", path_with(&tools::program("aider"))?))
    }

    /// Does the first `count` files by a process each, so many at once.
    pub fn processes(&self, count: usize, at_once: usize) -> anyhow::Result<Duration> {
        let mut command = Command::new("xargs");
        command.args(["-P", &at_once.to_string(), "-I{}"]);
        self.by_message(&mut command);
        let list = self.sandbox.home().join("files");
        std::fs::write(&list, self.files[..count].join("\n"))?;
        command.stdin(File::open(&list)?);
        self.timed(&mut command)
    }

    /// The same with GNU parallel.
    pub fn parallel(&self, count: usize) -> anyhow::Result<Duration> {
        let mut command = Command::new("parallel");
        command.args(["--will-cite", "--quote", "-j", &self.at_once.to_string()]);
        self.by_message(&mut command);
        command.arg(":::").args(&self.files[..count]).stdin(Stdio::null());
        self.timed(&mut command)
    }

    /// aider's own command for one prompt and one file, with what unattended use needs.
    fn by_message(&self, command: &mut Command) {
        let (definition, program) = self.sandbox.definition();
        command.arg(program).args(definition.argv.iter().skip(1));
        command.args(self.name.iter().flat_map(|name| ["--model", name]));
        command.args(["--message", PROMPT, "{}"]).envs(&definition.env);
    }

    /// Runs a command to its end; what it says to a person is shown, what it answers goes to a file.
    fn timed(&self, command: &mut Command) -> anyhow::Result<Duration> {
        let answers = File::create(self.sandbox.home().join("answers"))?;
        let command = self.placed(command).stdout(Stdio::from(answers));
        let started = Instant::now();
        let status = command.status().with_context(|| format!("{:?}", command.get_program()))?;
        let took = started.elapsed();
        ensure!(status.success(), "{:?} ended with {status}", command.get_program());
        println!("{}", short(took));
        Ok(took)
    }

    /// Says how large the diff is, and takes it back.
    ///
    /// # Errors
    /// An edit that is known was not made, or none at all.
    pub fn check(&self, count: usize) -> anyhow::Result<()> {
        let changed = self.sandbox.git(&["diff", "--shortstat"]);
        let right = (0..count).filter(|number| self.sandbox.read(&self.files[*number]) == Some(after(*number))).count();
        println!("{}", changed.trim());
        self.sandbox.git(&["checkout", "--quiet", "."]);
        match self.model {
            Some(_) => ensure!(right == count, "{right} of {count} files are right"),
            None => ensure!(!changed.trim().is_empty(), "no file was changed"),
        }
        Ok(())
    }
}

/// Whether a program of this name can be run.
pub fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|path| path.join(program).is_file())
}

/// PATH with the directory of `program` before all others.
pub fn path_with(program: &Path) -> anyhow::Result<std::ffi::OsString> {
    let own = program.parent().context("a program's directory")?.to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&rest)))?)
}

const FUNCTIONS: usize = 4;

/// A file without type hints.
fn before(number: usize) -> String {
    let mut text = String::from("\"\"\"Sums over lists.\"\"\"\n");
    for function in 0..FUNCTIONS {
        let factor = number * FUNCTIONS + function + 2;
        let _ = write!(text, "\n\ndef scale_{factor}(values):\n    return [{factor} * value for value in values]\n");
    }
    text
}

/// The same with them.
fn after(number: usize) -> String {
    before(number).replace("(values):", "(values: list[float]) -> list[float]:")
}

/// What a model says to aider so that one becomes the other.
fn edit(file: &str, number: usize) -> String {
    format!(
        "Each function takes numbers and gives numbers.\n\n{file}\n```python\n<<<<<<< SEARCH\n{}=======\n{}>>>>>>> \
         REPLACE\n```\n",
        before(number),
        after(number)
    )
}
