//! Finding the programs that play the clients. A missing one fails the test: a test that skips proves nothing.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Output},
};

/// Path of the first of `names` on `PATH` (and in `/usr/sbin`, where Debian keeps servers).
///
/// # Panics
/// When there is none; the message names the Debian package.
#[track_caller]
#[must_use]
pub fn find(names: &[&str], debian_package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    for name in names {
        for folder in &folders {
            let candidate = folder.join(name);
            if candidate.is_file() {
                return candidate;
            }
        }
    }
    panic!(
        "{} is not installed: `make test` installs it, or: apt-get install {debian_package}",
        names.join(" or ")
    );
}

/// Runs a program to its end and returns what it printed.
///
/// # Panics
/// When it cannot be started or fails.
#[track_caller]
pub fn run(program: &PathBuf, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    run_command(Command::new(program).args(arguments))
}

/// Runs a command, with all that was said of it, to its end and returns what it printed.
///
/// # Panics
/// When it cannot be started or fails.
#[track_caller]
pub fn run_command(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program was found, so it starts");
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{command:?} ended with {status}:\n{text}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    text
}
