//! Checks the form of the code and of its dependencies.

use std::process::Command;

use crate::{host, install};

/// Every check; all of them run, also where one has found something.
pub fn all() -> anyhow::Result<bool> {
    let mut well = true;
    for (args, flags) in [
        (&["fmt", "--all", "--check"][..], None),
        (&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"], None),
        (&["doc", "--workspace", "--no-deps"], Some(("RUSTDOCFLAGS", "--deny warnings"))),
    ] {
        println!("cargo {}", args.join(" "));
        well &= Command::new("cargo").args(args).envs(flags).current_dir(host::workspace()).status()?.success();
    }
    Ok(deny()? && well)
}

/// What cargo-deny says of the dependencies: licences, sources, bans.
pub fn deny() -> anyhow::Result<bool> {
    let program = install::cargo("cargo-deny")?;
    println!("cargo deny check bans licenses sources");
    let mut command = Command::new(program);
    // Called by cargo it would get its own name as its first argument.
    command.args(["deny", "check", "bans", "licenses", "sources"]).current_dir(host::workspace());
    Ok(command.status()?.success())
}
