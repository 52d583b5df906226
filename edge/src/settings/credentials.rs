//! The certificates and keys that settings name, read from their PEM files.
//!
//! Promises: what is wrong with a file is said with its name and a remedy. Reads at a start and at a reload, never while a
//! handshake waits.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

/// Why a file of certificates or a key cannot be used. The message names the file and ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; correct the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no certificate in PEM.
    #[error("{} holds no certificate: it needs a block `-----BEGIN CERTIFICATE-----`, the server's own first, then those that signed it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no key in PEM.
    #[error("{} holds no private key: it needs a block `-----BEGIN PRIVATE KEY-----`", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A key is encrypted.
    #[error("the private key in {} is encrypted; write it without a passphrase: openssl pkey -in {0} -out NEW", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A file is broken PEM.
    #[error("{} is not valid PEM: {source}; copy it again", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A certificate is no X.509 certificate.
    #[error("{} holds a certificate that cannot be read; `openssl x509 -in {0} -noout -text` tells more", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// A key is of a kind rustls does not take.
    #[error("the private key in {} cannot be used: {source}; use RSA from 2048 bits, ECDSA P-256, P-384 or P-521, or Ed25519", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Certificate and key are not of one pair.
    #[error("the private key in {} is not that of the certificate in {}; name the two that were made together (and the server's own certificate first in its file)", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The algorithms that the edge speaks TLS with, on either side.
pub fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider {
        // Listed explicitly, so that no feature of a dependency decides it.
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}

/// The certificates in a file, at least one.
///
/// # Errors
/// [`CredentialError`] about the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let pem = read_pem(path)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialError::Pem { path: path.to_owned(), source })?;
    if chain.is_empty() { Err(CredentialError::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

/// The private key in a file.
///
/// # Errors
/// [`CredentialError`] about the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let pem = read_pem(path)?;
    let path = || path.to_owned();
    // Said before the content is looked at: encrypted, it is no base64 of a key, or has header lines of its own (RFC 1421
    // §4.6.1.1, which OpenSSL writes for PKCS#1 and SEC1).
    if contains(&pem, b"ENCRYPTED PRIVATE KEY-----") || contains(&pem, b"Proc-Type: 4,ENCRYPTED") {
        return Err(CredentialError::EncryptedKey { path: path() });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|source| match source {
        pem::Error::NoItemsFound => CredentialError::NoKey { path: path() },
        source => CredentialError::Pem { path: path(), source },
    })
}

/// A certificate chain, leaf first, with its key.
///
/// # Errors
/// [`CredentialError`] about the first file that cannot be used, or about the two together.
pub fn pair(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CredentialError> {
    let chain = certificates(certificate)?;
    let loaded = provider
        .key_provider
        .load_private_key(private_key(key)?)
        .map_err(|source| CredentialError::Key { path: key.to_owned(), source })?;
    let pair = CertifiedKey::new(chain, loaded);
    match pair.keys_match() {
        // Unknown means that the key does not reveal its public half: then the handshake will show.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CredentialError::KeyMismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        Err(_) => Err(CredentialError::Certificate { path: certificate.to_owned() }),
    }
}

/// A file's content, without the byte order mark that some editors begin a text with.
fn read_pem(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let content = fs::read(path).map_err(|source| CredentialError::Read { path: path.to_owned(), source })?;
    Ok(content.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(content))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
