//! Whether a command can be started, and what to do when it cannot.

use std::{collections::BTreeMap, env, ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{
    environment,
    identity::{self, Identity},
};
use crate::settings::{Command, CommandOutput};

/// What a start needs beside the settings.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) variables: BTreeMap<String, String>,
    pub(super) identity: Option<Identity>,
}

/// Everything that keeps a command from starting, or its output from being kept: each with what to do about it.
#[must_use]
pub fn obstacles(command: &Command) -> Vec<String> {
    let mut obstacles = prepare(command).err().unwrap_or_default();
    if let CommandOutput::File(path) = &command.output
        && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
        && !folder.is_dir()
    {
        let (name, path, folder) = (&command.name, path.display(), folder.display());
        obstacles.push(format!("[commands.{name}] output {path}: there is no folder {folder}: make it"));
    }
    obstacles
}

/// Looks everything up that the settings name.
///
/// # Errors
/// All that is wrong, each with what to do about it.
pub(super) fn prepare(command: &Command) -> Result<Prepared, Vec<String>> {
    let (variables, identity) = (environment::of(command), identity::of(command));
    let path = variables.iter().find_map(|variables| variables.get("PATH"));
    let program = find_program(command, path.map(String::as_str));
    match (variables, identity, program) {
        (Ok(variables), Ok(identity), Ok(())) => Ok(Prepared { variables, identity }),
        (variables, identity, program) => {
            Err([variables.err(), identity.err(), program.err()].into_iter().flatten().collect())
        }
    }
}

/// Looks for a command's program, with its own PATH if it has one.
///
/// # Errors
/// When it is no file that can be run: a message with how to get it.
fn find_program(command: &Command, path: Option<&str>) -> Result<(), String> {
    let name = &command.name;
    let Some(program) = command.run.first() else {
        return Err(format!("[commands.{name}] names no program in `run`"));
    };
    if program.contains('/') {
        let path = command.directory.as_deref().unwrap_or(Path::new("")).join(program);
        if is_program(&path) {
            return Ok(());
        }
        let remedy = match built_by_cargo(&path) {
            Some(build) => format!("build it with `{build}`"),
            None => "build or install it".to_owned(),
        };
        let what = if path.exists() { "is no executable file" } else { "is not there" };
        return Err(format!("[commands.{name}] {} {what}: {remedy}, or correct `run`", path.display()));
    }
    let search = path.map(Into::into).or_else(|| env::var_os("PATH")).unwrap_or_default();
    if env::split_paths(&search).any(|folder| is_program(&folder.join(program))) {
        return Ok(());
    }
    Err(format!("[commands.{name}] `{program}` is nowhere in PATH: install it, or write its path in `run`"))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// `target/release/origin` -> `cargo build --release -p origin`.
fn built_by_cargo(path: &Path) -> Option<String> {
    let mut parts = path.iter().rev().map(OsStr::to_str);
    let (package, profile, target) = (parts.next()??, parts.next()??, parts.next()??);
    let profile = match (target, profile) {
        ("target", "debug") => String::new(),
        ("target", "release") => " --release".to_owned(),
        ("target", profile) => format!(" --profile {profile}"),
        _ => return None,
    };
    Some(format!("cargo build{profile} -p {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(run: &[&str]) -> Command {
        Command::new("origin", run.iter().map(|word| (*word).to_owned()).collect())
    }

    fn find_program(command: &Command) -> Result<(), String> {
        super::find_program(command, None)
    }

    #[test]
    fn all_that_is_in_the_way_is_told_at_once() {
        let mut command = command(&["no-such-program-anywhere"]);
        command.env_file = Some("no/such/.env".into());
        command.user = Some("no-such-user".to_owned());
        command.output = CommandOutput::File("no/such/app.log".into());
        let told = obstacles(&command);
        assert_eq!(told.len(), 4, "{told:?}");
        for (told, what) in
            told.iter().zip(["env_file no/such/.env", "no-such-user", "PATH", "no folder no/such"])
        {
            assert!(told.contains("[commands.origin]") && told.contains(what), "{told}");
        }
    }

    #[test]
    fn a_program_that_is_not_built_says_how_to_build_it() {
        let message = find_program(&command(&["target/release/no-such-origin", "serve"])).unwrap_err();
        assert!(message.contains("[commands.origin]"), "{message}");
        assert!(message.contains("cargo build --release -p no-such-origin"), "{message}");
        let message = find_program(&command(&["/opt/no-such/server"])).unwrap_err();
        assert!(message.contains("/opt/no-such/server is not there: build or install it"), "{message}");
        let message = find_program(&command(&["/etc/passwd"])).unwrap_err();
        assert!(message.contains("is no executable file"), "{message}");
        let message = find_program(&command(&["no-such-program-anywhere"])).unwrap_err();
        assert!(message.contains("nowhere in PATH"), "{message}");
        find_program(&command(&["sh"])).unwrap();
        find_program(&command(&["/bin/sh"])).unwrap();
    }

    #[test]
    fn a_relative_program_is_found_from_the_commands_directory() {
        let mut inside = command(&["./sh"]);
        inside.directory = Some("/bin".into());
        find_program(&inside).unwrap();
    }

    #[test]
    fn cargo_profiles_are_told_apart() {
        let built = |path: &str| built_by_cargo(Path::new(path));
        assert_eq!(built("target/debug/origin").as_deref(), Some("cargo build -p origin"));
        assert_eq!(built("../target/dist/origin").as_deref(), Some("cargo build --profile dist -p origin"));
        assert_eq!(built("/usr/bin/origin"), None);
    }
}
