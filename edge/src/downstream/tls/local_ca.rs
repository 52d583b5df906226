//! A certificate for local use without manual steps: a certificate authority of this machine's own, and a certificate
//! for `localhost` signed by it.
//!
//! Owns: the files it makes beside the certificate the settings name. Promises: keys are readable by their owner alone; a
//! file appears whole or not at all; nothing it did not make is ever overwritten; of two edges that start at once one
//! makes the files and the other finds them. The authority may sign for this machine's loopback names only (name
//! constraints), so trusting it gives away nothing else, and its key never leaves its file.
//!
//! Its own files are recognised by the issuer's name ("Gatehouse local CA"). An existing key is always kept and
//! certified again: that way a renewal replaces one file, and an interrupted start is simply completed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData as _, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::settings::Certificate;

/// How the name of every authority made here begins.
const NAME: &str = "Gatehouse local CA";
/// Browsers take no more than 398 days for a server's certificate.
const LEAF_LIFE: Duration = DAY.saturating_mul(397);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3652);
/// A certificate that ends sooner than this is renewed.
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);
/// Certificates begin this long ago: the client's clock may be slow.
const BACKDATED: Duration = DAY;
const DAY: Duration = Duration::from_secs(86_400);

/// What [`ensure`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provision {
    /// The files are the operator's own.
    NotOurs,
    /// Made earlier, and good for at least another 30 days.
    Kept,
    /// A certificate was made with the existing authority: whoever trusts it trusts the new certificate.
    Renewed,
    /// An authority was made: print [`Trust`], once.
    NewAuthority(Trust),
}

/// How to trust a new authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The authority's certificate.
    pub authority: PathBuf,
}

impl Trust {
    /// A few lines for the operator of a listener at this port; 0 for one that is not known yet.
    #[must_use]
    pub fn told(&self, port: u16) -> String {
        let path = self.authority.display();
        let port = match port {
            443 => String::new(),
            0 => ":PORT".to_owned(),
            port => format!(":{port}"),
        };
        format!(
            "Made a local certificate authority, {path}. Until you trust it, browsers warn.\n\
             It can sign for localhost and loopback addresses only.\n  \
             edge trust --ca {path}   does what is needed for Chrome, and as root for the system; by hand:\n  \
             curl:              curl --cacert {path} https://localhost{port}/\n  \
             Debian, Ubuntu:    sudo cp {path} /usr/local/share/ca-certificates/gatehouse.crt && sudo update-ca-certificates\n  \
             Fedora:            sudo trust anchor {path}\n  \
             Chrome on Linux:   mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n Gatehouse -i {path}   (certutil is in libnss3-tools)\n  \
             Firefox:           Settings, Privacy & Security, View Certificates, Authorities, Import: {path}\n  \
             macOS:             sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain {path}\n  \
             Windows:           certutil -addstore -user Root {path}"
        )
    }
}

/// Why there is no local certificate. The message ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LocalCaError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}; the edge needs a folder it may write to for its local certificates", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The certificate is somebody else's, and its key is missing.
    #[error("{} is there, but its key {} is not; put the key there, or move the certificate away", certificate.display(), key.display())]
    KeyMissing {
        /// The certificate.
        certificate: PathBuf,
        /// The missing key.
        key: PathBuf,
    },
    /// A file with the authority's name holds something else.
    #[error("{} was not made by the edge; move it away, or set `local_ca = false` and name your own certificate", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A key file holds no key that can be used.
    #[error("{} holds no usable private key: {source}; remove it, and the edge makes a new one", path.display())]
    Key {
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make {}: {source}", path.display())]
    Make {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Ensures that the certificate and key of `settings` exist and are valid for another 30 days after `now`, with
/// `ca.pem` and `ca.key` in the certificate's folder. Blocks, also while another edge does the same.
///
/// # Errors
/// [`LocalCaError`] when a file cannot be read or written or is not what it should be.
pub fn ensure(settings: &Certificate, now: SystemTime) -> Result<Provision, LocalCaError> {
    let folder = match settings.certificate.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    // The lock is released when the file is dropped, also when the process is killed.
    let lock = File::open(folder).map_err(failed("open", folder))?;
    lock.lock().map_err(failed("lock", folder))?;

    let leaf = read_certificate(&settings.certificate)?;
    let key_is_there = settings.key.try_exists().map_err(failed("read", &settings.key))?;
    match &leaf {
        CertificateFile::Foreign if key_is_there => return Ok(Provision::NotOurs),
        CertificateFile::Foreign => {
            return Err(LocalCaError::KeyMissing {
                certificate: settings.certificate.clone(),
                key: settings.key.clone(),
            });
        }
        CertificateFile::Missing | CertificateFile::Ours(_) => {}
    }
    let authority = Authority { certificate: folder.join("ca.pem"), key: folder.join("ca.key") };
    let kept = authority.read(now)?;
    if let (Some(authority), CertificateFile::Ours(leaf), true) = (&kept, &leaf, key_is_there)
        && good_for_a_while(leaf, now)
        && signed_by(leaf, authority)
        && certifies(leaf, &settings.key)?
    {
        return Ok(Provision::Kept);
    }
    let issuer = match &kept {
        Some(certificate) => authority.issuer(certificate)?,
        None => None,
    };
    let (issuer, made) = match issuer {
        Some(issuer) => (issuer, false),
        None => (authority.make(now)?, true),
    };
    let key = key_at(&settings.key)?;
    let failed = |source| LocalCaError::Make { path: settings.certificate.clone(), source };
    let certificate = leaf_params(now)?.signed_by(&key, &issuer).map_err(failed)?;
    write(&settings.certificate, &certificate.pem(), 0o644)?;
    Ok(if made {
        Provision::NewAuthority(Trust { authority: authority.certificate })
    } else {
        Provision::Renewed
    })
}

/// The certificate found in a file.
enum CertificateFile {
    Missing,
    Ours(CertificateDer<'static>),
    Foreign,
}

/// The authority's two files.
struct Authority {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// The authority's certificate, when it is ours and valid for a while.
    fn read(&self, now: SystemTime) -> Result<Option<CertificateDer<'static>>, LocalCaError> {
        match read_certificate(&self.certificate)? {
            CertificateFile::Missing => Ok(None),
            CertificateFile::Ours(certificate) => {
                Ok(good_for_a_while(&certificate, now).then_some(certificate))
            }
            CertificateFile::Foreign => Err(LocalCaError::Foreign { path: self.certificate.clone() }),
        }
    }

    /// The issuer to sign with; `None` when the key is missing or belongs to another certificate: then a new authority
    /// is made.
    fn issuer(
        &self,
        certificate: &CertificateDer<'_>,
    ) -> Result<Option<Issuer<'static, KeyPair>>, LocalCaError> {
        if !certifies(certificate, &self.key)? {
            return Ok(None);
        }
        let failed = |source| LocalCaError::Make { path: self.certificate.clone(), source };
        Issuer::from_ca_cert_der(certificate, key_at(&self.key)?).map(Some).map_err(failed)
    }

    fn make(&self, now: SystemTime) -> Result<Issuer<'static, KeyPair>, LocalCaError> {
        let key = key_at(&self.key)?;
        let params = authority_params(now)?;
        let failed = |source| LocalCaError::Make { path: self.certificate.clone(), source };
        let certificate = params.self_signed(&key).map_err(failed)?;
        write(&self.certificate, &certificate.pem(), 0o644)?;
        Ok(Issuer::new(params, key))
    }
}

fn authority_params(now: SystemTime) -> Result<CertificateParams, LocalCaError> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "this machine" } else { host.trim() };
    let mut params = named(&format!("{NAME} ({host})"), now, AUTHORITY_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        // A DNS name stands for itself and all below it (RFC 5280 §4.2.1.10).
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv4Addr::LOCALHOST.into(), 32)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv6Addr::LOCALHOST.into(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn leaf_params(now: SystemTime) -> Result<CertificateParams, LocalCaError> {
    let mut params = named("localhost", now, LEAF_LIFE)?;
    // No `*.localhost`: OpenSSL and browsers match no wildcard right under a top-level name, and rustls refuses the whole
    // certificate for it.
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().expect("it is ASCII")),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// `life` counts from the backdated beginning, which is what browsers measure.
fn named(name: &str, now: SystemTime, life: Duration) -> Result<CertificateParams, LocalCaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let start = (now - BACKDATED).duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + start;
    params.not_after = params.not_before + life;
    // Each serial number is new: browsers refuse two certificates of one authority with one number.
    let mut serial = [0; 16];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut serial).map_err(|_| LocalCaError::Random)?;
    // Positive, and without leading zeros in DER (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// The first certificate of a PEM file. A file without one is foreign: it is not ours to replace.
fn read_certificate(path: &Path) -> Result<CertificateFile, LocalCaError> {
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(CertificateFile::Missing),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let Ok(certificate) = CertificateDer::from_pem_slice(&pem) else { return Ok(CertificateFile::Foreign) };
    let ours = parse(&certificate).is_some_and(|parsed| {
        parsed.issuer().iter_common_name().any(|name| name.as_str().is_ok_and(|name| name.starts_with(NAME)))
    });
    Ok(if ours { CertificateFile::Ours(certificate) } else { CertificateFile::Foreign })
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

fn good_for_a_while(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
    let seconds =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    parse(certificate).is_some_and(|parsed| {
        let validity = parsed.validity();
        validity.not_before.timestamp() <= seconds(now)
            && validity.not_after.timestamp() >= seconds(now + RENEW_BEFORE)
    })
}

fn signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let (Some(certificate), Some(authority)) = (parse(certificate), parse(authority)) else { return false };
    certificate.issuer() == authority.subject()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// Whether a certificate is for the key in a file; false when there is none.
fn certifies(certificate: &CertificateDer<'_>, key: &Path) -> Result<bool, LocalCaError> {
    if !key.try_exists().map_err(failed("read", key))? {
        return Ok(false);
    }
    let key = key_at(key)?;
    Ok(parse(certificate).is_some_and(|parsed| parsed.public_key().raw == key.subject_public_key_info()))
}

/// The key of a file, made when there is no such file.
fn key_at(path: &Path) -> Result<KeyPair, LocalCaError> {
    let unusable = |source| LocalCaError::Key { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(unusable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
            write(path, &key.serialize_pem(), 0o600)?;
            Ok(key)
        }
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Writes a whole file or none: under another name first, with its mode from the beginning.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), LocalCaError> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    // The draft of an interrupted start: the folder's lock excludes another writer.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &draft)(error)),
        _ => {}
    }
    let fill = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        // The umask may have removed more permissions than intended.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    fill().map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalCaError {
    let path = path.to_owned();
    move |source| LocalCaError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    };
    use rustls_pki_types::{ServerName, UnixTime};
    use tempfile::TempDir;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + DAY * 20_500
    }

    fn in_folder(folder: &TempDir) -> Certificate {
        let certs = folder.path().join("certs");
        Certificate {
            certificate: certs.join("localhost.pem"),
            key: certs.join("localhost.key"),
            local_ca: true,
            ocsp: None,
        }
    }

    fn made(outcome: Provision) -> Trust {
        match outcome {
            Provision::NewAuthority(trust) => trust,
            other => panic!("{other:?}"),
        }
    }

    fn first(path: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// As a client that trusts the authority does.
    fn verify(settings: &Certificate, name: &'static str, at: SystemTime) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(first(&settings.certificate.with_file_name("ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap());
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&first(&settings.certificate), &[], &name, &[], at).map(drop)
    }

    #[test]
    fn the_first_start_makes_what_a_client_accepts_for_local_names_only() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        made(ensure(&settings, now()).unwrap());
        for name in ["localhost", "127.0.0.1", "::1"] {
            verify(&settings, name, now()).unwrap();
        }
        for name in ["example.com", "shop.localhost", "127.0.0.2"] {
            verify(&settings, name, now()).unwrap_err();
        }
        verify(&settings, "localhost", now() + DAY * 395).unwrap();
        verify(&settings, "localhost", now() + DAY * 397).unwrap_err();
    }

    #[test]
    fn the_authority_may_not_sign_for_other_names() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        made(ensure(&settings, now()).unwrap());
        let certs = settings.certificate.parent().unwrap();
        let authority = Authority { certificate: certs.join("ca.pem"), key: certs.join("ca.key") };
        let issuer = authority.issuer(&first(&authority.certificate)).unwrap().unwrap();
        let mut params = leaf_params(now()).unwrap();
        params.subject_alt_names = vec![SanType::DnsName("example.com".try_into().unwrap())];
        let forged = params.signed_by(&key_at(&settings.key).unwrap(), &issuer).unwrap();
        fs::write(&settings.certificate, forged.pem()).unwrap();
        verify(&settings, "example.com", now()).unwrap_err();
    }

    #[test]
    fn keys_are_their_owners_alone() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        made(ensure(&settings, now()).unwrap());
        for key in [settings.key.clone(), settings.key.with_file_name("ca.key")] {
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        }
        let mut names: Vec<_> = fs::read_dir(settings.key.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["ca.key", "ca.pem", "localhost.key", "localhost.pem"], "no draft is left");
    }

    #[test]
    fn the_next_start_keeps_everything() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        made(ensure(&settings, now()).unwrap());
        let before = first(&settings.certificate);
        assert_eq!(ensure(&settings, now() + DAY * 365).unwrap(), Provision::Kept);
        assert_eq!(first(&settings.certificate), before);
    }

    #[test]
    fn a_certificate_that_ends_within_30_days_is_renewed_under_the_same_authority_and_key() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        let trust = made(ensure(&settings, now()).unwrap());
        let (authority, old) = (first(&trust.authority), first(&settings.certificate));
        let key = fs::read(&settings.key).unwrap();
        let later = now() + DAY * 370;
        assert_eq!(ensure(&settings, later).unwrap(), Provision::Renewed);
        assert_eq!(first(&trust.authority), authority);
        assert_eq!(fs::read(&settings.key).unwrap(), key);
        verify(&settings, "localhost", later + DAY * 360).unwrap();
        let serial = |certificate| parse(certificate).unwrap().raw_serial().to_vec();
        assert_ne!(serial(&first(&settings.certificate)), serial(&old));
    }

    #[test]
    fn a_lost_authority_is_made_anew_with_its_certificate() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        let trust = made(ensure(&settings, now()).unwrap());
        fs::remove_file(&trust.authority).unwrap();
        fs::remove_file(trust.authority.with_file_name("ca.key")).unwrap();
        made(ensure(&settings, now()).unwrap());
        verify(&settings, "localhost", now()).unwrap();
    }

    #[test]
    fn an_authority_without_its_key_serves_until_a_renewal_is_due() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        let trust = made(ensure(&settings, now()).unwrap());
        fs::remove_file(trust.authority.with_file_name("ca.key")).unwrap();
        assert_eq!(ensure(&settings, now()).unwrap(), Provision::Kept);
        let later = now() + DAY * 380;
        made(ensure(&settings, later).unwrap());
        verify(&settings, "localhost", later).unwrap();
    }

    #[test]
    fn an_authority_near_its_end_is_made_anew() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        made(ensure(&settings, now()).unwrap());
        let later = now() + DAY * 3640;
        made(ensure(&settings, later).unwrap());
        verify(&settings, "localhost", later).unwrap();
    }

    #[test]
    fn a_start_that_was_interrupted_is_completed() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        made(ensure(&settings, now()).unwrap());
        for lost in ["ca.pem", "localhost.pem", "localhost.key"] {
            fs::remove_file(settings.certificate.with_file_name(lost)).unwrap();
            fs::write(settings.certificate.with_file_name("localhost.pem.new"), "half").unwrap();
            ensure(&settings, now()).unwrap();
            verify(&settings, "localhost", now()).unwrap();
            assert_eq!(ensure(&settings, now()).unwrap(), Provision::Kept, "after {lost}");
        }
    }

    #[test]
    fn the_operators_own_files_are_used_and_never_touched() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::create_dir(settings.certificate.parent().unwrap()).unwrap();
        fs::write(&settings.certificate, own.pem()).unwrap();
        let error = ensure(&settings, now()).unwrap_err().to_string();
        assert!(error.contains("localhost.key is not"), "{error}");
        fs::write(&settings.key, key.serialize_pem()).unwrap();
        assert_eq!(ensure(&settings, now()).unwrap(), Provision::NotOurs);
        assert_eq!(fs::read_to_string(&settings.certificate).unwrap(), own.pem());
        assert!(!settings.certificate.with_file_name("ca.pem").exists());
    }

    #[test]
    fn a_foreign_authority_is_not_overwritten() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        let foreign = settings.certificate.with_file_name("ca.pem");
        fs::create_dir(foreign.parent().unwrap()).unwrap();
        fs::write(&foreign, "something else").unwrap();
        let error = ensure(&settings, now()).unwrap_err().to_string();
        assert!(error.contains("ca.pem was not made by the edge"), "{error}");
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "something else");
    }

    #[test]
    fn a_broken_key_is_named() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        fs::create_dir(settings.key.parent().unwrap()).unwrap();
        fs::write(&settings.key, "no key").unwrap();
        let error = ensure(&settings, now()).unwrap_err().to_string();
        assert!(error.contains("localhost.key holds no usable private key"), "{error}");
    }

    #[test]
    fn of_many_that_start_at_once_one_makes_the_files() {
        let folder = TempDir::new().unwrap();
        let settings = in_folder(&folder);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| ensure(&settings, now()).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Provision::Kept).count(), 7, "{outcomes:?}");
        verify(&settings, "localhost", now()).unwrap();
    }

    #[test]
    fn the_way_to_trust_names_the_file() {
        let trust = Trust { authority: "certs/ca.pem".into() };
        assert!(trust.told(443).contains("https://localhost/") && trust.told(0).contains("localhost:PORT/"));
        assert!(trust.told(8443).contains("curl --cacert certs/ca.pem https://localhost:8443/"));
    }
}
