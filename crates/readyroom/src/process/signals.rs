//! What became of signals before this program started.

#![expect(unsafe_code, reason = "only the C interface tells a signal's disposition")]

/// Whether a signal is ignored by this process: `nohup` has SIGHUP ignored, shells have SIGINT ignored for commands that
/// they start in the background. A program that handles the signal should ask first, and leave it ignored.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: `sigaction` is plain data for which all zeroes is a value; a null pointer in place of the new action
    // makes the call a query that writes to `action` only.
    let (result, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut action), action)
    };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions_are_told_apart() {
        // Every Rust program starts with SIGPIPE ignored; nobody can ignore SIGKILL.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGKILL));
        assert!(!is_ignored(-1));
    }
}
