//! An authority of the tests' own, and what it certifies.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

use crate::folder::Folder;

/// An authority whose certificate lies in a folder, with those that it has made.
pub struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, of this name.
    ///
    /// # Panics
    /// When no certificate can be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("the certificate is plain");
        let folder = Folder::new();
        folder.write("ca.pem", &certificate.pem());
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Where its own certificate lies.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A file of its folder.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Certifies these host names or addresses into two files of its folder.
    ///
    /// # Panics
    /// When a name is none.
    pub fn certify(&self, names: &[&str], certificate: &str, key: &str) {
        let name = |name: &&str| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().expect("a host name")),
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(name).collect();
        self.sign(&params, certificate, key);
    }

    /// Certifies a client of this name into `NAME.pem` and `NAME.key`.
    ///
    /// # Panics
    /// When no certificate can be made.
    pub fn certify_client(&self, file: &str, subject: &[(DnType, &str)]) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, &format!("{file}.pem"), &format!("{file}.key"));
    }

    fn sign(&self, params: &CertificateParams, certificate: &str, key: &str) {
        let pair = KeyPair::generate().expect("a key can be made");
        let signed = params.signed_by(&pair, &self.issuer).expect("the certificate is plain");
        self.folder.write(certificate, &signed.pem());
        self.folder.write(key, &pair.serialize_pem());
    }
}
