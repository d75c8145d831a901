//! The guardian of tests: a test harness has a `main` of its own, so the guardian has to be another program.

use std::path::PathBuf;

/// Has the process floor use the package's own guardian program. [`Sandbox`](crate::Sandbox) does that by itself.
///
/// # Panics
/// When the program was not built. Cargo builds it with the integration tests of this package.
pub fn use_guardian() {
    let test = std::env::current_exe().expect("the path of this test");
    // target/debug/deps/test-hash, and target/debug/program.
    let program: PathBuf = test.ancestors().nth(2).expect("a directory above").join("readyroom-proc-fixture");
    assert!(program.is_file(), "{} was not built; run `cargo build -p readyroom-testkit`", program.display());
    readyroom::process::use_program(program);
}
