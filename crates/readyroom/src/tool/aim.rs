//! The JSON registry of the pool guide's world, read as a layer of definitions, and written for those who expect it.
//!
//! `{"tools": {"aider": {"detectCommands": [["aider", "--version"]], "capabilities": ["edit"]}}}`: an entry says how a
//! tool is found, and nothing about how to talk to it. So an entry for a known tool changes where that tool is looked
//! for; an entry under another name whose detect commands run a known tool's program is another name for it; and any
//! other entry is listed as a tool without a driver, since to guess how a program takes a prompt would be to run it with
//! arguments that nobody wrote.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::document::{DefinitionError, anchored, utf8};

/// A tool as the JSON registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AimTool {
    /// Its name.
    pub id: String,
    /// The commands that show whether it is there, as words, in order.
    pub detect: Vec<Vec<String>>,
    /// What it can do, in the registry's words.
    pub capabilities: Vec<String>,
}

/// Other keys of the registry belong to other programs and are left alone.
#[derive(Deserialize)]
struct File {
    tools: BTreeMap<String, Tool>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(default, rename = "detectCommands")]
    detect: Vec<Command>,
    #[serde(default)]
    capabilities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a detect command must be a list of words or a string")]
enum Command {
    Words(Vec<String>),
    Line(String),
}

/// Reads the registry's text; `path` is named in errors, and relative programs are below `base`.
///
/// # Errors
/// Text that is not UTF-8 or not JSON, or has no `tools`, or a detect command that is empty or has an open quote.
pub fn parse(path: &Path, base: &Path, bytes: Vec<u8>) -> Result<Vec<AimTool>, DefinitionError> {
    let text = utf8(path, bytes)?;
    let fail = |place, message: String, mend: &str| DefinitionError {
        file: path.display().to_string(),
        place,
        message,
        mend: mend.into(),
    };
    let file: File = serde_json::from_str(&text).map_err(|error| {
        let place = (error.line() > 0).then(|| (error.line(), error.column().max(1)));
        // serde_json repeats the place behind its message.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        fail(place, message, r#"write {"tools": {"NAME": {"detectCommands": [["PROGRAM", "--version"]]}}}"#)
    })?;
    let mut tools = Vec::new();
    for (id, tool) in file.tools {
        let mut detect = Vec::new();
        for command in tool.detect {
            let words = match command {
                Command::Words(words) => words,
                Command::Line(line) => split(&line).ok_or_else(|| {
                    let message = format!("a detect command of `{id}` has an open quote: {line}");
                    fail(None, message, "close it, or write the command as a list of words")
                })?,
            };
            let mut words = looked_up(words);
            match words.first_mut() {
                Some(program) if !program.is_empty() => {
                    if let Some(absolute) = anchored(program, base) {
                        *program = absolute;
                    }
                }
                _ => {
                    let message = format!("a detect command of `{id}` is empty");
                    return Err(fail(None, message, "give the program as its first word"));
                }
            }
            detect.push(words);
        }
        tools.push(AimTool { id, detect, capabilities: tool.capabilities });
    }
    Ok(tools)
}

/// `which X`, `where X` and `command -v X` only look `X` up, so they mean `X`.
fn looked_up(words: Vec<String>) -> Vec<String> {
    match words.as_slice() {
        [which, name] if which == "which" || which == "where" => vec![name.clone()],
        [command, flag, name] if command == "command" && flag == "-v" => vec![name.clone()],
        _ => words,
    }
}

/// The words of a command line: split at blanks; single quotes, double quotes and backslashes as in a shell, and
/// nothing else of it. `None` where a quote is left open.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

impl AimTool {
    /// What the entry says, as a layer of a definition.
    pub fn table(&self) -> toml::Table {
        let list = |words: &[String]| toml::Value::Array(words.iter().map(|word| word.as_str().into()).collect());
        let mut table = toml::Table::new();
        if !self.detect.is_empty() {
            let commands = self.detect.iter().map(|words| list(words)).collect();
            table.insert(
                "find".into(),
                toml::Table::from_iter([("commands".to_owned(), toml::Value::Array(commands))]).into(),
            );
        }
        if !self.capabilities.is_empty() {
            table.insert("capabilities".into(), list(&self.capabilities));
        }
        table
    }

    /// The names of the programs that the detect commands run, without directories.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.detect.iter().filter_map(|words| Path::new(words.first()?).file_name()?.to_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<AimTool>, DefinitionError> {
        parse(Path::new("/p/registry.json"), Path::new("/p"), text.as_bytes().to_vec())
    }

    #[test]
    fn detect_commands_are_read_in_both_forms() {
        let tools = read(
            r#"{"version": 3, "tools": {
                "aider": {"detectCommands": [["aider", "--version"], ["python", "-m", "aider", "--version"]], "capabilities": ["edit"], "more": 1},
                "claude": {"detectCommands": ["claude --version", "'/opt/my tools/claude' \"--version\"", "which claude"]},
                "bare": {}
            }}"#,
        )
        .unwrap();
        assert_eq!(tools[0].detect[1], ["python", "-m", "aider", "--version"]);
        assert_eq!(tools[0].capabilities, ["edit"]);
        assert_eq!(tools[1], AimTool { id: "bare".into(), detect: vec![], capabilities: vec![] });
        assert_eq!(tools[2].detect[0], ["claude", "--version"]);
        assert_eq!(tools[2].detect[1], ["/opt/my tools/claude", "--version"]);
        assert_eq!(tools[2].detect[2], ["claude"]);
    }

    #[test]
    fn a_mistake_is_named_with_its_place_and_mend() {
        let error = read("{\"tools\": {\n  \"a\": {\"detectCommands\": [1]}}}").unwrap_err();
        assert_eq!(error.place.map(|(line, _)| line), Some(2));
        assert!(error.message.contains("a list of words or a string"), "{error}");
        assert!(!error.message.contains("at line"), "{error}");
        let error = read("{\"tools\": {,}}").unwrap_err();
        assert_eq!(error.place, Some((1, 12)));
        assert!(read("[]").is_err() && read("{}").unwrap_err().message.contains("tools"));
        assert!(read(r#"{"tools":{"a":{"detectCommands":["a 'b"]}}}"#).unwrap_err().message.contains("open quote"));
        assert!(read(r#"{"tools":{"a":{"detectCommands":[[]]}}}"#).unwrap_err().message.contains("is empty"));
    }

    #[test]
    fn nothing_of_a_shell_runs_in_a_detect_command() {
        assert_eq!(split("a $(b) `c` ; d|e > f").unwrap(), ["a", "$(b)", "`c`", ";", "d|e", ">", "f"]);
        assert_eq!(split(r#"a\ b "c\"d" 'e\f' """#).unwrap(), ["a b", "c\"d", "e\\f", ""]);
        assert_eq!(split("  "), Some(vec![]));
        assert_eq!(split("a \\"), None);
    }

    #[test]
    fn relative_programs_are_below_the_base() {
        let tools = read(r#"{"tools":{"a":{"detectCommands":[["./bin/a","--version"]]}}}"#).unwrap();
        assert_eq!(tools[0].detect[0][0], "/p/bin/a");
        assert_eq!(tools[0].programs().collect::<Vec<_>>(), ["a"]);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&text);
            let _ = read(&format!(r#"{{"tools":{{"a":{{"detectCommands":[{}]}}}}}}"#, serde_json::Value::from(text.as_str())));
            let _ = parse(Path::new("/p"), Path::new("/"), bytes);
        }

        #[test]
        fn quoted_words_come_back(words in prop::collection::vec("[^']{0,8}", 0..5)) {
            let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&line).unwrap(), words);
        }
    }
}
