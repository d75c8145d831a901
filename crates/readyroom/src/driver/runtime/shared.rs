//! One process for several instances, where the protocol holds conversations apart and nothing that a turn leaves
//! running could be taken for another's.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::{Link, Recorder, Report};
use crate::driver::Slot;
use crate::error::Failure;
use crate::tool::{Contract, Sharing};

/// Where the instances of a pool get their process: the one that was started last, while it takes more.
///
/// An instance that is recycled or restarted leaves the process that it shared; from then on that process takes nobody
/// new, and it is ended when its last instance has left. So a process that has grown too large empties by itself.
#[derive(Debug, Default)]
pub struct SharedProcess {
    /// Held while a process is being started, so that the others wait for it rather than start their own.
    starting: tokio::sync::Mutex<()>,
    current: Mutex<Option<Link>>,
}

/// A slot in a process, and what it reports.
#[derive(Debug)]
pub struct Seat {
    /// The process.
    pub link: Link,
    /// The slot.
    pub slot: Slot,
    /// What the link tells the instance in it.
    pub reports: mpsc::Receiver<Report>,
}

/// What leaving a process came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Others are still in it: it goes on without the one that left, who hears nothing more of it.
    Others,
    /// Nobody else is: it is being ended, and says so.
    Alone,
}

impl SharedProcess {
    /// Whether the instances of this contract may share a process.
    pub fn fits(contract: &Contract) -> bool {
        contract.definition.sharing == Sharing::Many && !contract.runs_commands()
    }

    /// Takes a seat in the process that is there, or in a new one, whose record `recorder` makes.
    ///
    /// # Errors
    /// As [`Link::launch`], and what `recorder` says.
    pub async fn join(
        &self,
        contract: Arc<Contract>,
        recorder: impl FnOnce() -> Result<Option<Recorder>, Failure>,
    ) -> Result<Seat, Failure> {
        let _starting = self.starting.lock().await;
        if let Some(seat) = self.lock().as_ref().and_then(Link::join) {
            return Ok(seat);
        }
        let link = Link::launch(contract, recorder()?).await?;
        let seat = link.seat();
        *self.lock() = Some(link);
        Ok(seat)
    }

    /// From now on the process takes nobody new.
    pub fn retire(&self, link: &Link) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.seats, &link.seats)) {
            *current = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Link>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
