//! Text in aligned columns, the last one wrapped where the terminal is narrow.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

use super::Screen;

/// Columns are this far apart.
const GAP: usize = 2;
/// A last column narrower than this is not wrapped: it would be unreadable.
const LEAST: usize = 24;

/// How a cell looks where there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Look {
    /// As it is.
    #[default]
    Plain,
    /// A heading.
    Heading,
    /// Something that holds.
    Good,
    /// Something that does not.
    Bad,
}

impl Look {
    fn codes(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("\x1b[1m"),
            Self::Good => Some("\x1b[32m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

/// A cell: its text and its look.
pub type Cell = (String, Look);

/// A table that is written at once.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| ((*heading).to_owned(), Look::Heading)).collect()] }
    }

    /// Adds a row of plain cells.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.cells(cells.iter().map(|cell| ((*cell).to_owned(), Look::Plain)).collect());
    }

    /// Adds a row.
    pub fn cells(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells.into_iter().map(|(text, look)| (printable(&text), look)).collect());
    }

    /// Writes the table.
    ///
    /// # Errors
    /// Output that can't be written.
    pub fn write(&self, out: &mut dyn Write, screen: Screen) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.width()).max())
            .map(|width| width.unwrap_or(0))
            .collect();
        let before: usize = widths.iter().take(columns.saturating_sub(1)).map(|width| width + GAP).sum();
        let last = screen.width.map(|width| width.saturating_sub(before)).filter(|room| *room >= LEAST);
        for row in &self.rows {
            let lines = match (row.last(), last) {
                (Some((text, _)), Some(room)) if row.len() == columns => wrap(text, room),
                (Some((text, _)), _) => vec![text.clone()],
                (None, _) => Vec::new(),
            };
            for (at, line) in lines.iter().enumerate() {
                let mut text = String::new();
                for (column, (cell, look)) in row.iter().enumerate() {
                    let shown = match (column + 1 == row.len(), at) {
                        (true, _) => line,
                        (false, 0) => cell,
                        (false, _) => "",
                    };
                    match look.codes().filter(|_| screen.color && !shown.is_empty()) {
                        Some(codes) => text.push_str(&format!("{codes}{shown}\x1b[0m")),
                        None => text.push_str(shown),
                    }
                    if column + 1 < row.len() {
                        text.extend(std::iter::repeat_n(' ', widths[column] + GAP - shown.width()));
                    }
                }
                writeln!(out, "{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Breaks `text` at spaces into lines of at most `room` columns. A word that is longer stands alone on its line.
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a last line");
        if !line.is_empty() && line.width() + 1 + word.width() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// `text` with what could drive a terminal or hide text made visible: control characters and those that change the
/// direction of writing. Line ends and tabs too.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// As [`printable`], but lines and tabs stay.
pub fn printable_lines(text: &str) -> String {
    text.chars()
        .map(|c| if hidden(c) && c != '\n' && c != '\t' { c.escape_unicode().to_string() } else { c.to_string() })
        .collect()
}

fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, screen: Screen) -> String {
        let mut out = Vec::new();
        table.write(&mut out, screen).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn table() -> Table {
        let mut table = Table::new(&["TOOL", "WHAT"]);
        table.row(["a", "one two three four five six seven"]);
        table.cells(vec![("bé".into(), Look::Good), ("x".into(), Look::Plain)]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        assert_eq!(
            written(&table(), Screen::default()),
            "TOOL  WHAT\na     one two three four five six seven\nbé    x\n"
        );
    }

    #[test]
    fn the_last_column_wraps_under_itself() {
        let narrow = Screen { width: Some(30), color: false };
        assert!(written(&table(), narrow).contains("a     one two three four five\n      six seven\n"));
    }

    #[test]
    fn colour_is_written_only_where_it_is_wanted() {
        let text = written(&table(), Screen { width: None, color: true });
        assert!(text.contains("\x1b[32mbé\x1b[0m    x\n") && text.starts_with("\x1b[1mTOOL\x1b[0m  "));
        assert!(!written(&table(), Screen::default()).contains('\x1b'));
    }

    #[test]
    fn nothing_in_a_file_can_drive_the_terminal_or_hide() {
        assert_eq!(printable_lines("a\x1b[2Kb\n\tc\u{202e}d\r"), "a\\u{1b}[2Kb\n\tc\\u{202e}d\\u{d}");
        assert_eq!(printable("a\nb"), "a\\u{a}b");
    }
}
