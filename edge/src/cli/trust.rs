//! `edge trust`: has this machine believe the local certificate authority, and `--remove` has it forget it again.
//!
//! Two places are tried, for programs look in different ones: the system's store, which root alone may write to, and that of
//! NSS in the user's home, which Chrome and Chromium read. Each step is said, and so is what is missing for one.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{no_file::authority_without_file, settings_file::SettingsFile};
use crate::{
    message::reasons::reasons,
    observe::say,
    settings::{self, ListenTls},
};

/// Which authority, and where.
#[derive(Debug, Args)]
pub struct TrustArguments {
    /// The authority's certificate [default: that of the settings' first `local_ca`; without settings, that of `edge run --to`]
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    file: SettingsFile,
    /// Have it forgotten
    #[arg(long)]
    remove: bool,
    /// One of the two places alone
    #[arg(long)]
    only: Option<TrustStore>,
}

/// Where authorities are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrustStore {
    /// What curl, Git and most programs read
    System,
    /// What Chrome and Chromium read
    Browsers,
}

/// Succeeds where all that was wanted is done. Only root may write to the system's store: who is not root, and has not asked for that
/// store alone, is told what root has to do.
pub fn run(arguments: &TrustArguments) -> ExitCode {
    let TrustArguments { ca, file, remove, only } = arguments;
    let ca = match ca.clone().map_or_else(|| of_settings(file), Ok).and_then(|ca| readable(&ca).map(|()| ca))
    {
        Ok(ca) => ca,
        Err(error) => {
            say::complaint(reasons(&error));
            return ExitCode::FAILURE;
        }
    };
    let mut all_done = true;
    for store in [TrustStore::System, TrustStore::Browsers] {
        if only.is_some_and(|only| only != store) {
            continue;
        }
        let done = match (store, remove) {
            (TrustStore::System, false) => trust_system(&ca),
            (TrustStore::System, true) => forget_system(&ca),
            (TrustStore::Browsers, remove) => home().and_then(|home| browsers(&home, &ca, *remove)),
        };
        match done {
            Ok(told) => say::result(told),
            Err(error) if error.is::<RootsToDo>() && only.is_none() => say::result(error),
            Err(error) => {
                all_done = false;
                say::complaint(reasons(&error));
            }
        }
    }
    if all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn of_settings(file: &SettingsFile) -> anyhow::Result<PathBuf> {
    let Ok(path) = file.path() else { return Ok(authority_without_file()) };
    let settings = settings::load(&path)?;
    let mut written =
        settings.listeners.iter().filter_map(|listen| listen.tls.as_ref()).flat_map(ListenTls::written);
    let local = written.find(|certificate| certificate.local_ca);
    let none = || {
        format!(
            "no listener of {} has local_ca: name the authority's certificate with --ca FILE",
            path.display()
        )
    };
    Ok(local.with_context(none)?.certificate.with_file_name("ca.pem"))
}

fn readable(ca: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(ca).with_context(|| {
        let of_root = env::var_os("SUDO_USER").map(|_| "; another user's is named with --ca FILE");
        let of_root = of_root.unwrap_or_default();
        format!("{} cannot be read: start the edge once, which makes it{of_root}", ca.display())
    })?;
    anyhow::ensure!(text.contains("BEGIN CERTIFICATE"), "{} holds no certificate", ca.display());
    Ok(())
}

fn trust_system(ca: &Path) -> anyhow::Result<String> {
    if let Some(update) = program("update-ca-certificates") {
        let place = Path::new(DEBIAN).join(FILE);
        fs::copy(ca, &place).map_err(|error| cannot_write(error, &place, ca, ""))?;
        call(Command::new(update))?;
        return Ok(format!("system: copied to {}, and update-ca-certificates run", place.display()));
    }
    let trust = program("trust").context(
        "system: neither update-ca-certificates nor trust is here: on macOS, sudo security add-trusted-cert -d -k \
         /Library/Keychains/System.keychain FILE; on Windows, certutil -addstore -user Root FILE",
    )?;
    let mut command = Command::new(trust);
    command.arg("anchor").arg(ca);
    call(command)?;
    Ok(format!("system: trust anchor {}", ca.display()))
}

fn forget_system(ca: &Path) -> anyhow::Result<String> {
    if let Some(update) = program("update-ca-certificates") {
        let place = Path::new(DEBIAN).join(FILE);
        match fs::remove_file(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(format!("system: {} is not there", place.display()));
            }
            other => other.map_err(|error| cannot_write(error, &place, ca, " --remove"))?,
        }
        let mut command = Command::new(update);
        command.arg("--fresh");
        call(command)?;
        return Ok(format!("system: removed {}, and update-ca-certificates run", place.display()));
    }
    let trust = program("trust").context("system: neither update-ca-certificates nor trust is here")?;
    let mut command = Command::new(trust);
    command.args(["anchor", "--remove"]).arg(ca);
    call(command)?;
    Ok(format!("system: trust anchor --remove {}", ca.display()))
}

/// What is left for root: the command that does it, from anywhere and whatever root's home is.
#[derive(Debug, thiserror::Error)]
#[error("system: {} is root's to write:\n  sudo {command}", place.display())]
struct RootsToDo {
    place: PathBuf,
    command: String,
}

fn cannot_write(error: io::Error, place: &Path, ca: &Path, remove: &str) -> anyhow::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return anyhow::Error::new(error).context(format!("system: {} cannot be written", place.display()));
    }
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into()).display().to_string();
    let program = env::current_exe().map_or_else(|_| "edge".to_owned(), |program| absolute(&program));
    let command = format!("{program} trust --only system{remove} --ca {}", absolute(ca));
    RootsToDo { place: place.into(), command }.into()
}

fn home() -> anyhow::Result<PathBuf> {
    env::var_os("HOME").map(PathBuf::from).context("browsers: HOME is not set")
}

/// The database of NSS in a home, made where there is none.
fn browsers(home: &Path, ca: &Path, remove: bool) -> anyhow::Result<String> {
    let folder = home.join(".pki/nssdb");
    let shown = folder.display();
    let certutil = program("certutil")
        .context("browsers: certutil is missing: install libnss3-tools (Fedora: nss-tools), and run `edge trust` again")?;
    let database = format!("sql:{shown}");
    let with = |arguments: &[&str]| {
        let mut command = Command::new(&certutil);
        command.args(["-d", &database]).args(arguments);
        command
    };
    let is_there = folder.join("cert9.db").exists();
    let known = || is_there && call(with(&["-L", "-n", NICKNAME])).is_ok();
    if remove {
        if !known() {
            return Ok(format!("browsers: {shown} does not know it"));
        }
        call(with(&["-D", "-n", NICKNAME]))?;
        return Ok(format!("browsers: taken out of {shown}; start Chrome anew"));
    }
    if !is_there {
        fs::create_dir_all(&folder).with_context(|| format!("browsers: {shown} cannot be made"))?;
        call(with(&["-N", "--empty-password"]))?;
    }
    if known() {
        // An older authority of this name.
        call(with(&["-D", "-n", NICKNAME]))?;
    }
    let mut add = with(&["-A", "-t", "C,,", "-n", NICKNAME, "-i"]);
    add.arg(ca);
    call(add)?;
    Ok(format!(
        "browsers: put into {shown}, as {NICKNAME:?}; start Chrome anew. Firefox keeps its own: Settings, Privacy & Security, \
         View Certificates, Authorities, Import: {}",
        ca.display()
    ))
}

/// Where a program is: also where an administrator's are, which the path of others may leave out.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(also).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs it to its end, quietly.
fn call(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
    Ok(())
}

const DEBIAN: &str = "/usr/local/share/ca-certificates";
const FILE: &str = "gatehouse.crt";
const NICKNAME: &str = "Gatehouse local authority";

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{downstream::tls::local_ca, settings::Certificate};

    /// Debian: libnss3-tools.
    #[test]
    fn browsers_come_to_know_an_authority_and_forget_it() {
        let home = tempfile::tempdir().unwrap();
        let [certificate, key, ca] = ["a.pem", "a.key", "ca.pem"].map(|name| home.path().join(name));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        local_ca::ensure(&Certificate { local_ca: true, ..Certificate::of_files(certificate, key) }, now)
            .unwrap();
        let listed = || {
            let database = format!("sql:{}", home.path().join(".pki/nssdb").display());
            let output = Command::new("certutil").args(["-L", "-d", &database]).output();
            String::from_utf8(output.expect("install libnss3-tools").stdout).unwrap()
        };
        assert!(browsers(home.path(), &ca, true).unwrap().contains("does not know it"));
        for _ in 0..2 {
            let told = browsers(home.path(), &ca, false).unwrap();
            assert!(told.contains(".pki/nssdb") && told.contains("Firefox"), "{told}");
            assert_eq!(listed().matches(NICKNAME).count(), 1, "{}", listed());
        }
        assert!(browsers(home.path(), &ca, true).unwrap().contains("taken out"));
        assert_eq!(listed().matches(NICKNAME).count(), 0);
    }

    #[test]
    fn what_is_no_certificate_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert!(readable(&file).unwrap_err().to_string().contains("start the edge once"));
        fs::write(&file, "text").unwrap();
        assert!(readable(&file).unwrap_err().to_string().contains("holds no certificate"));
    }
}
