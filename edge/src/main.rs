//! The `edge` program; everything lives in the library beside it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// docs/decisions/0011-jemalloc.md: why. Tests and benchmarks of the library have the system's.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    edge::cli::main()
}
