//! The owner's side of the guardian: starts it when it is needed, talks with it over threads that need no runtime, and
//! ends what it guarded when it dies.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::{oneshot, watch};

use super::guardian;
use super::mark::{self, OwnerId, TreeId};
use super::procfs::{self, Table};
use super::program;
use super::view::{View, Viewer};
use super::wire::{self, Filled, Inbox, Order, Outbox, Report};
use crate::error::Exit;
use crate::process::SpawnError;

/// How long a new guardian gets to say that it is there.
const GREETING: Duration = Duration::from_secs(10);
/// How long to go on killing what a dead guardian left, at most.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
/// How long a guardian whose owner is dead gets to finish its work before it is taken for stuck.
const GUARDIAN_GRACE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(3);
const STACK: usize = 256 << 10;

/// The guardian of this program, if there is one.
static CURRENT: Mutex<Weak<Guardian>> = Mutex::new(Weak::new());
/// Our ends of the sockets to guardians that serve us.
static ENDS: Mutex<Vec<Weak<UnixStream>>> = Mutex::new(Vec::new());
static SWEPT: Once = Once::new();
static TREES: AtomicU32 = AtomicU32::new(0);

/// A guardian that serves us. It ends with the last one who holds it.
pub(super) struct Guardian {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Order(Order, Vec<OwnedFd>),
    Close,
}

struct Shared {
    owner: OwnerId,
    guardian: u32,
    state: Mutex<State>,
    view: Mutex<LastView>,
}

struct State {
    phase: Phase,
    trees: HashMap<TreeId, Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// We closed our end.
    Closing,
    /// It has ended, asked or not.
    Gone,
}

struct Entry {
    /// Known once it was spawned.
    leader: Option<u32>,
    exit: watch::Sender<Option<Exit>>,
    /// Who waits for the start.
    starting: Option<oneshot::Sender<Result<Spawned, SpawnError>>>,
}

struct LastView {
    at: Option<Instant>,
    view: Arc<View>,
    viewer: Viewer,
}

/// What is known of a process once it was started.
pub(super) struct Spawned {
    pub pid: u32,
    pub started: u64,
    pub pidfd: Option<OwnedFd>,
}

/// A tree that was asked for, and where its news come in.
pub(super) struct Registered {
    pub tree: TreeId,
    pub exit: watch::Receiver<Option<Exit>>,
    pub started: oneshot::Receiver<Result<Spawned, SpawnError>>,
}

/// In a child that was forked and executes nothing else: closes its copies of our ends. While they are open, a guardian
/// does not notice that its owner is dead.
#[expect(unsafe_code, reason = "what owns the descriptors belongs to threads that do not exist in this process")]
pub(in crate::process) fn leave_to_parent() {
    // Where another thread held the lock at the fork, nobody will ever let go of it.
    let Ok(mut ends) = ENDS.try_lock() else { return };
    for end in ends.drain(..).filter_map(|end| end.upgrade()) {
        // SAFETY: the descriptor is open, and in this process nothing uses or closes it again: the owner is kept for ever.
        unsafe { rustix::io::close(end.as_raw_fd()) };
        std::mem::forget(end);
    }
}

impl Guardian {
    /// The guardian of this program, started if there is none.
    pub(super) async fn obtain() -> Result<Arc<Self>, SpawnError> {
        // Where the lock is taken, a guardian is being started.
        if let Ok(current) = CURRENT.try_lock()
            && let Some(guardian) = usable(&current)
        {
            return Ok(guardian);
        }
        tokio::task::spawn_blocking(|| {
            let mut current = lock(&CURRENT);
            if let Some(guardian) = usable(&current) {
                return Ok(guardian);
            }
            let guardian = Arc::new(Self::start()?);
            *current = Arc::downgrade(&guardian);
            Ok(guardian)
        })
        .await
        .unwrap_or_else(|error| Err(SpawnError::Guardian(format!("starting it failed: {error}"))))
    }

    fn start() -> Result<Self, SpawnError> {
        SWEPT.call_once(|| _ = sweep_orphans());
        let program = program::choose()?;
        let owner = OwnerId::current()
            .ok_or_else(|| SpawnError::Guardian("/proc is not mounted, and it is needed".to_owned()))?;
        let failed = |what: &str, error: io::Error| {
            SpawnError::Guardian(format!("{what} {} as guardian: {error}", program.display()))
        };
        let (socket, theirs) = UnixStream::pair().map_err(|error| failed("making a socket for", error))?;
        let mut child = spawn_guardian(&program, theirs, &owner).map_err(|error| failed("starting", error))?;
        let inbox = greet(&socket, &owner).map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            failed("greeting", error)
        })?;

        let shared = Arc::new(Shared {
            owner,
            guardian: child.id(),
            state: Mutex::new(State { phase: Phase::Serving, trees: HashMap::new() }),
            view: Mutex::new(LastView { at: None, view: Arc::default(), viewer: Viewer::default() }),
        });
        let (outgoing, orders) = mpsc::channel();
        let writer = Arc::new(socket.try_clone().map_err(|error| failed("talking to", error))?);
        let socket = Arc::new(socket);
        let mut ends = lock(&ENDS);
        ends.retain(|end| end.strong_count() > 0);
        ends.extend([Arc::downgrade(&writer), Arc::downgrade(&socket)]);
        drop(ends);
        let reader = Arc::clone(&shared);
        let threads = thread::Builder::new()
            .name("readyroom-write".to_owned())
            .stack_size(STACK)
            .spawn(move || write(&writer, &orders))
            .and_then(|_| {
                let builder = thread::Builder::new().name("readyroom-read".to_owned()).stack_size(STACK);
                builder.spawn(move || reader.read(&socket, inbox, child))
            });
        // Without its threads the socket is closed now, so the guardian ends.
        threads.map_err(|error| failed("making a thread for", error))?;
        Ok(Self { shared, outgoing })
    }

    /// Registers a new tree; `None` when this guardian is over.
    pub(super) fn register(&self) -> Option<Registered> {
        let mut state = lock(&self.shared.state);
        if state.phase != Phase::Serving {
            return None;
        }
        let tree = loop {
            let tree = TreeId::new(TREES.fetch_add(1, Ordering::Relaxed));
            if !state.trees.contains_key(&tree) {
                break tree;
            }
        };
        let (exit_sender, exit) = watch::channel(None);
        let (starting, started) = oneshot::channel();
        state.trees.insert(tree, Entry { leader: None, exit: exit_sender, starting: Some(starting) });
        Some(Registered { tree, exit, started })
    }

    /// Whether this process started it. A fork of the owner without exec has a copy of all this, but neither the threads
    /// nor the right; its locks may be taken for good.
    fn is_ours(&self) -> bool {
        self.shared.owner.pid == std::process::id()
    }

    /// Forgets a tree; the guardian ends what is left of it.
    pub(super) fn release(&self, tree: TreeId) {
        if !self.is_ours() {
            return;
        }
        lock(&self.shared.state).trees.remove(&tree);
        self.order(Order::Kill { tree }, Vec::new());
    }

    /// Sends an order. One that can't be sent any more comes back as the end of all trees.
    pub(super) fn order(&self, order: Order, descriptors: Vec<OwnedFd>) {
        let _ = self.outgoing.send(Outgoing::Order(order, descriptors));
    }

    /// The processes as seen no earlier than `since`.
    pub(super) fn view(&self, since: Instant) -> Arc<View> {
        let mut last = lock(&self.shared.view);
        if last.at.is_none_or(|at| at < since) {
            let leaders = {
                let state = lock(&self.shared.state);
                state.trees.iter().filter_map(|(id, entry)| Some((entry.leader?, *id))).collect()
            };
            let at = Instant::now();
            last.view = Arc::new(last.viewer.look(&self.shared.owner, self.shared.guardian, &leaders));
            last.at = Some(at);
        }
        Arc::clone(&last.view)
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let mut state = lock(&self.shared.state);
        if state.phase == Phase::Serving {
            state.phase = Phase::Closing;
        }
        let _ = self.outgoing.send(Outgoing::Close);
    }
}

fn usable(current: &Weak<Guardian>) -> Option<Arc<Guardian>> {
    let guardian = current.upgrade()?;
    let serving = guardian.is_ours() && lock(&guardian.shared.state).phase == Phase::Serving;
    serving.then_some(guardian)
}

fn spawn_guardian(program: &Path, socket: UnixStream, owner: &OwnerId) -> io::Result<Child> {
    let mut command = std::process::Command::new(program);
    command
        .arg0("readyroom-guardian")
        .env(mark::GUARDIAN_VARIABLE, "1")
        .env(mark::OWNER_VARIABLE, owner.to_string())
        .env_remove(mark::TREE_VARIABLE)
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    guardian::in_own_session(&mut command);
    command.spawn()
}

fn greet(socket: &UnixStream, owner: &OwnerId) -> io::Result<Inbox> {
    socket.set_read_timeout(Some(GREETING))?;
    let mut outbox = Outbox::default();
    outbox
        .push(&Order::Hello { version: wire::VERSION, owner: *owner, open_files: program::open_files() }, Vec::new())?;
    outbox.flush(socket)?;
    let mut inbox = Inbox::default();
    let deadline = Instant::now() + GREETING;
    let version = loop {
        if let Some((report, _)) = inbox.next()? {
            match report {
                Report::Ready { version } => break version,
                _ => return Err(io::Error::other("it does not speak as a guardian does")),
            }
        }
        match inbox.fill(socket)? {
            Filled::Some => {}
            Filled::End => {
                return Err(io::Error::other("it ended at once; its main must begin with readyroom::init()"));
            }
            Filled::Nothing if Instant::now() < deadline => {}
            Filled::Nothing => {
                return Err(io::Error::other("it does not answer; its main must begin with readyroom::init()"));
            }
        }
    };
    if version != wire::VERSION {
        return Err(io::Error::other(format!(
            "it is of another release (its protocol is {version}, ours {})",
            wire::VERSION
        )));
    }
    socket.set_read_timeout(None)?;
    Ok(inbox)
}

/// The thread that sends orders, so that no caller ever waits for a socket.
fn write(socket: &UnixStream, orders: &mpsc::Receiver<Outgoing>) {
    let mut outbox = Outbox::default();
    while let Ok(Outgoing::Order(order, descriptors)) = orders.recv() {
        if outbox.push(&order, descriptors).and_then(|()| outbox.flush(socket)).is_err() {
            break;
        }
    }
    // Not only our copy is closed: a fork of the owner may hold others.
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

impl Shared {
    /// The thread that takes reports, to the guardian's end.
    fn read(&self, socket: &UnixStream, mut inbox: Inbox, mut child: Child) {
        loop {
            match inbox.next() {
                Ok(Some((report, descriptors))) => self.take(report, descriptors.into_iter().next()),
                Ok(None) => match inbox.fill(socket) {
                    Ok(Filled::Some | Filled::Nothing) => {}
                    Ok(Filled::End) | Err(_) => break,
                },
                Err(_) => break,
            }
        }
        let leaders = {
            let mut state = lock(&self.state);
            if state.phase == Phase::Serving {
                // It has no business to go on without us.
                let _ = child.kill();
            }
            state.phase = Phase::Gone;
            state.trees.values().filter_map(|entry| entry.leader).collect::<Vec<_>>()
        };
        let orderly = child.wait().is_ok_and(|status| status.success());
        if !orderly {
            self.recover(&leaders);
        }
        for (_, entry) in lock(&self.state).trees.drain() {
            entry.exit.send_if_modified(|exit| {
                let unknown = exit.is_none();
                exit.get_or_insert(Exit::Unknown);
                unknown
            });
            if let Some(starting) = entry.starting {
                let _ = starting.send(Err(SpawnError::Guardian("it died while it started a process".to_owned())));
            }
        }
    }

    fn take(&self, report: Report, descriptor: Option<OwnedFd>) {
        let mut state = lock(&self.state);
        let (tree, result) = match report {
            Report::Ready { .. } => return,
            Report::Exited { tree, exit } => {
                if let Some(entry) = state.trees.get(&tree) {
                    entry.exit.send_replace(Some(exit));
                }
                return;
            }
            Report::Unforked { why } => {
                tracing::warn!(why, "a zygote is of no use; what it was to be forked from is started by itself");
                return;
            }
            Report::Spawned { tree, pid, started } => (tree, Ok(Spawned { pid, started, pidfd: descriptor })),
            Report::Refused { tree, errno } => {
                (tree, Err(SpawnError::Io { what: "starting the process", error: io::Error::from_raw_os_error(errno) }))
            }
        };
        // A tree that was given up meanwhile is not there; the order to end it is on its way.
        if let Some(entry) = state.trees.get_mut(&tree) {
            entry.leader = result.as_ref().ok().map(|spawned| spawned.pid);
            if let Some(starting) = entry.starting.take() {
                let _ = starting.send(result);
            }
        }
    }

    /// Ends what a guardian left that did not end as it should. The leaders die with it; what came from them is found by
    /// its marks and by the leaders' sessions.
    fn recover(&self, leaders: &[u32]) {
        let give_up = Instant::now() + RECOVERY_LIMIT;
        let us = std::process::id();
        let mut looked_in_vain = false;
        while Instant::now() < give_up {
            let table = Table::read();
            let mut found = Vec::new();
            for stat in table.iter().filter(|stat| stat.pid != us && stat.runs()) {
                let ours = match mark::tree_of(stat.pid, &self.owner) {
                    // A guardian that was started since then looks after its own.
                    Some(tree) => !is_guarded(tree),
                    None => leaders.contains(&stat.session),
                };
                if ours {
                    found.push(*stat);
                    found.extend(table.below(stat.pid));
                }
            }
            if found.iter().all(|stat| !stat.runs()) {
                if looked_in_vain {
                    return;
                }
                looked_in_vain = true;
                continue;
            }
            looked_in_vain = false;
            for stat in &found {
                procfs::kill_group(stat.pid, stat.started);
                procfs::signal(stat.pid, stat.started, Signal::KILL);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Whether a guardian that serves looks after a tree.
fn is_guarded(tree: TreeId) -> bool {
    let Some(guardian) = lock(&CURRENT).upgrade() else {
        return false;
    };
    let state = lock(&guardian.shared.state);
    state.phase == Phase::Serving && state.trees.contains_key(&tree)
}

/// Ends what carries the mark of an owner that is dead; returns how many processes that were.
pub(in crate::process) fn sweep_orphans() -> usize {
    let Some(namespace) = mark::namespace_of(std::process::id()) else {
        return 0;
    };
    let user = rustix::process::geteuid().as_raw();
    let began = Instant::now();
    let mut ended = std::collections::HashSet::new();
    loop {
        let table = Table::read();
        let ourselves = table.lineage(std::process::id());
        let mut orphans = Vec::new();
        let mut guardian_at_work = false;
        for stat in table.iter() {
            let candidate = stat.runs() && !ourselves.contains(&stat.pid) && procfs::user(stat.pid) == Some(user);
            if candidate && mark::is_orphan(stat.pid, namespace) {
                orphans.push(*stat);
                guardian_at_work |= mark::is_guardian(stat.pid);
            }
        }
        if orphans.is_empty() {
            return ended.len();
        }
        // It knows what is below it better than the marks do.
        if !guardian_at_work || began.elapsed() > GUARDIAN_GRACE {
            for orphan in orphans {
                for stat in table.below(orphan.pid).into_iter().chain([orphan]) {
                    procfs::signal(stat.pid, stat.started, Signal::KILL);
                    ended.insert((stat.pid, stat.started));
                }
            }
        }
        if began.elapsed() > GUARDIAN_GRACE + Duration::from_secs(1) {
            return ended.len();
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
