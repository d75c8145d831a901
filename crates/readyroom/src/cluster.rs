//! The public handle on a pool.
