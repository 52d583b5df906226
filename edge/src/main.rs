//! The `edge` program; everything lives in the library beside it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    edge::cli::main()
}
