//! Finds PostgreSQL's server programs on this machine, which distributions keep out of `PATH`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::error::no_binaries;

/// The oldest major version the migrations are written for.
const OLDEST_MAJOR: u32 = 14;

/// The folder that holds `initdb` and `postgres`, and their major version.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    folder: PathBuf,
    /// Such as 15; a cluster can only be opened by the version that made it.
    pub(crate) major: u32,
}

impl Binaries {
    /// The first usable installation in the order of [`candidates`]; with `wanted`, of exactly that major version.
    pub(crate) fn find(wanted: Option<u32>) -> anyhow::Result<Self> {
        let found: Vec<Self> = candidates().into_iter().filter_map(Self::at).collect();
        let usable = |binaries: &&Self| match wanted {
            Some(major) => binaries.major == major,
            None => binaries.major >= OLDEST_MAJOR,
        };
        found.iter().find(usable).cloned().ok_or_else(|| no_binaries(wanted))
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the server can load `pg_stat_statements`, which some distributions package apart.
    pub(crate) fn has_statement_statistics(&self) -> bool {
        let above = self.folder.parent().unwrap_or(&self.folder);
        ["lib", "lib/postgresql", "lib64", "lib64/pgsql"]
            .iter()
            .any(|lib| above.join(lib).join("pg_stat_statements.so").exists())
    }

    fn at(folder: PathBuf) -> Option<Self> {
        if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
            return None;
        }
        let major = major_version(&first_line(Command::new(folder.join("postgres")).arg("--version"))?)?;
        Some(Self { folder, major })
    }
}

/// What `pg_config` says, then `PATH`, then where Debian, Red Hat and Homebrew put them, newest version first.
fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        first_line(Command::new("pg_config").arg("--bindir")).map(PathBuf::from).into_iter().collect();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(installations("/usr/lib/postgresql", ""));
    folders.extend(installations("/usr", "pgsql-"));
    for homebrew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        folders.extend(installations(homebrew, "postgresql"));
    }
    folders
}

/// `<parent>/<prefix><version>/bin`, newest version first.
fn installations(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.trim_start_matches('@').parse().unwrap_or(0);
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The major version the cluster in this folder was made by, from its `PG_VERSION`.
pub(crate) fn cluster_version(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("PG_VERSION")).ok()?.trim().parse().ok()
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().filter(|line| output.status.success() && !line.is_empty()).map(str::to_owned)
}

/// 15 for `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; 18 for `… 18beta1`.
fn major_version(line: &str) -> Option<u32> {
    let version = line.split("(PostgreSQL) ").nth(1)?;
    let end = version.find(|character: char| !character.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("something else 9"), None);
    }
}
