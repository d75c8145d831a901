//! What the benchmarks found: told to a person as it is found, and written as a page with a plot for each table.

#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use readyroom_testkit::plot;

use crate::stats::{median, short};

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Time,
    /// Bytes.
    Bytes,
    /// Something a second.
    Rate,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Time => short(Duration::from_secs_f64(value.max(0.0))),
            Self::Bytes if value < 1024.0 * 1024.0 => format!("{:.0} KiB", value / 1024.0),
            Self::Bytes => format!("{:.1} MiB", value / 1024.0 / 1024.0),
            Self::Rate => format!("{value:.0}/s"),
        }
    }
}

/// A line of a table.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    unit: Unit,
    middle: f64,
    range: Option<(f64, f64)>,
    ratio: Option<f64>,
    goal: Option<(String, bool)>,
}

impl Row {
    /// The median of times, and their range.
    pub fn times(name: impl Into<String>, times: &[Duration]) -> Self {
        let ends = times.iter().min().zip(times.iter().max());
        let range = ends.filter(|_| times.len() > 1).map(|(least, most)| (least.as_secs_f64(), most.as_secs_f64()));
        Self { range, ..Self::value(name, Unit::Time, median(times).as_secs_f64()) }
    }

    /// One value.
    pub fn value(name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { name: name.into(), unit, middle: value, range: None, ratio: None, goal: None }
    }

    /// How many times the thing that it is compared with it is worth, or costs; the table says which.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    /// What it should be, and whether it is.
    #[must_use]
    pub fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.goal = Some((goal.into(), met));
        self
    }

    fn shown(&self) -> String {
        let middle = self.unit.show(self.middle);
        match self.range {
            Some((least, most)) => format!("{middle} ({} to {})", self.unit.show(least), self.unit.show(most)),
            None => middle,
        }
    }

    fn shown_ratio(&self) -> String {
        self.ratio
            .map(|ratio| if ratio < 10.0 { format!("{ratio:.2}x") } else { format!("{ratio:.1}x") })
            .unwrap_or_default()
    }

    fn shown_goal(&self) -> String {
        self.goal
            .as_ref()
            .map(|(goal, met)| format!("{goal}{}", if *met { "" } else { ": missed" }))
            .unwrap_or_default()
    }
}

/// What belongs together: a table, a plot and what is to be said of them.
#[derive(Debug)]
struct Table {
    /// The part by which it is measured again.
    part: String,
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Page {
    part: String,
    tables: Vec<Table>,
}

impl Page {
    /// From here on it is `part` that finds something.
    pub fn part(&mut self, part: &str) {
        self.part = part.to_owned();
    }

    /// Begins a table.
    pub fn table(&mut self, title: impl Into<String>) {
        let title = title.into();
        println!("\n{title}");
        self.tables.push(Table { part: self.part.clone(), title, rows: Vec::new(), notes: Vec::new() });
    }

    /// Adds a line to it.
    pub fn row(&mut self, row: Row) {
        let goal = row.goal.as_ref().map(|_| format!("  (goal: {})", row.shown_goal())).unwrap_or_default();
        println!("  {:<44} {:<34} {}{goal}", row.name, row.shown(), row.shown_ratio());
        if let Some(table) = self.tables.last_mut() {
            table.rows.push(row);
        }
    }

    /// Says something of it.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("  {note}");
        if let Some(table) = self.tables.last_mut() {
            table.notes.push(note);
        }
    }

    /// Whether each goal was met.
    pub fn is_met(&self) -> bool {
        let goals = || self.tables.iter().flat_map(|table| &table.rows).filter_map(|row| row.goal.as_ref());
        goals().all(|(_, met)| *met)
    }

    /// Writes the page and its plots into a directory. `about` stands at its head, and what was made faster, which no single run
    /// shows, at its end.
    pub fn write(&self, directory: &Path, about: &str) -> anyhow::Result<()> {
        let plots = directory.join("plots");
        if plots.exists() {
            fs::remove_dir_all(&plots)?;
        }
        fs::create_dir_all(&plots)?;
        let mut text = about.to_owned();
        let mut part = "";
        for (number, table) in self.tables.iter().enumerate() {
            if table.part != part {
                part = &table.part;
                let _ = write!(text, "\n## `cargo xtask bench {part}`\n");
            }
            let _ = write!(text, "\n### {}\n\n", table.title);
            let name = format!("{part}-{number}.svg");
            let bars: Vec<(String, f64, String)> =
                table.rows.iter().map(|row| (row.name.clone(), row.middle, row.shown())).collect();
            // A plot compares, and only what has one unit.
            if bars.len() > 1 && table.rows.iter().all(|row| row.unit == table.rows[0].unit) {
                fs::write(plots.join(&name), plot::bars(&table.title, &bars)).context("a plot")?;
                let _ = write!(text, "![{}](plots/{name})\n\n", table.title);
            }
            text.push_str("| | median (range) | ratio | goal |\n|---|---|---|---|\n");
            for row in &table.rows {
                let _ =
                    writeln!(text, "| {} | {} | {} | {} |", row.name, row.shown(), row.shown_ratio(), row.shown_goal());
            }
            for note in &table.notes {
                let _ = write!(text, "\n{note}\n");
            }
        }
        text.push('\n');
        text.push_str(&fs::read_to_string(directory.join("FASTER.md")).context("FASTER.md")?);
        fs::write(directory.join("RESULTS.md"), text).context("RESULTS.md")
    }
}
