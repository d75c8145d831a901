//! Jobs as JSON lines (`--from`): one object a line, errors with line and column.

use std::fmt;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use readyroom::Permissions;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::records;
use crate::args::values::{self, Limit};

/// The longest line, in bytes. A prompt of this size is far above what any tool takes.
const LINE_LIMIT: usize = 64 << 20;

/// One line: a job. Everything that is left out comes from the command line.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a JSON object")]
pub struct Line {
    /// A name for the job in headings and outcomes.
    #[serde(deserialize_with = "present")]
    pub id: Option<String>,
    /// The tool.
    #[serde(deserialize_with = "present")]
    pub tool: Option<String>,
    /// The prompt, taken literally.
    #[serde(deserialize_with = "present_prompt")]
    pub prompt: Option<String>,
    /// Several prompts, turns in one context.
    #[serde(deserialize_with = "present_prompts")]
    pub prompts: Option<Vec<String>>,
    /// Files to work on, relative to `cwd`.
    pub files: Vec<PathBuf>,
    /// Where the tool works, relative to the command line's directory.
    pub cwd: Option<PathBuf>,
    /// The key of sticky routing.
    pub key: Option<String>,
    /// The longest time that the job may run.
    #[serde(deserialize_with = "present_limit")]
    pub timeout: Option<Limit>,
    /// What the tool may do.
    pub permissions: Option<Permissions>,
    /// The model.
    #[serde(deserialize_with = "present")]
    pub model: Option<String>,
}

/// Reads all jobs of `reader`, each with its line number. `name` stands in errors: `jobs.jsonl:3:17: ...`.
///
/// # Errors
/// Reading fails; a line is no JSON object of known fields; an id stands twice.
pub fn read(reader: &mut dyn BufRead, name: &str) -> anyhow::Result<Vec<(usize, Line)>> {
    let mut lines = Vec::new();
    let mut ids = std::collections::HashMap::new();
    for (number, bytes) in records::read(reader, b'\n', LINE_LIMIT, name)? {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // Some editors mark a file's first line as UTF-8.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                bail!("{name}:{number}:{}: not UTF-8; write the file as UTF-8", records::bad_utf8_column(&error))
            }
        };
        let line = parse(text).map_err(|(column, message)| anyhow::anyhow!("{name}:{number}:{column}: {message}"))?;
        if line.prompt.is_some() && line.prompts.is_some() {
            bail!("{name}:{number}:1: `prompt` and `prompts` stand together; keep one");
        }
        if let Some(id) = &line.id
            && let Some(first) = ids.insert(id.clone(), number)
        {
            bail!("{name}:{number}:1: the id {id:?} stands on line {first} already; each job needs its own");
        }
        lines.push((number, line));
    }
    Ok(lines)
}

/// Parses one line; an error comes with its column, in bytes from 1.
fn parse(text: &str) -> Result<Line, (usize, String)> {
    let start = text.len() - text.trim_start().len();
    if !text[start..].starts_with('{') {
        return Err((start + 1, "expected a JSON object, such as {\"prompt\": \"...\"}".into()));
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line 1 column ").next().unwrap_or(&message).to_owned();
        (error.column().max(1), message)
    })
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        Err(D::Error::custom("empty; leave the field out or give it a value"))
    } else {
        Ok(Some(text))
    }
}

fn checked_prompt<E: serde::de::Error>(text: String) -> Result<String, E> {
    if text.trim().is_empty() { Err(E::custom("the prompt is empty; write what to do")) } else { Ok(text) }
}

fn present_prompt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked_prompt(String::deserialize(deserializer)?).map(Some)
}

fn present_prompts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Prompt(String);
    impl<'de> Deserialize<'de> for Prompt {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            checked_prompt(String::deserialize(deserializer)?).map(Self)
        }
    }
    let prompts: Vec<Prompt> = Vec::deserialize(deserializer)?;
    if prompts.is_empty() {
        return Err(D::Error::invalid_length(0, &"at least one prompt"));
    }
    Ok(Some(prompts.into_iter().map(|prompt| prompt.0).collect()))
}

fn present_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Limit>, D::Error> {
    struct LimitVisitor;
    impl Visitor<'_> for LimitVisitor {
        type Value = Limit;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a duration such as \"10m\", a number of seconds, or \"none\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Limit, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Limit, E> {
            values::duration(&seconds.to_string()).map(Limit::After).map_err(E::custom)
        }

        fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Limit, E> {
            match Duration::try_from_secs_f64(seconds) {
                Ok(duration) if !duration.is_zero() => Ok(Limit::After(duration)),
                _ => Err(E::invalid_value(Unexpected::Float(seconds), &self)),
            }
        }
    }
    deserializer.deserialize_any(LimitVisitor).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        read(&mut text.as_bytes(), "jobs.jsonl").unwrap_err().to_string()
    }

    #[test]
    fn a_line_is_a_job() {
        let text = concat!(
            r#"{"id":"a","tool":"codex","prompts":["one","two {}"],"files":["x.py"],"cwd":"sub","key":"k","#,
            r#""timeout":"90s","permissions":"read","model":"m"}"#,
            "\n\n{\"timeout\": 1.5}\n"
        );
        let lines = read(&mut text.as_bytes(), "jobs.jsonl").unwrap();
        assert_eq!(lines[0].0, 1);
        assert_eq!(lines[0].1.prompts.as_deref(), Some(["one".to_owned(), "two {}".to_owned()].as_slice()));
        assert_eq!(lines[0].1.timeout, Some(Limit::After(Duration::from_secs(90))));
        assert_eq!(lines[1], (3, Line { timeout: Some(Limit::After(Duration::from_millis(1500))), ..Line::default() }));
    }

    #[test]
    fn errors_name_line_and_column() {
        let unknown = error("{\"prompt\":\"x\"}\n{\"promt\":\"x\"}");
        assert!(
            unknown.starts_with("jobs.jsonl:2:8: unknown field `promt`, expected one of `id`, `tool`"),
            "{unknown}"
        );
        for (text, expected) in [
            ("{\"prompt\":\"x\"", "jobs.jsonl:1:13: EOF while parsing an object"),
            ("nonsense", "jobs.jsonl:1:1: expected a JSON object"),
            (" [\"x\"]", "jobs.jsonl:1:2: expected a JSON object"),
            ("{\"prompt\":\" \"}", "jobs.jsonl:1:14: the prompt is empty"),
            ("{\"prompts\":[]}", "jobs.jsonl:1:14: invalid length 0, expected at least one prompt"),
            ("{\"timeout\":\"soon\"}", "jobs.jsonl:1:17: \"soon\" is not a duration"),
            ("{\"permissions\":\"all\"}", "jobs.jsonl:1:20: unknown variant `all`, expected one of `read`"),
            ("{\"prompt\":\"x\"} trailing", "jobs.jsonl:1:16: trailing characters"),
            ("{\"id\":\"a\"}\n{\"id\":\"a\"}", "jobs.jsonl:2:1: the id \"a\" stands on line 1 already"),
            ("{\"prompt\":\"a\",\"prompts\":[\"b\"]}", "jobs.jsonl:1:1: `prompt` and `prompts` stand together"),
        ] {
            assert!(error(text).starts_with(expected), "{text}\n{}\n{expected}", error(text));
        }
        let mut bytes = b"{\"prompt\":\"".to_vec();
        bytes.extend([0xff, b'"', b'}']);
        let not_utf8 = read(&mut bytes.as_slice(), "f").unwrap_err().to_string();
        assert!(not_utf8.starts_with("f:1:12: not UTF-8"), "{not_utf8}");
    }

    proptest! {
        #[test]
        fn any_prompt_comes_back_as_it_was_written(prompt in "\\PC*[a-z\n\t\u{1f600}]\\PC*", id in "[^\u{0}]{1,8}") {
            prop_assume!(!prompt.trim().is_empty());
            let text = serde_json::json!({"id": id, "prompt": prompt}).to_string();
            let lines = read(&mut text.as_bytes(), "f").unwrap();
            prop_assert_eq!(lines[0].1.prompt.as_deref(), Some(prompt.as_str()));
            prop_assert_eq!(lines[0].1.id.as_deref(), Some(id.as_str()));
        }

        #[test]
        fn any_file_is_read_or_refused_with_its_line(
            pieces in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..9),
                prop::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
            ], 0..30),
        ) {
            crate::properties::jobs(&pieces.concat());
        }
    }

    const PIECES: [&str; 12] = [
        "{",
        "}",
        "\n",
        "\r\n",
        ",",
        "\"prompt\":\"x\"",
        "\"prompts\":[\"x\",\"y\"]",
        "\"id\":\"a\"",
        "\"timeout\":",
        "\"10m\"",
        "1.5",
        "\"files\":[\"../x\"]",
    ];

    #[test]
    fn what_the_fuzzer_kept() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/jobs");
        let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.iter().for_each(|file| crate::properties::jobs(&std::fs::read(file).unwrap()));
        assert!(!files.is_empty());
    }
}
