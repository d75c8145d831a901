//! Owns trees of OS processes.

/// Must be the first call in `main` of a program that uses readyroom.
pub fn init() {}
