//! What a turn came to: the answer, the usage and the verdict, read from what was printed up to the fence.
//!
//! A model can print anything, also the tool's own lines. So only the last match of `ran` counts, which the tool
//! prints behind the answer; error lines count only where no `ran` follows them; and a line that only the tool can
//! have printed is believed where something else agrees with it.

use std::path::PathBuf;

use regex::bytes::Match;

use super::screen::{Behind, Head, behind};
use super::settings::Settings;
use crate::error::{Failure, FailureKind};
use crate::job::{Answer, Usage};
use crate::tool::Definition;

/// The most of a failing turn's output that is kept as evidence.
const EVIDENCE: usize = 4 << 10;

/// A turn's output, as far as the driver has understood it while it came in.
pub(super) struct Output<'a> {
    /// Everything that was printed since the last fence, without the marker.
    pub(super) bytes: &'a [u8],
    /// Where the answer begins; `None` where the tool's prompts never came.
    pub(super) begin: Option<usize>,
    /// Where the answer begins again after the tool's last retry.
    pub(super) again: usize,
    /// The head, for the files that it names.
    pub(super) head: &'a Head,
    /// The prompt.
    pub(super) prompt: &'a str,
}

/// The verdict on a turn that was not cancelled, and what the tool said in it.
pub(super) fn read(definition: &Definition, settings: &Settings, output: &Output<'_>) -> (Result<(), Failure>, Answer) {
    let Some(begin) = output.begin else {
        let failure = Failure::new(FailureKind::NotRun, "the tool came back without having read the prompt");
        return (Err(failure.with_stderr(evidence(output.bytes))), Answer::default());
    };
    let behind = behind(settings, output.bytes);
    let end = behind.as_ref().map_or(output.bytes.len(), |behind| behind.end.max(begin));
    let all = &output.bytes[begin..end];
    let said = &output.bytes[output.again.max(begin).min(end)..end];
    let Some(ran) = &settings.ran else {
        let text = strip(settings, said);
        let answer = Answer { text: text.to_vec().into(), transcript: text.to_vec().into(), ..Answer::default() };
        return (Ok(()), answer);
    };
    let marks: Vec<Match<'_>> = ran.find_iter(said).collect();
    let Some(last) = marks.last() else {
        let error = failing(settings, said);
        let text = match &settings.error {
            Some(pattern) if pattern.is_match(error) => &said[..said.len() - error.len()],
            _ => settings.tail.as_ref().and_then(|tail| tail.find(said)).map_or(said, |tail| &said[..tail.start()]),
        };
        let answer = Answer { text: text.to_vec().into(), transcript: all.to_vec().into(), ..Answer::default() };
        return (Err(classify(definition, error)), answer);
    };
    let tail = &said[last.end()..];
    let taken = Taken { before: output.head.files(), behind: behind.as_ref(), prompt: output.prompt, tail };
    let mut from = taken.skip(settings, said, 0, output.prompt.as_bytes());
    let mut usage = numbers(settings, &said[last.range()]);
    let mut changed_files = Vec::new();
    changed(settings, tail, &mut changed_files);
    for mark in &marks[..marks.len() - 1] {
        let rest = &said[mark.end()..last.start()];
        // Behind a report in mid-answer the tool goes on by itself only with lines of its own.
        let next = rest.strip_prefix(b"\n").map_or(mark.end(), |_| mark.end() + 1);
        let answer = taken.skip(settings, said, next, &said[..mark.start()]);
        let mut edits = Vec::new();
        changed(settings, leading(settings, &said[next..last.start()]), &mut edits);
        if answer > next {
            from = answer;
        }
        if answer > next || !edits.is_empty() {
            usage.add(&numbers(settings, &said[mark.range()]));
            changed_files.extend(edits);
        }
    }
    let text = strip(settings, &said[from.min(last.start())..last.start()]);
    let answer = Answer {
        text: text.to_vec().into(),
        transcript: all[..all.len() - said.len() + last.start()].to_vec().into(),
        changed_files,
        usage: usage.clone(),
        ..Answer::default()
    };
    let own_error = settings.error.as_ref().and_then(|error| error.find(tail));
    let verdict = match own_error {
        Some(error) => Err(classify(definition, &tail[error.start()..])),
        None if usage.output_tokens == Some(0) => Err(classify(definition, failing(settings, said))),
        None => Ok(()),
    };
    (verdict, answer)
}

/// The failure that `text` tells of.
pub(super) fn classify(definition: &Definition, text: &[u8]) -> Failure {
    let text = evidence(text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    let kind = definition.classify(&text).unwrap_or(FailureKind::NotRun);
    let message = match kind {
        FailureKind::NotRun => "the tool came back, but nothing shows that it ran the prompt".to_owned(),
        _ => line,
    };
    Failure::new(kind, message).with_stderr(text)
}

/// The part of `said` that tells of an error: from its last beginning, or the end of all.
pub(super) fn failing<'a>(settings: &Settings, said: &'a [u8]) -> &'a [u8] {
    match settings.error.as_ref().and_then(|error| error.find_iter(said).last()) {
        Some(error) => &said[error.start()..],
        None => &said[said.len().saturating_sub(EVIDENCE)..],
    }
}

/// The beginning of `text`, cut for people.
pub(super) fn evidence(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(EVIDENCE)]).trim().to_owned()
}

fn strip<'a>(settings: &Settings, mut text: &'a [u8]) -> &'a [u8] {
    if let Some(head) = settings.head.as_ref().and_then(|head| head.find(text)) {
        text = &text[head.end()..];
    }
    if let Some(tail) = settings.tail.as_ref().and_then(|tail| tail.find(text)) {
        text = &text[..tail.start()];
    }
    text
}

/// The lines at the beginning of `text` that name changed files.
fn leading<'a>(settings: &Settings, text: &'a [u8]) -> &'a [u8] {
    let Some(changed) = &settings.changed else { return &[] };
    let mut end = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if !changed.is_match(line.strip_suffix(b"\n").unwrap_or(line)) {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

fn changed(settings: &Settings, text: &[u8], files: &mut Vec<PathBuf>) {
    let Some(changed) = &settings.changed else { return };
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(file) = changed.captures(line).and_then(|found| found.get(1)) {
            let file = PathBuf::from(String::from_utf8_lossy(file.as_bytes()).into_owned());
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
}

/// Files that the tool took up by itself during the turn, and said so in front of an answer.
struct Taken<'a> {
    before: &'a [String],
    behind: Option<&'a Behind>,
    prompt: &'a str,
    tail: &'a [u8],
}

impl Taken<'_> {
    /// Where the answer begins that `said` holds from `at` on: behind the lines that name files which the tool works
    /// on since this turn because `mention` holds their names.
    fn skip(&self, settings: &Settings, said: &[u8], at: usize, mention: &[u8]) -> usize {
        let (Some(aside), Some(behind)) = (&settings.aside, self.behind) else { return at };
        let mut begin = at;
        let mut seen: Vec<&str> = Vec::new();
        while let Some(found) = aside.captures(&said[begin..]) {
            let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else { break };
            let Ok(name) = std::str::from_utf8(name.as_bytes()) else { break };
            let base = name.rsplit('/').next().unwrap_or(name);
            let new = behind.files.iter().any(|file| file == name) && !self.before.iter().any(|file| file == name);
            // What the tool creates in this turn it names only behind the answer.
            let created = self.tail.split(|byte| *byte == b'\n').any(|line| line == name.as_bytes());
            let mentioned = holds(mention, base.as_bytes()) || holds(self.prompt.as_bytes(), base.as_bytes());
            if whole.is_empty() || !new || created || !mentioned || seen.contains(&name) {
                break;
            }
            seen.push(name);
            begin += whole.end();
        }
        begin
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// What a match of `ran` says was used.
fn numbers(settings: &Settings, text: &[u8]) -> Usage {
    let Some(found) = settings.ran.as_ref().and_then(|ran| ran.captures(text)) else { return Usage::default() };
    let group = |name: &str| found.name(name).and_then(|text| std::str::from_utf8(text.as_bytes()).ok());
    Usage {
        input_tokens: group("input").and_then(size),
        output_tokens: group("output").and_then(size),
        cost_usd: group("cost").and_then(|text| text.parse().ok()),
    }
}

/// A number as tools print it: `812`, `1,907`, `3.3k`, `1.2M`.
fn size(text: &str) -> Option<u64> {
    let text = text.replace(',', "");
    let (digits, unit) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 1e3),
        'M' => (&text[..text.len() - 1], 1e6),
        _ => (text.as_str(), 1.0),
    };
    let value = digits.parse::<f64>().ok()? * unit;
    // Sizes are rounded by the tool already; a float holds every integer that can come up here.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (value >= 0.0).then_some(value.round() as u64)
}
