//! The `repl` driver.

use super::{Driver, Effect, Request};
use crate::tool::Contract;

/// The driver's state.
pub struct Repl;

impl Repl {
    /// A driver for a process launched by `contract`.
    pub fn new(_contract: &Contract) -> Self {
        Self
    }
}

impl Driver for Repl {
    fn launched(&mut self, _out: &mut Vec<Effect>) {}
    fn stdout(&mut self, _bytes: &[u8], _out: &mut Vec<Effect>) {}
    fn request(&mut self, _request: Request, _out: &mut Vec<Effect>) {}
}
