//! The settings that drivers read from definitions, and what each of them may be. One that no driver reads is a mistake in a
//! name, and would leave undone what it is meant to do.

use regex::Regex;

use super::definition::DriverKind;

/// What a setting's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A regular expression.
    Pattern,
    /// A whole number, not negative.
    Number,
    /// One of these words, or nothing, which takes back what a lower layer says.
    Word(&'static [&'static str]),
}

/// The settings of a driver.
pub fn of(driver: DriverKind) -> &'static [(&'static str, Kind)] {
    match driver {
        DriverKind::Acp => &[
            ("guard_before", Kind::Pattern),
            ("guard", Kind::Text),
            ("guard_for", Kind::Word(&["user"])),
            ("file_uris", Kind::Word(&["plain"])),
            ("mode", Kind::Text),
            ("denied", Kind::Pattern),
            ("unasked", Kind::Word(&["trust"])),
        ],
        DriverKind::Codex => &[
            ("sandbox", Kind::Word(&["read-only", "workspace-write", "danger-full-access"])),
            ("approval", Kind::Text),
            ("request_max_retries", Kind::Number),
            ("stream_max_retries", Kind::Number),
        ],
        DriverKind::Claude | DriverKind::Repl | DriverKind::Oneshot => &[],
    }
}

/// What is wrong with a setting, and what mends it.
pub fn objection(driver: DriverKind, name: &str, value: &str) -> Option<(String, String)> {
    let known = of(driver);
    let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
        let mend = match names.is_empty() {
            true => "take it out".to_owned(),
            false => format!("it has {}", names.join(", ")),
        };
        return Some((format!("the driver `{}` has no setting `{name}`", driver.word()), mend));
    };
    match kind {
        Kind::Text => None,
        Kind::Pattern => Regex::new(value).err().map(|error| (no_pattern(value, &error), "correct it".into())),
        Kind::Number if value.parse::<u64>().is_ok() => None,
        Kind::Number => Some((format!("`{value}` is no number"), "give a whole number, as text".into())),
        Kind::Word(words) if value.is_empty() || words.contains(&value) => None,
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            Some((format!("`{value}` is no value of `{name}`"), format!("give {}", words.join(", "))))
        }
    }
}

/// What is wrong with a pattern.
pub fn no_pattern(pattern: &str, error: &regex::Error) -> String {
    // The last line of the error says what is wrong; those before it draw the pattern.
    let what = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    format!("`{pattern}` is no regular expression: {}", what.strip_prefix("error: ").unwrap_or(&what))
}
