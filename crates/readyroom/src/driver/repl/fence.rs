//! The fence: a line sent behind each input that makes the tool print a marker nobody could have foreseen.
//!
//! Both carry the halves of a nonce that is made for this one fence, and the input line never holds the marker as a
//! whole, so that neither an answer nor an echo of the input can be taken for it. [`Finder`] looks at each byte of
//! the output once, however it is cut.

use std::hash::{BuildHasher as _, RandomState};

/// A number that nobody can guess, as two halves of eight hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce {
    first: String,
    second: String,
}

impl Nonce {
    /// A nonce that was never used before.
    pub fn fresh() -> Self {
        // The keys of `RandomState` come from the system's random source and differ at each call.
        let digits = format!("{:016x}", RandomState::new().hash_one(0_u8));
        let (first, second) = digits.split_at(8);
        Self { first: first.into(), second: second.into() }
    }

    /// The nonce of these halves: those that were read in a fence that was sent.
    pub fn of(first: impl Into<String>, second: impl Into<String>) -> Self {
        Self { first: first.into(), second: second.into() }
    }

    /// `template` with `{a}` and `{b}` replaced by the halves.
    pub fn fill(&self, template: &str) -> String {
        template.replace("{a}", &self.first).replace("{b}", &self.second)
    }

    /// All sixteen digits.
    pub fn whole(&self) -> String {
        format!("{}{}", self.first, self.second)
    }
}

/// Finds one marker in a stream of bytes: a literal text, or two literal texts with a decimal number between them.
#[derive(Debug, Clone)]
pub struct Finder {
    before: Vec<u8>,
    /// For each length of a matched prefix of `before`, the longest shorter prefix that is also its end.
    fallback: Vec<usize>,
    /// What follows the number; `None` where the marker holds no number.
    after: Option<Vec<u8>>,
    state: Match,
}

/// How much of the marker the bytes so far end with.
#[derive(Debug, Clone, Copy)]
enum Match {
    /// This many bytes of the first text.
    Before(usize),
    /// The first text, and a number of this many digits.
    Number { digits: usize, value: i32 },
    /// The number too, and this many bytes of the second text.
    After { digits: usize, value: i32, matched: usize },
}

/// Where a marker was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many of the bytes just fed belong to the stream up to and with the marker's end.
    pub end: usize,
    /// The marker's length.
    pub length: usize,
    /// The number in it.
    pub status: Option<i32>,
}

impl Finder {
    /// A finder for `template` with the nonce's halves; `{status}` in it stands for a number.
    pub fn new(template: &str, nonce: &Nonce) -> Self {
        let filled = nonce.fill(template);
        let (before, after) = match filled.split_once("{status}") {
            Some((before, after)) => (before, Some(after.as_bytes().to_vec())),
            None => (filled.as_str(), None),
        };
        let before = before.as_bytes().to_vec();
        let mut fallback = vec![0; before.len() + 1];
        let mut matched = 0;
        for at in 1..before.len() {
            while matched > 0 && before[at] != before[matched] {
                matched = fallback[matched];
            }
            if before[at] == before[matched] {
                matched += 1;
            }
            fallback[at + 1] = matched;
        }
        Self { before, fallback, after, state: Match::Before(0) }
    }

    /// The marker of a finder that reads no number.
    #[cfg(test)]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.before).into_owned()
    }

    /// How many of the last bytes fed may be the beginning of the marker.
    pub fn pending(&self) -> usize {
        match self.state {
            Match::Before(matched) => matched,
            Match::Number { digits, .. } => self.before.len() + digits,
            Match::After { digits, matched, .. } => self.before.len() + digits + matched,
        }
    }

    /// Takes the stream's next bytes; stops at the marker's end.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Found> {
        let mut at = 0;
        while at < bytes.len() {
            if let Match::Before(0) = self.state {
                // Nearly all of an answer is passed over here.
                at += bytes[at..].iter().position(|byte| *byte == self.before[0])?;
            }
            let done = self.step(bytes[at]);
            at += 1;
            if let Some((length, status)) = done {
                return Some(Found { end: at, length, status });
            }
        }
        None
    }

    fn step(&mut self, byte: u8) -> Option<(usize, Option<i32>)> {
        match self.state {
            Match::Before(mut matched) => {
                while matched > 0 && self.before[matched] != byte {
                    matched = self.fallback[matched];
                }
                if self.before[matched] == byte {
                    matched += 1;
                }
                if matched < self.before.len() {
                    self.state = Match::Before(matched);
                    return None;
                }
                if self.after.is_none() {
                    self.state = Match::Before(0);
                    return Some((self.before.len(), None));
                }
                self.state = Match::Number { digits: 0, value: 0 };
                None
            }
            Match::Number { digits, value } if byte.is_ascii_digit() && digits < 9 => {
                self.state = Match::Number { digits: digits + 1, value: value * 10 + i32::from(byte - b'0') };
                None
            }
            Match::Number { digits, value } if digits > 0 => {
                self.state = Match::After { digits, value, matched: 0 };
                self.step(byte)
            }
            Match::After { digits, value, matched } => {
                let after = self.after.as_deref().unwrap_or_default();
                if after.get(matched) != Some(&byte) {
                    return self.begin_again(byte);
                }
                if matched + 1 < after.len() {
                    self.state = Match::After { digits, value, matched: matched + 1 };
                    return None;
                }
                let length = self.before.len() + digits + after.len();
                self.state = Match::Before(0);
                Some((length, Some(value)))
            }
            Match::Number { .. } => self.begin_again(byte),
        }
    }

    /// The number or what follows it is not as it must be. A marker that begins within what was matched so far would
    /// have to hold the nonce twice, so the search goes on with this byte.
    fn begin_again(&mut self, byte: u8) -> Option<(usize, Option<i32>)> {
        self.state = Match::Before(0);
        self.step(byte)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nonce() -> Nonce {
        Nonce::of("aaaabaaa", "aabaaaab")
    }

    /// Feeds `stream` in the pieces that `cuts` say and returns what stands before the marker, and the number in it.
    fn find(template: &str, stream: &[u8], cuts: &[usize]) -> Option<(Vec<u8>, Option<i32>)> {
        let mut finder = Finder::new(template, &nonce());
        let mut seen = 0;
        let mut cuts = cuts.iter().cycle();
        while seen < stream.len() {
            let end = cuts.next().map_or(stream.len(), |cut| stream.len().min(seen + cut.max(&1)));
            if let Some(found) = finder.feed(&stream[seen..end]) {
                return Some((stream[..seen + found.end - found.length].to_vec(), found.status));
            }
            seen = end;
        }
        None
    }

    #[test]
    fn nonces_differ_and_have_two_halves() {
        let (one, other) = (Nonce::fresh(), Nonce::fresh());
        assert_ne!(one, other);
        assert_eq!(one.whole().len(), 16);
        assert_eq!(one.fill("{a}{b}"), one.whole());
    }

    #[test]
    fn a_marker_that_overlaps_its_own_beginning_is_found() {
        let text = b"\naaaabaa\naaaabaaaaabaaaab\nrest";
        assert_eq!(find("\n{a}{b}\n", text, &[3]), Some((b"\naaaabaa".to_vec(), None)));
    }

    #[test]
    fn a_number_is_read_and_a_wrong_one_is_passed_over() {
        let marker = "\n{a}{b} {status}\n";
        let text = b"x\naaaabaaaaabaaaab  7\n\naaaabaaaaabaaaab 127\n";
        let (before, status) = find(marker, text, &[1]).unwrap();
        assert_eq!(status, Some(127));
        assert_eq!(before, b"x\naaaabaaaaabaaaab  7\n");
    }

    #[test]
    fn a_marker_whose_number_or_end_is_wrong_is_none() {
        let marker = "\n{a}{b} {status} !\n";
        let find = |text: &str| find(marker, text.as_bytes(), &[1]).map(|(_, status)| status);
        assert_eq!(find("\naaaabaaaaabaaaab 10 !\n"), Some(Some(10)));
        for text in [
            "\naaaabaaaaabaaaab  !\n",
            "\naaaabaaaaabaaaab 10 \n",
            "\naaaabaaaaabaaaab 10 ?\n",
            "\naaaabaaaaabaaaab 10  !\n",
        ] {
            assert_eq!(find(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_may_be_the_beginning_of_a_marker_is_held_back() {
        let markers = [("\n{a}{b}\n", "\naaaabaaaaabaaaab\n"), ("\n{a}{b} {status} !\n", "\naaaabaaaaabaaaab 127 !\n")];
        for (template, marker) in markers {
            let mut finder = Finder::new(template, &nonce());
            assert!(finder.feed(b"text").is_none() && finder.pending() == 0);
            for (at, byte) in marker.bytes().enumerate() {
                let is_last = at + 1 == marker.len();
                assert_eq!(finder.feed(&[byte]).is_some(), is_last);
                assert_eq!(finder.pending(), if is_last { 0 } else { at + 1 }, "{marker:?}");
            }
        }
    }

    #[test]
    fn five_megabytes_in_small_pieces_are_looked_at_once() {
        let mut stream = b"\naaaab".repeat(900_000);
        stream.extend_from_slice(b"\naaaabaaaaabaaaab\n");
        let before = find("\n{a}{b}\n", &stream, &[7]).unwrap().0;
        assert_eq!(before.len(), 6 * 900_000);
    }

    proptest! {
        #[test]
        fn any_text_comes_out_byte_for_byte_however_it_is_cut(
            text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'a'), Just(b'b')], 0..300),
            cuts in prop::collection::vec(1_usize..40, 1..8),
            numbered in any::<bool>(),
        ) {
            let (template, marker): (_, &[u8]) = if numbered {
                ("\n{a}{b} {status}\n", b"\naaaabaaaaabaaaab 3\n")
            } else {
                ("\n{a}{b}\n", b"\naaaabaaaaabaaaab\n")
            };
            prop_assume!(!text.windows(16).any(|part| part == b"aaaabaaaaabaaaab"));
            let mut stream = text.clone();
            stream.extend_from_slice(marker);
            stream.extend_from_slice(b"\n> ");
            let (before, status) = find(template, &stream, &cuts).expect("the marker is found");
            prop_assert_eq!(before, text);
            prop_assert_eq!(status, numbered.then_some(3));
        }
    }
}
