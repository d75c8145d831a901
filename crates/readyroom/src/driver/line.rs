//! Cuts a byte stream into lines, with a bound.

/// Collects bytes and gives out whole lines. A line longer than the limit is an error, not a growing buffer.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
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
    /// Lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), scanned: 0, limit }
    }

    /// Takes bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its newline and a carriage return before it; `None` until more bytes come.
    ///
    /// # Errors
    /// `LineTooLong` when more than the limit has come without a newline; the stream can't be followed any more.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        match self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let end = self.scanned + at;
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.scanned = 0;
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                if line.len() > self.limit { Err(LineTooLong { limit: self.limit }) } else { Ok(Some(line)) }
            }
            None => {
                self.scanned = self.buffer.len();
                if self.buffer.len() > self.limit { Err(LineTooLong { limit: self.limit }) } else { Ok(None) }
            }
        }
    }
}
