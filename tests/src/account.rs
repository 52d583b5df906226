//! Accounts for servers that are not to run as root, or will not.

use std::{os::unix::process::CommandExt as _, process::Command};

/// A user and their group, by number.
pub type Account = (u32, u32);

/// The first of these users that there is; `None` if this process is not root, and so has no other to be.
///
/// # Panics
/// When there is none of them.
#[track_caller]
#[must_use]
pub fn lent(names: &[&str]) -> Option<Account> {
    rustix::process::geteuid().is_root().then(|| {
        let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let of = |name: &&str| {
            let mut fields =
                known.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.split(':');
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        names.iter().find_map(of).unwrap_or_else(|| panic!("/etc/passwd has none of {names:?}"))
    })
}

/// Has the command run as this account, if one is lent.
pub fn run_as(command: &mut Command, account: Option<Account>) -> &mut Command {
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    command
}
