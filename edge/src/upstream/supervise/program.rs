//! Whether a command's program exists, and what to do when it does not.

use std::{env, ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::settings::Command;

/// Looks for a command's program.
///
/// # Errors
/// When it is no file that can be run: a message with how to get it.
pub fn find_program(command: &Command) -> Result<(), String> {
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
    let search =
        command.environment.get("PATH").map(Into::into).or_else(|| env::var_os("PATH")).unwrap_or_default();
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
    use std::{collections::BTreeMap, time::Duration};

    use super::*;

    fn command(run: &[&str]) -> Command {
        Command {
            name: "origin".into(),
            run: run.iter().map(|word| (*word).to_owned()).collect(),
            directory: None,
            environment: BTreeMap::new(),
            instances: 1,
            ready: None,
            ready_interval: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(10),
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
