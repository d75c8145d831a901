//! Small pieces of text: times, numbers, names on one line, and what fits into a number of columns.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A time for a person: `0.3s`, `12.3s`, `1m02s`, `3h05m`.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=59 => format!("{:.1}s", (duration.as_millis() / 100) as f64 / 10.0),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A number with a comma between each three digits.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `2 jobs`.
pub fn count(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// A few paths in a line, and how many more there are.
pub fn list(paths: &[std::path::PathBuf]) -> String {
    few(&paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>())
}

/// A few names in a line, and how many more there are.
pub fn few<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| one_line(name.as_ref())).collect();
    if names.len() > SHOWN {
        shown.push(format!("{} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

/// A name on one line: control characters stand as escapes.
pub fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escaped: Box<dyn Iterator<Item = char>> =
                if char.is_control() { Box::new(char.escape_default()) } else { Box::new(std::iter::once(char)) };
            escaped
        })
        .collect()
}

/// Columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text cut to `columns`, with `mark` at the cut.
pub fn fit(text: &str, columns: usize, mark: &str) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(mark.width());
    let mut cut = String::new();
    let mut used = 0;
    for char in text.chars() {
        used += char.width().unwrap_or(0);
        if used > room {
            break;
        }
        cut.push(char);
    }
    if columns >= mark.width() {
        cut.push_str(mark);
    }
    cut
}

/// The text cut or padded to exactly `columns`.
pub fn column(text: &str, columns: usize, mark: &str) -> String {
    let mut cell = fit(text, columns, mark);
    let used = cell.width();
    cell.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_short() {
        for (millis, text) in [(0, "0.0s"), (340, "0.3s"), (59_990, "59.9s"), (62_000, "1m02s"), (11_100_000, "3h05m")]
        {
            assert_eq!(time(Duration::from_millis(millis)), text);
        }
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn text_is_cut_by_columns_and_not_by_bytes() {
        assert_eq!(fit("abcdef", 6, "…"), "abcdef");
        assert_eq!(fit("abcdef", 4, "…"), "abc…");
        assert_eq!(fit("日本語", 5, "…"), "日本…");
        assert_eq!(column("日本語", 4, "…"), "日… ");
        assert_eq!(fit("abc", 0, "…"), "");
        assert_eq!(one_line("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
    }
}
