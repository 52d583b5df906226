//! The certificates of a listener: which there are, for whom, and who may see them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use http::HeaderName;

use super::Domain;

/// How a listener terminates TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenTls {
    /// The certificate that stands in `tls` itself.
    pub certificate: Option<Certificate>,
    /// More of them, in the order of the file.
    pub certificates: Vec<Certificate>,
    /// A folder of more, which come behind these by their names.
    pub folder: Option<PathBuf>,
    /// Names whose certificates the edge sees to; they come last.
    pub domains: Vec<Domain>,
    /// Where certificates lie for names that clients ask for; none are made for these where it is `None`.
    pub on_demand: Option<PathBuf>,
    /// What becomes of requests in clear text for these.
    pub clear_text: ClearText,
    /// The name whose certificate is for clients that ask for no name, or for one that no certificate has: that of the first
    /// certificate where it is `None`.
    pub default: Option<Box<str>>,
    pub unknown_names: UnknownNames,
    pub minimum_version: TlsVersion,
    /// What is asked of clients; nothing where it is `None`.
    pub client_certificates: Option<ClientCertificates>,
}

/// What becomes of clients that ask for no name, or for one that no certificate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownNames {
    /// They are shown the default certificate.
    #[default]
    Default,
    /// Their handshakes fail.
    Refuse,
}

/// What becomes of requests in clear text for a name that the edge sees to the certificate of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClearText {
    /// They are sent to https.
    #[default]
    Redirect,
    /// Routes decide.
    Serve,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

/// The certificates by which clients of a listener show who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The certificates of the authorities that are believed.
    pub ca: PathBuf,
    /// Whether clients without one are refused.
    pub required: bool,
    /// What upstreams are told of them, by the names of fields.
    pub fields: Vec<(HeaderName, IdentityPart)>,
}

/// What of a client's certificate a field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityPart {
    /// All of it, as `Client-Cert` has it (RFC 9440 §2.2).
    Certificate,
    /// Those that certify it, as `Client-Cert-Chain` has them (RFC 9440 §2.3).
    Chain,
    /// Its subject, as a text (RFC 4514).
    Subject,
    /// Who has certified it, as a text.
    Issuer,
    /// Its serial number, in hexadecimal digits.
    Serial,
    /// Its SHA-256, in hexadecimal digits.
    Fingerprint,
}

/// Where a certificate chain and its key lie, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// Whether the edge makes a local CA and this certificate when both files are missing.
    pub local_ca: bool,
    /// What the certificate's authority says of it, to be sent along: an OCSP response in DER.
    pub ocsp: Option<PathBuf>,
}

impl Certificate {
    /// A pair of files that the operator sees to.
    pub fn of_files(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, local_ca: false, ocsp: None }
    }
}

impl ListenTls {
    /// One certificate, and every default.
    pub fn with(certificate: Certificate) -> Self {
        Self { certificate: Some(certificate), ..Self::default() }
    }

    /// The certificates that stand in the file itself, the default first.
    pub fn written(&self) -> impl Iterator<Item = &Certificate> {
        self.certificate.iter().chain(&self.certificates)
    }

    /// All certificates, those of the folder as it is now.
    ///
    /// # Errors
    /// [`FolderError`] about the folder.
    pub fn all(&self) -> Result<Vec<Certificate>, FolderError> {
        let mut all: Vec<Certificate> = self.written().cloned().collect();
        if let Some(folder) = &self.folder {
            all.extend(in_folder(folder)?);
        }
        Ok(all)
    }
}

/// Why a folder of certificates cannot be used. The message names it and ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It, or a folder in it, cannot be read.
    #[error("cannot read the folder {}: {source}; correct the path", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A certificate without its key.
    #[error("{} has no key beside it: {} is missing; put it there, or take the certificate out", certificate.display(), key.display())]
    NoKey { certificate: PathBuf, key: PathBuf },
    /// A key without its certificate.
    #[error("{} has no certificate beside it: {} is missing; put it there, or take the key out", key.display(), certificate.display())]
    NoCertificate { certificate: PathBuf, key: PathBuf },
    /// It holds too many.
    #[error("the folder {} holds more than {MOST_CERTIFICATES} certificates; give some to a listener of their own", path.display())]
    TooMany { path: PathBuf },
}

/// The pairs in a folder, by name: `NAME.crt` with `NAME.key`, and folders `NAME` with `fullchain.pem` and `privkey.pem`, as
/// ACME clients leave them. Other files are not looked at, and neither is what is hidden.
fn in_folder(folder: &Path) -> Result<Vec<Certificate>, FolderError> {
    let unreadable = |source| FolderError::Read { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if paths.len() == MOST_ENTRIES {
            return Err(FolderError::TooMany { path: folder.to_owned() });
        }
        paths.push(entry.path());
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let (certificate, key) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") if !path.is_dir() => (path.clone(), path.with_extension("key")),
            _ if path.is_dir() => (path.join("fullchain.pem"), path.join("privkey.pem")),
            _ => continue,
        };
        match (certificate.exists(), key.exists()) {
            (true, true) => found.push(Certificate::of_files(certificate, key)),
            (true, false) => return Err(FolderError::NoKey { certificate, key }),
            (false, true) => return Err(FolderError::NoCertificate { certificate, key }),
            (false, false) => {}
        }
        if found.len() > MOST_CERTIFICATES {
            return Err(FolderError::TooMany { path: folder.to_owned() });
        }
    }
    Ok(found)
}

/// The files by which a change of a folder shows: itself, and the folders in it.
pub fn folders_within(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_ENTRIES);
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    std::iter::once(folder.to_owned()).chain(folders).collect()
}

/// Certificates of one listener.
pub const MOST_CERTIFICATES: usize = 10_000;

/// What a folder of certificates may hold: as many, each with its key, and as much again.
const MOST_ENTRIES: usize = 4 * MOST_CERTIFICATES;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[&str]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_holds_pairs_by_name_in_both_layouts() {
        let files = [
            "b.crt",
            "b.key",
            "a/fullchain.pem",
            "a/privkey.pem",
            "a/cert.pem",
            "README",
            "other/notes",
            "lone.key",
            ".hidden.crt",
            "..data/fullchain.pem",
        ];
        let folder = folder(&files);
        let found = in_folder(folder.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|pair| pair.certificate.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("a/fullchain.pem"), Path::new("b.crt")]);
        assert!(found[0].key.ends_with("a/privkey.pem") && found[1].key.ends_with("b.key"));
    }

    #[test]
    fn half_a_pair_is_told_with_the_remedy() {
        let told = |files: &[&str]| in_folder(folder(files).path()).unwrap_err().to_string();
        let no_key = told(&["a.crt"]);
        assert!(no_key.contains("a.crt has no key") && no_key.contains("a.key is missing"), "{no_key}");
        let no_certificate = told(&["a/privkey.pem"]);
        assert!(no_certificate.contains("fullchain.pem is missing"), "{no_certificate}");
        let nowhere = in_folder(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(nowhere.contains("cannot read the folder no/such/folder"), "{nowhere}");
    }
}
