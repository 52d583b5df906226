//! One attempt to have a certificate: in turn with other edges, by one way or the other, with what becomes of it told and counted.
//!
//! Promises: of several edges one orders for a name at a time, and all have what was made; a failure says what to do, and rests.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cache_policy::Moment;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    authority::AuthorityClient,
    order::{AccountTurn, Applicant, OrderFailure, Way},
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
    settings::{Acme, Domain, OnDemandSettings, Settings, UpstreamTlsSettings},
    upstream::{connect::Dial, tls::ClientTls},
};

/// What the settings ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedCertificates {
    pub(super) acme: Arc<Acme>,
    pub(super) domains: Vec<Domain>,
    /// Whether a listener has certificates for names that clients ask for.
    pub(super) on_demand: bool,
    /// Whether the authority may look at clear text.
    pub(super) clear: bool,
}

impl WantedCertificates {
    pub fn of(settings: &Settings) -> Self {
        let listeners = settings.listeners.iter();
        let tls = || listeners.clone().filter_map(|listen| listen.tls.as_ref());
        let mut domains: Vec<Domain> = tls().flat_map(|tls| tls.domains.clone()).collect();
        let on_demand = tls().any(|tls| tls.on_demand.is_some());
        domains.sort_by(|one, other| one.name.cmp(&other.name));
        domains.dedup();
        let clear = settings.listeners.iter().any(|listen| listen.tls.is_none());
        Self { acme: Arc::new(settings.acme.clone()), domains, on_demand, clear }
    }

    /// Of which names certificates may be had when clients ask for them; `None` where no listener has such.
    pub fn on_demand(&self) -> Option<Arc<OnDemandSettings>> {
        self.acme.on_demand.clone().filter(|_| self.on_demand)
    }
}

/// By what certificates are had.
#[derive(Clone)]
pub struct Means {
    pub dial: Arc<dyn Dial>,
    pub challenges: Arc<Challenges>,
    /// Other edges that serve the same names.
    pub shared: Option<Arc<dyn SharedOrders>>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub account_turn: AccountTurn,
}

/// What one certificate is had made for.
pub(super) struct OrderErrand<'a> {
    pub(super) domain: &'a Domain,
    /// Whether the authority may look at clear text.
    pub(super) clear: bool,
    /// How the authority is first let look where it may look at clear text.
    pub(super) begins_with: Way,
    /// Whether it is a client who asks for the name.
    pub(super) on_demand: bool,
}

impl OrderErrand<'_> {
    /// How the authority is let look: where one way has failed the other is tried.
    fn way_after(&self, failed: FailedOrders) -> Way {
        match failed.last_way {
            _ if !self.clear => Way::Tls,
            None => self.begins_with,
            Some(Way::Http) => Way::Tls,
            Some(Way::Tls) => Way::Http,
        }
    }
}

/// What has become of an attempt.
pub(super) enum Attempted {
    Made {
        /// How the authority has looked; `None` where another edge had it made.
        by: Option<Way>,
    },
    Failed {
        rest: Duration,
    },
    /// It is not this edge's turn.
    Again(Duration),
}

/// What has failed since a name had its last certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FailedOrders {
    pub(super) in_a_row: u32,
    pub(super) last_way: Option<Way>,
}

/// How a name's certificate stands.
#[derive(Clone, Debug, Default)]
pub(super) struct DomainStanding {
    pub(super) failed: FailedOrders,
    /// Not before.
    pub(super) rest: Option<Moment>,
    pub(super) window: Option<RenewalWindow>,
    /// When the authority is asked again when it would have the certificate renewed.
    pub(super) window_again: Option<Moment>,
    /// Since when the other edges are not reached whose turn it may be.
    pub(super) unreached: Option<Moment>,
}

/// Has a certificate made, or takes the one that another edge has had made.
pub(super) async fn attempt_in_turn(
    means: &Means,
    applicant: &Applicant,
    errand: &OrderErrand<'_>,
    (standing, before): (&mut DomainStanding, Option<CertificateDer<'static>>),
) -> Attempted {
    let name = &*errand.domain.name;
    let attempt = |standing, before| attempt(means, applicant, errand, (standing, before));
    let Some(shared) = &means.shared else { return attempt(standing, before).await };
    let turn = shared.turn(name).await;
    let now = means.clock.now();
    let unreached = (turn == Turn::Unknown).then(|| standing.unreached.unwrap_or(now));
    standing.unreached = unreached;
    if adopt(means, applicant, errand.domain, before.as_ref()).await {
        *standing = DomainStanding::default();
        if turn == Turn::Own {
            shared.end_turn(name, Duration::ZERO).await;
        }
        return Attempted::Made { by: None };
    }
    match turn {
        Turn::Others => return Attempted::Again(TURN_AGAIN),
        Turn::Unknown if unreached.is_some_and(|since| now.since(since) <= UNREACHED) => {
            return Attempted::Again(TURN_AGAIN);
        }
        Turn::Own | Turn::Unknown => {}
    }
    let held = async {
        loop {
            tokio::time::sleep(TURN / 3).await;
            shared.turn(name).await;
        }
    };
    let attempted = tokio::select! {
        attempted = attempt(standing, before) => attempted,
        () = held => Attempted::Again(TURN_AGAIN),
    };
    let rest = match &attempted {
        Attempted::Made { .. } => Duration::ZERO,
        Attempted::Failed { rest } | Attempted::Again(rest) => *rest,
    };
    // Where it has failed the others do not try at once; nor do they wait for as long as an edge that may be gone by then.
    shared.end_turn(name, rest.min(LONGEST_REST)).await;
    attempted
}

/// Takes the certificate that another edge has left, if it is worth more than the one before.
pub(super) async fn adopt(
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
    let is_kept = is_of_use && applicant.keep(&domain.name, left).await.is_ok();
    if is_kept {
        tracing::info!(
            domain = &*domain.name,
            "another edge has had a certificate made, which is used here too"
        );
    }
    is_kept
}

/// Has a certificate made.
async fn attempt(
    means: &Means,
    applicant: &Applicant,
    errand: &OrderErrand<'_>,
    (standing, before): (&mut DomainStanding, Option<CertificateDer<'static>>),
) -> Attempted {
    let OrderErrand { domain, on_demand, .. } = errand;
    let name = &*domain.name;
    let way = errand.way_after(standing.failed);
    let ordered = tokio::time::timeout(LONGEST_ORDER, applicant.have_made(name, before.as_ref(), way)).await;
    let ordered =
        ordered.unwrap_or_else(|_| Err(OrderFailure::Unasked(format!("no end within {LONGEST_ORDER:?}"))));
    // Labels are not clients' to choose.
    let counted_as = if *on_demand { ON_DEMAND } else { name };
    means.metrics.certificate_ordered(counted_as, ordered.is_ok());
    match ordered {
        Ok(()) => {
            tracing::info!(
                domain = name,
                "a certificate was made; {} holds it with its key",
                domain.file.display()
            );
            *standing = DomainStanding::default();
            Attempted::Made { by: Some(way) }
        }
        Err(failure) => {
            standing.failed = FailedOrders { in_a_row: standing.failed.in_a_row + 1, last_way: Some(way) };
            let failures = standing.failed.in_a_row;
            let at_least = if failure.asks_for_patience() { WHEN_LIMITED } else { Duration::ZERO };
            let chance = RandomState::new().hash_one(name) as f64 / u64::MAX as f64;
            let rest = back_off(failures, at_least, chance);
            standing.rest = Some(means.clock.now() + rest);
            let meanwhile = match (before, on_demand) {
                (Some(_), _) => "the certificate there is stays in use",
                (None, false) => {
                    "until there is one, clients are shown a certificate that they do not believe"
                }
                (None, true) => "until there is one, its clients are as those of unknown names",
            };
            // A reload that changes nothing of what is had on demand leaves its rests alone.
            let (again, sooner) = if *on_demand {
                ("when a client asks for it", "after a start")
            } else {
                ("by itself", "at a reload")
            };
            tracing::error!(
                domain = name,
                failures,
                "no certificate for {name}: {failure}. Tried again {again} in {} s, or {sooner}; {meanwhile}",
                rest.as_secs()
            );
            Attempted::Failed { rest }
        }
    }
}

pub(super) fn applicant(
    means: &Means,
    wanted: &WantedCertificates,
    store: Store,
) -> Result<Applicant, String> {
    let settings = UpstreamTlsSettings { ca: wanted.acme.ca.clone(), ..UpstreamTlsSettings::default() };
    let tls = ClientTls::load(&settings).map_err(|error| error.to_string())?;
    Ok(Applicant {
        acme: Arc::clone(&wanted.acme),
        store,
        client: AuthorityClient { dial: Arc::clone(&means.dial), tls: Arc::new(tls) },
        challenges: Arc::clone(&means.challenges),
        shared: means.shared.clone(),
        account_turn: means.account_turn.clone(),
    })
}

pub(super) fn life(certificate: &CertificateDer<'_>, name: &str) -> Option<CertificateLife> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0).cast_unsigned());
    let validity = parsed.validity();
    let digest = Sha256::new().chain_update(name).chain_update(certificate).finalize();
    let turn = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    let (from, to): (SystemTime, SystemTime) =
        (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
    Some(CertificateLife { from, to, turn })
}

/// Where certificates on demand are counted together.
const ON_DEMAND: &str = "on demand";
/// How soon an edge looks again whether it is its turn.
const TURN_AGAIN: Duration = Duration::from_secs(1);
/// How long the others do not try what has failed here.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long the other edges are tried before this one has a certificate made by itself.
const UNREACHED: Duration = Duration::from_secs(30);
/// From the account to the file.
pub(super) const LONGEST_ORDER: Duration = Duration::from_secs(300);
/// The authority has said that it is asked too often.
const WHEN_LIMITED: Duration = Duration::from_secs(3600);
/// Between two looks at all certificates.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_that_is_known_to_work_comes_first_and_the_other_where_it_fails() {
        let domain = Domain { name: "shop.test".into(), file: "shop.test.pem".into() };
        let way = |clear, begins_with, last_way| {
            let errand = OrderErrand { domain: &domain, clear, begins_with, on_demand: true };
            errand.way_after(FailedOrders { in_a_row: 1, last_way })
        };
        for begins_with in [Way::Http, Way::Tls] {
            assert_eq!(way(true, begins_with, None), begins_with);
            assert_eq!(way(true, begins_with, Some(Way::Http)), Way::Tls);
            assert_eq!(way(true, begins_with, Some(Way::Tls)), Way::Http);
            assert_eq!(way(false, begins_with, Some(Way::Tls)), Way::Tls, "nobody serves clear text");
        }
    }
}
