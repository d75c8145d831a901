//! Makes the plan: jobs from inputs or JSON lines, their files, directories and output names, and the pools.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use readyroom::{Checks, Job, Permissions};

use super::placeholder::Template;
use super::{Plan, Planned, PoolKind, from, inputs};
use crate::args::values::Limit;
use crate::args::{RunArgs, WorkspaceArg};
use crate::workspace::{Chooser, localise};

/// Makes the plan of what was typed.
///
/// # Errors
/// Whatever is wrong with the prompt, the inputs, the JSON lines or the names made from them.
pub fn plan(args: &RunArgs, stdin: &mut dyn BufRead) -> anyhow::Result<Plan> {
    check_stdin(args)?;
    let mut planner = Planner::new(args, stdin)?;
    match &args.from {
        Some(path) => planner.take_lines(path, stdin)?,
        None => planner.take_inputs(stdin)?,
    }
    planner.finish()
}

/// Stdin can be only one thing.
fn check_stdin(args: &RunArgs) -> anyhow::Result<()> {
    let dash = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    let mut users = Vec::new();
    if dash(&args.prompt_file) {
        users.push("--prompt-file -");
    }
    if dash(&args.from) {
        users.push("--from -");
    }
    let words = args.inputs.iter().chain(if args.prompt_file.is_some() { args.prompt.as_ref() } else { None });
    users.extend(words.filter(|word| *word == "-").map(|_| "the input `-`"));
    if users.len() > 1 {
        bail!("stdin can be read once only, and {} want it; put one of them into a file", users.join(" and "));
    }
    if args.null && !users.contains(&"the input `-`") {
        bail!("-0 says how inputs on stdin are separated, but no input is `-`; add `-` or leave -0 out");
    }
    Ok(())
}

struct Planner<'a> {
    args: &'a RunArgs,
    directory: PathBuf,
    prompt: Option<Template>,
    words: Vec<std::ffi::OsString>,
    output: Option<Template>,
    limit: Limit,
    checks: Checks,
    chooser: Chooser,
    jobs: Vec<Planned>,
    kinds: Vec<PoolKind>,
    places: HashMap<PoolKind, usize>,
}

impl<'a> Planner<'a> {
    fn new(args: &'a RunArgs, stdin: &mut dyn BufRead) -> anyhow::Result<Self> {
        let mut words = args.inputs.clone();
        let token = args.replace.as_deref().unwrap_or("{}");
        let prompt = match (&args.prompt_file, &args.prompt) {
            (Some(file), first) => {
                words.splice(0..0, first.iter().cloned());
                Some(read_prompt(file, stdin)?)
            }
            (None, Some(prompt)) => {
                let prompt = inputs::text(prompt, "prompt")?;
                if prompt.trim().is_empty() {
                    bail!("PROMPT is empty; write what to do, or use --prompt-file");
                }
                Some(prompt)
            }
            (None, None) => None,
        };
        let output = match &args.output {
            Some(template) => Some(Template::parse(&inputs::text(template, "output name")?, token)?),
            None => None,
        };
        Ok(Self {
            directory: directory(args.directory.as_deref().unwrap_or(Path::new(".")))?,
            prompt: prompt.map(|prompt| Template::parse(&prompt, token)).transpose()?,
            words,
            output,
            limit: args.timeout,
            checks: args.checks.checks()?,
            chooser: Chooser::new(args),
            jobs: Vec::new(),
            kinds: Vec::new(),
            places: HashMap::new(),
            args,
        })
    }

    /// A job for each input, or one where no input was named.
    fn take_inputs(&mut self, stdin: &mut dyn BufRead) -> anyhow::Result<()> {
        let Some(prompt) = self.prompt.clone() else {
            bail!("no PROMPT; write what to do, or use --prompt-file or --from");
        };
        if self.words.is_empty() {
            if let Some(token) = prompt.uses_input() {
                bail!(
                    "PROMPT uses {token}, but there is no INPUT; name inputs, or `-` to read them from stdin, \
                     or give {token} another meaning with -I"
                );
            }
            let job = Job::new(prompt.fill("", 1));
            let kind = self.kind(None, None, None, self.directory.clone())?;
            return self.add(kind, None, None, job);
        }
        for mut input in inputs::collect(&self.words, self.args.null, stdin)? {
            let number = self.jobs.len() + 1;
            let what = inputs::kind(&input, &self.directory)?;
            let kind = self.kind(None, None, None, self.directory.clone())?;
            if what != inputs::Kind::Word {
                input = self.localise(&kind, input)?;
            }
            let mut job = Job::new(prompt.fill(&input, number));
            match what {
                inputs::Kind::File if !self.args.no_files => job.files.push(PathBuf::from(&input)),
                what => self.check_word(&prompt, &input, what)?,
            }
            self.add(kind, None, Some(input), job)?;
        }
        Ok(())
    }

    /// An input that is not given as a file must stand in the prompt.
    fn check_word(&self, prompt: &Template, input: &str, kind: inputs::Kind) -> anyhow::Result<()> {
        if prompt.uses_input().is_some() {
            return Ok(());
        }
        let token = self.args.replace.as_deref().unwrap_or("{}");
        let here = self.directory.display();
        match kind {
            inputs::Kind::File => bail!(
                "the input {input:?} means nothing: --no-files keeps it from the tool and PROMPT has no {token}; \
                 add {token} to PROMPT"
            ),
            inputs::Kind::Directory => bail!(
                "the input {input:?} is a directory and PROMPT has no {token}; name its files, or add {token} to PROMPT"
            ),
            inputs::Kind::Word if self.args.directory.is_some() && Path::new(input).is_file() => bail!(
                "the input {input:?} is no file in {here} (it is one in the current directory), and PROMPT has no \
                 {token}; name it as seen from --directory"
            ),
            inputs::Kind::Word => bail!(
                "the input {input:?} is no file in {here} and PROMPT has no {token}; correct its name, or add {token} \
                 to PROMPT"
            ),
        }
    }

    /// A job for each JSON line.
    fn take_lines(&mut self, path: &Path, stdin: &mut dyn BufRead) -> anyhow::Result<()> {
        if !self.words.is_empty() {
            bail!("--from brings the jobs, so there can be no INPUT ({:?}); quote PROMPT as one word", self.words[0]);
        }
        let (name, lines) = if path == Path::new("-") {
            ("stdin".to_owned(), from::read(stdin, "stdin")?)
        } else {
            let name = path.display().to_string();
            let file = std::fs::File::open(path).with_context(|| format!("--from {name} can't be opened"))?;
            let lines = from::read(&mut std::io::BufReader::new(file), &name)?;
            (name, lines)
        };
        for (number, line) in lines {
            self.add_line(line).with_context(|| format!("{name}:{number}"))?;
        }
        Ok(())
    }

    /// A path as it is called where jobs of this kind work.
    fn localise(&mut self, kind: &PoolKind, path: String) -> anyhow::Result<String> {
        match self.chooser.choose(&kind.directory, kind.permissions)? {
            Some(repository) => localise(&repository, &kind.directory, &path),
            None => Ok(path),
        }
    }

    fn add_line(&mut self, mut line: from::Line) -> anyhow::Result<()> {
        let directory = match &line.cwd {
            Some(cwd) => directory(&self.directory.join(cwd)).context("cwd")?,
            None => self.directory.clone(),
        };
        for file in &line.files {
            let name = file.to_string_lossy();
            if inputs::kind(&name, &directory)? != inputs::Kind::File {
                bail!("{name:?} in `files` is no file in {}; correct its name", directory.display());
            }
        }
        let kind = self.kind(line.tool, line.model, line.permissions, directory)?;
        for file in &mut line.files {
            *file = self.localise(&kind, file.to_string_lossy().into_owned())?.into();
        }
        let input = match line.files.as_slice() {
            [file] => Some(file.to_string_lossy().into_owned()),
            _ => None,
        };
        let prompts = match (line.prompt, line.prompts, &self.prompt) {
            (Some(prompt), _, _) => vec![prompt],
            (None, Some(prompts), _) => prompts,
            (None, None, Some(template)) => {
                if let (Some(token), None) = (template.uses_input(), &input) {
                    bail!(
                        "PROMPT uses {token}, which is the line's one file, but `files` holds {}; give the line a \
                         `prompt`, or exactly one file",
                        line.files.len()
                    );
                }
                vec![template.fill(input.as_deref().unwrap_or(""), self.jobs.len() + 1)]
            }
            (None, None, None) => {
                bail!("no `prompt`, no `prompts`, and no PROMPT on the command line; add one of them")
            }
        };
        let mut job = Job { prompts, files: line.files, key: line.key, ..Job::default() };
        if self.args.no_files {
            job.files.clear();
        }
        if let Some(Limit::After(limit)) = line.timeout {
            job.timeout = Some(limit);
        }
        let unlimited = line.timeout == Some(Limit::None);
        self.add(kind, line.id, input, job)?;
        if unlimited && let Some(planned) = self.jobs.last_mut() {
            planned.job.timeout = None;
        }
        Ok(())
    }

    /// What a job has in common with those of its pool.
    fn kind(
        &mut self,
        tool: Option<String>,
        model: Option<String>,
        permissions: Option<Permissions>,
        directory: PathBuf,
    ) -> anyhow::Result<PoolKind> {
        let Some(tool) = tool.or_else(|| self.args.tool.clone().filter(|tool| !tool.is_empty())) else {
            bail!("no tool; name one with -t or READYROOM_TOOL (`readyroom tools` lists them)");
        };
        let permissions = permissions.unwrap_or_else(|| self.args.permissions.into());
        let worktree = self.chooser.choose(&directory, permissions)?.is_some();
        Ok(PoolKind { tool, model: model.or_else(|| self.args.model.clone()), permissions, directory, worktree })
    }

    fn add(&mut self, kind: PoolKind, id: Option<String>, input: Option<String>, mut job: Job) -> anyhow::Result<()> {
        if job.timeout.is_none()
            && let Limit::After(limit) = self.limit
        {
            job.timeout = Some(limit);
        }
        job.checks = self.checks.clone();
        if let (Some(verify), Some(input)) = (&mut job.checks.verify, &input) {
            verify.argv.push(input.clone());
        }
        let output = match &self.output {
            Some(template) => Some(output_name(template, input.as_deref(), self.jobs.len() + 1)?),
            None => None,
        };
        let pool = *self.places.entry(kind.clone()).or_insert_with(|| {
            self.kinds.push(kind);
            self.kinds.len() - 1
        });
        self.jobs.push(Planned { number: self.jobs.len() + 1, id, input, pool, output, job });
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Plan> {
        let plan = Plan::assemble(self.jobs, &self.kinds, self.args.instances);
        check_outputs(&plan)?;
        check_workspaces(self.args, &plan)?;
        Ok(plan)
    }
}

/// What only worktrees can give is refused where there are none, and so is a check that could see another job's edits.
fn check_workspaces(args: &RunArgs, plan: &Plan) -> anyhow::Result<()> {
    if args.checks.only_files && args.no_files {
        bail!("--only-files holds jobs to their files, and --no-files gives them none; leave one of them out");
    }
    let Some(shared) = plan.pools.iter().find(|pool| !pool.kind.worktree) else { return Ok(()) };
    let wishes = &args.workspace;
    let needed = [
        ("--require-change", args.checks.require_change),
        ("--only-files", args.checks.only_files),
        ("--in-order", wishes.in_order),
        ("--commit", wishes.commit.is_some()),
        ("--link", !wishes.link.is_empty()),
        ("--symlink", !wishes.symlink.is_empty()),
        ("--setup", wishes.setup.is_some()),
    ];
    if let Some((option, _)) = needed.iter().find(|(_, given)| *given) {
        let here = shared.kind.directory.display();
        match wishes.workspace {
            Some(WorkspaceArg::Shared) => bail!("{option} needs worktrees, so it can't go with --workspace shared"),
            _ => bail!(
                "{option} needs worktrees, and jobs in {here} get none: they need a git repository, and permissions to edit \
                 (or --workspace worktree)"
            ),
        }
    }
    let together = |pool: &&super::Pool| {
        !pool.kind.worktree && pool.kind.permissions >= Permissions::Edit && pool.instances.min(args.instances) > 1
    };
    if args.checks.verify.is_some()
        && let Some(pool) = plan.pools.iter().find(together)
    {
        bail!(
            "--verify in {} would judge a job by what {} instances edit there at once; use --workspace worktree, or -j 1",
            pool.kind.directory.display(),
            pool.instances
        );
    }
    Ok(())
}

fn read_prompt(file: &Path, stdin: &mut dyn BufRead) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        stdin.read_to_end(&mut bytes).context("stdin can't be read")?;
    } else {
        bytes = std::fs::read(file).with_context(|| format!("--prompt-file {} can't be read", file.display()))?;
    }
    let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let prompt = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("the prompt in {name} is not UTF-8 at byte {}; write it as UTF-8", at + 1)
    })?;
    if prompt.trim().is_empty() {
        bail!("the prompt in {name} is empty; write what to do");
    }
    Ok(prompt)
}

/// The directory, absolute.
fn directory(path: &Path) -> anyhow::Result<PathBuf> {
    let absolute = path
        .canonicalize()
        .with_context(|| format!("the directory {} can't be used; create it or name another", path.display()))?;
    if !absolute.is_dir() {
        bail!("{} is not a directory; name one", path.display());
    }
    Ok(absolute)
}

fn output_name(template: &Template, input: Option<&str>, number: usize) -> anyhow::Result<PathBuf> {
    if let (Some(token), None) = (template.uses_input(), input) {
        bail!("--output uses {token}, but job {number} has no input; use {{#}}, the job's number");
    }
    let name = template.fill(input.unwrap_or(""), number);
    if name.is_empty() || name.ends_with('/') || name.contains('\0') {
        bail!("--output makes {name:?} for job {number}, which is no file name; correct the template");
    }
    Ok(PathBuf::from(name))
}

/// No two answers may go to the same file, and none to a directory.
fn check_outputs(plan: &Plan) -> anyhow::Result<()> {
    let mut seen: HashMap<PathBuf, usize> = HashMap::new();
    for (place, planned) in plan.jobs.iter().enumerate() {
        let Some(path) = &planned.output else { continue };
        if path.is_dir() {
            bail!(
                "--output makes {} for job {}, which is a directory; correct the template",
                path.display(),
                place + 1
            );
        }
        let clean: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        if let Some(first) = seen.insert(clean, place) {
            bail!(
                "--output makes {} for job {} ({}) and for job {} ({}); make names differ, with {{#}} for instance",
                path.display(),
                first + 1,
                plan.label(first),
                place + 1,
                plan.label(place)
            );
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
