//! Runs a plan.

mod state;
