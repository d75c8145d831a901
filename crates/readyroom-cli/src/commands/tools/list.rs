//! `readyroom tools`: each known tool, whether it is there, what its permission levels hold, and where its definition
//! comes from.

use std::collections::BTreeMap;
use std::io::Write;

use readyroom::Permissions;
use readyroom::tool::document::Source;
use readyroom::tool::trust::Standing;
use readyroom::tool::{Definition, DriverKind, Registry};
use serde::Serialize;

use super::Screen;
use super::table::{Look, Table, printable};
use crate::exit::ExitStatus;

/// What is known about a tool. The form of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    id: String,
    summary: String,
    driver: Option<DriverKind>,
    status: Status,
    program: Option<String>,
    version: Option<String>,
    tested: Option<String>,
    problem: Option<String>,
    install: Option<String>,
    permissions: BTreeMap<Permissions, Level>,
    capabilities: Vec<String>,
    other_name_of: Option<String>,
    sources: Vec<From>,
}

#[derive(Debug, Serialize)]
struct Level {
    prevents: Vec<String>,
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct From {
    layer: readyroom::tool::document::Layer,
    file: Option<String>,
}

/// Whether a tool can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It is there and tells its version.
    Ready,
    /// Its program is not there.
    Missing,
    /// Its program is there and does not work.
    Broken,
    /// Nothing says how to drive it.
    NoDriver,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Missing => "missing",
            Self::Broken => "broken",
            Self::NoDriver => "no driver",
        }
    }

    fn look(self) -> Look {
        match self {
            Self::Ready => Look::Good,
            _ => Look::Bad,
        }
    }
}

/// Lists the tools.
pub async fn run(registry: &Registry, json: bool, out: &mut dyn Write, screen: Screen) -> anyhow::Result<ExitStatus> {
    let reports = reports(registry).await;
    if json {
        let ignored: Vec<_> = registry
            .ignored()
            .iter()
            .map(|file| {
                serde_json::json!({
                    "path": file.path.display().to_string(),
                    "changed": file.standing == Standing::Changed,
                    "tools": file.tools,
                })
            })
            .collect();
        let all = serde_json::json!({ "v": 1, "tools": reports, "ignored": ignored });
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
    } else {
        write(&reports, registry, out, screen)?;
    }
    out.flush()?;
    Ok(ExitStatus::Success)
}

async fn reports(registry: &Registry) -> Vec<Report> {
    let mut reports = Vec::new();
    // All at once: a tool takes up to 4 s to tell its version.
    let asked: Vec<_> = registry.entries().map(|entry| (entry, tokio::spawn(look(entry.definition.clone())))).collect();
    for (entry, asked) in asked {
        let definition = &entry.definition;
        let mut report = described(definition);
        report.other_name_of = entry.other_name_of.clone();
        report.sources = entry.layers.iter().map(|(source, _)| From::of(source)).collect();
        match asked.await {
            Ok(seen) => {
                report.status = seen.status;
                report.program = seen.program;
                report.version = seen.version;
                report.problem = seen.problem;
            }
            Err(error) => report.problem = Some(error.to_string()),
        }
        reports.push(report);
    }
    for undriven in registry.undriven() {
        let found = undriven.tool.detect.iter().find_map(|command| command.first());
        reports.push(Report {
            id: undriven.tool.id.clone(),
            summary: String::new(),
            driver: None,
            status: Status::NoDriver,
            program: found.cloned(),
            version: None,
            tested: None,
            problem: Some("nothing says how to drive it: add a definition with `driver` and `argv`".into()),
            install: None,
            permissions: BTreeMap::new(),
            capabilities: undriven.tool.capabilities.clone(),
            other_name_of: None,
            sources: vec![From {
                layer: readyroom::tool::document::Layer::Aim,
                file: Some(undriven.file.display().to_string()),
            }],
        });
    }
    reports.sort_by(|a, b| a.id.cmp(&b.id));
    reports
}

fn described(definition: &Definition) -> Report {
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let levels = [Permissions::Read, Permissions::Edit, Permissions::Full].map(|permissions| {
        let level = definition.level(permissions);
        (permissions, Level { prevents: level.prevents, refused: optional(&level.refused) })
    });
    Report {
        id: definition.id.clone(),
        summary: definition.summary.clone(),
        driver: Some(definition.driver),
        status: Status::Missing,
        program: None,
        version: None,
        tested: optional(&definition.find.tested),
        problem: None,
        install: optional(&definition.find.install),
        permissions: levels.into_iter().collect(),
        capabilities: definition.capabilities.clone(),
        other_name_of: None,
        sources: Vec::new(),
    }
}

impl From {
    fn of(source: &Source) -> Self {
        Self { layer: source.layer, file: source.file.as_ref().map(|file| file.display().to_string()) }
    }
}

/// What was seen of a tool on this machine.
struct Seen {
    status: Status,
    program: Option<String>,
    version: Option<String>,
    problem: Option<String>,
}

async fn look(definition: std::sync::Arc<Definition>) -> Seen {
    let found = match readyroom::tool::find(&definition) {
        Ok(found) => found,
        Err(failure) => {
            let status = if failure.evidence.is_empty() { Status::Missing } else { Status::Broken };
            return Seen { status, program: None, version: None, problem: Some(failure.message) };
        }
    };
    let program = Some(found.program.display().to_string());
    match readyroom::tool::version(&definition, &found).await {
        Ok(version) => Seen { status: Status::Ready, program, version, problem: None },
        Err(failure) => Seen { status: Status::Broken, program, version: None, problem: Some(failure.message) },
    }
}

fn write(reports: &[Report], registry: &Registry, out: &mut dyn Write, screen: Screen) -> anyhow::Result<()> {
    let mut table = Table::new(&["TOOL", "DRIVER", "STATUS", "VERSION", "PROGRAM"]);
    for report in reports {
        let driver = report.driver.map_or("-", DriverKind::word);
        table.cells(vec![
            (report.id.clone(), Look::Plain),
            (driver.to_owned(), Look::Plain),
            (report.status.word().to_owned(), report.status.look()),
            (report.version.clone().unwrap_or_else(|| "-".into()), Look::Plain),
            (report.program.clone().unwrap_or_else(|| "-".into()), Look::Plain),
        ]);
    }
    table.write(out, screen)?;

    let amiss: Vec<_> = reports.iter().filter_map(|report| Some((report, note(report)?))).collect();
    if !amiss.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&["TOOL", "NOTE"]);
        for (report, note) in amiss {
            table.row([&report.id, &note]);
        }
        table.write(out, screen)?;
    }

    writeln!(out)?;
    let mut table = Table::new(&["TOOL", "LEVEL", "WHAT IT PREVENTS"]);
    for report in reports {
        let mut id = report.id.as_str();
        for (permissions, level) in &report.permissions {
            let what = match &level.refused {
                Some(why) => format!("refused: {why}"),
                None if level.prevents.is_empty() => "nothing".into(),
                None => level.prevents.join("; "),
            };
            table.row([id, &permissions.to_string(), &what]);
            id = "";
        }
    }
    table.write(out, screen)?;

    writeln!(out)?;
    let mut table = Table::new(&["TOOL", "DEFINITION"]);
    for report in reports {
        let files = report.sources.iter().map(|from| from.file.as_deref().unwrap_or("built in"));
        table.row([&report.id, &files.collect::<Vec<_>>().join(", ")]);
    }
    table.write(out, screen)?;

    if !registry.ignored().is_empty() {
        writeln!(
            out,
            "\nThese files of the project do not count until you have seen them with `readyroom tools trust`:"
        )?;
        for file in registry.ignored() {
            let changed = if file.standing == Standing::Changed { " (changed since you trusted it)" } else { "" };
            writeln!(out, "  {}{changed}", printable(&file.path.display().to_string()))?;
        }
    }
    Ok(())
}

/// What a person should know about a tool beyond the first table.
fn note(report: &Report) -> Option<String> {
    if let Some(problem) = &report.problem {
        return Some(problem.clone());
    }
    if let Some(known) = &report.other_name_of {
        return Some(format!("another name of `{known}`"));
    }
    match (&report.version, &report.tested) {
        (Some(version), Some(tested)) if version != tested => {
            Some(format!("its definition was tested with version {tested}"))
        }
        _ => None,
    }
}
