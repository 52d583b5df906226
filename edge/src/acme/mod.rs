//! Certificates for the names that listeners write as `domain`, and for those that clients ask for (`on_demand`), from an authority
//! that speaks ACME (RFC 8555): had, kept, renewed.
//!
//! Owns: when the authority is asked, and what is kept of it. Promises: one order is under way at a time, beside a few on demand, and
//! goes on after a restart; an old certificate stays until the new one is whole; a failure is tried again later and later, and the log
//! says what to do; an authority that is away holds nothing up. Of several edges that serve the same names one orders at a time, and
//! all have what was made ([`crate::message::shared_orders`]). What handshakes and requests are answered with while the authority
//! looks is in [`crate::message::challenges`].

mod attempt;
mod authority;
mod kept;
mod on_demand;
mod order;
mod permission;
mod renewal;
mod store;

use std::{collections::BTreeMap, path::Path, time::Duration};

use instant_acme::CertificateIdentifier;
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};

pub use attempt::{Means, WantedCertificates};
pub use on_demand::grant;
pub use order::AccountTurn;

use self::{
    attempt::{Attempted, DomainStanding, LOOK_AGAIN, OrderErrand, applicant, attempt_in_turn, life},
    order::{Applicant, Way},
    renewal::{CertificateLife, RenewalWindow},
    store::Store,
};
use crate::settings::credentials;

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
        match applicant(means, wanted, Store::of(&wanted.acme)) {
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
                    let errand =
                        OrderErrand { domain, clear: wanted.clear, begins_with: Way::Http, on_demand: false };
                    sleep = sleep.min(
                        match attempt_in_turn(means, &applicant, &errand, (standing, certificate)).await {
                            Attempted::Made { .. } => {
                                // The server reads all of them when it is told: one more word says no more.
                                let _ = made.try_send(());
                                Duration::ZERO
                            }
                            Attempted::Failed { rest } | Attempted::Again(rest) => rest,
                        },
                    );
                }
            }
        }
        tokio::time::sleep(sleep.max(SHORTEST_SLEEP)).await;
    }
}

/// The certificate of a name that is in use, and when it is valid.
fn current(file: &Path, name: &str) -> Option<(CertificateDer<'static>, CertificateLife)> {
    let certificate = credentials::certificates(file).ok()?.into_iter().next()?;
    credentials::private_key(file).ok()?;
    let life = life(&certificate, name)?;
    Some((certificate, life))
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

/// How often an authority is asked when it would have a certificate renewed, where it does not say (RFC 9773 §4.3).
const WINDOW_AGAIN: Duration = Duration::from_secs(6 * 3600);
const WINDOW_AGAIN_AT_LEAST: Duration = Duration::from_secs(60);
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
