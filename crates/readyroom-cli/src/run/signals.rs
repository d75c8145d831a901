//! The signals that end a run, as a stream. A signal that was ignored when the command started stays ignored: that is
//! what `nohup` and background jobs of a shell rely on.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::Signal;

/// Sends each signal that comes from now on. Must be called within a Tokio runtime.
///
/// # Errors
/// The system refuses to tell of a signal.
pub fn listen<T: Send + 'static>(
    sender: &mpsc::UnboundedSender<T>,
    wrap: impl Fn(Signal) -> T + Copy + Send + 'static,
) -> io::Result<()> {
    for which in Signal::ALL {
        let number = i32::from(which.number());
        if readyroom::process::is_ignored(number) {
            continue;
        }
        let mut stream = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(wrap(which)).is_ok() {} });
    }
    Ok(())
}
