//! Why there is no private server, in words for who wants one.

use std::{io, path::Path, time::Duration};

use anyhow::Context as _;

/// Crash recovery replays at most a checkpoint's worth of log; initdb takes about a second.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);

/// Says what could not be done with which file.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &str, path: &Path) -> anyhow::Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &str, path: &Path) -> anyhow::Result<T> {
        self.with_context(|| format!("{doing} {}", path.display()))
    }
}

/// PostgreSQL is not installed, or not in the version that made the data, if that is `wanted`.
pub(crate) fn no_binaries(wanted: Option<u32>) -> anyhow::Error {
    let (which, debian) = match wanted {
        Some(major) => {
            (format!("PostgreSQL {major}, which made the existing data,"), format!("postgresql-{major}"))
        }
        None => ("PostgreSQL 14 or newer (initdb and postgres)".to_owned(), "postgresql".to_owned()),
    };
    anyhow::anyhow!(
        "{which} was not found: install it (Debian, Ubuntu: apt-get install {debian}; Fedora: dnf install \
         postgresql-server; macOS: brew install postgresql@17), or set DATABASE_URL to a server that runs elsewhere"
    )
}

/// Neither ready nor failed in time; its output is in `log`.
pub(crate) fn too_slow(log: &Path) -> anyhow::Error {
    anyhow::anyhow!("PostgreSQL was not ready within {} s; see {}", START_DEADLINE.as_secs(), log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_binaries_the_message_names_the_package() {
        assert!(no_binaries(None).to_string().contains("apt-get install postgresql;"));
        assert!(no_binaries(Some(15)).to_string().contains("postgresql-15"));
    }
}
