//! Certificates that the edge makes for itself, for names whose own are yet to be had: no client believes them, and handshakes come
//! to an end all the same.

use rcgen::{CertificateParams, KeyPair};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::PrivateKeyDer;

use super::error::TlsError;

/// Makes one for a name.
pub(super) fn make(name: &str, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let failed = |error: &dyn std::fmt::Display| TlsError::Setup(rustls::Error::General(error.to_string()));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| failed(&error))?;
    let params = CertificateParams::new([name.to_owned()]).map_err(|error| failed(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| failed(&error))?;
    let key = provider.key_provider.load_private_key(key).map_err(TlsError::Setup)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}
