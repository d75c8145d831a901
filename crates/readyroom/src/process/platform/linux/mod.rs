//! Linux: trees below a guardian process, found in `/proc`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{Member, Tree};
use crate::error::Exit;
use crate::process::stream::{ChildEnds, watched};
use crate::process::{Command, SpawnError};

mod confine;
mod guardian;
mod mark;
mod owner;
mod procfs;
mod program;
mod view;
mod wire;
mod zygote;

pub(in crate::process) use owner::leave_to_parent;
pub(in crate::process) use owner::sweep_orphans;
pub(in crate::process) use program::{init, use_program};

use mark::TreeId;
use owner::{Guardian, Registered, Spawned};

/// A tree below the guardian.
pub(in crate::process) struct LinuxTree {
    leader: Spawned,
    exit: watch::Receiver<Option<Exit>>,
    claim: Claim,
}

/// Our claim on a tree; ends it when dropped. Exists before the tree does.
struct Claim {
    guardian: Arc<Guardian>,
    tree: TreeId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.guardian.release(self.tree);
    }
}

impl Tree for LinuxTree {
    async fn launch(command: &Command, ends: ChildEnds) -> Result<Self, SpawnError> {
        let rules = match &command.writable {
            None => None,
            Some(places) => {
                confine::available().map_err(SpawnError::Unconfined)?;
                let rules = confine::rules(places);
                Some(rules.map_err(|error| SpawnError::Io { what: "making the rules of confinement", error })?)
            }
        };
        let (guardian, registered) = register().await?;
        let Registered { tree, exit, started } = registered;
        let claim = Claim { guardian, tree };
        let zygote = command.zygote.as_ref().map(|zygote| {
            let program =
                [zygote.interpreter.as_os_str(), "-c".as_ref(), zygote::TEXT.as_ref(), command.program.as_os_str()];
            let words = program.into_iter().map(wire::Bytes::from).chain([wire::Bytes::from(&zygote.warm)]);
            words.chain(zygote.imports.iter().map(Into::into)).collect()
        });
        let order = wire::Order::Spawn(wire::Spawn {
            tree,
            program: (&command.program).into(),
            args: command.args.iter().map(Into::into).collect(),
            env: command.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: (&command.cwd).into(),
            terminal: ends.terminal,
            confined: rules.is_some(),
            zygote,
        });
        let descriptors = [ends.stdin, ends.stdout, ends.stderr].into_iter().chain(rules).collect();
        claim.guardian.order(order, descriptors);
        match started.await {
            Ok(Ok(leader)) => Ok(Self { leader, exit, claim }),
            Ok(Err(error)) => Err(explain(command, error)),
            Err(_) => Err(SpawnError::Guardian("it is gone".to_owned())),
        }
    }

    fn pid(&self) -> u32 {
        self.leader.pid
    }

    fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    fn signal_leader(&self, signal: Signal) {
        match &self.leader.pidfd {
            Some(pidfd) => _ = rustix::process::pidfd_send_signal(pidfd, signal),
            None => procfs::signal(self.leader.pid, self.leader.started, signal),
        }
    }

    fn kill(&self) {
        self.claim.guardian.order(wire::Order::Kill { tree: self.claim.tree }, Vec::new());
    }

    fn members(&self, since: Instant) -> Vec<Member> {
        let view = self.claim.guardian.view(since);
        let members = view.members(self.claim.tree);
        let now = procfs::since_boot();
        // A tool of a gigabyte that starts small commands would be seen with two, now and then.
        let borrows = |stat: &procfs::Stat| {
            stat.is_about_to_execute(now) && members.iter().any(|member| member.pid == stat.parent)
        };
        let member = |stat: &procfs::Stat| Member {
            parent: stat.parent,
            pid: stat.pid,
            started: stat.started,
            rss_bytes: if borrows(stat) { 0 } else { stat.rss_bytes() },
            cpu: stat.cpu(),
        };
        members.iter().map(member).collect()
    }

    fn signal(&self, member: &Member, signal: Signal) {
        procfs::signal(member.pid, member.started, signal);
    }

    fn kill_groups(&self, members: &[Member]) {
        for member in members {
            procfs::kill_group(member.pid, member.started);
        }
    }

    async fn gone(&self, members: &[Member], until: Instant) {
        for member in members {
            let pidfd = match procfs::pidfd(member.pid, member.started) {
                Ok(None) => continue,
                Ok(Some(pidfd)) => watched(pidfd).ok(),
                Err(_) => None,
            };
            if !wait_for(pidfd, until).await {
                return;
            }
        }
    }

    fn command_line(member: &Member) -> String {
        procfs::command_line(member.pid)
    }
}

/// Waits until a process has ended; without a descriptor of it, for a moment. Whether there is time left.
async fn wait_for(pidfd: Option<AsyncFd<OwnedFd>>, until: Instant) -> bool {
    let until = tokio::time::Instant::from_std(until);
    match pidfd {
        Some(pidfd) => tokio::time::timeout_at(until, pidfd.readable()).await.is_ok(),
        None => {
            let moment = tokio::time::Instant::now() + Duration::from_millis(10);
            tokio::time::sleep_until(moment.min(until)).await;
            moment < until
        }
    }
}

async fn register() -> Result<(Arc<Guardian>, Registered), SpawnError> {
    // A second try: the first guardian may die just now.
    for _ in 0..2 {
        let guardian = Guardian::obtain().await?;
        if let Some(registered) = guardian.register() {
            return Ok((guardian, registered));
        }
    }
    Err(SpawnError::Guardian("it dies as soon as it is started".to_owned()))
}

/// Says which of the program, the directory and the system it was. The program and the directory were looked at before.
fn explain(command: &Command, error: SpawnError) -> SpawnError {
    let SpawnError::Io { what, error } = error else {
        return error;
    };
    let refused = |why: &str| SpawnError::NotExecutable { program: command.program.clone(), why: why.to_owned() };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) if command.program.exists() => refused("the interpreter that it names is missing"),
        Some(Errno::NOENT) => SpawnError::NotFound { program: command.program.clone() },
        Some(Errno::ACCESS | Errno::PERM) => refused("the system does not permit it"),
        Some(Errno::NOEXEC) => refused("it is not a program of this system"),
        Some(Errno::NOTDIR) => {
            SpawnError::BadDirectory { directory: command.cwd.clone(), why: "it is not a directory".to_owned() }
        }
        _ => SpawnError::Io { what, error },
    }
}
