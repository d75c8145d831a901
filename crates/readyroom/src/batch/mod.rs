//! Many jobs: what becomes of a job whose attempt has failed, by what failed. The page is `docs/design/batches.md`.

mod retry;

pub use retry::{Again, Attempt, Next, PoolEffect, RetryPolicy};
