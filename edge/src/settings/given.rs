//! Where settings come from: a file, or the arguments of `edge run --to`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Settings, SettingsError, Warning, parse_with_warnings, read, source_files};

/// What is read at the start, and again at a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenSettings {
    File(PathBuf),
    /// What a file would say: there is none, and it never changes.
    Arguments(Arc<str>),
}

impl GivenSettings {
    /// # Errors
    /// As [`read`](super::read).
    pub fn read(&self) -> Result<(Settings, Vec<Warning>), SettingsError> {
        match self {
            Self::File(path) => read(path),
            Self::Arguments(text) => parse_with_warnings(text, "edge run --to"),
        }
    }

    /// The file, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Arguments(_) => None,
        }
    }

    /// As [`source_files`](super::source_files).
    #[must_use]
    pub fn source_files(&self) -> Vec<PathBuf> {
        self.file().map(source_files).unwrap_or_default()
    }
}

impl fmt::Display for GivenSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Arguments(_) => f.write_str("what --to says, for there is no file to read again"),
        }
    }
}
