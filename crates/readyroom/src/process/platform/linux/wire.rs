//! What owner and guardian say to each other: frames of JSON over a Unix socket, with descriptors beside them.
//!
//! A frame is its length (4 bytes, little endian), the number of descriptors (1 byte) and the message. The descriptors
//! travel with the frame's first byte.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::mark::{OwnerId, TreeId};
use crate::error::Exit;

/// Counts changes of this protocol: owner and guardian may be two programs.
pub(super) const VERSION: u32 = 4;

/// More than any real message: arguments and environment together are at most a few MB.
const LONGEST: usize = 256 << 20;
const HEADER: usize = 5;
/// Descriptors with one frame.
const DESCRIPTORS: usize = 4;

/// From the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first one.
    Hello {
        version: u32,
        owner: OwnerId,
        /// The soft limit on open files that tools get.
        open_files: Option<u64>,
    },
    /// Start a process, with the three descriptors, and a fourth where it is confined.
    Spawn(Spawn),
    /// End a tree, and forget it once nothing of it is left.
    Kill { tree: TreeId },
}

/// A process that is to be started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spawn {
    pub tree: TreeId,
    pub program: Bytes,
    pub args: Vec<Bytes>,
    pub env: Vec<(Bytes, Bytes)>,
    pub cwd: Bytes,
    pub terminal: bool,
    pub confined: bool,
    /// The command line of the zygote of which it is to be a fork, if that can be.
    pub zygote: Option<Vec<Bytes>>,
}

/// From the guardian.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The answer to `Hello`.
    Ready { version: u32 },
    /// The process was started; a descriptor of it comes along where the kernel has such.
    Spawned { tree: TreeId, pid: u32, started: u64 },
    /// It was not.
    Refused { tree: TreeId, errno: i32 },
    /// A tree's leader has ended and was reaped.
    Exited { tree: TreeId, exit: Exit },
    /// A zygote is of no use: what was to be forked from it is started by itself.
    Unforked { why: String },
}

/// A string of the operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Text(String),
    Raw(Vec<u8>),
}

impl From<OsString> for Bytes {
    fn from(text: OsString) -> Self {
        match String::from_utf8(text.into_vec()) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Raw(error.into_bytes()),
        }
    }
}

impl<T: AsRef<std::ffi::OsStr> + ?Sized> From<&T> for Bytes {
    fn from(text: &T) -> Self {
        match std::str::from_utf8(text.as_ref().as_bytes()) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Raw(text.as_ref().as_bytes().to_owned()),
        }
    }
}

impl From<Bytes> for OsString {
    fn from(bytes: Bytes) -> Self {
        match bytes {
            Bytes::Text(text) => Self::from(text),
            Bytes::Raw(bytes) => Self::from_vec(bytes),
        }
    }
}

/// Frames on their way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    /// Until the first byte is sent.
    descriptors: Vec<OwnedFd>,
}

impl Outbox {
    pub(super) fn push(&mut self, message: &impl Serialize, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut bytes = vec![0; HEADER];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - HEADER;
        if length > LONGEST || descriptors.len() > DESCRIPTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4] = descriptors.len() as u8;
        self.frames.push_back(Frame { bytes, sent: 0, descriptors });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends what the socket takes: all, if it blocks. `WouldBlock` is no error here.
    pub(super) fn flush(&mut self, socket: impl AsFd) -> io::Result<()> {
        while let Some(frame) = self.frames.front_mut() {
            let descriptors: Vec<_> = frame.descriptors.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let rest = [IoSlice::new(&frame.bytes[frame.sent..])];
            match rustix::net::sendmsg(&socket, &rest, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    frame.sent += count;
                    frame.descriptors.clear();
                    if frame.sent == frame.bytes.len() {
                        self.frames.pop_front();
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Frames on their way in.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// What came with one frame each, in order. Fewer than were sent where no more descriptors could be opened.
    descriptors: VecDeque<Vec<OwnedFd>>,
}

/// What [`Inbox::fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    Some,
    Nothing,
    End,
}

impl Inbox {
    /// Receives once.
    pub(super) fn fill(&mut self, socket: impl AsFd) -> io::Result<Filled> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = vec![0; 64 << 10];
        let received = match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => received,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(Filled::Nothing),
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if !descriptors.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
            self.descriptors.push_back(descriptors);
        }
        if received.bytes == 0 {
            return Ok(Filled::End);
        }
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        Ok(Filled::Some)
    }

    /// The next whole frame.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some((header, rest)) = self.bytes.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let with_descriptors = header[4] > 0;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(message)?;
        self.bytes.drain(..HEADER + length);
        let descriptors = if with_descriptors { self.descriptors.pop_front().unwrap_or_default() } else { Vec::new() };
        Ok(Some((message, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_in_order_and_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let raw = OsString::from_vec(vec![b'a', 0xff]);
        let sender = std::thread::spawn(move || {
            let mut outbox = Outbox::default();
            for size in [0, 1, 300_000] {
                let args = vec![Bytes::from("x".repeat(size).as_str()), Bytes::from(raw.clone())];
                let order = Order::Spawn(Spawn {
                    tree: TreeId::new(size as u32),
                    program: Bytes::from("p"),
                    args,
                    env: vec![],
                    cwd: Bytes::from("/"),
                    terminal: false,
                    confined: false,
                    zygote: None,
                });
                outbox.push(&order, vec![write.try_clone().unwrap().into()]).unwrap();
                outbox.push(&Order::Kill { tree: TreeId::new(7) }, vec![]).unwrap();
            }
            outbox.flush(&ours).unwrap();
            assert!(outbox.is_empty());
        });
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        loop {
            let filled = inbox.fill(&theirs).unwrap();
            while let Some((order, descriptors)) = inbox.next::<Order>().unwrap() {
                if let Order::Spawn(Spawn { args, .. }) = order {
                    seen.push(OsString::from(args[0].clone()).len());
                    assert_eq!(OsString::from(args[1].clone()).as_bytes(), b"a\xff");
                    let mut file = std::fs::File::from(descriptors.into_iter().next().unwrap());
                    file.write_all(b"!").unwrap();
                }
            }
            if filled == Filled::End {
                break;
            }
        }
        sender.join().unwrap();
        assert_eq!(seen, [0, 1, 300_000]);
        let mut written = String::new();
        read.read_to_string(&mut written).unwrap();
        assert_eq!(written, "!!!");
    }
}
