//! Programs from PyPI, each in a virtual environment beside the build.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{binaries::build_folder, tool};

/// The folder of an environment of this name with what `requirements` pins file by file. pip fetches it once.
///
/// # Panics
/// When Python is not installed, or the packages cannot be had.
#[track_caller]
#[must_use]
pub fn environment(name: &str, requirements: &Path) -> PathBuf {
    let folder = build_folder().join(name);
    // Beside the folder and not in it: making the environment empties it.
    let lock =
        File::create(build_folder().join(format!("{name}.lock"))).expect("the build folder is writable");
    lock.lock().expect("a lock on a file of ours");
    let wanted = std::fs::read(requirements).expect("the requirements are committed");
    let marker = folder.join("installed");
    if std::fs::read(&marker).unwrap_or_default() != wanted {
        let python = tool::find(&["python3"], "python3 python3-venv");
        tool::run(&python, ["-m", "venv", "--clear", &folder.display().to_string()]);
        let mut install = Command::new(folder.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        install.args(["--require-hashes", "--only-binary", ":all:", "--requirement"]).arg(requirements);
        tool::run_command(&mut install);
        std::fs::write(marker, wanted).expect("the build folder is writable");
    }
    folder
}
