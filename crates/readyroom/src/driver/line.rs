//! Cuts a byte stream into lines, with a bound and in linear time: each byte is looked at once, and bytes that have
//! been given out are moved away only when they are the larger part of the buffer.

/// A buffer above this size is given back to the system once it is empty, so that one huge line does not stay
/// resident for the life of an instance.
const KEPT_CAPACITY: usize = 256 << 10;

/// Collects bytes and gives out whole lines. A line longer than the limit is an error, not a growing buffer.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where the first line that has not been given out begins.
    start: usize,
    /// Up to here there is no newline after `start`.
    scanned: usize,
    limit: usize,
}

/// A line is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {limit} bytes")]
pub struct LineTooLong {
    /// The limit.
    pub limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes, the newline not counted.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, limit }
    }

    /// Takes bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its newline and a carriage return before it; `None` until more bytes come.
    ///
    /// # Errors
    /// `LineTooLong` when more than the limit has come without a newline; the stream can't be followed any more.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let Some(at) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.buffer.len();
            return self.check(self.scanned - self.start).map(|()| None);
        };
        let end = self.scanned + at;
        self.check(end - self.start)?;
        let line = &self.buffer[self.start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.start = end + 1;
        self.scanned = self.start;
        if self.start == self.buffer.len() {
            self.clear();
        }
        Ok(Some(line))
    }

    /// What has come after the last newline, and forgets it: the end of a stream that did not end in a newline.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.buffer[self.start..].to_vec();
        self.clear();
        rest
    }

    fn check(&self, length: usize) -> Result<(), LineTooLong> {
        if length > self.limit { Err(LineTooLong { limit: self.limit }) } else { Ok(()) }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_CAPACITY);
        self.start = 0;
        self.scanned = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn lines_come_without_their_ends() {
        let mut lines = Lines::new(100);
        lines.push(b"one\ntwo\r\n\nthr");
        assert_eq!(all(&mut lines), [b"one".to_vec(), b"two".to_vec(), b"".to_vec()]);
        lines.push(b"ee\nrest");
        assert_eq!(all(&mut lines), [b"three".to_vec()]);
        assert_eq!(lines.take_rest(), b"rest");
        assert_eq!(lines.take_rest(), b"");
    }

    #[test]
    fn a_carriage_return_alone_is_data() {
        let mut lines = Lines::new(100);
        lines.push(b"a\rb\r\r\n");
        assert_eq!(all(&mut lines), [b"a\rb\r".to_vec()]);
    }

    #[test]
    fn the_limit_holds_for_whole_and_for_unfinished_lines() {
        let mut lines = Lines::new(3);
        lines.push(b"abc\nabcd");
        assert_eq!(lines.next_line(), Ok(Some(b"abc".to_vec())));
        assert_eq!(lines.next_line(), Err(LineTooLong { limit: 3 }));
        lines.push(b"\n");
        assert_eq!(lines.next_line(), Err(LineTooLong { limit: 3 }));
    }

    #[test]
    fn a_huge_line_gives_its_memory_back() {
        let mut lines = Lines::new(8 << 20);
        for _ in 0..64 {
            lines.push(&[b'x'; 64 << 10]);
            assert_eq!(lines.next_line(), Ok(None));
        }
        lines.push(b"\n");
        assert_eq!(lines.next_line().unwrap().unwrap().len(), 4 << 20);
        assert!(lines.buffer.capacity() <= KEPT_CAPACITY, "{}", lines.buffer.capacity());
    }

    #[test]
    fn many_short_lines_in_one_push_are_cut_in_linear_time() {
        let mut lines = Lines::new(100);
        lines.push(&b"0123456789\n".repeat(200_000));
        let start = std::time::Instant::now();
        assert_eq!(all(&mut lines).len(), 200_000);
        // Moving the rest of 2 MB at each line took minutes.
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            parts in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..40), 0..20)
        ) {
            let whole: Vec<u8> = parts.concat();
            let mut at_once = Lines::new(usize::MAX);
            at_once.push(&whole);
            let expected = all(&mut at_once);
            let mut lines = Lines::new(usize::MAX);
            let mut got = Vec::new();
            for part in &parts {
                lines.push(part);
                got.extend(all(&mut lines));
            }
            prop_assert_eq!(&got, &expected);
            let rest = lines.take_rest();
            prop_assert_eq!(&rest, &at_once.take_rest());
            let newlines = whole.iter().filter(|&&byte| byte == b'\n').count();
            prop_assert_eq!(got.len(), newlines);
            prop_assert!(whole.ends_with(&rest));
        }
    }
}
