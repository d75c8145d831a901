//! Runs a driver over a real process.
