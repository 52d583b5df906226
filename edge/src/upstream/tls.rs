//! TLS towards servers: whom the edge believes, and how it shows who it is.
//!
//! Promises: a server proves that it has the name that the settings call it by, unless they say `verify = false`, which is
//! a warning at each start and reload. Files are read at a start and at a reload, never for a request.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    message::byte_stream::ByteStream,
    settings::{
        UpstreamSettings, UpstreamTlsSettings, Verification,
        credentials::{self, CredentialError, provider},
    },
};

/// Why there is no TLS towards an upstream.
#[derive(Debug, thiserror::Error)]
#[error("upstream {upstream}: {reason}")]
pub struct UpstreamTlsError {
    pub upstream: Arc<str>,
    #[source]
    pub reason: TlsReason,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsReason {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A certificate of an authority is none.
    #[error("{} holds a certificate of an authority that cannot be used: {source}", path.display())]
    Authority {
        path: std::path::PathBuf,
        #[source]
        source: rustls::Error,
    },
    /// The system has no authorities.
    #[error(
        "the system has no certificates of authorities{0}; install them (ca-certificates), or name a file: tls = {{ ca = \"..\" }}"
    )]
    NoSystemRoots(String),
    /// rustls does not take the certificate and key, or takes no configuration at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// TLS of every upstream that needs it, by name.
#[derive(Clone, Debug, Default)]
pub struct TlsByUpstream(BTreeMap<Arc<str>, Arc<ClientTls>>);

impl TlsByUpstream {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// [`UpstreamTlsError`] about the first upstream whose files cannot be used.
    pub fn load(upstreams: &BTreeMap<Arc<str>, Arc<UpstreamSettings>>) -> Result<Self, UpstreamTlsError> {
        let mut all = BTreeMap::new();
        for (name, settings) in upstreams.iter().filter(|(_, settings)| settings.uses_tls()) {
            let failed = |reason| UpstreamTlsError { upstream: Arc::clone(name), reason };
            let tls = ClientTls::load(&settings.tls).map_err(failed)?;
            all.insert(Arc::clone(name), Arc::new(tls));
        }
        Ok(Self(all))
    }

    /// That of one upstream; `None` where it has no server that is reached by TLS.
    pub fn get(&self, upstream: &str) -> Option<&Arc<ClientTls>> {
        self.0.get(upstream)
    }
}

/// TLS towards the servers of one upstream.
pub struct ClientTls {
    either: TlsConnector,
    http1: TlsConnector,
    name: Option<ServerName<'static>>,
    sources: TlsMaterial,
}

/// What it was made of.
#[derive(PartialEq, Eq)]
struct TlsMaterial {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    settings: UpstreamTlsSettings,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientTls").field("settings", &self.sources.settings).finish_non_exhaustive()
    }
}

/// Two are equal when they were made of the same certificates and keys.
impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.sources == other.sources
    }
}

/// The protocols that a server may choose between (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 before HTTP/1.1.
    Either,
    /// HTTP/1.1 alone: the request asks for a tunnel, which HTTP/2 has no Upgrade for (RFC 9113 §8.6).
    Http1,
}

/// The version that both sides speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http1,
    Http2,
}

impl ClientTls {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// [`TlsReason`] about the first file that cannot be used.
    pub fn load(settings: &UpstreamTlsSettings) -> Result<Self, TlsReason> {
        let roots = match (&settings.ca, settings.verification) {
            (_, Verification::Off) => Vec::new(),
            (Some(path), _) => credentials::certificates(path)?,
            (None, _) => system_roots()?,
        };
        let identity = settings.identity.as_ref().map(|(certificate, key)| {
            // Also checks that they belong together.
            let pair = credentials::pair(certificate, key, &provider())?;
            Ok::<_, CredentialError>((pair.cert.clone(), credentials::private_key(key)?))
        });
        let sources = TlsMaterial { roots, identity: identity.transpose()?, settings: settings.clone() };
        let either = sources.config(&[b"h2", b"http/1.1"])?;
        let http1 = sources.config(&[b"http/1.1"])?;
        let name =
            settings.server_name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Ok(Self { either: either.into(), http1: http1.into(), name, sources })
    }

    /// Shakes hands with the server at the other end, which the settings call `host`. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    /// When the server does not prove who it is, does not speak TLS, or goes away.
    pub async fn connect(
        &self,
        host: &str,
        offer: Offer,
        stream: Box<dyn ByteStream>,
    ) -> io::Result<(Box<dyn ByteStream>, HttpVersion)> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let connector = match offer {
            Offer::Either => &self.either,
            Offer::Http1 => &self.http1,
        };
        let stream = connector.connect(name, stream).await?;
        let spoken = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpVersion::Http2,
            // A server that knows no ALPN speaks HTTP/1.1.
            _ => HttpVersion::Http1,
        };
        Ok((Box::new(stream), spoken))
    }
}

impl TlsMaterial {
    fn config(&self, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsReason> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsReason::Setup)?;
        let builder = match self.settings.verification {
            Verification::Required => {
                let inner = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(self.roots()?),
                    Arc::clone(&provider),
                );
                let inner = inner
                    .build()
                    .map_err(|error| TlsReason::Setup(rustls::Error::General(error.to_string())))?;
                let own = if self.settings.ca.is_some() { self.roots.clone() } else { Vec::new() };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Believed { inner, own }))
            }
            Verification::Off => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
        };
        let mut config = match &self.identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(TlsReason::Setup)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsReason> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            match (store.add(root.clone()), &self.settings.ca) {
                (Ok(()), _) => {}
                (Err(source), Some(path)) => {
                    return Err(TlsReason::Authority { path: path.clone(), source });
                }
                // Some systems ship old ones that nobody can read.
                (Err(_), None) => {}
            }
        }
        Ok(store)
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, TlsReason> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TlsReason::NoSystemRoots(why));
    }
    Ok(found.certs)
}

/// Believes what an authority has signed, and a certificate that stands itself in the file of authorities: made by
/// `openssl req -x509`, it is its own authority, which the rules for authorities (RFC 5280 §4.2.1.9) do not let be a server's.
#[derive(Debug)]
struct Believed {
    inner: Arc<WebPkiServerVerifier>,
    /// What the operator's own file holds.
    own: Vec<CertificateDer<'static>>,
}

impl Believed {
    fn is_own(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        let named = self.own.iter().any(|own| own.as_ref() == certificate.as_ref());
        let valid = |certificate: &X509Certificate<'_>| {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let validity = certificate.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
        };
        named && X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| valid(&certificate))
    }
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refusal = match self.inner.verify_server_cert(certificate, others, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(refusal) => refusal,
        };
        if !self.is_own(certificate, now) {
            return Err(refusal);
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Believes every certificate; that the other end has its key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS sessions remembered for each upstream, so that a new connection costs no new proof.
const SESSIONS: usize = 256;
