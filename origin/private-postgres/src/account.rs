//! Who the server runs as. PostgreSQL refuses to run as root, so a root origin lends it an account that cannot sign in.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use anyhow::Context as _;

/// A user and a primary group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Account {
    /// `None` when this process is not root: the server then runs as its user.
    pub(crate) fn to_lend() -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account = ["postgres", "_postgres", "nobody"].iter().find_map(|name| find(&known, name));
        account.map(Some).context(
            "PostgreSQL does not run as root, and /etc/passwd has neither a user `postgres` nor `nobody`: add one",
        )
    }

    /// The owner of an existing folder. A cluster is always run by the account that made it.
    pub(crate) fn owner_of(folder: &Path) -> Option<Self> {
        let metadata = fs::metadata(folder).ok()?;
        Some(Self { user: metadata.uid(), group: metadata.gid() })
    }

    /// Whether the mode bits on the whole way down to `folder` let this account through.
    pub(crate) fn reaches(self, folder: &Path) -> bool {
        folder.ancestors().all(|step| {
            fs::metadata(step).is_ok_and(|metadata| {
                let needed = if metadata.uid() == self.user {
                    0o100
                } else if metadata.gid() == self.group {
                    0o010
                } else {
                    0o001
                };
                metadata.mode() & needed != 0
            })
        })
    }
}

/// Has the command run as the account, when one is lent, from a folder that every account can be in.
pub(crate) fn run_as(command: &mut Command, account: Option<Account>) -> &mut Command {
    use std::os::unix::process::CommandExt as _;
    if let Some(account) = account {
        command.uid(account.user).gid(account.group);
    }
    command.current_dir("/")
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (user != 0).then_some(Account { user, group })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn accounts_are_found_by_whole_name_and_never_root() {
        let passwd = "postgresql:x:5:5::/:\npostgres:x:101:104:PostgreSQL administrator,,,:/var/lib:/bin/bash\n\
                      nobody:x:0:0::/:\n";
        assert_eq!(find(passwd, "postgres"), Some(Account { user: 101, group: 104 }));
        assert_eq!(find(passwd, "nobody"), None);
    }

    #[test]
    fn a_closed_folder_on_the_way_stops_other_accounts_and_not_its_owner() {
        let outer = tempfile::tempdir().expect("a temporary folder");
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).expect("an inner folder");
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
        let owner = Account::owner_of(&inner).expect("an owner");
        let other = Account { user: owner.user + 4242, group: owner.group + 4242 };
        assert!(owner.reaches(&inner));
        assert!(!other.reaches(&inner));
    }
}
