//! Certificates for names that clients ask for: each wish is looked at once, permitted or not, and had made within bounds.
//!
//! Promises: a name that is on no list gets a certificate only where the operator's program says yes, anew before each renewal;
//! [`MOST_ASKED`] questions and [`MOST_ORDERED`] orders are under way at once; no more names get their first certificate in an hour,
//! and no more are kept, than the settings say, and renewals are not held up by that; what was refused or has failed rests. What is
//! kept is held again after a start without a question. What nobody has asked for since it was due ends, and is removed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use cache_policy::Moment;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    attempt::{
        Attempted, DomainStanding, LONGEST_ORDER, LOOK_AGAIN, Means, OrderErrand, WantedCertificates, adopt,
        applicant, attempt_in_turn, life,
    },
    order::Applicant,
    permission::Permission,
    store::Store,
};
use crate::{
    message::on_demand::{
        CertificateWish, Denial, HeldCertificate, OnDemand, RememberedNames, is_certifiable,
    },
    settings::{
        Domain, MOST_CERTIFICATES, OnDemandSettings, UpstreamTlsSettings,
        credentials::{self, provider},
    },
    upstream::tls::ClientTls,
};

/// Grants wishes, for as long as the sender of `wanted` is there. A reload has what failed tried again when it is wished for.
pub async fn grant(
    means: Means,
    on_demand: Arc<OnDemand>,
    mut wanted: watch::Receiver<WantedCertificates>,
    mut wishes: mpsc::Receiver<CertificateWish>,
) {
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        on_demand.govern(now_wanted.on_demand());
        tokio::select! {
            () = grant_all(&means, &on_demand, now_wanted, &mut wishes) => return,
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// Ends when nobody can wish for anything any more.
async fn grant_all(
    means: &Means,
    on_demand: &Arc<OnDemand>,
    wanted: WantedCertificates,
    wishes: &mut mpsc::Receiver<CertificateWish>,
) {
    let Some(rules) = wanted.on_demand() else {
        on_demand.hold_all(HashMap::new());
        // What was wished for under other settings comes to nothing.
        while wishes.recv().await.is_some() {}
        return;
    };
    let store = Store::on_demand(&wanted.acme);
    hold_what_is_kept(means, on_demand, &store).await;
    let granting = loop {
        let made = applicant(means, &wanted, store.clone())
            .and_then(|applicant| Granting::new(means, on_demand, (applicant, &wanted), &rules));
        match made {
            Ok(granting) => break Arc::new(granting),
            Err(why) => {
                tracing::error!("no certificates can be had on demand: {why}");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    };
    // Dropped with this future, it ends them all: an order goes on the next time.
    let mut under_way = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            wish = wishes.recv(), if under_way.len() < MOST_UNDER_WAY => match wish {
                Some(wish) => {
                    let granting = Arc::clone(&granting);
                    under_way.spawn(async move { granting.grant(wish).await });
                }
                None => return,
            },
            Some(_) = under_way.join_next() => {}
            _ = sweep.tick() => granting.sweep().await,
        }
    }
}

/// By what wishes are granted under the settings of now.
struct Granting {
    means: Means,
    on_demand: Arc<OnDemand>,
    rules: Arc<OnDemandSettings>,
    applicant: Applicant,
    clear: bool,
    permission: Option<Permission>,
    asking: Semaphore,
    ordering: Semaphore,
    state: Mutex<GrantingState>,
}

struct GrantingState {
    /// How often in a row it has failed.
    failures: RememberedNames<u32>,
    first_orders: FirstOrders,
    /// Names that have no certificate yet.
    new: HashSet<Box<str>>,
    /// When the operator was told last that something is short.
    told: Option<Moment>,
}

impl Granting {
    fn new(
        means: &Means,
        on_demand: &Arc<OnDemand>,
        (applicant, wanted): (Applicant, &WantedCertificates),
        rules: &Arc<OnDemandSettings>,
    ) -> Result<Self, String> {
        let permission = |url: &http::Uri| {
            let is_https = url.scheme_str() == Some("https");
            let tls = is_https.then(|| ClientTls::load(&UpstreamTlsSettings::default()).map(Arc::new));
            let tls = tls.transpose().map_err(|error| error.to_string())?;
            Ok::<_, String>(Permission { url: url.clone(), dial: Arc::clone(&means.dial), tls })
        };
        Ok(Self {
            permission: rules.ask.as_ref().map(permission).transpose()?,
            means: means.clone(),
            on_demand: Arc::clone(on_demand),
            rules: Arc::clone(rules),
            applicant,
            clear: wanted.clear,
            asking: Semaphore::new(MOST_ASKED),
            ordering: Semaphore::new(MOST_ORDERED),
            state: Mutex::new(GrantingState {
                failures: RememberedNames::new(MOST_FAILED),
                first_orders: FirstOrders::default(),
                new: HashSet::new(),
                told: None,
            }),
        })
    }

    async fn grant(&self, wish: CertificateWish) {
        let name = &*wish.name;
        let held = self.on_demand.held_for(name);
        let now = self.means.clock.wall();
        if held.as_ref().is_some_and(|held| now < held.due) {
            return;
        }
        let is_renewal = held.as_ref().is_some_and(|held| now < held.ends);
        if let Err(denial) = self.is_permitted(name).await {
            let rest = match denial {
                Denial::NotAnswered => UNANSWERED_RESTS,
                _ if is_renewal => REFUSED_RENEWAL_RESTS,
                _ => REFUSED_RESTS,
            };
            self.refuse(name, denial, rest);
            return;
        }
        let domain = Domain { name: name.into(), file: self.applicant.acme.on_demand_file_of(name) };
        let before = held
            .as_ref()
            .and_then(|held| held.key.end_entity_cert().ok().map(|leaf| leaf.clone().into_owned()));
        if self.means.shared.is_some()
            && adopt(&self.means, &self.applicant, &domain, before.as_ref()).await
            && self.hold(&domain).await
        {
            return;
        }
        let _new = match held.is_none().then(|| self.admit(name)).transpose() {
            Ok(new) => new,
            Err((denial, rest)) => return self.refuse(name, denial, rest),
        };
        // It is never closed.
        let _place = self.ordering.acquire().await;
        let errand = OrderErrand { domain: &domain, clear: self.clear, on_demand: true };
        let failures = self.state.lock().failures.take(name).unwrap_or_default();
        let mut standing = DomainStanding { failures, ..DomainStanding::default() };
        let last = self.means.clock.now() + 2 * LONGEST_ORDER;
        loop {
            let attempted =
                attempt_in_turn(&self.means, &self.applicant, &errand, (&mut standing, before.clone())).await;
            match attempted {
                Attempted::Made => {
                    self.hold(&domain).await;
                    return;
                }
                Attempted::Again(rest) if self.means.clock.now() < last => tokio::time::sleep(rest).await,
                Attempted::Failed { rest } | Attempted::Again(rest) => {
                    self.state.lock().failures.insert(name, standing.failures);
                    self.on_demand.rest(name, rest);
                    return;
                }
            }
        }
    }

    fn refuse(&self, name: &str, denial: Denial, rest: Duration) {
        self.on_demand.rest(name, rest);
        self.on_demand.deny(name, denial);
    }

    async fn is_permitted(&self, name: &str) -> Result<(), Denial> {
        if self.rules.lists(name) {
            return Ok(());
        }
        let permission = self.permission.as_ref().ok_or(Denial::Unlisted)?;
        let _place = self.asking.acquire().await;
        match permission.is_given(name).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denial::NotApproved),
            Err(error) => {
                self.tell(|| {
                    format!(
                        "{} does not say whether {name} may have a certificate: {error}; names that are not in `names` of \
                         [acme.on_demand] get none meanwhile",
                        permission.url
                    )
                });
                Err(Denial::NotAnswered)
            }
        }
    }

    /// Whether one more name may get its first certificate; how long it rests where not.
    fn admit(&self, name: &str) -> Result<NewName<'_>, (Denial, Duration)> {
        let OnDemandSettings { certificates, orders_per_hour, .. } = *self.rules;
        let now = self.means.clock.now();
        let mut state = self.state.lock();
        let denied = if self.on_demand.held().0 + state.new.len() >= certificates {
            Some((Denial::Certificates, REFUSED_RESTS, format!("certificates = {certificates}")))
        } else {
            let wait = state.first_orders.admit(now, orders_per_hour).err();
            wait.map(|wait| (Denial::Orders, wait, format!("orders_per_hour = {orders_per_hour}")))
        };
        let Some((denial, rest, bound)) = denied else {
            state.new.insert(name.into());
            return Ok(NewName { name: name.into(), of: &self.state });
        };
        drop(state);
        self.tell(|| {
            format!(
                "no certificate for {name} nor for other new names: {bound} is reached; if these are all names of yours, write more in \
                 [acme.on_demand], else fewer names, or let `ask` say which"
            )
        });
        Err((denial, rest.min(LONGEST_REST_FOR_BOUNDS)))
    }

    /// Tells the operator, once in a while: a client who asks for names one after the other fills no log.
    fn tell(&self, what: impl FnOnce() -> String) {
        let now = self.means.clock.now();
        let mut state = self.state.lock();
        if state.told.is_none_or(|told| now.since(told) >= TOLD_AGAIN) {
            state.told = Some(now);
            drop(state);
            tracing::warn!("{}", what());
        }
    }

    /// Holds what has been made.
    async fn hold(&self, domain: &Domain) -> bool {
        let kept = domain.clone();
        let read = tokio::task::spawn_blocking(move || read(&kept)).await.ok().flatten();
        let Some(held) = read else {
            tracing::error!(
                domain = &*domain.name,
                "{} holds no certificate that can be used",
                domain.file.display()
            );
            self.on_demand.rest(&domain.name, UNANSWERED_RESTS);
            return false;
        };
        self.state.lock().failures.take(&domain.name);
        self.on_demand.hold(&domain.name, &held);
        true
    }

    /// Removes what has ended.
    async fn sweep(&self) {
        let ended = self.on_demand.let_go_of_ended();
        forget(&self.applicant.store, ended).await;
    }
}

/// A name that gets its first certificate, while it does.
struct NewName<'a> {
    name: Box<str>,
    of: &'a Mutex<GrantingState>,
}

impl Drop for NewName<'_> {
    fn drop(&mut self) {
        self.of.lock().new.remove(&self.name);
    }
}

/// When names have got their first order within the last hour.
#[derive(Debug, Default)]
struct FirstOrders(VecDeque<Moment>);

impl FirstOrders {
    /// One more, where fewer than so many were admitted in the hour before; else how long until the next may.
    fn admit(&mut self, now: Moment, most: usize) -> Result<(), Duration> {
        while self.0.front().is_some_and(|first| now.since(*first) >= HOUR) {
            self.0.pop_front();
        }
        // Settings that allow fewer now wait for as many to be over.
        match self.0.len().checked_sub(most) {
            None => {
                self.0.push_back(now);
                Ok(())
            }
            Some(over) => {
                let waits_for = self.0.get(over).map_or(Duration::ZERO, |moment| now.since(*moment));
                Err(HOUR.saturating_sub(waits_for))
            }
        }
    }
}

/// Reads what lies there, holds what is good, and removes what has ended.
async fn hold_what_is_kept(means: &Means, on_demand: &OnDemand, store: &Store) {
    let (from, now) = (store.clone(), means.clock.wall());
    let read = tokio::task::spawn_blocking(move || read_all(&from, now)).await;
    let Ok(KeptCertificates { held, ended, trouble }) = read else { return };
    if let Some(trouble) = trouble {
        tracing::error!("certificates that were made on demand are not read: {trouble}");
    }
    if !held.is_empty() {
        tracing::info!(certificates = held.len(), "certificates that were made on demand are used again");
    }
    on_demand.hold_all(held);
    forget(store, ended).await;
}

async fn forget(store: &Store, ended: Vec<Box<str>>) {
    if ended.is_empty() {
        return;
    }
    let store = store.clone();
    let forgotten = tokio::task::spawn_blocking(move || {
        ended.iter().try_for_each(|name| store.forget_certificate(name)).map(|()| ended)
    });
    match forgotten.await {
        Ok(Ok(names)) => {
            tracing::info!(?names, "certificates that nobody asked for any more have ended and are removed");
        }
        Ok(Err(error)) => tracing::warn!("certificates that have ended cannot be removed: {error}"),
        Err(_) => {}
    }
}

#[derive(Default)]
struct KeptCertificates {
    held: HashMap<Box<str>, HeldCertificate>,
    ended: Vec<Box<str>>,
    trouble: Option<std::io::Error>,
}

fn read_all(store: &Store, now: SystemTime) -> KeptCertificates {
    let mut kept = KeptCertificates::default();
    let files = match store.certificates(now) {
        Ok(files) => files,
        Err(trouble) => return KeptCertificates { trouble: Some(trouble), ..kept },
    };
    for (name, file) in files.into_iter().filter(|(name, _)| is_certifiable(name)).take(MOST_CERTIFICATES) {
        // What cannot be used is had anew when somebody asks for it.
        let Some(held) = read(&Domain { name: name.clone(), file }) else { continue };
        if now < held.ends {
            kept.held.insert(name, held);
        } else {
            kept.ended.push(name);
        }
    }
    kept
}

fn read(domain: &Domain) -> Option<HeldCertificate> {
    let key = credentials::pair(&domain.file, &domain.file, &provider()).ok()?;
    let life = life(key.end_entity_cert().ok()?, &domain.name)?;
    Some(HeldCertificate { key: Arc::new(key), due: life.renewal(None), ends: life.to })
}

/// Questions under way at once.
const MOST_ASKED: usize = 8;
/// Orders under way at once.
const MOST_ORDERED: usize = 4;
/// Wishes that are looked at, or wait for a question or an order.
const MOST_UNDER_WAY: usize = 64;
/// Names of which it is remembered how often they have failed.
const MOST_FAILED: usize = 10_000;
/// How long a name rests that was refused.
const REFUSED_RESTS: Duration = Duration::from_secs(60);
/// And one whose certificate is good for a while yet.
const REFUSED_RENEWAL_RESTS: Duration = Duration::from_secs(3600);
/// And one that nobody has said anything of.
const UNANSWERED_RESTS: Duration = Duration::from_secs(30);
/// And one that waits for an hour to be over: others may have been given up by then.
const LONGEST_REST_FOR_BOUNDS: Duration = Duration::from_secs(300);
/// Between two words to the operator.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// How often what has ended is looked for.
const SWEEP: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_are_admitted_in_any_hour() {
        let mut orders = FirstOrders::default();
        let at = |minutes: u64| Moment::from_epoch(Duration::from_secs(60 * minutes));
        assert_eq!(orders.admit(at(0), 2), Ok(()));
        assert_eq!(orders.admit(at(10), 2), Ok(()));
        assert_eq!(orders.admit(at(20), 2), Err(Duration::from_secs(40 * 60)));
        assert_eq!(orders.admit(at(60), 2), Ok(()), "the first is an hour ago");
        assert_eq!(orders.admit(at(61), 2), Err(Duration::from_secs(9 * 60)));
        // Fewer by a reload.
        assert_eq!(orders.admit(at(62), 1), Err(Duration::from_secs(58 * 60)));
    }
}
