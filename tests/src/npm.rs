//! Packages from npm that tests need, as a package-lock.json pins them, beside the build.

use std::{fs::File, path::PathBuf};

use crate::{
    binaries::{build_folder, repository},
    tool,
};

/// Where the packages of `tests/<set>/package-lock.json` are. npm fetches them once.
///
/// # Panics
/// When npm is not installed or cannot fetch them.
#[track_caller]
#[must_use]
pub fn packages(set: &str) -> PathBuf {
    let pinned = repository().join("tests").join(set);
    let folder = build_folder().join(set);
    std::fs::create_dir_all(&folder).expect("the build folder is writable");
    let lock = File::create(folder.join("lock")).expect("the build folder is writable");
    lock.lock().expect("a lock is waited for");
    let wanted = std::fs::read(pinned.join("package-lock.json")).expect("the set is pinned");
    let (packages, installed) = (folder.join("node_modules"), folder.join("installed"));
    if !(packages.is_dir() && std::fs::read(&installed).unwrap_or_default() == wanted) {
        let npm = tool::find(&["npm"], "npm");
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(pinned.join(name), folder.join(name)).expect("the set is pinned");
        }
        let prefix = folder.display().to_string();
        tool::run(&npm, ["ci", "--no-audit", "--no-fund", "--prefix", &prefix]);
        std::fs::write(installed, wanted).expect("the build folder is writable");
    }
    packages
}
