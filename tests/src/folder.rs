//! Temporary folders that the programs under test can reach.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

/// A folder that goes when the value goes.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder. Others may pass through it: started as root, the shop's PostgreSQL runs as another user.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("gatehouse-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder can be made");
        Self(folder)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it, making the folders between.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("the temporary folder is ours");
        }
        std::fs::write(path, text).expect("the temporary folder is ours");
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
