//! The bounded end of a byte stream: what is kept of a tool's stderr as evidence.

use std::collections::VecDeque;

/// Keeps the last bytes of a stream, up to a limit, and knows whether something before them was dropped.
///
/// ```
/// use readyroom::process::Tail;
///
/// let mut tail = Tail::new(8);
/// tail.push(b"first line\n");
/// tail.push(b"last\n");
/// assert_eq!(tail.text(), "[cut] last\n");
/// ```
#[derive(Debug, Clone)]
pub struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
    dropped: u64,
}

/// Stands before the text of a tail that lost its beginning.
const CUT: &str = "[cut] ";

impl Tail {
    /// A tail of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, dropped: 0 }
    }

    /// Adds bytes at the end; the oldest beyond the limit are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.limit);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
        self.dropped += (excess + bytes.len() - kept.len()) as u64;
    }

    /// How many bytes were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.dropped = 0;
    }

    /// The kept bytes as text: from the first whole line on where something was dropped (and marked so), with
    /// what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        if self.dropped == 0 {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        // A tail that holds the inside of a single line has no better place to begin than its first byte.
        let start = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(newline) if newline + 1 < bytes.len() => newline + 1,
            _ => 0,
        };
        format!("{CUT}{}", String::from_utf8_lossy(&bytes[start..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_streams_are_kept_whole() {
        let mut tail = Tail::new(16);
        tail.push(b"one\n");
        tail.push(b"two");
        assert_eq!((tail.text().as_str(), tail.dropped()), ("one\ntwo", 0));
    }

    #[test]
    fn a_push_larger_than_the_limit_leaves_its_end() {
        let mut tail = Tail::new(4);
        tail.push(b"abc");
        tail.push(b"0123456789");
        assert_eq!((tail.text().as_str(), tail.dropped()), ("[cut] 6789", 9));
        tail.push(b"");
        assert_eq!(tail.dropped(), 9);
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        let mut tail = Tail::new(0);
        tail.push(b"abc");
        assert_eq!((tail.text().as_str(), tail.dropped()), ("[cut] ", 3));
    }
}
