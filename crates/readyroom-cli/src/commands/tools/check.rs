//! `readyroom tools check`: one instance of a tool, started, reset and stopped for real, with what was seen in a table.
//! Nothing is asked of a model.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use readyroom::driver::runtime::{Link, Report, Seat};
use readyroom::driver::{Proof, Request, Slot};
use readyroom::tool::{Contract, ContractOptions, Definition, DriverKind, Found, Registry};
use readyroom::{Exit, Failure, FailureKind, Permissions};
use tokio::sync::mpsc::Receiver;

use super::Screen;
use super::table::{Look, Table};
use crate::exit::ExitStatus;

/// How long the end of everything may take beyond the tool's own times.
const MARGIN: Duration = Duration::from_secs(10);

/// What was checked, and what came of it.
#[derive(Debug, Default)]
struct Checks {
    rows: Vec<(&'static str, Verdict, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Holds,
    Fails,
    /// Does not apply to this tool.
    None,
}

impl Checks {
    fn holds(&mut self, what: &'static str, seen: impl Into<String>) {
        self.rows.push((what, Verdict::Holds, seen.into()));
    }

    fn fails(&mut self, what: &'static str, seen: impl Into<String>) {
        self.rows.push((what, Verdict::Fails, seen.into()));
    }

    fn none(&mut self, what: &'static str, why: impl Into<String>) {
        self.rows.push((what, Verdict::None, why.into()));
    }

    fn failed(&mut self, what: &'static str, failure: &Failure) {
        let mut seen = failure.to_string();
        if let Some(last) = failure.evidence.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            seen.push_str(&format!(" (it said: {last})"));
        }
        self.fails(what, seen);
    }

    fn all_hold(&self) -> bool {
        self.rows.iter().all(|(_, verdict, _)| *verdict != Verdict::Fails)
    }
}

/// Checks the tool and writes the table.
pub async fn run(
    registry: &Registry,
    tool: &str,
    directory: &Path,
    out: &mut dyn Write,
    screen: Screen,
) -> anyhow::Result<ExitStatus> {
    let entry = registry.require(tool).map_err(|failure| anyhow::anyhow!(failure.message))?;
    let mut checks = Checks::default();
    let sources: Vec<_> = entry.layers.iter().map(|(source, _)| source.to_string()).collect();
    checks.holds("definition", sources.join(", "));
    match readyroom::tool::find(&entry.definition) {
        Ok(found) => {
            checks.holds("program", found.program.display().to_string());
            let definition = found.apply(&entry.definition);
            version(&definition, &found, &mut checks).await;
            instance(&definition, &found, directory, &mut checks).await;
        }
        Err(failure) => checks.fails("program", failure.message),
    }
    let mut table = Table::new(&["CHECK", "RESULT", "SEEN"]);
    for (what, verdict, seen) in &checks.rows {
        let result = match verdict {
            Verdict::Holds => ("holds".to_owned(), Look::Good),
            Verdict::Fails => ("fails".to_owned(), Look::Bad),
            Verdict::None => ("-".to_owned(), Look::Plain),
        };
        table.cells(vec![((*what).to_owned(), Look::Plain), result, (seen.clone(), Look::Plain)]);
    }
    table.write(out, screen)?;
    out.flush()?;
    Ok(if checks.all_hold() { ExitStatus::Success } else { ExitStatus::SomeFailed })
}

async fn version(definition: &Definition, found: &Found, checks: &mut Checks) {
    let tested = &definition.find.tested;
    match readyroom::tool::version(definition, found).await {
        Ok(Some(version)) if tested.is_empty() || *tested == version => checks.holds("version", version),
        Ok(Some(version)) => {
            checks.holds("version", format!("{version} (the definition was tested with {tested})"));
        }
        Ok(None) => checks.none("version", "the definition does not say how to ask for it"),
        Err(failure) => checks.failed("version", &failure),
    }
}

/// The level to start with: `read` where the tool holds it, since nothing is to be changed.
fn lowest_level(definition: &Definition) -> Permissions {
    let held = |level: &Permissions| definition.level(*level).refused.is_empty();
    [Permissions::Read, Permissions::Edit].into_iter().find(held).unwrap_or(Permissions::Full)
}

async fn instance(definition: &Arc<Definition>, found: &Found, directory: &Path, checks: &mut Checks) {
    if definition.driver == DriverKind::Oneshot {
        let why = "it is started for each turn, with the prompt";
        for what in ["ready", "fresh context", "reset", "clean stop"] {
            checks.none(what, why);
        }
        return;
    }
    let options = ContractOptions {
        cwd: directory.to_owned(),
        permissions: lowest_level(definition),
        ..ContractOptions::default()
    };
    let began = Instant::now();
    let link = async {
        let contract = Arc::new(Contract::resolve(Arc::clone(definition), &found.program, &options)?);
        let link = Link::launch(Arc::clone(&contract), None).await?;
        Ok::<_, Failure>((contract, link))
    };
    let (contract, link) = match link.await {
        Ok(launched) => launched,
        Err(failure) => return checks.failed("ready", &failure),
    };
    let Seat { slot, mut reports, .. } = link.seat();
    let mut talk = Talk { link: &link, reports: &mut reports, slot, gone: false };
    let limits = &definition.limits;
    let ready = match talk.ready(Duration::from_secs(limits.ready_seconds)).await {
        Ok(version) => {
            let version = version.map(|version| format!(", it calls itself {version}")).unwrap_or_default();
            checks.holds("ready", format!("after {}{version}, as process {}", took(began), link.pid()));
            true
        }
        Err(failure) => {
            checks.failed("ready", &failure);
            false
        }
    };
    if ready {
        let limit = Duration::from_secs(limits.reset_seconds);
        let open = Request::Open { slot, cwd: contract.cwd.clone() };
        let resets = definition.repl.as_ref().is_none_or(|repl| !repl.reset.is_empty());
        contexts(&mut talk, open, limit, resets, checks).await;
    }
    if talk.gone {
        checks.none("clean stop", "it had ended by itself");
        return nothing_left(&link, checks);
    }
    stop(&link, slot, &mut reports, limits.stop_seconds, ready, checks).await;
}

/// A first conversation that is proven fresh, and one reset.
async fn contexts(talk: &mut Talk<'_>, open: Request, limit: Duration, resets: bool, checks: &mut Checks) {
    // The first session in a directory may take some tools longer than a reset does.
    let began = Instant::now();
    match talk.fresh(open, limit + MARGIN).await {
        Ok(proof) => checks.holds("fresh context", format!("{} after {}", told(&proof), took(began))),
        Err(failure) => return checks.failed("fresh context", &failure),
    }
    let began = Instant::now();
    match talk.fresh(Request::Reset { slot: talk.slot }, limit).await {
        Ok(proof) => checks.holds("reset", format!("{} after {}", told(&proof), took(began))),
        // A tool that has no reset says so at once; the pool starts a new process then.
        Err(_) if !resets => {
            checks.none("reset", "it has none: a fresh context is a new process");
        }
        Err(failure) => checks.failed("reset", &failure),
    }
}

async fn stop(link: &Link, slot: Slot, reports: &mut Receiver<Report>, seconds: u64, ready: bool, checks: &mut Checks) {
    let began = Instant::now();
    link.leave(slot);
    let gone = tokio::time::timeout(Duration::from_secs(2 * seconds) + MARGIN, async {
        while let Some(report) = reports.recv().await {
            if let Report::Gone(failure) = report {
                return Some(failure);
            }
        }
        None
    });
    let exit = match gone.await {
        Ok(Some(failure)) => match failure.kind {
            FailureKind::Crashed { exit } => exit.unwrap_or(Exit::Unknown),
            _ => Exit::Unknown,
        },
        Ok(None) | Err(_) => {
            link.kill();
            return checks.fails("clean stop", format!("it did not end within {}", took(began)));
        }
    };
    let seen = format!("{exit} after {}", took(began));
    match exit {
        Exit::Status(_) if ready => checks.holds("clean stop", seen),
        _ if ready => checks.fails("clean stop", format!("it had to be ended: {seen}")),
        // It was never ready, and may have ended long before it was asked to.
        _ => checks.none("clean stop", seen),
    }
    nothing_left(link, checks);
}

fn nothing_left(link: &Link, checks: &mut Checks) {
    match link.usage().processes {
        0 => checks.holds("nothing left", "no process of it runs"),
        left => checks.fails("nothing left", format!("{left} of its processes still run")),
    }
}

/// The conversation with one instance.
struct Talk<'a> {
    link: &'a Link,
    reports: &'a mut Receiver<Report>,
    slot: Slot,
    /// Whether its process has ended.
    gone: bool,
}

impl Talk<'_> {
    async fn ready(&mut self, limit: Duration) -> Result<Option<String>, Failure> {
        self.wait(limit, FailureKind::NotReady, |report| match report {
            Report::Ready { version, .. } => Some(Ok(version)),
            _ => None,
        })
        .await
    }

    async fn fresh(&mut self, request: Request, limit: Duration) -> Result<Proof, Failure> {
        self.link.request(request);
        self.wait(limit, FailureKind::Stalled, |report| match report {
            Report::Fresh(proof) => Some(Ok(proof)),
            Report::NotFresh(failure) => Some(Err(failure)),
            _ => None,
        })
        .await
    }

    async fn wait<T>(
        &mut self,
        limit: Duration,
        late: FailureKind,
        pick: impl Fn(Report) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let (reports, gone) = (&mut *self.reports, &mut self.gone);
        let answer = async {
            loop {
                match reports.recv().await {
                    Some(Report::Gone(failure)) => {
                        *gone = true;
                        return Err(failure);
                    }
                    None => {
                        return Err(Failure::new(FailureKind::Crashed { exit: None }, "the tool's process is gone"));
                    }
                    Some(report) => {
                        if let Some(picked) = pick(report) {
                            return picked;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(Failure::new(late, format!("no answer within {} s", limit.as_secs()))))
    }
}

fn told(proof: &Proof) -> String {
    match proof {
        Proof::NewProcess => "a new process".into(),
        Proof::NewSession(id) => format!("a new session, {id}"),
        Proof::Acknowledged(words) => format!("acknowledged: {words}"),
    }
}

fn took(began: Instant) -> String {
    let took = began.elapsed();
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}
