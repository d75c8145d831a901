//! A prompt that runs: what is known of its output so far, and whether it is being stopped.

use super::screen::Head;
use super::settings::Settings;
use super::{SLOT, reading};
use crate::driver::{Activity, Effect};
use crate::error::Failure;
use crate::job::Answer;
use crate::tool::Definition;

/// A prompt that runs.
pub(super) struct Running {
    pub(super) prompt: String,
    /// Whether it was told that the tool has read the prompt.
    pub(super) accepted: bool,
    pub(super) head: Head,
    /// Whether the mode must be switched back afterwards.
    pub(super) switched: bool,
    pub(super) stop: Stop,
    /// How much of the output was told as text.
    told: usize,
    /// How much of the output was searched for retries, up to a line's beginning.
    searched: usize,
    /// The last two complete lines, as ranges of the output.
    last_lines: [(usize, usize); 2],
    retried: u32,
    /// Where the answer begins after the last retry.
    pub(super) again: usize,
    /// The turn's output, once its own fence has come back and another is still out.
    pub(super) ended: Option<Vec<u8>>,
}

/// Whether a turn was stopped, and by whom.
#[derive(Clone, PartialEq)]
pub(super) enum Stop {
    No,
    /// Cancelled; the tool has not read all of the prompt yet, so it can't be interrupted safely.
    Wanted,
    /// Interrupted because it was cancelled.
    Cancelled,
    /// Interrupted because the tool goes on retrying after this failure.
    GaveUp(Failure),
}

impl Running {
    /// A prompt of which `lines` lines are written.
    pub(super) fn new(prompt: String, lines: usize, switched: bool) -> Self {
        Self {
            prompt,
            accepted: false,
            head: Head::new(lines),
            switched,
            stop: Stop::No,
            told: 0,
            searched: 0,
            last_lines: [(0, 0); 2],
            retried: 0,
            again: 0,
            ended: None,
        }
    }

    /// Looks for announced retries in the lines that are complete, and tells them. The failure that was announced comes
    /// back where it was once too often.
    pub(super) fn retries(
        &mut self,
        definition: &Definition,
        settings: &Settings,
        output: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<Failure> {
        let (Some(retry), Some(error)) = (&settings.retry, &settings.error) else { return None };
        let mut gave_up = None;
        while let Some(length) = output[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = (self.searched, self.searched + length);
            self.searched = line.1 + 1;
            let [older, newer] = self.last_lines;
            self.last_lines = [newer, line];
            if !retry.is_match(&output[line.0..line.1]) {
                continue;
            }
            let Some(cause) = [newer, older].into_iter().find_map(|(begin, end)| {
                let found = error.find_iter(&output[begin..end]).last()?;
                Some(begin + found.start())
            }) else {
                continue;
            };
            self.again = self.searched;
            self.retried += 1;
            let why = String::from_utf8_lossy(&output[cause..line.1]).into_owned();
            let activity = Activity::Retrying { attempt: self.retried, why };
            out.push(Effect::Activity { slot: SLOT, activity });
            if settings.plain.retries_shown.is_some_and(|most| self.retried > most) && self.stop == Stop::No {
                gave_up = Some(reading::classify(definition, &output[cause..line.1]));
            }
        }
        gave_up
    }

    /// What the tool had said when the turn was given up.
    pub(super) fn partial(&mut self, settings: &Settings, output: &[u8]) -> Answer {
        let begin = self.head.end(settings, output).unwrap_or(output.len());
        let text = |begin: usize| output[begin..].to_vec().into();
        Answer { text: text(begin.max(self.again)), transcript: text(begin), ..Answer::default() }
    }

    /// Tells the text between what was told and the end of `output`, which begins at `begin`, in whole characters.
    pub(super) fn tell(&mut self, begin: usize, output: &[u8], out: &mut Vec<Effect>) {
        self.told = self.told.max(begin);
        let Some(mut new) = output.get(self.told..).filter(|new| !new.is_empty()) else { return };
        // A character that is cut by the end of what has come waits for its rest.
        for cut in 1..=new.len().min(3) {
            let lead = new[new.len() - cut];
            if lead & 0xc0 == 0xc0 {
                let length = if lead >= 0xf0 {
                    4
                } else if lead >= 0xe0 {
                    3
                } else {
                    2
                };
                if length > cut {
                    new = &new[..new.len() - cut];
                }
                break;
            }
            if lead & 0x80 == 0 {
                break;
            }
        }
        if !new.is_empty() {
            self.told += new.len();
            let activity = Activity::Text(String::from_utf8_lossy(new).into_owned());
            out.push(Effect::Activity { slot: SLOT, activity });
        }
    }
}
