//! TLS of the public listeners: versions, key exchange, certificates, session tickets.
//!
//! Owns: what a handshake is answered with, for every listener. Promises: TLS 1.3 and, where the listener does not say otherwise, 1.2;
//! X25519MLKEM768 first, HTTP/2 before HTTP/1.1; of several certificates the one for the name that is asked for (SNI, RFC 6066 §3);
//! a reload swaps certificates for handshakes to come and touches no connection; a reload that fails changes nothing;
//! tickets work on every thread and listener, and after a reload. Never does I/O during a handshake.

mod client_auth;
mod error;
pub mod local_ca;
mod ocsp;
mod stand_in;
mod tickets;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, ServerConnection, SupportedProtocolVersion,
    crypto::CryptoProvider,
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::{
    message::{
        certified::{Acquaintance, CertifiedNames, ShownCertificate},
        challenges::{ACME_TLS, Challenges},
        on_demand::OnDemand,
        ticket_keys::TicketKeys,
    },
    settings::{
        Certificate, Domain, ListenTls, MOST_CERTIFICATES, TlsVersion, UnknownNames,
        credentials::{self, CredentialError, provider},
    },
};
use client_auth::ClientAuthority;
pub use error::TlsError;
use local_ca::Provision;
use ocsp::{Staple, StapleError};
use tickets::Tickets;

/// An operator is warned when a certificate ends sooner than this.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// Makes the [`Terminator`]s of all listeners.
#[derive(Debug)]
pub struct Terminators {
    tickets: Arc<dyn ProducesTickets>,
    challenges: Arc<Challenges>,
    on_demand: Option<Arc<OnDemand>>,
}

impl Terminators {
    /// Chooses the keys that seal session tickets: those that other edges have, or its own. One set for all listeners: a client's
    /// connections may reach any of them.
    ///
    /// # Errors
    /// [`TlsError::Setup`], when the system gives no random numbers.
    pub fn new(challenges: Arc<Challenges>, shared: Arc<TicketKeys>) -> Result<Self, TlsError> {
        let tickets = Arc::new(Tickets::new(shared).map_err(TlsError::Setup)?);
        Ok(Self { tickets, challenges, on_demand: None })
    }

    /// Listeners may have these certificates beside their own.
    #[must_use]
    pub fn with_on_demand(self, on_demand: Arc<OnDemand>) -> Self {
        Self { on_demand: Some(on_demand), ..self }
    }

    /// TLS of one more listener.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn make(&self, loaded: Loaded) -> Result<Terminator, TlsError> {
        Terminator::new(loaded, self)
    }
}

/// Reads a listener's certificates and keys, and makes those that are to be made here ([`local_ca`]). What clients will dislike
/// about a certificate, and how to trust a new local authority of a listener at `port`, is logged.
///
/// # Errors
/// [`TlsError`] about a file that cannot be used. A certificate that has ended is no error.
pub fn read(tls: &ListenTls, port: u16, now: SystemTime) -> Result<Loaded, TlsError> {
    for source in tls.written().filter(|source| source.local_ca) {
        if let Provision::NewAuthority(trust) = local_ca::ensure(source, now)? {
            tracing::info!("{}", trust.told(port));
        }
    }
    let loaded = Loaded::read(tls, &sources(tls)?, now)?;
    for warning in loaded.warnings(now) {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// The certificates of files, and of the names that the edge sees to those that it has.
fn sources(tls: &ListenTls) -> Result<Vec<Certificate>, TlsError> {
    let mut sources = tls.all()?;
    // What cannot be used is had anew, and no start or reload fails for it.
    let had = |domain: &&Domain| credentials::pair(&domain.file, &domain.file, &provider()).is_ok();
    let had = tls.domains.iter().filter(had);
    sources.extend(had.map(|domain| Certificate::of_files(domain.file.clone(), domain.file.clone())));
    Ok(sources)
}

/// What is to be said of a listener's certificates and keys.
#[derive(Debug)]
pub enum Finding {
    /// They cannot be used, or clients refuse them now.
    Fault(String),
    /// They are of use for now.
    Warning(String),
    /// What one of them is.
    Certificate(String),
}

/// Looks at a listener's certificates and keys as [`read`] would, and makes nothing.
#[must_use]
pub fn inspect(tls: &ListenTls, now: SystemTime) -> Vec<Finding> {
    let fault = |error: &TlsError| vec![Finding::Fault(error.to_string())];
    let mut sources = match sources(tls) {
        Ok(sources) => sources,
        Err(error) => return fault(&error),
    };
    let on_demand = tls.on_demand.iter().map(|folder| {
        let kept = fs::read_dir(folder).into_iter().flatten().flatten();
        let kept = kept.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pem"));
        let (kept, folder) = (kept.count(), folder.display());
        Finding::Certificate(format!(
            "{folder}: made when clients ask, as [acme.on_demand] permits; {kept} kept"
        ))
    });
    if sources.is_empty() && tls.domains.is_empty() && tls.on_demand.is_some() {
        return on_demand.collect();
    }
    let is_made =
        |source: &Certificate| source.local_ca && !source.certificate.exists() && !source.key.exists();
    let before = sources.len();
    sources.retain(|source| !is_made(source));
    if sources.is_empty() && before > 0 {
        return Vec::new();
    }
    let loaded = match Loaded::read(tls, &sources, now) {
        Ok(loaded) => loaded,
        Err(error) => return fault(&error),
    };
    // A local certificate that has ended is made anew at the start.
    let finding = |validity: &Validity| {
        let warning = validity.warning(now).filter(|_| loaded.is_worth_a_word(validity, now))?;
        let refused = !validity.holds(now) && !sources[validity.number].local_ca;
        Some(if refused { Finding::Fault(warning) } else { Finding::Warning(warning) })
    };
    let told = loaded.pairs.iter().zip(&sources).enumerate().filter_map(|(number, (pair, source))| {
        let default = number == loaded.default && loaded.unknown == UnknownNames::Default;
        let default = if default && sources.len() > 1 { "; for unknown names, too" } else { "" };
        Some(Finding::Certificate(format!("{}{default}", described(pair, &source.certificate, now)?)))
    });
    let overlaps =
        loaded.names.overlaps().into_iter().take(MOST_OVERLAPS_TOLD).map(|(name, first, other)| {
            let [first, other] = [first, other].map(|number| sources[number].certificate.display());
            Finding::Warning(format!(
                "{name} is in {first} and in {other}: the first is used; take it out of one"
            ))
        });
    let doubts = loaded.doubts.iter().cloned().map(Finding::Warning);
    let awaited =
        tls.domains.iter().filter(|domain| !sources.iter().any(|source| source.certificate == domain.file));
    let awaited = awaited.map(|domain| {
        Finding::Certificate(format!("{}: is to be had from the authority of [acme]", domain.name))
    });
    told.chain(awaited)
        .chain(on_demand)
        .chain(loaded.validities.iter().filter_map(finding))
        .chain(doubts)
        .chain(overlaps)
        .collect()
}

/// Names that are told to be in more than one certificate.
const MOST_OVERLAPS_TOLD: usize = 20;

/// What a certificate is for, and until when.
fn described(pair: &CertifiedKey, path: &Path, now: SystemTime) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(pair.end_entity_cert().ok()?).ok()?;
    let mut names: Vec<String> = dns_names(&leaf).iter().map(ToString::to_string).collect();
    let more = names.len().saturating_sub(MOST_NAMES_TOLD);
    names.truncate(MOST_NAMES_TOLD);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    let names = if names.is_empty() { "no host name".to_owned() } else { names.join(", ") };
    let end = leaf.validity().not_after;
    let days = (end.timestamp() - seconds(now)).div_euclid(86_400);
    let chain = match pair.cert.len() {
        1 => "no chain".to_owned(),
        length => format!("chain of {length}"),
    };
    Some(format!("{}: {names}; until {} ({days} days); {chain}", path.display(), end.to_datetime().date()))
}

/// Of one certificate.
const MOST_NAMES_TOLD: usize = 8;

/// TLS of one listener.
#[derive(Debug)]
pub struct Terminator {
    certificates: Arc<CurrentCertificates>,
    config: Arc<ServerConfig>,
    manner: Manner,
}

/// What all handshakes of a listener have in common, whichever certificate is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manner {
    minimum_version: TlsVersion,
    clients: Option<ClientAuthority>,
    /// Whether an authority may ask by handshakes whether names are served here.
    proves_names: bool,
    /// Whether names have certificates that clients have asked for.
    on_demand: bool,
}

impl Manner {
    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.minimum_version {
            TlsVersion::V1_2 => FROM_1_2,
            TlsVersion::V1_3 => FROM_1_3,
        }
    }
}

const FROM_1_2: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const FROM_1_3: &[&SupportedProtocolVersion] = &[&TLS13];

impl Terminator {
    fn new(
        loaded: Loaded,
        Terminators { tickets, challenges, on_demand }: &Terminators,
    ) -> Result<Self, TlsError> {
        let manner = loaded.manner.clone();
        let challenges = manner.proves_names.then(|| Arc::clone(challenges));
        let on_demand = on_demand.clone().filter(|_| manner.on_demand);
        let loaded = ArcSwap::from_pointee(loaded);
        let certificates = Arc::new(CurrentCertificates { loaded, challenges, on_demand });
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(manner.versions())
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(match &manner.clients {
                Some(clients) => clients.verifier()?,
                None => WebPkiClientVerifier::no_client_auth(),
            })
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if manner.proves_names {
            config.alpn_protocols.push(ACME_TLS.to_vec());
        }
        if manner.clients.is_some() {
            // A ticket would stand for a certificate that has ended since, and would be good where none is asked for.
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Arc::clone(tickets);
        }
        // Tickets leave nothing to store here, and the default store has a lock that all threads would share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { certificates, config: Arc::new(config), manner })
    }

    /// Whether what has been read differs in its certificates at most, so that [`Terminator::renew`] puts all of it in force.
    #[must_use]
    pub fn goes_on_with(&self, loaded: &Loaded) -> bool {
        self.manner == loaded.manner
    }

    /// Puts in force what has been read, for the handshakes to come. Whether there are other certificates.
    pub fn renew(&self, loaded: Loaded) -> bool {
        let before = self.certificates.loaded.load();
        // Those that stand in are made at each look.
        let chains = |loaded: &Loaded| {
            loaded.pairs[..loaded.of_files].iter().map(|pair| pair.cert.clone()).collect::<Vec<_>>()
        };
        let other = chains(&before) != chains(&loaded);
        self.certificates.loaded.store(Arc::new(loaded));
        other
    }

    /// The files of the certificates in use, and when these end, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> Vec<(String, i64)> {
        let loaded = self.certificates.loaded.load();
        loaded.validities.iter().map(|validity| (validity.path.display().to_string(), validity.to)).collect()
    }

    /// Whether what an authority says of a certificate may no longer be sent, or could not be.
    #[must_use]
    pub fn lacks_a_staple(&self, now: SystemTime) -> bool {
        let loaded = self.certificates.loaded.load();
        loaded.staples.iter().any(|staple| staple.is_none_or(|until| until <= seconds(now)))
    }

    /// Whether anything is to be sent of what authorities say.
    #[must_use]
    pub fn staples(&self) -> bool {
        !self.certificates.loaded.load().staples.is_empty()
    }

    /// What handshakes are answered with, the same on every thread. Later [`Terminator::renew`]als take effect in it.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The certificates that handshakes are answered with.
    #[must_use]
    pub fn certificates(&self) -> Arc<CurrentCertificates> {
        Arc::clone(&self.certificates)
    }
}

/// The certificates of one listener as of now.
pub struct CurrentCertificates {
    loaded: ArcSwap<Loaded>,
    /// Where an authority may ask for proofs.
    challenges: Option<Arc<Challenges>>,
    /// Those that clients have asked for.
    on_demand: Option<Arc<OnDemand>>,
}

impl CurrentCertificates {
    /// Whether handshakes may have to wait for certificates.
    #[must_use]
    pub fn are_made_on_demand(&self) -> bool {
        self.on_demand.is_some()
    }

    /// Waits, within bounds, until there is a certificate for the name that a client asks for, if there may be one. `client` is its own
    /// number, unless it stands for many. Dropping the future changes nothing.
    pub async fn be_ready_for(&self, hello: &ClientHello<'_>, client: Option<u128>) {
        let Some((on_demand, name)) = self.on_demand.as_ref().zip(hello.server_name()) else { return };
        let name = name.to_ascii_lowercase();
        if !proves(hello) && self.loaded.load().names.find(&name).is_none() {
            on_demand.wait_for(&name, client).await;
        }
    }

    /// What is known by the handshake of a connection beyond that it is encrypted. What the client was shown counts where it
    /// `may_ask_for_any_host`.
    #[must_use]
    pub fn acquaintance(
        &self,
        connection: &ServerConnection,
        may_ask_for_any_host: bool,
    ) -> Option<Acquaintance> {
        let loaded = self.loaded.load();
        let on_demand = |name: &str| self.on_demand.as_ref().is_some_and(|held| held.find(name).is_some());
        let shown =
            may_ask_for_any_host.then(|| loaded.shown_to(connection.server_name()?, on_demand)).flatten();
        let told = match (&loaded.manner.clients, connection.peer_certificates()) {
            (Some(clients), Some(chain)) => clients.told(chain),
            _ => Vec::new(),
        };
        (shown.is_some() || !told.is_empty()).then_some(Acquaintance { shown, told })
    }
}

impl fmt::Debug for CurrentCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("CurrentCertificates").field(&self.loaded.load().names).finish()
    }
}

impl ResolvesServerCert for CurrentCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(challenges) = &self.challenges
            && proves(&hello)
        {
            return challenges.of_name(hello.server_name()?);
        }
        let loaded = self.loaded.load();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let own = name.as_ref().and_then(|name| loaded.names.find(name));
        let on_demand = || self.on_demand.as_ref()?.find(name.as_ref()?);
        own.map(|number| Arc::clone(&loaded.pairs[number])).or_else(on_demand).or_else(|| loaded.stand_in())
    }
}

/// Whether it is an authority that asks for a proof (RFC 8737 §3).
fn proves(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS))
}

/// Certificates, chosen by the name a client asks for (SNI, RFC 6066 §3).
pub struct Loaded {
    /// At least one, where none are made on demand.
    pairs: Vec<Arc<CertifiedKey>>,
    /// How many of them are of files; those behind stand in for certificates that are yet to be had.
    of_files: usize,
    /// How many of those the operator sees to; the edge itself to the others, which come behind them.
    of_operator: usize,
    /// By the same numbers.
    names: Arc<CertifiedNames>,
    /// The number of the one for clients that ask for no name, or for one that none has.
    default: usize,
    unknown: UnknownNames,
    manner: Manner,
    /// Of every certificate of every chain.
    validities: Vec<Validity>,
    /// What some clients will not understand of the chains, and why nothing is sent of what an authority says.
    doubts: Vec<String>,
    /// For each certificate that one is to be sent with, until when the authority's word is good, in seconds since 1970: `None`
    /// where it is not sent.
    staples: Vec<Option<i64>>,
}

impl Loaded {
    fn read(tls: &ListenTls, sources: &[Certificate], now: SystemTime) -> Result<Self, TlsError> {
        let provider = provider();
        let mut names = CertifiedNames::default();
        let (mut validities, mut doubts, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        let mut staples = Vec::new();
        bounded(sources.len(), MOST_CERTIFICATES, "certificates")?;
        for (number, source) in sources.iter().enumerate() {
            let (pair, stapled) = read_pair(source, &provider, now)?;
            let unreadable = || CredentialError::Certificate { path: source.certificate.clone() };
            let leaf = pair.end_entity_cert().map_err(|_| unreadable())?;
            let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
            let chain: Vec<X509Certificate<'_>> =
                pair.cert.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
            if chain.len() != pair.cert.len() {
                return Err(unreadable().into());
            }
            for (place, certificate) in chain.iter().enumerate() {
                validities.push(Validity::of(certificate, &source.certificate, (number, place)));
            }
            doubts.extend(disorder(&chain, &source.certificate));
            // Of two certificates for one name, the first in the settings counts.
            names.add(&dns_names(&leaf));
            bounded(names.names(), MOST_NAMES, "names in its certificates")?;
            match stapled {
                Some(Ok(until)) => staples.push(Some(until)),
                Some(Err(why)) => {
                    staples.push(None);
                    doubts.push(format!("{why}. Until then it is not sent with the certificate"));
                }
                None => {}
            }
            pairs.push(Arc::new(pair));
        }
        let of_files = pairs.len();
        let had = |source: &Certificate| tls.domains.iter().any(|domain| domain.file == source.certificate);
        let of_operator = sources.iter().filter(|source| !had(source)).count();
        for domain in tls
            .domains
            .iter()
            .filter(|domain| !sources.iter().any(|source| source.certificate == domain.file))
        {
            names.add(std::slice::from_ref(&domain.name));
            pairs.push(Arc::new(stand_in::make(&domain.name, &provider)?));
        }
        if pairs.is_empty() && tls.on_demand.is_none() {
            return Err(TlsError::NoCertificate { path: tls.folder.clone().unwrap_or_default() });
        }
        let default = match &tls.default {
            Some(name) => names.find(name).ok_or_else(|| TlsError::NoDefault { name: name.clone() })?,
            None => 0,
        };
        let clients = tls.client_certificates.as_ref().map(ClientAuthority::read).transpose()?;
        let on_demand = tls.on_demand.is_some();
        let proves_names = !tls.domains.is_empty() || on_demand;
        let manner = Manner { minimum_version: tls.minimum_version, clients, proves_names, on_demand };
        let names = Arc::new(names);
        Ok(Self {
            pairs,
            of_files,
            of_operator,
            names,
            default,
            unknown: tls.unknown_names,
            manner,
            validities,
            doubts,
            staples,
        })
    }

    /// A sentence about each certificate that clients refuse now or will within two weeks, and about each chain that they may
    /// not follow.
    fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warnings = self.validities.iter().filter(|validity| self.is_worth_a_word(validity, now));
        let warnings = warnings.filter_map(|validity| validity.warning(now));
        warnings.chain(self.doubts.iter().cloned()).collect()
    }

    /// Whether an operator could do anything about a certificate that ends soon: those that the edge sees to are renewed.
    fn is_worth_a_word(&self, validity: &Validity, now: SystemTime) -> bool {
        validity.number < self.of_operator || !validity.holds(now)
    }

    /// The certificate for a client that asks for this name, where others are shown others, or none. `on_demand`: whether a name has
    /// one that is none of these.
    fn shown_to(&self, name: &str, on_demand: impl FnOnce(&str) -> bool) -> Option<ShownCertificate> {
        if self.pairs.len() < 2 && self.unknown == UnknownNames::Default && !self.manner.on_demand {
            return None;
        }
        let name: Box<str> = name.to_ascii_lowercase().into();
        let own = self.names.find(&name);
        // A number that none of these has.
        let number = own.unwrap_or_else(|| if on_demand(&name) { usize::MAX } else { self.default });
        Some(ShownCertificate { of: Arc::clone(&self.names), number, name, unknown: self.unknown })
    }

    /// The certificate for clients that ask for no name, or for one that none has; `None` where their handshakes are to fail.
    fn stand_in(&self) -> Option<Arc<CertifiedKey>> {
        let default = (self.unknown == UnknownNames::Default).then(|| self.pairs.get(self.default)).flatten();
        default.cloned()
    }

    #[cfg(test)]
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let own = name.and_then(|name| self.names.find(&name.to_ascii_lowercase()));
        own.map(|number| Arc::clone(&self.pairs[number])).or_else(|| self.stand_in())
    }
}

fn bounded(found: usize, most: usize, what: &'static str) -> Result<(), TlsError> {
    if found > most { Err(TlsError::TooMany { found, most, what }) } else { Ok(()) }
}

/// Names in the certificates of one listener.
const MOST_NAMES: usize = 100_000;

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
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    });
    dns.collect()
}

/// Until when an authority's word is sent with its certificate, or why it is not.
type Stapled = Result<i64, StapleError>;

fn read_pair(
    source: &Certificate,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(CertifiedKey, Option<Stapled>), TlsError> {
    let mut pair = credentials::pair(&source.certificate, &source.key, provider)?;
    let staple = match (&source.ocsp, pair.end_entity_cert()) {
        (Some(path), Ok(leaf)) => Some(ocsp::read(path, leaf, now)),
        _ => None,
    };
    let stapled = staple.map(|staple| {
        staple.map(|Staple { der, until }| {
            pair.ocsp = Some(der);
            until
        })
    });
    Ok((pair, stapled))
}

/// When a certificate is valid, in seconds since 1970.
struct Validity {
    path: PathBuf,
    /// The certificate's among those of the listener.
    number: usize,
    /// 0 for the server's own; those that certify it come after.
    place: usize,
    from: i64,
    to: i64,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>, path: &Path, (number, place): (usize, usize)) -> Self {
        let validity = certificate.validity();
        Self {
            path: path.to_owned(),
            number,
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
                ocsp: None,
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
        let mut client =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
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

    fn loaded(source: &Certificate) -> Loaded {
        read(&ListenTls::with(source.clone()), 443, now()).unwrap()
    }

    fn terminator(terminators: &Terminators, source: &Certificate) -> Terminator {
        terminators.make(loaded(source)).unwrap()
    }

    fn serve(source: &Certificate) -> (Terminator, Arc<ServerConfig>) {
        let terminator = terminator(&Terminators::new(Arc::default(), Arc::default()).unwrap(), source);
        let config = terminator.server_config();
        (terminator, config)
    }

    fn error(source: &Certificate) -> String {
        read(&ListenTls::with(source.clone()), 443, now()).err().unwrap().to_string()
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
            let terminators = Terminators::new(Arc::default(), Arc::default()).unwrap();
            let [one, other] = [(); 2].map(|()| terminator(&terminators, &source));
            let client = Arc::new(client(&[&source], versions));
            let (_, server) = shake(&client, &one.server_config(), "localhost").unwrap();
            assert_ne!(server.handshake_kind(), Some(HandshakeKind::Resumed));
            assert!(!other.renew(loaded(&source)), "it is the same");
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
        let with = |default: Option<&str>, unknown_names| ListenTls {
            certificates: sources.to_vec(),
            default: default.map(Into::into),
            unknown_names,
            ..ListenTls::default()
        };
        let names = ["first.test", "SECOND.test", "any.wild.test", "exact.wild.test"];
        let others = [None, Some("unknown.test"), Some("wild.test"), Some("a.b.wild.test"), Some("test")];
        for (default, stands_in) in [(None, 0), (Some("exact.wild.test"), 2)] {
            let loaded = read(&with(default, UnknownNames::Default), 443, now()).unwrap();
            let chosen = |name| loaded.choose(name).unwrap().end_entity_cert().unwrap().clone().into_owned();
            for (name, number) in names.iter().zip([0, 1, 1, 2]) {
                assert_eq!(chosen(Some(name)), der(&sources[number]), "{name}");
            }
            for other in others {
                assert_eq!(chosen(other), der(&sources[stands_in]), "{other:?}");
            }
        }
        let refusing = read(&with(None, UnknownNames::Refuse), 443, now()).unwrap();
        assert!(names.iter().all(|name| refusing.choose(Some(name)).is_some()));
        assert!(others.iter().all(|name| refusing.choose(*name).is_none()));
        let nobody =
            read(&with(Some("unknown.test"), UnknownNames::Default), 443, now()).err().unwrap().to_string();
        assert!(nobody.contains("is for unknown.test, which is `default`"), "{nobody}");
    }

    /// The certificates of a folder come behind those of the file; another look finds what has been put there.
    #[test]
    fn a_folder_is_read_again_at_a_reload() {
        let files = Files::new();
        let folder = files.0.path().join("live");
        fs::create_dir(&folder).unwrap();
        let tls = ListenTls { folder: Some(folder.clone()), ..ListenTls::default() };
        let empty = read(&tls, 443, now()).err().unwrap().to_string();
        assert!(empty.contains("live holds no certificate") && empty.contains("NAME.crt"), "{empty}");
        let put = |name: &str| {
            let source = files.pair(name, &[name]);
            fs::rename(&source.certificate, folder.join(format!("{name}.crt"))).unwrap();
            fs::rename(&source.key, folder.join(format!("{name}.key"))).unwrap();
        };
        put("one.test");
        let terminator = Terminators::new(Arc::default(), Arc::default())
            .unwrap()
            .make(read(&tls, 443, now()).unwrap())
            .unwrap();
        let knows = |name: &str| terminator.certificates.loaded.load().names.find(name).is_some();
        assert!(knows("one.test") && !knows("two.test"));
        put("two.test");
        assert!(terminator.renew(read(&tls, 443, now()).unwrap()), "there is one more");
        assert!(knows("one.test") && knows("two.test"));
        let ends = terminator.ends();
        assert!(ends.len() == 2 && ends[0].0.ends_with("one.test.crt"), "{ends:?}");
    }

    #[test]
    fn a_listener_may_ask_for_tls_1_3() {
        let files = Files::new();
        let source = files.pair("a", &["localhost"]);
        let tls = ListenTls { minimum_version: TlsVersion::V1_3, ..ListenTls::with(source.clone()) };
        let terminator = Terminators::new(Arc::default(), Arc::default())
            .unwrap()
            .make(read(&tls, 443, now()).unwrap())
            .unwrap();
        let server = terminator.server_config();
        let shake = |versions| shake(&Arc::new(client(&[&source], versions)), &server, "localhost");
        const OLD: &[&SupportedProtocolVersion] = &[&TLS12];
        assert!(shake(OLD).is_err());
        let (client, _) = shake(BOTH).unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert!(!terminator.goes_on_with(&loaded(&source)), "its connections and newcomers have other terms");
    }

    #[test]
    fn an_inspection_lists_certificates_and_what_two_of_them_are_for() {
        let files = Files::new();
        let one = files.pair("one", &["a.test", "*.b.test"]);
        let two = files.pair("two", &["a.test", "c.test"]);
        let tls = ListenTls { certificates: vec![one, two], ..ListenTls::default() };
        let found = inspect(&tls, now());
        let told: Vec<&str> = found
            .iter()
            .map(|finding| match finding {
                Finding::Certificate(told) | Finding::Warning(told) | Finding::Fault(told) => told.as_str(),
            })
            .collect();
        assert!(told[0].contains("one.pem: a.test, *.b.test; until 4096-01-01 ("), "{told:?}");
        assert!(
            told[0].ends_with("no chain; for unknown names, too") && told[1].ends_with("no chain"),
            "{told:?}"
        );
        assert!(told[2].starts_with("a.test is in ") && told[2].contains("the first is used"), "{told:?}");
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn a_reload_counts_for_the_next_handshake() {
        let files = Files::new();
        let (old, new) = (files.pair("old", &["localhost"]), files.pair("new", &["localhost"]));
        let (terminator, server) = serve(&old);
        let client = Arc::new(client(&[&old, &new], BOTH));
        let (client_before, _) = shake(&client, &server, "localhost").unwrap();
        assert!(terminator.renew(loaded(&new)), "it is another");
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
            ocsp: None,
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
            ocsp: None,
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
            let source =
                ListenTls::with(Certificate { certificate, key: key.clone(), local_ca: false, ocsp: None });
            let now = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            let mut said = read(&source, 443, now).unwrap().warnings(now);
            assert_eq!(inspect(&source, now).len(), 1 + said.len(), "`check` says as much");
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
        let listen = ListenTls::with(of_the_year_2020(&files));
        let days = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert!(
            matches!(&inspect(&listen, days(18_637))[1..], [Finding::Fault(why)] if why.contains("ended"))
        );
        assert!(
            matches!(&inspect(&listen, days(18_623))[1..], [Finding::Warning(why)] if why.contains("ends in"))
        );
        assert!(
            matches!(&inspect(&listen, days(18_414))[..], [Finding::Certificate(told)] if told.contains("until 2020-12-31"))
        );
    }

    #[test]
    fn a_certificate_that_has_ended_is_used_with_a_warning() {
        let files = Files::new();
        let loaded = loaded(&of_the_year_2020(&files));
        // 2021-01-10, 2020-12-27, 2020-06-01, 2019-12-22 (all UTC).
        let warning = |days: u64| loaded.warnings(UNIX_EPOCH + Duration::from_secs(days * 86_400));
        assert!(warning(18_637)[0].contains("ended 10 days ago"), "{:?}", warning(18_637));
        assert!(warning(18_623)[0].contains("ends in 4 days"), "{:?}", warning(18_623));
        assert!(warning(18_414).is_empty());
        assert!(warning(18_252)[0].contains("begins in 10 days"), "{:?}", warning(18_252));
    }
}
