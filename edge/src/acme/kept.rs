//! The files of certificates that were made on demand, as they are held.
//!
//! Promises: trouble with files takes nothing away that is held, and only what ended a month ago is removed, so that a clock that was
//! wrong for a while costs no file.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{attempt::life, store::Store};
use crate::{
    message::on_demand::{HeldCertificate, is_certifiable},
    settings::{
        Domain, MOST_CERTIFICATES,
        credentials::{self, CredentialError, provider},
    },
};

/// What is held after the files were read: what cannot be read now stays as it was, so that no trouble with files takes a certificate
/// away.
pub(super) fn held_after(
    read: io::Result<KeptCertificates>,
    before: &HashMap<Box<str>, HeldCertificate>,
) -> HashMap<Box<str>, HeldCertificate> {
    match read {
        Ok(KeptCertificates { mut held, unread }) => {
            for (name, error) in unread {
                tracing::error!(
                    domain = &*name,
                    "a certificate that was made on demand is not read: {error}"
                );
                if let Some(one) = before.get(&name) {
                    held.insert(name, one.clone());
                }
            }
            held
        }
        Err(trouble) => {
            tracing::error!("certificates that were made on demand are not read: {trouble}");
            before.clone()
        }
    }
}

pub(super) struct KeptCertificates {
    held: HashMap<Box<str>, HeldCertificate>,
    /// What is there, and why it cannot be read.
    unread: Vec<(Box<str>, io::Error)>,
}

/// What is good of what lies there.
pub(super) fn read_all(store: &Store, now: SystemTime) -> io::Result<KeptCertificates> {
    let mut kept = KeptCertificates { held: HashMap::new(), unread: Vec::new() };
    for (name, file) in store.certificates()?.into_iter().filter(|(name, _)| is_certifiable(name)) {
        if kept.held.len() + kept.unread.len() >= MOST_CERTIFICATES {
            break;
        }
        match read(&Domain { name: name.clone(), file }) {
            Ok(Some(held)) if now < held.ends => {
                kept.held.insert(name, held);
            }
            // What cannot be used is had anew when somebody asks for it.
            Ok(_) => {}
            Err(error) => kept.unread.push((name, error)),
        }
    }
    Ok(kept)
}

/// Removes the files of certificates that ended [`ENDED_KEPT`] ago, and tells their names.
pub(super) fn remove_ended(store: &Store, now: SystemTime) -> io::Result<Vec<Box<str>>> {
    let mut removed = Vec::new();
    for (name, file) in store.certificates()?.into_iter().filter(|(name, _)| is_certifiable(name)) {
        let Ok(Some(one)) = read(&Domain { name: name.clone(), file }) else {
            continue;
        };
        if now.duration_since(one.ends).is_ok_and(|since| since >= ENDED_KEPT) {
            store.forget_certificate(&name)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// What a name's file holds; `None` where it is not there, or holds no certificate that can be used.
///
/// # Errors
/// When it is there and cannot be read.
pub(super) fn read(domain: &Domain) -> io::Result<Option<HeldCertificate>> {
    let key = match credentials::pair(&domain.file, &domain.file, &provider()) {
        Ok(key) => key,
        Err(CredentialError::Read { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
            return Err(source);
        }
        Err(_) => return Ok(None),
    };
    let life = key.end_entity_cert().ok().and_then(|leaf| life(leaf, &domain.name));
    Ok(life.map(|life| HeldCertificate { key: Arc::new(key), due: life.renewal(None), ends: life.to }))
}

/// How long the file of a certificate stays that has ended.
const ENDED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, path::Path, time::UNIX_EPOCH};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::settings::Acme;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    pub(in crate::acme) fn write_certificate(file: &Path, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(file, format!("{}{}", key.serialize_pem(), certificate.pem())).unwrap();
    }

    /// An error about one file had been an empty folder: all customers failed.
    #[test]
    fn what_cannot_be_read_stays_held() {
        let folder = tempfile::tempdir().unwrap();
        let acme = Acme { folder: folder.path().to_owned(), ..Acme::default() };
        let store = Store::on_demand(&acme);
        fs::create_dir_all(store.of_names()).unwrap();
        let now = UNIX_EPOCH + 20_000 * DAY;
        let params = |name: &str| CertificateParams::new([name.to_owned()]).unwrap();
        for name in ["a.test", "b.test", "c.test", "d.test"] {
            write_certificate(&acme.on_demand_file_of(name), &params(name));
        }
        let mut ended = params("ended.test");
        ended.not_after = rcgen::date_time_ymd(2020, 1, 1);
        write_certificate(&acme.on_demand_file_of("ended.test"), &ended);
        let names = |held: &HashMap<Box<str>, HeldCertificate>| {
            let mut names: Vec<String> = held.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        let before = held_after(read_all(&store, now), &HashMap::new());
        assert_eq!(names(&before), ["a.test", "b.test", "c.test", "d.test"]);
        // One is gone, one is no certificate any more, and one cannot be read: nobody reads a folder as a file.
        for name in ["b.test", "d.test"] {
            fs::remove_file(acme.on_demand_file_of(name)).unwrap();
        }
        fs::write(acme.on_demand_file_of("c.test"), "nothing").unwrap();
        fs::create_dir(acme.on_demand_file_of("d.test")).unwrap();
        assert_eq!(names(&held_after(read_all(&store, now), &before)), ["a.test", "d.test"]);
        // Nor a file as a folder.
        fs::remove_dir_all(store.of_names()).unwrap();
        fs::write(store.of_names(), "").unwrap();
        assert_eq!(names(&held_after(read_all(&store, now), &before)), names(&before));
    }

    /// A clock that was a year ahead had all files removed.
    #[test]
    fn a_file_is_removed_a_month_after_its_certificate_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let acme = Acme { folder: folder.path().to_owned(), ..Acme::default() };
        let store = Store::on_demand(&acme);
        fs::create_dir_all(store.of_names()).unwrap();
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
        let file = acme.on_demand_file_of("a.test");
        write_certificate(&file, &params);
        let ends = read(&Domain { name: "a.test".into(), file: file.clone() }).unwrap().unwrap().ends;
        assert!(read_all(&store, ends).unwrap().held.is_empty() && file.exists());
        assert!(remove_ended(&store, ends + 29 * DAY).unwrap().is_empty() && file.exists());
        let removed: Vec<String> =
            remove_ended(&store, ends + 30 * DAY).unwrap().into_iter().map(Into::into).collect();
        assert_eq!(removed, ["a.test"]);
        assert!(!file.exists());
    }
}
