//! Which program becomes the guardian, and what is said when there is none.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use readyroom::Exit;
use readyroom::process::{self, Command, SpawnError};

const PROGRAM: &str = env!("CARGO_BIN_EXE_readyroom-proc-fixture");
/// Set in a copy of this test program that has a `PATH` of its own.
const PROBE: &str = "READYROOM_TEST_PROBE";

/// Runs one test of this file again, in a process of its own with this `PATH`, where [`is_probe`] holds.
fn probe(test: &str, path: &Path) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("PATH", path)
        .env(PROBE, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_probe() -> bool {
    std::env::var_os(PROBE).is_some()
}

async fn try_true() -> Result<Exit, SpawnError> {
    Ok(process::spawn(&Command::new("/bin/true")).await?.handle.wait().await)
}

#[tokio::test]
async fn without_a_program_the_error_says_what_to_do() {
    if !is_probe() {
        return probe("without_a_program_the_error_says_what_to_do", Path::new("/nowhere"));
    }
    let error = try_true().await.unwrap_err();
    assert!(matches!(error, SpawnError::Guardian(_)), "{error:?}");
    for way in ["readyroom::init()", "use_program", "PATH"] {
        assert!(error.to_string().contains(way), "{error}");
    }
}

#[tokio::test]
async fn the_command_on_the_path_will_do() {
    if !is_probe() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(PROGRAM, directory.path().join("readyroom")).unwrap();
        return probe("the_command_on_the_path_will_do", directory.path());
    }
    assert_eq!(try_true().await.unwrap(), Exit::Status(0));
}

#[tokio::test]
async fn a_program_that_is_no_guardian_is_told_apart() {
    // Each of these is named in turn, so nothing else may start a process in between.
    for program in ["/bin/true", "/bin/cat", "/no/such/program"] {
        process::use_program(program);
        let error = try_true().await.unwrap_err();
        assert!(matches!(&error, SpawnError::Guardian(why) if why.contains(program)), "{error:?}");
    }
    process::use_program(PathBuf::from(PROGRAM));
    assert_eq!(try_true().await.unwrap(), Exit::Status(0));
}
