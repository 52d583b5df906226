//! Why there is no private server, in words for who wants one.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Crash recovery replays at most a checkpoint's worth of log; initdb takes about a second.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// PostgreSQL is not installed, or not in the version that made the data.
    #[error("{}", no_binaries(*.wanted))]
    NoBinaries {
        /// The major version that made the existing cluster.
        wanted: Option<u32>,
    },
    /// Started as root, and there is nobody to run the server as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither a user `postgres` nor `nobody`: add one"
    )]
    NoAccount,
    /// The data was reachable once and is not any more.
    #[error("{} holds data, but the user that owns it can no longer get there: allow others to pass (chmod o+x) every folder above it", .0.display())]
    Unreachable(PathBuf),
    /// A folder or file could not be made, read or changed.
    #[error("{doing} {}: {source}", .path.display())]
    File {
        /// The verb of the sentence.
        doing: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program of PostgreSQL failed.
    #[error("{program} failed; the end of {}:\n{tail}", .log.display())]
    Failed {
        /// Which.
        program: &'static str,
        /// Where its output is.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Neither ready nor failed in time.
    #[error("PostgreSQL was not ready within {} s; see {}", START_DEADLINE.as_secs(), .log.display())]
    TooSlow {
        /// Where its output is.
        log: PathBuf,
    },
}

/// Says what could not be done with which file.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, StartError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, StartError> {
        self.map_err(|source| StartError::File { doing, path: path.to_owned(), source })
    }
}

fn no_binaries(wanted: Option<u32>) -> String {
    let (which, debian) = match wanted {
        Some(major) => {
            (format!("PostgreSQL {major}, which made the existing data,"), format!("postgresql-{major}"))
        }
        None => ("PostgreSQL 14 or newer (initdb and postgres)".to_owned(), "postgresql".to_owned()),
    };
    format!(
        "{which} was not found: install it (Debian, Ubuntu: apt-get install {debian}; Fedora: dnf install \
         postgresql-server; macOS: brew install postgresql@17), or set DATABASE_URL to a server that runs elsewhere"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_binaries_the_message_names_the_package() {
        assert!(StartError::NoBinaries { wanted: None }.to_string().contains("apt-get install postgresql;"));
        assert!(StartError::NoBinaries { wanted: Some(15) }.to_string().contains("postgresql-15"));
    }
}
