//! The program `readyroom`.

use std::process::ExitCode;

fn main() -> ExitCode {
    readyroom_cli::main()
}
