//! The `gan` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gan::cli::main()
}
