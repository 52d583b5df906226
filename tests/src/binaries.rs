//! The programs under test, as built beside the tests: same target folder, same profile.
//!
//! `make test` builds them first. Where they are missing or older than a source they were made from, cargo builds them
//! here, so a plain `cargo test` never tests yesterday's program. `GATEHOUSE_BINARIES=FOLDER` tests other builds of them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The gateway.
pub fn edge() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| up_to_date("edge"))
}

/// The shop.
pub fn origin() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| up_to_date("origin"))
}

/// What `make run-three` runs.
pub fn run_three() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| up_to_date("run_three"))
}

/// The server that misbehaves as it is told ([`faulty`](crate::faulty)).
pub fn faulty_server() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| up_to_date("faulty_server"))
}

/// The root of the repository.
///
/// # Panics
/// When not started by cargo, which says where the crate lies. (Asked when run, not when built: the same build serves
/// every copy of the repository that shares the build folder.)
pub fn repository() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo starts the tests");
    Path::new(&tests).parent().expect("the tests lie in the repository").into()
}

/// `target/release` or `target/debug`: where the test programs themselves were built.
#[must_use]
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.parent().expect("a program lies in a folder");
    // Tests lie in `deps/`, the programs of this crate beside `edge`.
    if folder.ends_with("deps") {
        folder.parent().expect("deps/ lies in the build folder").into()
    } else {
        folder.into()
    }
}

fn up_to_date(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("GATEHOUSE_BINARIES") {
        return PathBuf::from(folder)
            .join(name)
            .canonicalize()
            .expect("GATEHOUSE_BINARIES holds the programs");
    }
    let program = build_folder().join(name);
    if is_stale(&program) {
        // Test processes run side by side: one builds, the others wait and then find it done.
        let lock =
            File::create(build_folder().join("gatehouse-tests.lock")).expect("the build folder is writable");
        lock.lock().expect("files can be locked");
        if is_stale(&program) {
            build();
        }
    }
    program
}

fn build() {
    let profile = if build_folder().ends_with("release") { "release" } else { "dev" };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(repository())
        .args(["build", "--locked", "--profile", profile, "--workspace", "--bins"])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo could not build the programs under test");
}

/// Whether the program is missing or older than a source cargo says it was made from (`edge.d` beside `edge`).
fn is_stale(program: &Path) -> bool {
    let Some(built) = modified(program) else { return true };
    let Ok(listing) = std::fs::read_to_string(program.with_extension("d")) else { return true };
    let sources = listing.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().any(|source| modified(Path::new(source)).is_none_or(|changed| changed > built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}
