//! As whom a command runs.
//!
//! Names are those of /etc/passwd and /etc/group. Only root may run a program as somebody else; its other groups are
//! dropped.

use std::fs;

use rustix::process::{getegid, geteuid};

use crate::settings::Command;

/// The user and the group of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: u32,
    pub(super) group: u32,
    /// HOME, USER and LOGNAME of a user that the system knows.
    pub(super) variables: Vec<(&'static str, String)>,
}

/// As whom a command is to run; `None` is as the edge itself.
///
/// # Errors
/// When there is no such user or group, or the edge may not do it: a message with what to do.
pub(super) fn of(command: &Command) -> Result<Option<Identity>, String> {
    if command.user.is_none() && command.group.is_none() {
        return Ok(None);
    }
    let name = &command.name;
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let own = (geteuid().as_raw(), getegid().as_raw());
    let wanted = resolve(command, own.0, &read("/etc/passwd"), &read("/etc/group"))
        .map_err(|what| format!("[commands.{name}] {what}"))?;
    if (wanted.user, wanted.group) == own {
        return Ok(None);
    }
    if own.0 != 0 {
        return Err(format!(
            "[commands.{name}] only root may run a program as another user or group: start the edge as root, or leave \
             `user` and `group` out"
        ));
    }
    Ok(Some(wanted))
}

fn resolve(command: &Command, own: u32, passwd: &str, groups: &str) -> Result<Identity, String> {
    let user = command.user.clone().unwrap_or_else(|| own.to_string());
    let account = passwd.lines().find_map(|line| PasswdLine::read(line).filter(|account| account.is(&user)));
    let id = match (&account, user.parse()) {
        (Some(account), _) => account.user,
        (None, Ok(id)) if id != NOBODY_AT_ALL => id,
        _ => return Err(format!("there is no user {user:?} in /etc/passwd: make one, or correct `user`")),
    };
    let group = match &command.group {
        Some(group) => group_id(groups, group).ok_or_else(|| {
            format!("there is no group {group:?} in /etc/group: make one, or correct `group`")
        })?,
        None => account.as_ref().map(|account| account.group).ok_or_else(|| {
            format!("user {user} is not in /etc/passwd, which would say its group: write `group`, too")
        })?,
    };
    let variables = match account.filter(|_| command.user.is_some()) {
        Some(PasswdLine { name, home, .. }) => {
            vec![("HOME", home.to_owned()), ("USER", name.to_owned()), ("LOGNAME", name.to_owned())]
        }
        None => Vec::new(),
    };
    Ok(Identity { user: id, group, variables })
}

/// `(uid_t) -1`: it stands for "no change" in system calls.
const NOBODY_AT_ALL: u32 = u32::MAX;

/// A line of passwd(5).
struct PasswdLine<'a> {
    name: &'a str,
    user: u32,
    group: u32,
    home: &'a str,
}

impl<'a> PasswdLine<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _, user, group) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1)?;
        Some(Self { name, user: user.parse().ok()?, group: group.parse().ok()?, home })
    }

    fn is(&self, wanted: &str) -> bool {
        self.name == wanted || wanted.parse() == Ok(self.user)
    }
}

/// By a name in group(5), or a number.
fn group_id(groups: &str, wanted: &str) -> Option<u32> {
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (name == wanted).then(|| fields.nth(1)?.parse().ok())?
    });
    named.or_else(|| wanted.parse().ok()).filter(|id| *id != NOBODY_AT_ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken\nwww-data:x:33:33:www:/var/www:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\nadm:x:4:www-data\nwww-data:x:33:\n";

    fn resolved(user: Option<&str>, group: Option<&str>) -> Result<(u32, u32), String> {
        let mut command = Command::new("app", vec!["app".to_owned()]);
        command.user = user.map(str::to_owned);
        command.group = group.map(str::to_owned);
        resolve(&command, 0, PASSWD, GROUPS).map(|identity| (identity.user, identity.group))
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(resolved(Some("www-data"), None), Ok((33, 33)));
        assert_eq!(resolved(Some("33"), Some("adm")), Ok((33, 4)));
        assert_eq!(resolved(Some("1234"), Some("99")), Ok((1234, 99)));
        assert_eq!(resolved(None, Some("adm")), Ok((0, 4)), "its other groups are dropped all the same");
    }

    #[test]
    fn what_is_not_there_is_told() {
        for (user, group, said) in [
            (Some("nobody-here"), None, "no user \"nobody-here\""),
            (Some("www-data"), Some("staff?"), "no group \"staff?\""),
            (Some("1234"), None, "write `group`"),
            (Some("4294967295"), Some("0"), "no user"),
            (Some("0"), Some("4294967295"), "no group"),
        ] {
            let fault = resolved(user, group).unwrap_err();
            assert!(fault.contains(said), "{fault}");
        }
    }

    #[test]
    fn a_user_has_a_home_of_its_own() {
        let mut command = Command::new("app", vec!["app".to_owned()]);
        command.user = Some("www-data".to_owned());
        let identity = resolve(&command, 0, PASSWD, GROUPS).unwrap();
        assert!(identity.variables.contains(&("HOME", "/var/www".to_owned())));
    }
}
