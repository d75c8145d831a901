//! Fake tools.
