//! The owner's ends of a process's standard streams, for the async runtime: pipes, or the master side of a terminal.
#![expect(unsafe_code, reason = "registering a descriptor with the runtime has no safe interface")]

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::Io;

/// The end-of-file character of a terminal: all that can be said to a program whose stdin is one.
const END_OF_FILE: u8 = 0x04;

/// How wide and high a tool's terminal claims to be. Wide, so that tools do not wrap what they print.
const SIZE: Winsize = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };

/// Where a tool's stdin is written. Dropping it, or shutting it down, closes a pipe; on a terminal, which cannot be
/// closed in one direction, it types the end-of-file character.
#[derive(Debug)]
pub struct Stdin {
    end: WriteEnd,
}

#[derive(Debug)]
enum WriteEnd {
    Pipe(pipe::Sender),
    Terminal(Arc<AsyncFd<OwnedFd>>),
    Closed,
}

/// Where a tool's stdout or stderr is read. Ends (0 bytes) when every process that holds the other end has closed it.
#[derive(Debug)]
pub struct Output {
    end: ReadEnd,
}

#[derive(Debug)]
enum ReadEnd {
    Pipe(pipe::Receiver),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// The child's ends, all close-on-exec.
#[derive(Debug)]
pub(super) struct ChildEnds {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// The three are one terminal, which becomes the child's controlling one.
    pub terminal: bool,
}

impl ChildEnds {
    /// The three as what the standard library's spawn takes, and whether they are a terminal.
    #[cfg(any(not(target_os = "linux"), test))]
    pub(super) fn into_stdio(self) -> ([std::process::Stdio; 3], bool) {
        ([self.stdin.into(), self.stdout.into(), self.stderr.into()], self.terminal)
    }
}

/// Makes both sides of the streams. Must be called in a Tokio runtime with I/O.
pub(super) fn open(io: Io) -> io::Result<(Stdin, Output, Option<Output>, ChildEnds)> {
    match io {
        Io::Pipe | Io::Merged => {
            let (stdin_read, stdin_write) = io::pipe()?;
            let (stdout_read, stdout_write) = io::pipe()?;
            let stdin = Stdin { end: WriteEnd::Pipe(pipe::Sender::from_owned_fd(stdin_write.into())?) };
            let (stderr, stderr_write) = if io == Io::Merged {
                (None, OwnedFd::from(stdout_write.try_clone()?))
            } else {
                let (read, write) = io::pipe()?;
                (Some(Output::pipe(read.into())?), OwnedFd::from(write))
            };
            let ends = ChildEnds {
                stdin: stdin_read.into(),
                stdout: stdout_write.into(),
                stderr: stderr_write,
                terminal: false,
            };
            Ok((stdin, Output::pipe(stdout_read.into())?, stderr, ends))
        }
        Io::Pty => {
            let (master, slave) = open_terminal()?;
            let master = Arc::new(watched(master)?);
            let ends =
                ChildEnds { stdin: slave.try_clone()?, stdout: slave.try_clone()?, stderr: slave, terminal: true };
            let stdin = Stdin { end: WriteEnd::Terminal(Arc::clone(&master)) };
            Ok((stdin, Output { end: ReadEnd::Terminal(master) }, None, ends))
        }
    }
}

/// A descriptor that the runtime tells about. Must be called in a Tokio runtime with I/O.
pub(super) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open, and the same, for as long as the registration holds it.
    unsafe { AsyncFd::register(descriptor) }.map_err(Into::into)
}

/// A terminal in raw mode: no echo, no translation, no limit on a line's length. Programs that edit lines set their
/// own mode; for all others bytes pass as they are.
fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave =
        rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    let mut mode = rustix::termios::tcgetattr(&slave)?;
    mode.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode)?;
    rustix::termios::tcsetwinsize(&slave, SIZE)?;
    let flags = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
    Ok((master, slave))
}

impl Output {
    fn pipe(end: OwnedFd) -> io::Result<Self> {
        Ok(Self { end: ReadEnd::Pipe(pipe::Receiver::from_owned_fd(end)?) })
    }
}

impl AsyncRead for Output {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            ReadEnd::Pipe(receiver) => Pin::new(receiver).poll_read(cx, buf),
            ReadEnd::Terminal(master) => loop {
                let mut guard = ready!(master.poll_read_ready(cx))?;
                let space = buf.initialize_unfilled();
                match guard.try_io(|master| Ok(rustix::io::read(master, &mut *space)?)) {
                    Ok(Ok(count)) => {
                        buf.advance(count);
                        return Poll::Ready(Ok(()));
                    }
                    // How Linux tells that no process holds the other side any more.
                    Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Err(error)) => return Poll::Ready(Err(error)),
                    Err(_would_block) => {}
                }
            },
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().end {
            WriteEnd::Pipe(sender) => Pin::new(sender).poll_write(cx, bytes),
            WriteEnd::Terminal(master) => loop {
                let mut guard = ready!(master.poll_write_ready(cx))?;
                match guard.try_io(|master| Ok(rustix::io::write(master, bytes)?)) {
                    Ok(result) => return Poll::Ready(result),
                    Err(_would_block) => {}
                }
            },
            WriteEnd::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.end, WriteEnd::Terminal(_)) {
            // An error means that nobody is there to be told.
            let _ = ready!(Pin::new(&mut *this).poll_write(cx, &[END_OF_FILE]));
        }
        this.end = WriteEnd::Closed;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        if let WriteEnd::Terminal(master) = &self.end {
            // Best effort: a terminal whose input is full is about to be hung up anyway.
            let _ = rustix::io::write(master.get_ref(), &[END_OF_FILE]);
        }
    }
}
