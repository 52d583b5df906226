//! Certificates for the names that listeners write as `domain`, from an authority that speaks ACME (RFC 8555): had, kept, renewed.
//!
//! Owns: when the authority is asked, and what is kept of it. Promises: one order is under way at a time, and goes on after a
//! restart; an old certificate stays until the new one is whole; a failure is tried again later and later, and the log says what
//! to do; an authority that is away holds nothing up. Of several edges that serve the same names one orders at a time, and all have
//! what was made ([`crate::message::shared_orders`]). What handshakes and requests are answered with while the authority looks is
//! in [`crate::message::challenges`].

mod authority;
mod order;
mod renewal;
mod store;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cache_policy::Moment;
use instant_acme::CertificateIdentifier;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use self::{
    authority::AuthorityClient,
    order::{Applicant, OrderFailure, Way},
    renewal::{CertificateLife, RenewalWindow, back_off},
    store::Store,
};
use crate::{
    clock::Clock,
    message::{
        challenges::Challenges,
        shared_orders::{SharedOrders, TURN, Turn},
    },
    observe::metrics::Metrics,
    settings::{Acme, Domain, Settings, UpstreamTlsSettings, credentials},
    upstream::{connect::Dial, tls::ClientTls},
};

/// What the settings ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedCertificates {
    acme: Arc<Acme>,
    domains: Vec<Domain>,
    /// Whether the authority may look at clear text.
    clear: bool,
}

impl WantedCertificates {
    pub fn of(settings: &Settings) -> Self {
        let listeners = settings.listeners.iter();
        let mut domains: Vec<Domain> = listeners
            .clone()
            .filter_map(|listen| listen.tls.as_ref())
            .flat_map(|tls| tls.domains.clone())
            .collect();
        domains.sort_by(|one, other| one.name.cmp(&other.name));
        domains.dedup();
        let clear = settings.listeners.iter().any(|listen| listen.tls.is_none());
        Self { acme: Arc::new(settings.acme.clone()), domains, clear }
    }
}

/// By what certificates are had.
pub struct Means {
    pub dial: Arc<dyn Dial>,
    pub challenges: Arc<Challenges>,
    /// Other edges that serve the same names.
    pub shared: Option<Arc<dyn SharedOrders>>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// How a name's certificate stands.
#[derive(Clone, Debug, Default)]
struct DomainStanding {
    failures: u32,
    /// Not before.
    rest: Option<Moment>,
    window: Option<RenewalWindow>,
    /// When the authority is asked again when it would have the certificate renewed.
    window_again: Option<Moment>,
    /// Since when the other edges are not reached whose turn it may be.
    unreached: Option<Moment>,
}

/// Sees to the certificates that are wanted, for as long as the sender of `wanted` is there. `made` is told of each that has been
/// made. A reload has what failed tried again at once.
pub async fn keep(means: Means, mut wanted: watch::Receiver<WantedCertificates>, made: mpsc::Sender<()>) {
    let mut standings: BTreeMap<Box<str>, DomainStanding> = BTreeMap::new();
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        let names: Vec<_> = now_wanted.domains.iter().map(|domain| domain.name.clone()).collect();
        standings.retain(|name, _| names.contains(name));
        for standing in standings.values_mut() {
            standing.rest = None;
        }
        let seeing = see_to(&means, &now_wanted, &mut standings, &made);
        tokio::select! {
            () = seeing => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// Never ends.
async fn see_to(
    means: &Means,
    wanted: &WantedCertificates,
    standings: &mut BTreeMap<Box<str>, DomainStanding>,
    made: &mpsc::Sender<()>,
) {
    if wanted.domains.is_empty() {
        std::future::pending::<()>().await;
    }
    let applicant = loop {
        match applicant(means, wanted) {
            Ok(applicant) => break applicant,
            Err(why) => {
                tracing::error!("no certificates can be had: {why}");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    };
    loop {
        let mut sleep = LOOK_AGAIN;
        for domain in &wanted.domains {
            let standing = standings.entry(domain.name.clone()).or_default();
            let now = means.clock.now();
            if let Some(rest) = standing.rest.filter(|rest| *rest > now) {
                sleep = sleep.min(rest.since(now));
                continue;
            }
            let current = {
                let domain = domain.clone();
                let read = tokio::task::spawn_blocking(move || current(&domain.file, &domain.name));
                read.await.ok().flatten()
            };
            if let Some((certificate, _)) = &current
                && standing.window_again.is_none_or(|again| again <= now)
            {
                let (window, again) = window(&applicant, certificate).await;
                (standing.window, standing.window_again) = (window, Some(now + again));
            }
            let due = current.as_ref().map(|(_, life)| life.renewal(standing.window));
            match due.map(|due| due.duration_since(means.clock.wall())) {
                Some(Ok(left)) if !left.is_zero() => sleep = sleep.min(left),
                _ => {
                    let certificate = current.map(|(certificate, _)| certificate);
                    let rest =
                        attempt_in_turn(means, &applicant, (wanted, domain), (standing, certificate), made)
                            .await;
                    sleep = sleep.min(rest);
                }
            }
        }
        tokio::time::sleep(sleep.max(SHORTEST_SLEEP)).await;
    }
}

/// Has a certificate made, or takes the one that another edge has had made. How long to wait before the next look at the name.
async fn attempt_in_turn(
    means: &Means,
    applicant: &Applicant,
    (wanted, domain): (&WantedCertificates, &Domain),
    (standing, before): (&mut DomainStanding, Option<CertificateDer<'static>>),
    made: &mpsc::Sender<()>,
) -> Duration {
    let attempt = |standing, before| attempt(means, applicant, (wanted, domain), (standing, before), made);
    let Some(shared) = &means.shared else { return attempt(standing, before).await };
    let turn = shared.turn(&domain.name).await;
    let now = means.clock.now();
    let unreached = (turn == Turn::Unknown).then(|| standing.unreached.unwrap_or(now));
    standing.unreached = unreached;
    if adopt(means, applicant, domain, before.as_ref()).await {
        tracing::info!(
            domain = &*domain.name,
            "another edge has had a certificate made, which is used here too"
        );
        *standing = DomainStanding::default();
        let _ = made.try_send(());
        if turn == Turn::Own {
            shared.end_turn(&domain.name, Duration::ZERO).await;
        }
        return Duration::ZERO;
    }
    match turn {
        Turn::Others => return TURN_AGAIN,
        Turn::Unknown if unreached.is_some_and(|since| now.since(since) <= UNREACHED) => return TURN_AGAIN,
        Turn::Own | Turn::Unknown => {}
    }
    let held = async {
        loop {
            tokio::time::sleep(TURN / 3).await;
            shared.turn(&domain.name).await;
        }
    };
    let rest = tokio::select! {
        rest = attempt(standing, before) => rest,
        () = held => TURN_AGAIN,
    };
    // Where it has failed the others do not try at once; nor do they wait for as long as an edge that may be gone by then.
    shared.end_turn(&domain.name, rest.min(LONGEST_REST)).await;
    rest
}

/// Takes the certificate that another edge has left, if it is worth more than the one before.
async fn adopt(
    means: &Means,
    applicant: &Applicant,
    domain: &Domain,
    before: Option<&CertificateDer<'_>>,
) -> bool {
    let Some(left) = applicant.left_by_others(&domain.name).await else { return false };
    let chain = CertificateDer::pem_slice_iter(left.as_bytes()).next();
    let Some(certificate) = chain.and_then(Result::ok) else { return false };
    let due = life(&certificate, &domain.name).map(|life| life.renewal(None));
    let is_of_use = due.is_some_and(|due| due > means.clock.wall()) && before != Some(&certificate);
    is_of_use && applicant.keep(&domain.name, left).await.is_ok()
}

/// Has a certificate made. How long to wait before the next look at the name.
async fn attempt(
    means: &Means,
    applicant: &Applicant,
    (wanted, domain): (&WantedCertificates, &Domain),
    (standing, before): (&mut DomainStanding, Option<CertificateDer<'static>>),
    made: &mpsc::Sender<()>,
) -> Duration {
    let name = &*domain.name;
    // Where one way fails the other is tried.
    let way = if wanted.clear && standing.failures.is_multiple_of(2) { Way::Http } else { Way::Tls };
    let ordered = tokio::time::timeout(LONGEST_ORDER, applicant.have_made(name, before.as_ref(), way)).await;
    let ordered =
        ordered.unwrap_or_else(|_| Err(OrderFailure::Unasked(format!("no end within {LONGEST_ORDER:?}"))));
    means.metrics.certificate_ordered(name, ordered.is_ok());
    match ordered {
        Ok(()) => {
            tracing::info!(
                domain = name,
                "a certificate was made; {} holds it with its key",
                domain.file.display()
            );
            *standing = DomainStanding::default();
            // The server reads all of them when it is told: one more word says no more.
            let _ = made.try_send(());
            Duration::ZERO
        }
        Err(failure) => {
            standing.failures += 1;
            let at_least = if failure.asks_for_patience() { WHEN_LIMITED } else { Duration::ZERO };
            let chance = RandomState::new().hash_one(name) as f64 / u64::MAX as f64;
            let rest = back_off(standing.failures, at_least, chance);
            standing.rest = Some(means.clock.now() + rest);
            let meanwhile = match before {
                Some(_) => "the certificate there is stays in use",
                None => "until there is one, clients are shown a certificate that they do not believe",
            };
            tracing::error!(
                domain = name,
                failures = standing.failures,
                "no certificate for {name}: {failure}. Tried again in {} s, or at a reload; {meanwhile}",
                rest.as_secs()
            );
            rest
        }
    }
}

fn applicant(means: &Means, wanted: &WantedCertificates) -> Result<Applicant, String> {
    let settings = UpstreamTlsSettings { ca: wanted.acme.ca.clone(), ..UpstreamTlsSettings::default() };
    let tls = ClientTls::load(&settings).map_err(|error| error.to_string())?;
    Ok(Applicant {
        acme: Arc::clone(&wanted.acme),
        store: Store::of(&wanted.acme),
        client: AuthorityClient { dial: Arc::clone(&means.dial), tls: Arc::new(tls) },
        challenges: Arc::clone(&means.challenges),
        shared: means.shared.clone(),
    })
}

/// The certificate of a name that is in use, and when it is valid.
fn current(file: &Path, name: &str) -> Option<(CertificateDer<'static>, CertificateLife)> {
    let certificate = credentials::certificates(file).ok()?.into_iter().next()?;
    credentials::private_key(file).ok()?;
    let life = life(&certificate, name)?;
    Some((certificate, life))
}

fn life(certificate: &CertificateDer<'_>, name: &str) -> Option<CertificateLife> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0).cast_unsigned());
    let validity = parsed.validity();
    let digest = Sha256::new().chain_update(name).chain_update(certificate).finalize();
    let turn = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    let (from, to): (SystemTime, SystemTime) =
        (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
    Some(CertificateLife { from, to, turn })
}

/// When the authority would have a certificate renewed, if it says so, and when to ask again.
async fn window(
    applicant: &Applicant,
    certificate: &CertificateDer<'_>,
) -> (Option<RenewalWindow>, Duration) {
    let Ok(id) = CertificateIdentifier::try_from(certificate) else { return (None, WINDOW_AGAIN) };
    let Ok(Some(account)) = applicant.known_account().await else { return (None, WINDOW_AGAIN) };
    match account.renewal_info(&id).await {
        Ok((info, again)) => {
            let window = RenewalWindow {
                start: info.suggested_window.start.into(),
                end: info.suggested_window.end.into(),
            };
            (Some(window), again.clamp(WINDOW_AGAIN_AT_LEAST, 4 * WINDOW_AGAIN))
        }
        Err(error) => {
            tracing::debug!(%error, "the authority does not say when it would have a certificate renewed");
            (None, WINDOW_AGAIN)
        }
    }
}

/// How soon an edge looks again whether it is its turn.
const TURN_AGAIN: Duration = Duration::from_secs(1);
/// How long the others do not try what has failed here.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long the other edges are tried before this one has a certificate made by itself.
const UNREACHED: Duration = Duration::from_secs(30);
/// From the account to the file.
const LONGEST_ORDER: Duration = Duration::from_secs(300);
/// The authority has said that it is asked too often.
const WHEN_LIMITED: Duration = Duration::from_secs(3600);
/// How often an authority is asked when it would have a certificate renewed, where it does not say (RFC 9773 §4.3).
const WINDOW_AGAIN: Duration = Duration::from_secs(6 * 3600);
const WINDOW_AGAIN_AT_LEAST: Duration = Duration::from_secs(60);
/// Between two looks at all certificates.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
