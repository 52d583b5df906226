//! TLS of the public listeners: versions, key exchange, certificates, session tickets.
//!
//! Owns: what a handshake is answered with, for every listener. Promises: TLS 1.3 and 1.2 only, X25519MLKEM768 first, HTTP/2 before HTTP/1.1;
//! a reload swaps certificates for handshakes to come and touches no connection; a reload that fails changes nothing;
//! tickets work on every thread and listener, and after a reload. Never does I/O during a handshake.

pub mod local_ca;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::settings::{
    Certificate,
    credentials::{self, CredentialError, provider},
};
use local_ca::{LocalCaError, Provision};

/// An operator is warned when a certificate ends sooner than this.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// Why there is no TLS. The message names the file and ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; correct the path, or let the edge make a local certificate (`local_ca = true`)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Credential(CredentialError),
    /// The local certificate could not be made.
    #[error(transparent)]
    LocalCa(#[from] LocalCaError),
    /// rustls takes no configuration at all: no randomness, or a broken provider.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// Makes the [`Terminator`]s of all listeners.
#[derive(Debug)]
pub struct Terminators {
    tickets: Arc<dyn ProducesTickets>,
}

impl Terminators {
    /// Chooses the keys that seal session tickets: made once per process and changed every six hours. One set for all
    /// listeners: a client's connections may reach any of them.
    ///
    /// # Errors
    /// [`TlsError::Setup`], when the system gives no random numbers.
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self { tickets: aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)? })
    }

    /// TLS of one more listener.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn make(&self, loaded: Loaded) -> Result<Terminator, TlsError> {
        Terminator::new(loaded, &self.tickets)
    }
}

/// Reads a listener's certificate and key, and makes those that are to be made here ([`local_ca`]). What clients will dislike
/// about a certificate, and how to trust a new local authority, is logged.
///
/// # Errors
/// [`TlsError`] about a file that cannot be used. A certificate that has ended is no error.
pub fn read(source: &Certificate, now: SystemTime) -> Result<Loaded, TlsError> {
    if source.local_ca
        && let Provision::NewAuthority(trust) = local_ca::ensure(source, now)?
    {
        tracing::info!("{trust}");
    }
    let loaded = Loaded::read(source, &[])?;
    for warning in loaded.warnings(now) {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// What is to be said of a listener's certificate and key.
#[derive(Debug)]
pub enum Finding {
    /// They cannot be used, or clients refuse them now.
    Fault(String),
    /// They are of use for now.
    Warning(String),
}

/// Looks at a listener's certificate and key as [`read`] would, and makes nothing.
#[must_use]
pub fn inspect(source: &Certificate, now: SystemTime) -> Vec<Finding> {
    if source.local_ca && !source.certificate.exists() && !source.key.exists() {
        return Vec::new();
    }
    let loaded = match Loaded::read(source, &[]) {
        Ok(loaded) => loaded,
        Err(error) => return vec![Finding::Fault(error.to_string())],
    };
    // A local certificate that has ended is made anew at the start.
    let finding = |validity: &Validity| {
        let warning = validity.warning(now)?;
        let refused = !validity.holds(now) && !source.local_ca;
        Some(if refused { Finding::Fault(warning) } else { Finding::Warning(warning) })
    };
    let doubts = loaded.doubts.iter().cloned().map(Finding::Warning);
    loaded.validities.iter().filter_map(finding).chain(doubts).collect()
}

/// TLS of one listener.
#[derive(Debug)]
pub struct Terminator {
    certificates: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl Terminator {
    fn new(loaded: Loaded, tickets: &Arc<dyn ProducesTickets>) -> Result<Self, TlsError> {
        let certificates = Arc::new(Current(ArcSwap::from_pointee(loaded)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(tickets);
        // Tickets leave nothing to store here, and the default store has a lock that all threads would share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { certificates, config: Arc::new(config) })
    }

    /// Puts in force what has been read, for the handshakes to come. Whether it is another certificate.
    pub fn renew(&self, loaded: Loaded) -> bool {
        let other = self.certificates.0.load().default.cert != loaded.default.cert;
        self.certificates.0.store(Arc::new(loaded));
        other
    }

    /// The files of the certificates in use, and when these end, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> Vec<(String, i64)> {
        let loaded = self.certificates.0.load();
        loaded.validities.iter().map(|validity| (validity.path.display().to_string(), validity.to)).collect()
    }

    /// What handshakes are answered with, the same on every thread. Later [`Terminator::renew`]als take effect in it.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The certificates of one listener as of now.
struct Current(ArcSwap<Loaded>);

impl fmt::Debug for Current {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Current").field(&self.0.load().by_name.keys()).finish()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().choose(hello.server_name()))
    }
}

/// Certificates, chosen by the name a client asks for (SNI, RFC 6066 §3).
pub struct Loaded {
    /// For clients that ask for no name, or for another one.
    default: Arc<CertifiedKey>,
    /// By lower-case name; a wildcard stands without its star: `.example.com`.
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Of every certificate of every chain.
    validities: Vec<Validity>,
    /// What some clients will not understand of the chains.
    doubts: Vec<String>,
}

impl Loaded {
    fn read(first: &Certificate, others: &[Certificate]) -> Result<Self, TlsError> {
        let provider = provider();
        let mut loaded = Self {
            default: Arc::new(read_pair(first, &provider)?),
            by_name: HashMap::new(),
            validities: Vec::new(),
            doubts: Vec::new(),
        };
        loaded.add(first, &Arc::clone(&loaded.default))?;
        for other in others {
            loaded.add(other, &Arc::new(read_pair(other, &provider)?))?;
        }
        Ok(loaded)
    }

    fn add(&mut self, source: &Certificate, pair: &Arc<CertifiedKey>) -> Result<(), TlsError> {
        let unreadable = || CredentialError::Certificate { path: source.certificate.clone() };
        let leaf = pair.end_entity_cert().map_err(|_| unreadable())?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
        let chain: Vec<X509Certificate<'_>> =
            pair.cert.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
        if chain.len() != pair.cert.len() {
            return Err(unreadable().into());
        }
        for (place, certificate) in chain.iter().enumerate() {
            self.validities.push(Validity::of(certificate, &source.certificate, place));
        }
        self.doubts.extend(disorder(&chain, &source.certificate));
        for name in dns_names(&leaf) {
            // Of two certificates for one name, the first in the settings counts.
            self.by_name.entry(name).or_insert_with(|| Arc::clone(pair));
        }
        Ok(())
    }

    /// A sentence about each certificate that clients refuse now or will within two weeks, and about each chain that they may
    /// not follow.
    fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warnings = self.validities.iter().filter_map(|validity| validity.warning(now));
        warnings.chain(self.doubts.iter().cloned()).collect()
    }

    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.by_name.get(&name[name.find('.')?..]);
            self.by_name.get(name.as_str()).or_else(wildcard)
        });
        Arc::clone(found.unwrap_or(&self.default))
    }
}

/// What is wrong with the order of a chain: each certificate is to certify the one before it (RFC 5246 §7.4.2; RFC 8446 §4.4.2
/// allows any order, and many clients do not).
fn disorder(chain: &[X509Certificate<'_>], path: &Path) -> Option<String> {
    let path = path.display();
    let certifies = |issuer: &X509Certificate<'_>, of: &X509Certificate<'_>| issuer.subject() == of.issuer();
    let place = chain.windows(2).position(|pair| !certifies(&pair[1], &pair[0]))?;
    let next = place + 2;
    let issuer = chain.iter().position(|issuer| certifies(issuer, &chain[place])).filter(|at| *at > place);
    Some(match issuer {
        Some(at) => format!(
            "the certificates in {path} are in a wrong order: number {next} does not certify the one before it, number {} does; \
             put the server's own first, and behind each the one that certifies it",
            at + 1
        ),
        None => format!(
            "certificate number {next} in {path} does not certify the one before it: put the server's own first, behind each \
             the one that certifies it, and take out what does not belong to it"
        ),
    })
}

fn dns_names(leaf: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => {
            Some(name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase().into())
        }
        _ => None,
    });
    dns.collect()
}

fn read_pair(source: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    Ok(credentials::pair(&source.certificate, &source.key, provider)?)
}

impl From<CredentialError> for TlsError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Read { path, source } => Self::Read { path, source },
            other => Self::Credential(other),
        }
    }
}

/// When a certificate is valid, in seconds since 1970.
struct Validity {
    path: PathBuf,
    /// 0 for the server's own; those that certify it come after.
    place: usize,
    from: i64,
    to: i64,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>, path: &Path, place: usize) -> Self {
        let validity = certificate.validity();
        Self {
            path: path.to_owned(),
            place,
            from: validity.not_before.timestamp(),
            to: validity.not_after.timestamp(),
        }
    }

    fn holds(&self, now: SystemTime) -> bool {
        (self.from..=self.to).contains(&seconds(now))
    }

    fn warning(&self, now: SystemTime) -> Option<String> {
        let now = seconds(now);
        let path = self.path.display();
        let which = match self.place {
            0 => format!("the certificate in {path}"),
            place => {
                format!("certificate number {} in {path}, which certifies the one before it,", place + 1)
            }
        };
        let days = |seconds: i64| seconds / 86_400;
        if now > self.to {
            Some(format!("{which} ended {} days ago; clients refuse it: renew it", days(now - self.to)))
        } else if now < self.from {
            Some(format!("{which} begins in {} days; is this machine's clock right?", days(self.from - now)))
        } else if self.to - now < WARN_BEFORE.as_secs().cast_signed() {
            Some(format!("{which} ends in {} days: renew it", days(self.to - now)))
        } else {
            None
        }
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
        ServerConnection, SupportedProtocolVersion, client::Resumption,
    };
    use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tempfile::TempDir;

    use super::*;

    /// A folder with self-signed certificates.
    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            Self(TempDir::new().unwrap())
        }

        fn pair(&self, file: &str, names: &[&str]) -> Certificate {
            let key = KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
            Certificate {
                certificate: self.write(&format!("{file}.pem"), &certificate.pem()),
                key: self.write(&format!("{file}.key"), &key.serialize_pem()),
                local_ca: false,
            }
        }

        fn write(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, content).unwrap();
            path
        }
    }

    fn der(source: &Certificate) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(&fs::read(&source.certificate).unwrap()).unwrap()
    }

    fn client(trusted: &[&Certificate], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for source in trusted {
            roots.add(der(source)).unwrap();
        }
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        client.resumption = Resumption::in_memory_sessions(8);
        client
    }

    /// A whole handshake in memory, with the session tickets after it.
    fn shake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: &str,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut there = wire.as_slice();
            while !there.is_empty() {
                server.read_tls(&mut there).unwrap();
                server.process_new_packets()?;
            }
            let mut back = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut back).unwrap();
            }
            if wire.is_empty() && back.is_empty() {
                return Ok((client, server));
            }
            let mut back = back.as_slice();
            while !back.is_empty() {
                client.read_tls(&mut back).unwrap();
                client.process_new_packets()?;
            }
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(20_000 * 86_400)
    }

    fn terminator(terminators: &Terminators, source: &Certificate) -> Terminator {
        terminators.make(read(source, now()).unwrap()).unwrap()
    }

    fn serve(source: &Certificate) -> (Terminator, Arc<ServerConfig>) {
        let terminator = terminator(&Terminators::new().unwrap(), source);
        let config = terminator.server_config();
        (terminator, config)
    }

    fn error(source: &Certificate) -> String {
        read(source, now()).err().unwrap().to_string()
    }

    const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

    #[test]
    fn a_handshake_is_tls_1_3_with_post_quantum_exchange_and_http_2() {
        let files = Files::new();
        let source = files.pair("a", &["localhost"]);
        let (_, server) = serve(&source);
        let (client, _) = shake(&Arc::new(client(&[&source], BOTH)), &server, "localhost").unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]), "the server's order counts");
    }

    #[test]
    fn tls_1_2_is_spoken_with_those_who_know_no_better() {
        let files = Files::new();
        let source = files.pair("a", &["localhost"]);
        let (_, server) = serve(&source);
        let (client, _) = shake(&Arc::new(client(&[&source], &[&TLS12])), &server, "localhost").unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    }

    /// Mozilla's "intermediate" profile, version 5.7, without those that rustls does not have: all have forward secrecy, and
    /// encrypt and authenticate at once.
    #[test]
    fn the_suites_are_modern_ones_alone() {
        let profile = [
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ];
        let files = Files::new();
        let (_, server) = serve(&files.pair("a", &["localhost"]));
        let offered = server.crypto_provider();
        let mut suites: Vec<String> =
            offered.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        suites.sort_unstable();
        let mut profile = profile.map(str::to_owned);
        profile.sort_unstable();
        assert_eq!(suites, profile);
        assert_eq!(offered.kx_groups[0].name(), NamedGroup::X25519MLKEM768, "hybrid first");
    }

    #[test]
    fn a_client_that_speaks_none_of_our_protocols_is_told_so() {
        let files = Files::new();
        let source = files.pair("a", &["localhost"]);
        let (_, server) = serve(&source);
        for protocols in [&["spdy/3.1"][..], &["http/1.0"], &["h2c", "h3"], &["HTTP/1.1", "h2 "]] {
            let mut client = client(&[&source], BOTH);
            client.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            let refused = shake(&Arc::new(client), &server, "localhost").err();
            assert_eq!(refused, Some(rustls::Error::NoApplicationProtocol), "{protocols:?} (RFC 7301 §3.2)");
        }
    }

    /// Early data may be sent again by whoever has seen it (RFC 8446 §8, RFC 8470).
    #[test]
    fn no_ticket_allows_early_data() {
        let files = Files::new();
        let source = files.pair("a", &["localhost"]);
        let (_, server) = serve(&source);
        assert_eq!(server.max_early_data_size, 0);
        let mut client = client(&[&source], &[&TLS13]);
        client.enable_early_data = true;
        let client = Arc::new(client);
        shake(&client, &server, "localhost").unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut again = ClientConnection::new(Arc::clone(&client), name).unwrap();
        assert!(again.early_data().is_none(), "the ticket says how much may be sent: nothing");
        let (_, server) = shake(&client, &server, "localhost").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed), "there is a ticket");
    }

    #[test]
    fn a_ticket_is_good_on_another_listener_and_after_a_reload() {
        for versions in [&[&TLS13][..], &[&TLS12][..]] {
            let files = Files::new();
            let source = files.pair("a", &["localhost"]);
            let terminators = Terminators::new().unwrap();
            let [one, other] = [(); 2].map(|()| terminator(&terminators, &source));
            let client = Arc::new(client(&[&source], versions));
            let (_, server) = shake(&client, &one.server_config(), "localhost").unwrap();
            assert_ne!(server.handshake_kind(), Some(HandshakeKind::Resumed));
            assert!(!other.renew(read(&source, now()).unwrap()), "it is the same");
            let (_, server) = shake(&client, &other.server_config(), "localhost").unwrap();
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed), "{versions:?}");
        }
    }

    #[test]
    fn the_name_asked_for_chooses_the_certificate() {
        let files = Files::new();
        let sources = [
            files.pair("first", &["first.test"]),
            files.pair("second", &["second.test", "*.wild.test"]),
            files.pair("third", &["second.test", "exact.wild.test"]),
        ];
        let loaded = Loaded::read(&sources[0], &sources[1..]).unwrap();
        let chosen = |name| loaded.choose(name).end_entity_cert().unwrap().clone().into_owned();
        assert_eq!(chosen(Some("first.test")), der(&sources[0]));
        assert_eq!(chosen(Some("SECOND.test")), der(&sources[1]));
        assert_eq!(chosen(Some("any.wild.test")), der(&sources[1]));
        assert_eq!(chosen(Some("exact.wild.test")), der(&sources[2]));
        for other in [None, Some("unknown.test"), Some("wild.test"), Some("a.b.wild.test"), Some("test")] {
            assert_eq!(chosen(other), der(&sources[0]), "{other:?}");
        }
    }

    #[test]
    fn a_reload_counts_for_the_next_handshake() {
        let files = Files::new();
        let (old, new) = (files.pair("old", &["localhost"]), files.pair("new", &["localhost"]));
        let (terminator, server) = serve(&old);
        let client = Arc::new(client(&[&old, &new], BOTH));
        let (client_before, _) = shake(&client, &server, "localhost").unwrap();
        assert!(terminator.renew(read(&new, now()).unwrap()), "it is another");
        let fresh = Arc::new(self::client(&[&old, &new], BOTH));
        let (client_after, _) = shake(&fresh, &server, "localhost").unwrap();
        assert_eq!(client_before.peer_certificates().unwrap()[0], der(&old));
        assert_eq!(client_after.peer_certificates().unwrap()[0], der(&new));
    }

    #[test]
    fn a_local_certificate_is_made_on_the_way() {
        let files = Files::new();
        let certs = files.0.path().join("certs");
        let source = Certificate {
            certificate: certs.join("localhost.pem"),
            key: certs.join("localhost.key"),
            local_ca: true,
        };
        let (_, server) = serve(&source);
        let authority = Certificate { certificate: certs.join("ca.pem"), ..source };
        let mut client = client(&[&authority], BOTH);
        client.time_provider = Arc::new(At(now()));
        shake(&Arc::new(client), &server, "localhost").unwrap();
    }

    #[derive(Debug)]
    struct At(SystemTime);

    impl rustls::time_provider::TimeProvider for At {
        fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
            Some(rustls_pki_types::UnixTime::since_unix_epoch(self.0.duration_since(UNIX_EPOCH).unwrap()))
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_the_remedy() {
        let files = Files::new();
        let good = files.pair("good", &["localhost"]);
        let other = files.pair("other", &["localhost"]);

        let missing = error(&Certificate { certificate: files.0.path().join("none.pem"), ..good.clone() });
        assert!(missing.contains("none.pem") && missing.contains("local_ca"), "{missing}");

        let swapped = error(&Certificate { certificate: good.key.clone(), ..good.clone() });
        assert!(swapped.contains("good.key holds no certificate"), "{swapped}");

        let no_key = error(&Certificate { key: good.certificate.clone(), ..good.clone() });
        assert!(no_key.contains("good.pem holds no private key"), "{no_key}");

        let mismatch = error(&Certificate { key: other.key, ..good.clone() });
        assert!(
            mismatch.contains("other.key is not that of the certificate in") && mismatch.contains("good.pem")
        );

        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = error(&Certificate { key: files.write("sealed.key", encrypted), ..good.clone() });
        assert!(
            encrypted.contains("sealed.key is encrypted") && encrypted.contains("openssl pkey"),
            "{encrypted}"
        );

        // Once "not valid PEM: base64 error".
        let sealed = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                      -----END RSA PRIVATE KEY-----\n";
        let sealed = error(&Certificate { key: files.write("sealed.rsa", sealed), ..good.clone() });
        assert!(sealed.contains("sealed.rsa is encrypted") && sealed.contains("openssl pkey"), "{sealed}");

        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let broken = error(&Certificate { certificate: files.write("broken.pem", broken), ..good });
        assert!(broken.contains("broken.pem holds a certificate that cannot be read"), "{broken}");
    }

    /// Once "not valid PEM: base64 error".
    #[test]
    fn a_byte_order_mark_is_no_fault() {
        let files = Files::new();
        let good = files.pair("good", &["localhost"]);
        for path in [&good.certificate, &good.key] {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, format!("\u{feff}{text}")).unwrap();
        }
        serve(&good);
    }

    /// A certificate for localhost from the first to the last day of 2020.
    fn of_the_year_2020(files: &Files) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 12, 31);
        Certificate {
            certificate: files.write("a.pem", &params.self_signed(&key).unwrap().pem()),
            key: files.write("a.key", &key.serialize_pem()),
            local_ca: false,
        }
    }

    /// Once, only the first certificate of a file was looked at: a chain that browsers follow by what they have seen elsewhere,
    /// and other clients do not follow, was no word worth.
    #[test]
    fn a_chain_is_looked_at_for_its_order_and_its_ends() {
        let files = Files::new();
        let authority = |name: &str, until: i32| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            (params, KeyPair::generate().unwrap())
        };
        let (root_params, root_key) = authority("root", 2090);
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = rcgen::Issuer::new(root_params, root_key);
        let (middle_params, middle_key) = authority("middle", 2030);
        let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap();
        let middle_issuer = rcgen::Issuer::new(middle_params, middle_key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        let leaf = params.signed_by(&key, &middle_issuer).unwrap();
        let other = CertificateParams::new(["other.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = files.write("chain.key", &key.serialize_pem());
        let said = |days: u64, chain: &[&rcgen::Certificate]| {
            let pem: String = chain.iter().map(|certificate| certificate.pem()).collect();
            let certificate = files.write("chain.pem", &pem);
            let source = Certificate { certificate, key: key.clone(), local_ca: false };
            let now = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            let mut said = Loaded::read(&source, &[]).unwrap().warnings(now);
            assert_eq!(inspect(&source, now).len(), said.len(), "`check` says as much");
            said.pop().unwrap_or_default()
        };
        for right in [&[&leaf][..], &[&leaf, &middle], &[&leaf, &middle, &root]] {
            assert_eq!(said(20_000, right), "");
        }
        let swapped = said(20_000, &[&leaf, &root, &middle]);
        assert!(swapped.contains("number 2 does not") && swapped.contains("number 3 does"), "{swapped}");
        let foreign = said(20_000, &[&leaf, &other]);
        assert!(foreign.contains("number 2 in") && foreign.contains("take out"), "{foreign}");
        // 2029-12-28 and 2030-01-11.
        let ends = said(21_911, &[&leaf, &middle]);
        assert!(ends.contains("number 2") && ends.contains("ends in 4 days"), "{ends}");
        let ended = said(21_925, &[&leaf, &middle]);
        assert!(ended.contains("number 2") && ended.contains("ended 10 days ago"), "{ended}");
    }

    #[test]
    fn an_inspection_calls_an_ended_certificate_a_fault() {
        let files = Files::new();
        let source = of_the_year_2020(&files);
        let days = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert!(
            matches!(&inspect(&source, days(18_637))[..], [Finding::Fault(why)] if why.contains("ended"))
        );
        assert!(
            matches!(&inspect(&source, days(18_623))[..], [Finding::Warning(why)] if why.contains("ends in"))
        );
        assert!(inspect(&source, days(18_414)).is_empty());
    }

    #[test]
    fn a_certificate_that_has_ended_is_used_with_a_warning() {
        let files = Files::new();
        let source = of_the_year_2020(&files);
        let loaded = Loaded::read(&source, &[]).unwrap();
        // 2021-01-10, 2020-12-27, 2020-06-01, 2019-12-22 (all UTC).
        let warning = |days: u64| loaded.warnings(UNIX_EPOCH + Duration::from_secs(days * 86_400));
        assert!(warning(18_637)[0].contains("ended 10 days ago"), "{:?}", warning(18_637));
        assert!(warning(18_623)[0].contains("ends in 4 days"), "{:?}", warning(18_623));
        assert!(warning(18_414).is_empty());
        assert!(warning(18_252)[0].contains("begins in 10 days"), "{:?}", warning(18_252));
    }
}
