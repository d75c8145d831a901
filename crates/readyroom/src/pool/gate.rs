//! Gates: a turn that came to its instance waits there for its caller's word before anything of it is sent. What the
//! instance is told meanwhile waits behind it, so that orders keep their order.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc::UnboundedSender;

use crate::event::TurnId;
use crate::instance::messages::Order;

/// What a turn waits for; `false`: it is not to run. It is begun to be waited for when the turn has come to an instance.
pub struct Gate(Pin<Box<dyn Future<Output = bool> + Send>>);

impl Gate {
    /// A gate that opens when `word` says so.
    pub fn new(word: impl Future<Output = bool> + Send + 'static) -> Self {
        Self(Box::pin(word))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// A gate's word: the instance, the turn, whether it runs.
pub(super) type Word = (usize, TurnId, bool);

/// The gates of a pool's turns.
#[derive(Debug)]
pub(super) struct Gates {
    /// Of turns that have come to no instance yet.
    gates: HashMap<TurnId, Gate>,
    /// Orders for instances at whose gate a turn waits, that turn's first.
    held: HashMap<usize, VecDeque<Order>>,
    words: UnboundedSender<Word>,
}

impl Gates {
    /// None yet. Words go to `words`.
    pub(super) fn new(words: UnboundedSender<Word>) -> Self {
        Self { gates: HashMap::new(), held: HashMap::new(), words }
    }

    /// A turn gets a gate.
    pub(super) fn add(&mut self, turn: TurnId, gate: Gate) {
        self.gates.insert(turn, gate);
    }

    /// An order on its way to an instance; none where it has to wait.
    pub(super) fn pass(&mut self, at: usize, order: Order) -> Option<Order> {
        if let Some(held) = self.held.get_mut(&at) {
            held.push_back(order);
            return None;
        }
        // A turn that is handed out again has its word already.
        let gate = match &order {
            Order::Run(work) => self.gates.remove(&work.turn).map(|gate| (work.turn, gate)),
            _ => None,
        };
        let Some((turn, gate)) = gate else { return Some(order) };
        self.held.insert(at, VecDeque::from([order]));
        let words = self.words.clone();
        tokio::spawn(async move {
            // The pool is gone when nobody listens.
            let _ = words.send((at, turn, gate.0.await));
        });
        None
    }

    /// The word has come: the orders that waited, without the turn where it is not to run.
    pub(super) fn open(&mut self, at: usize, runs: bool) -> impl Iterator<Item = Order> + use<> {
        self.held.remove(&at).unwrap_or_default().into_iter().skip(usize::from(!runs))
    }

    /// A turn has ended.
    pub(super) fn forget(&mut self, turn: TurnId) {
        self.gates.remove(&turn);
    }
}
