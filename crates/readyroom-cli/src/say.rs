//! Words on stdout and stderr outside a run.

use std::io::{self, Write as _};

/// Writes a line to stderr. That stderr is gone is no reason to fail.
pub fn stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes bytes to stdout. A reader that has gone away wants no more, which is no error.
///
/// # Errors
/// Stdout can't be written for another reason.
pub fn stdout(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("stdout can't be written"))
        }
        _ => Ok(()),
    }
}
