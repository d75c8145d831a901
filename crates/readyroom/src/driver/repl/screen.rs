//! What the tool printed between two fences, taken apart: its prompts in front, what it said, its prompt behind.
//!
//! A tool that prints a prompt before each line that it reads prints as many of them as lines were written. That count
//! tells where an answer begins, whatever the answer looks like.

use regex::bytes::Regex;

use super::settings::Settings;

/// Finds the end of the prompts in front of an answer while the output comes in. Each line is looked at once.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// How many lines were written to the tool.
    lines: usize,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// How much of the output was looked at.
    seen: usize,
    /// The lines in front of the prompts: the files that the tool says it works on.
    files: Vec<String>,
    found: Option<usize>,
}

impl Head {
    /// A head of as many prompts as `lines`.
    pub(super) fn new(lines: usize) -> Self {
        Self { lines, line: 0, seen: 0, files: Vec::new(), found: None }
    }

    /// Where the answer begins in `output`, once that is known. `output` only ever grows.
    pub(super) fn end(&mut self, settings: &Settings, output: &[u8]) -> Option<usize> {
        let Some(prompt) = &settings.prompt_start else { return Some(0) };
        while self.found.is_none() {
            let Some(length) = output[self.seen..].iter().position(|byte| *byte == b'\n') else {
                self.seen = output.len();
                break;
            };
            let line = &output[self.line..self.seen + length];
            self.seen += length + 1;
            self.line = self.seen;
            if is_prompts(prompt, line, self.lines) {
                self.found = Some(self.seen);
            } else if !line.is_empty() {
                self.files.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        self.found
    }

    /// The lines that stood before the prompts.
    pub(super) fn files(&self) -> &[String] {
        &self.files
    }
}

/// Whether `line` is one prompt, `count` times.
fn is_prompts(prompt: &Regex, line: &[u8], count: usize) -> bool {
    let Some(first) = prompt.find(line) else { return false };
    let first = first.as_bytes();
    !first.is_empty() && line.len() == first.len() * count && line.chunks(first.len()).all(|part| part == first)
}

/// The end of what was printed before a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Behind {
    /// Where what the tool said ends.
    pub(super) end: usize,
    /// The files that the tool says it works on.
    pub(super) files: Vec<String>,
    /// The mode that the prompt names; empty where it names none.
    pub(super) mode: String,
}

/// Takes the prompt off the end of `output`, with the lines that the tool prints in front of it, up to an empty one.
pub(super) fn behind(settings: &Settings, output: &[u8]) -> Option<Behind> {
    let prompt = settings.prompt_line.as_ref()?;
    let text = output.strip_suffix(b"\n")?;
    let start = line_start(text);
    let found = prompt.captures(&text[start..])?;
    let mode = found.get(1).map_or_else(String::new, |mode| String::from_utf8_lossy(mode.as_bytes()).into_owned());
    let mut files = Vec::new();
    let mut end = start;
    while end > 0 {
        let line = &text[line_start(&text[..end - 1])..end - 1];
        end -= line.len() + 1;
        if line.is_empty() {
            break;
        }
        files.push(String::from_utf8_lossy(line).into_owned());
    }
    files.reverse();
    Some(Behind { end, files, mode })
}

/// Where the last line of `text` begins.
fn line_start(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}
