//! Where the pinned tools are, which `cargo xtask install` puts below `target/`.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two levels above the crate").to_owned()
}

/// The directory of the tools: `READYROOM_TOOLS_DIR`, else `target/tools` of the workspace.
pub fn root() -> PathBuf {
    std::env::var_os("READYROOM_TOOLS_DIR").map_or_else(|| workspace().join("target/tools"), PathBuf::from)
}

/// A file below [`root`].
///
/// # Panics
/// When it is missing, with the command that installs it.
pub fn path(below: &str) -> PathBuf {
    let path = root().join(below);
    assert!(
        path.exists(),
        "{} is missing; install the pinned tools with `cargo xtask install` (`cargo xtask test` does it too), or name \
         their directory in READYROOM_TOOLS_DIR",
        path.display()
    );
    path
}

/// The program of a built-in tool.
///
/// # Panics
/// When it is not installed.
pub fn program(tool: &str) -> PathBuf {
    match tool {
        "aider" => path("aider/bin/aider"),
        _ => path(&format!("npm/node_modules/.bin/{tool}")),
    }
}
