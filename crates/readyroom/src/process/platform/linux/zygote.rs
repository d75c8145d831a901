//! Zygotes: warmed interpreters that fork. The guardian starts one for each kind that is asked for, asks it for processes,
//! and falls back to a start of its own where a zygote is of no use.
//!
//! A fork is made through a helper that ends at once, so that the new process is the guardian's own child: it is reaped,
//! signalled and ended like any other. What it does before it is the tool is in `zygote.py`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use super::mark::{OWNER_VARIABLE, OwnerId, TreeId};
use super::wire::{Bytes, Filled, Inbox, Outbox, Spawn};

/// What a zygote executes; the program, a text to execute and the modules to import are
/// its arguments.
pub(super) const TEXT: &str = include_str!("zygote.py");

/// How long a zygote may take to answer, its imports included, before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at while somebody waits.
const LOOK: Duration = Duration::from_secs(1);
/// How long one that nobody is a fork of stays, for those who are replaced.
const REST: Duration = Duration::from_secs(1);
/// Differs from instance to instance, and is set in each fork.
const DIRECTORY: &str = "PWD";

/// A process that a zygote was asked for, with all that its own start would take.
pub(super) struct Waiting {
    pub spawn: Spawn,
    pub stdio: [OwnedFd; 3],
    pub rules: Option<OwnedFd>,
    since: Instant,
}

impl Waiting {
    pub(super) fn new(spawn: Spawn, stdio: [OwnedFd; 3], rules: Option<OwnedFd>) -> Self {
        Self { spawn, stdio, rules, since: Instant::now() }
    }
}

/// What came of it.
pub(super) enum Forked {
    /// It runs.
    Process(TreeId, u32),
    /// The zygote is of no use, and why; all that waited for it.
    Nothing(Vec<Waiting>, String),
}

/// All zygotes of a guardian.
#[derive(Default)]
pub(super) struct Zygotes(Vec<Zygote>);

/// What makes two processes forks of one zygote: its command line, and the environment in which it imports.
#[derive(PartialEq)]
struct Kind {
    argv: Vec<Bytes>,
    env: Vec<(Bytes, Bytes)>,
}

struct Zygote {
    kind: Kind,
    state: State,
    /// What it was asked for, as far as it is still there.
    trees: Vec<TreeId>,
    /// Since when there is nothing of it.
    alone: Option<Instant>,
}

enum State {
    Serves {
        child: Child,
        socket: UnixStream,
        inbox: Inbox,
        outbox: Outbox,
        waiting: VecDeque<Waiting>,
    },
    /// It could not be started, or gave up: nothing is asked of it any more.
    Useless,
}

/// An order to a zygote. The three standard streams come beside it, and behind them the rules of confinement.
#[derive(Serialize)]
struct Fork<'a> {
    args: &'a [Bytes],
    env: Vec<(Bytes, Bytes)>,
    cwd: &'a Bytes,
    terminal: bool,
    confined: bool,
    /// Resources, and their soft limits.
    limits: Vec<(u32, u64)>,
    guardian: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Pid(u32),
    Error(String),
}

impl Kind {
    fn of(spawn: &Spawn) -> Self {
        let env = spawn.env.iter().filter(|(name, _)| *name != Bytes::from(DIRECTORY)).cloned().collect();
        Self { argv: spawn.zygote.clone().unwrap_or_default(), env }
    }
}

impl Zygotes {
    /// Asks the zygote of the kind that is needed, which is started if there is none. `prepare` adds what each child of
    /// the guardian does before it executes.
    ///
    /// # Errors
    /// There is no use in asking; what was asked for comes back, and where this is news, why.
    #[expect(clippy::result_large_err, reason = "what was asked for has to come back")]
    pub(super) fn ask(
        &mut self,
        waiting: Waiting,
        owner: &OwnerId,
        limits: Vec<(u32, u64)>,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<(), (Waiting, Option<String>)> {
        let kind = Kind::of(&waiting.spawn);
        let at = match self.0.iter().position(|zygote| zygote.kind == kind) {
            Some(at) => at,
            None => {
                let (state, error) = match start(&kind, &waiting.spawn.cwd, owner, prepare) {
                    Ok(state) => (state, None),
                    Err(error) => (State::Useless, Some(format!("it can't be started: {error}"))),
                };
                self.0.push(Zygote { kind, state, trees: Vec::new(), alone: None });
                if error.is_some() {
                    return Err((waiting, error));
                }
                self.0.len() - 1
            }
        };
        let zygote = &mut self.0[at];
        let State::Serves { outbox, waiting: queue, .. } = &mut zygote.state else { return Err((waiting, None)) };
        let mut env = waiting.spawn.env.clone();
        env.extend(owner.environment(waiting.spawn.tree).map(|(name, value)| (name.into(), value.into())));
        let order = Fork {
            args: &waiting.spawn.args,
            env,
            cwd: &waiting.spawn.cwd,
            terminal: waiting.spawn.terminal,
            confined: waiting.rules.is_some(),
            limits,
            guardian: std::process::id(),
        };
        let copies = waiting.stdio.iter().chain(&waiting.rules).map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
        match copies.and_then(|copies| outbox.push(&order, copies)) {
            Ok(()) => {
                zygote.trees.push(waiting.spawn.tree);
                queue.push_back(waiting);
                Ok(())
            }
            Err(error) => Err((waiting, Some(error.to_string()))),
        }
    }

    /// Sends what is to be sent, and takes all answers that are there.
    pub(super) fn hear(&mut self) -> Vec<Forked> {
        let mut news = Vec::new();
        for zygote in &mut self.0 {
            let State::Serves { child, socket, inbox, outbox, waiting } = &mut zygote.state else { continue };
            let why = match exchange(socket, inbox, outbox, waiting, &mut news) {
                Err(why) => why,
                Ok(()) if waiting.front().is_some_and(|first| first.since.elapsed() > PATIENCE) => {
                    format!("it did not answer for {} s", PATIENCE.as_secs())
                }
                Ok(()) => continue,
            };
            // It is our child, and whoever reaps children takes it.
            let _ = child.kill();
            news.push(Forked::Nothing(waiting.drain(..).collect(), why));
            zygote.state = State::Useless;
            zygote.alone = None;
        }
        news
    }

    /// What to wait for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.0.iter().filter_map(|zygote| match &zygote.state {
            State::Serves { socket, outbox, .. } if outbox.is_empty() => Some((socket.as_fd(), PollFlags::IN)),
            State::Serves { socket, .. } => Some((socket.as_fd(), PollFlags::IN | PollFlags::OUT)),
            State::Useless => None,
        })
    }

    /// Whether one owes an answer.
    pub(super) fn are_asked(&self) -> bool {
        self.0.iter().any(|zygote| matches!(&zygote.state, State::Serves { waiting, .. } if !waiting.is_empty()))
    }

    /// Ends those of which there has been no fork for a while, by what is still there.
    pub(super) fn rest(&mut self, is_there: impl Fn(TreeId) -> bool) {
        self.0.retain_mut(|zygote| {
            let State::Serves { child, .. } = &mut zygote.state else { return true };
            zygote.trees.retain(|tree| is_there(*tree));
            if !zygote.trees.is_empty() {
                zygote.alone = None;
                return true;
            }
            if zygote.alone.get_or_insert_with(Instant::now).elapsed() < REST {
                return true;
            }
            // As above, it is reaped with the others.
            let _ = child.kill();
            false
        });
    }

    /// How long to wait at most; `None`: as long as nothing happens.
    pub(super) fn patience(&self) -> Option<Duration> {
        let alone = self.0.iter().filter_map(|zygote| zygote.alone);
        let rest = alone.map(|since| REST.saturating_sub(since.elapsed()) + Duration::from_millis(1)).min();
        if self.are_asked() { Some(rest.map_or(LOOK, |rest| rest.min(LOOK))) } else { rest }
    }
}

/// Starts a zygote, with its end of a socket as its stdin. Nothing that it prints is anybody's.
fn start(kind: &Kind, cwd: &Bytes, owner: &OwnerId, prepare: impl FnOnce(&mut Command)) -> io::Result<State> {
    let (socket, theirs) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    let mut words = kind.argv.iter().cloned().map(OsString::from);
    let mut command = Command::new(words.next().ok_or(io::ErrorKind::InvalidInput)?);
    command
        .args(words)
        .env_clear()
        .envs(kind.env.iter().map(|(name, value)| (OsString::from(name.clone()), OsString::from(value.clone()))))
        .env(OWNER_VARIABLE, owner.to_string())
        .current_dir(OsString::from(cwd.clone()))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    prepare(&mut command);
    let child = command.spawn()?;
    Ok(State::Serves { child, socket, inbox: Inbox::default(), outbox: Outbox::default(), waiting: VecDeque::new() })
}

fn exchange(
    socket: &UnixStream,
    inbox: &mut Inbox,
    outbox: &mut Outbox,
    waiting: &mut VecDeque<Waiting>,
    news: &mut Vec<Forked>,
) -> Result<(), String> {
    let sent = outbox.flush(socket);
    loop {
        while let Some((answer, _)) = inbox.next::<Answer>().map_err(|error| format!("it says nonsense: {error}"))? {
            match (answer, waiting.pop_front()) {
                (Answer::Pid(pid), Some(asked)) => news.push(Forked::Process(asked.spawn.tree, pid)),
                (Answer::Error(why), asked) => {
                    // It was asked, and is to be started.
                    asked.into_iter().for_each(|asked| waiting.push_front(asked));
                    return Err(why);
                }
                (Answer::Pid(_), None) => return Err("it forked, and nobody had asked it to".to_owned()),
            }
        }
        match inbox.fill(socket) {
            Ok(Filled::Some) => {}
            Ok(Filled::Nothing) => break,
            Ok(Filled::End) => return Err("it ended".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
    sent.map_err(|error| error.to_string())
}
