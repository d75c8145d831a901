//! N instances of one spawn contract.

pub mod router;
