//! Certificates for names that clients ask for: each wish is looked at once, permitted or not, and had made within bounds.
//!
//! Promises: a name that is on no list gets a certificate only where the operator's program says yes, anew before each renewal;
//! [`MOST_ASKED`] questions and [`MOST_ORDERED`] orders are under way at once, and who needs no question waits behind none; no more names
//! get their first certificate in an hour, whatever is reloaded, and no more are kept, than the settings say, and renewals are not held
//! up by that; what was refused or has failed rests. What is kept is held again after a start without a question, and trouble with files
//! takes nothing away that is held. What nobody has asked for since it was due ends, and its file is removed a month later: a clock that
//! was wrong for a while costs no file.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use cache_policy::Moment;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    attempt::{
        Attempted, DomainStanding, FailedOrders, LONGEST_ORDER, LOOK_AGAIN, Means, OrderErrand,
        WantedCertificates, adopt, applicant, attempt_in_turn,
    },
    kept::{held_after, read, read_all, remove_ended},
    order::{Applicant, Way},
    permission::Permission,
    store::Store,
};
use crate::{
    message::on_demand::{CertificateWish, Denial, OnDemand, RememberedNames},
    settings::{Domain, OnDemandSettings, UpstreamTlsSettings},
    upstream::tls::ClientTls,
};

/// Grants wishes, for as long as the sender of `wanted` is there. A reload that changes what is had on demand has what failed tried again
/// when it is wished for; any other leaves alone what is under way and what rests.
pub async fn grant(
    means: Means,
    on_demand: Arc<OnDemand>,
    mut wanted: watch::Receiver<WantedCertificates>,
    mut wishes: mpsc::Receiver<CertificateWish>,
) {
    let mut kept = KeptOverReloads::default();
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        let now_wanted = WantedOnDemand::read(now_wanted).await;
        on_demand.govern(now_wanted.certificates.on_demand());
        tokio::select! {
            () = grant_all(&means, &on_demand, (&now_wanted.certificates, &mut kept), &mut wishes) => return,
            changed = until_other(&mut wanted, &now_wanted) => if changed.is_err() { return },
        }
    }
}

/// What outlives other settings.
#[derive(Default)]
struct KeptOverReloads {
    /// A reload makes no more orders of an hour than there are.
    first_orders: Arc<Mutex<FirstOrders>>,
    /// Where the certificates lie that are held.
    folder: Option<PathBuf>,
}

/// What a change of makes all else begin anew.
#[derive(PartialEq, Eq)]
struct WantedOnDemand {
    /// Without the names that listeners write.
    certificates: WantedCertificates,
    /// What the file holds that `ca` names.
    authorities: Option<Vec<u8>>,
}

impl WantedOnDemand {
    async fn read(wanted: WantedCertificates) -> Self {
        let certificates = WantedCertificates { domains: Vec::new(), ..wanted };
        let file = certificates.acme.ca.clone();
        // Who needs it says what is wrong with it.
        let read = tokio::task::spawn_blocking(move || std::fs::read(file?).ok());
        Self { certificates, authorities: read.await.ok().flatten() }
    }
}

/// Waits until something else is wanted.
async fn until_other(
    wanted: &mut watch::Receiver<WantedCertificates>,
    before: &WantedOnDemand,
) -> Result<(), watch::error::RecvError> {
    loop {
        wanted.changed().await?;
        let now_wanted = wanted.borrow_and_update().clone();
        if WantedOnDemand::read(now_wanted).await != *before {
            return Ok(());
        }
    }
}

/// Ends when nobody can wish for anything any more.
async fn grant_all(
    means: &Means,
    on_demand: &Arc<OnDemand>,
    (wanted, kept): (&WantedCertificates, &mut KeptOverReloads),
    wishes: &mut mpsc::Receiver<CertificateWish>,
) {
    let Some(rules) = wanted.on_demand() else {
        on_demand.hold_all(HashMap::new());
        kept.folder = None;
        // What was wished for under other settings comes to nothing.
        while wishes.recv().await.is_some() {}
        return;
    };
    let store = Store::on_demand(&wanted.acme);
    hold_what_is_kept(means, on_demand, &store, &mut kept.folder).await;
    let granting = loop {
        let made = applicant(means, wanted, store.clone()).and_then(|applicant| {
            Granting::new(means, on_demand, (applicant, wanted.clear), (&rules, &kept.first_orders))
        });
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
    // Not at once: the clock may be wrong at a start, and is corrected in time.
    let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP, SWEEP);
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
    /// Places to wait for a question about a new name, so that wishes that need none find places beside them.
    waiting_to_ask: Semaphore,
    asking: Semaphore,
    ordering: Semaphore,
    first_orders: Arc<Mutex<FirstOrders>>,
    state: Mutex<GrantingState>,
}

struct GrantingState {
    failures: RememberedNames<FailedOrders>,
    /// Names that have no certificate yet.
    new: HashSet<Box<str>>,
    /// How the authority has looked at last with success: where port 80 is not reached, it is not for the next name either.
    way: Way,
    told: LastTold,
}

/// What a wish is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WishFor {
    FirstCertificate,
    /// The one that there is is good for a while yet.
    Renewal,
}

impl Granting {
    fn new(
        means: &Means,
        on_demand: &Arc<OnDemand>,
        (applicant, clear): (Applicant, bool),
        (rules, first_orders): (&Arc<OnDemandSettings>, &Arc<Mutex<FirstOrders>>),
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
            clear,
            waiting_to_ask: Semaphore::new(MOST_WAITING_TO_ASK),
            asking: Semaphore::new(MOST_ASKED),
            ordering: Semaphore::new(MOST_ORDERED),
            first_orders: Arc::clone(first_orders),
            state: Mutex::new(GrantingState {
                failures: RememberedNames::new(MOST_FAILED),
                new: HashSet::new(),
                way: Way::Http,
                told: LastTold::default(),
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
        let wish_for = if is_renewal { WishFor::Renewal } else { WishFor::FirstCertificate };
        match self.is_permitted(name, wish_for).await {
            Ok(()) => {}
            // It rests not: there may be a place for the next client.
            Err(Denial::Busy) => return self.on_demand.deny(name, Denial::Busy),
            Err(denial) => {
                let rest = match (denial, wish_for) {
                    (Denial::NotAnswered, _) => UNANSWERED_RESTS,
                    (_, WishFor::Renewal) => REFUSED_RENEWAL_RESTS,
                    (_, WishFor::FirstCertificate) => REFUSED_RESTS,
                };
                return self.refuse(name, denial, rest);
            }
        }
        // Before another's is taken, too: it would be one more that is kept.
        let _new = match held.is_none().then(|| self.reserve(name)).transpose() {
            Ok(new) => new,
            Err((denial, rest)) => return self.refuse(name, denial, rest),
        };
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
        if held.is_none()
            && let Err((denial, rest)) = self.admit(name)
        {
            return self.refuse(name, denial, rest);
        }
        self.order(&domain, before).await;
    }

    /// Has a certificate made and holds it, or has the name rest.
    async fn order(&self, domain: &Domain, before: Option<CertificateDer<'static>>) {
        let name = &*domain.name;
        let failed = self.state.lock().failures.take(name).unwrap_or_default();
        let mut standing = DomainStanding { failed, ..DomainStanding::default() };
        let mut last = None;
        loop {
            let attempted = {
                // It is never closed. While another edge has its turn other names have the place.
                let _place = self.ordering.acquire().await;
                let begins_with = self.state.lock().way;
                let errand = OrderErrand { domain, clear: self.clear, begins_with, on_demand: true };
                attempt_in_turn(&self.means, &self.applicant, &errand, (&mut standing, before.clone())).await
            };
            let now = self.means.clock.now();
            let last = *last.get_or_insert(now + 2 * LONGEST_ORDER);
            match attempted {
                Attempted::Made { by } => {
                    if let Some(way) = by {
                        self.state.lock().way = way;
                    }
                    self.hold(domain).await;
                    return;
                }
                Attempted::Again(rest) if now < last => tokio::time::sleep(rest).await,
                Attempted::Failed { rest } | Attempted::Again(rest) => {
                    self.state.lock().failures.insert(name, standing.failed);
                    self.on_demand.rest_failed(name, rest);
                    return;
                }
            }
        }
    }

    fn refuse(&self, name: &str, denial: Denial, rest: Duration) {
        self.on_demand.rest_refused(name, rest);
        self.on_demand.deny(name, denial);
    }

    async fn is_permitted(&self, name: &str, wish_for: WishFor) -> Result<(), Denial> {
        if self.rules.lists(name) {
            return Ok(());
        }
        let permission = self.permission.as_ref().ok_or(Denial::Unlisted)?;
        // New names can be without end, and would keep those out whose certificates end.
        let _waits = match wish_for {
            WishFor::FirstCertificate => Some(self.waiting_to_ask.try_acquire().map_err(|_| Denial::Busy)?),
            WishFor::Renewal => None,
        };
        let _place = self.asking.acquire().await;
        match permission.is_given(name).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denial::NotApproved),
            Err(error) => {
                self.tell(Denial::NotAnswered, || {
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

    /// Whether one more certificate may be kept; how long the name rests where not.
    fn reserve(&self, name: &str) -> Result<NewName<'_>, (Denial, Duration)> {
        let most = self.rules.certificates;
        let mut state = self.state.lock();
        if self.on_demand.held().0 + state.new.len() < most {
            state.new.insert(name.into());
            return Ok(NewName { name: name.into(), of: &self.state });
        }
        drop(state);
        self.tell_of_bound(name, Denial::Certificates, &format!("certificates = {most}"));
        Err((Denial::Certificates, REFUSED_RESTS))
    }

    /// Whether one more name may have its first certificate ordered; how long it rests where not.
    fn admit(&self, name: &str) -> Result<(), (Denial, Duration)> {
        let most = self.rules.orders_per_hour;
        let admitted = self.first_orders.lock().admit(self.means.clock.now(), most);
        admitted.map_err(|wait| {
            self.tell_of_bound(name, Denial::Orders, &format!("orders_per_hour = {most}"));
            (Denial::Orders, wait.min(LONGEST_REST_FOR_BOUNDS))
        })
    }

    fn tell_of_bound(&self, name: &str, denial: Denial, bound: &str) {
        self.tell(denial, || {
            format!(
                "no certificate for {name} nor for other new names: {bound} is reached; if these are all names of yours, write more in \
                 [acme.on_demand], else fewer names, or let `ask` say which"
            )
        });
    }

    /// Tells the operator, once in a while: a client who asks for names one after the other fills no log.
    fn tell(&self, denial: Denial, what: impl FnOnce() -> String) {
        let now = self.means.clock.now();
        let is_due = self.state.lock().told.is_due(denial, now);
        if is_due {
            tracing::warn!("{}", what());
        }
    }

    /// Holds what has been made.
    async fn hold(&self, domain: &Domain) -> bool {
        let name = &*domain.name;
        let kept = domain.clone();
        let read = tokio::task::spawn_blocking(move || read(&kept)).await;
        let Some(held) = read.ok().and_then(Result::ok).flatten() else {
            tracing::error!(domain = name, "{} holds no certificate that can be used", domain.file.display());
            self.on_demand.rest_failed(name, UNANSWERED_RESTS);
            return false;
        };
        self.state.lock().failures.take(name);
        self.on_demand.hold(name, &held);
        if held.due <= self.means.clock.wall() {
            tracing::error!(
                domain = name,
                "the certificate that was made is to be renewed already; look at this machine's clock. It is renewed when a client asks \
                 for it in {} s",
                DUE_AT_ONCE_RESTS.as_secs()
            );
            // Otherwise each client would have one more made.
            self.on_demand.rest_failed(name, DUE_AT_ONCE_RESTS);
        }
        true
    }

    /// Lets go of what has ended, and removes what ended long ago.
    async fn sweep(&self) {
        let ended = self.on_demand.let_go_of_ended();
        if !ended.is_empty() {
            tracing::info!(names = ?ended, "certificates that nobody asked for any more have ended");
        }
        let (store, now) = (self.applicant.store.clone(), self.means.clock.wall());
        match tokio::task::spawn_blocking(move || remove_ended(&store, now)).await {
            Ok(Ok(names)) if !names.is_empty() => {
                tracing::info!(?names, "certificates that ended a month ago are removed");
            }
            Ok(Err(error)) => {
                tracing::warn!("certificates that ended a month ago cannot be removed: {error}");
            }
            _ => {}
        }
    }
}

/// When the operator was told last of each reason. One does not silence another.
#[derive(Debug, Default)]
struct LastTold([Option<Moment>; Denial::ALL.len()]);

impl LastTold {
    /// Whether he is told now; he is taken to be.
    fn is_due(&mut self, denial: Denial, now: Moment) -> bool {
        let told = &mut self.0[denial as usize];
        let is_due = told.is_none_or(|told| now.since(told) >= TOLD_AGAIN);
        if is_due {
            *told = Some(now);
        }
        is_due
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

/// Reads what lies in a folder and holds what is good. `held_of`: where that lies which is held already.
async fn hold_what_is_kept(
    means: &Means,
    on_demand: &OnDemand,
    store: &Store,
    held_of: &mut Option<PathBuf>,
) {
    let (from, now) = (store.clone(), means.clock.wall());
    let read = tokio::task::spawn_blocking(move || {
        let read = read_all(&from, now);
        from.clear_orders(now);
        read
    });
    let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let is_same = held_of.as_deref() == Some(store.of_names());
    let before = if is_same { on_demand.all_held() } else { Arc::default() };
    let held = held_after(read, &before);
    if !held.is_empty() {
        tracing::info!(certificates = held.len(), "certificates that were made on demand are used again");
    }
    on_demand.hold_all(held);
    *held_of = Some(store.of_names().to_owned());
}

/// Questions under way at once.
const MOST_ASKED: usize = 8;
/// New names that wait for a question or are asked about: half of the wishes that are looked at.
const MOST_WAITING_TO_ASK: usize = MOST_UNDER_WAY / 2;
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
/// And one whose new certificate is to be renewed at once, as where the clock is wrong.
const DUE_AT_ONCE_RESTS: Duration = HOUR;
/// Between two words to the operator about one thing.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// How often what has ended is looked for.
const SWEEP: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::UNIX_EPOCH};

    use rcgen::CertificateParams;

    use super::*;
    use crate::{
        acme::{AccountTurn, kept::tests::write_certificate},
        clock::Clock,
        message::{
            challenges::SharedProof,
            shared_orders::{OrderFuture, SharedOrders, Turn},
        },
        observe::metrics::Metrics,
        settings::{Acme, HostPattern},
        upstream::{
            address::Address,
            connect::{Dial, Dialling},
        },
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// Connections to nobody, none of which comes about.
    #[derive(Default)]
    struct NobodyThere(Mutex<Vec<String>>);

    impl Dial for NobodyThere {
        fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
            self.0.lock().push(format!("{address:?}"));
            Box::pin(std::future::pending())
        }
    }

    impl NobodyThere {
        /// How often somebody was dialled.
        fn dialled(&self, host: &str) -> usize {
            self.0.lock().iter().filter(|address| address.contains(host)).count()
        }
    }

    /// Another edge, whose turn it always is.
    #[derive(Default)]
    struct AnothersTurn {
        wanted: Mutex<HashSet<String>>,
        looked_for: Mutex<Vec<String>>,
    }

    impl SharedOrders for AnothersTurn {
        fn turn<'a>(&'a self, name: &'a str) -> OrderFuture<'a, Turn> {
            self.wanted.lock().insert(name.to_owned());
            Box::pin(async { Turn::Others })
        }

        fn end_turn<'a>(&'a self, _name: &'a str, _rest: Duration) -> OrderFuture<'a, ()> {
            Box::pin(async {})
        }

        fn find<'a>(&'a self, what: &'a str) -> OrderFuture<'a, Option<Vec<u8>>> {
            self.looked_for.lock().push(what.to_owned());
            Box::pin(async { None })
        }

        fn leave<'a>(&'a self, _what: &'a str, _content: &'a [u8]) -> OrderFuture<'a, ()> {
            Box::pin(async {})
        }

        fn show<'a>(&'a self, _name: &'a str, _proof: Option<&'a SharedProof>) -> OrderFuture<'a, ()> {
            Box::pin(async {})
        }
    }

    /// An edge that grants wishes, and its authority, which never answers.
    struct GrantingEdge {
        on_demand: Arc<OnDemand>,
        dial: Arc<NobodyThere>,
        wanted: watch::Sender<WantedCertificates>,
        _folder: tempfile::TempDir,
    }

    impl GrantingEdge {
        fn start(settings: OnDemandSettings, shared: Option<Arc<dyn SharedOrders>>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Clock::starting_at(UNIX_EPOCH + 20_000 * DAY);
            let (on_demand, wishes) = OnDemand::new(clock.clone());
            let dial = Arc::new(NobodyThere::default());
            let means = Means { shared, ..means(&clock, Arc::clone(&dial) as _) };
            let wanted = wanted(folder.path(), settings);
            on_demand.govern(wanted.on_demand());
            let (wanted, wants) = watch::channel(wanted);
            drop(tokio::spawn(grant(means, Arc::clone(&on_demand), wants, wishes)));
            Self { on_demand, dial, wanted, _folder: folder }
        }

        /// Other settings are put in force; the rest of the file has changed, too.
        fn reload(&self, change: impl FnOnce(&mut OnDemandSettings)) {
            self.wanted.send_modify(|wanted| {
                let mut acme = Acme::clone(&wanted.acme);
                let mut settings = acme.on_demand.as_deref().cloned().unwrap();
                change(&mut settings);
                acme.on_demand = Some(Arc::new(settings));
                wanted.acme = Arc::new(acme);
                wanted.domains.push(Domain { name: "own.test".into(), file: "own.test.pem".into() });
            });
        }

        fn denied(&self, denial: Denial) -> u64 {
            self.on_demand.denied()[denial as usize].1
        }
    }

    fn settings() -> OnDemandSettings {
        OnDemandSettings {
            names: vec![HostPattern::Below(".customers.test".into())],
            ask: None,
            certificates: 100,
            orders_per_hour: 60,
        }
    }

    fn means(clock: &Clock, dial: Arc<dyn Dial>) -> Means {
        Means {
            dial,
            challenges: Arc::default(),
            shared: None,
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new()),
            account_turn: AccountTurn::default(),
        }
    }

    /// All is kept in a folder.
    fn wanted(folder: &Path, settings: OnDemandSettings) -> WantedCertificates {
        let ca = folder.join("ca.pem");
        write_certificate(&ca, &CertificateParams::new(["authority.test".to_owned()]).unwrap());
        let acme = Acme {
            directory: "https://authority.test/directory".into(),
            folder: folder.to_owned(),
            ca: Some(ca),
            on_demand: Some(Arc::new(settings)),
            ..Acme::default()
        };
        WantedCertificates { acme: Arc::new(acme), on_demand: true, ..WantedCertificates::default() }
    }

    /// Each reload aborted all orders, had what rested ordered again, and gave as many orders as an hour has.
    #[tokio::test(start_paused = true)]
    async fn a_reload_of_something_else_leaves_orders_and_rests_alone() {
        let edge = GrantingEdge::start(OnDemandSettings { orders_per_hour: 1, ..settings() }, None);
        edge.on_demand.wait_for("a.customers.test", None).await;
        assert_eq!(edge.dial.dialled("authority.test"), 1, "it is ordered, and goes on");
        edge.on_demand.rest_failed("b.customers.test", DAY);
        edge.reload(|_| {});
        tokio::time::sleep(Duration::from_secs(1)).await;
        edge.on_demand.wait_for("a.customers.test", None).await;
        assert_eq!(edge.dial.dialled("authority.test"), 1, "still the same order");
        edge.on_demand.wait_for("b.customers.test", None).await;
        assert_eq!((edge.denied(Denial::Resting), edge.denied(Denial::Orders)), (1, 0));
        // What matters begins anew, but no new hour.
        edge.reload(|settings| settings.certificates = 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        edge.on_demand.wait_for("b.customers.test", None).await;
        assert_eq!((edge.denied(Denial::Resting), edge.denied(Denial::Orders)), (1, 1));
        assert_eq!(edge.dial.dialled("authority.test"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_are_listed_stand_behind_no_questions() {
        let ask = Some("http://ask.test/".parse().unwrap());
        let edge = GrantingEdge::start(OnDemandSettings { ask, ..settings() }, None);
        let foreign: Vec<_> = (0..MOST_UNDER_WAY)
            .map(|number| {
                let on_demand = Arc::clone(&edge.on_demand);
                tokio::spawn(async move { on_demand.wait_for(&format!("{number}.foreign.test"), None).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(edge.dial.dialled("ask.test"), MOST_ASKED);
        assert_eq!(edge.denied(Denial::Busy), (MOST_UNDER_WAY - MOST_WAITING_TO_ASK) as u64);
        let on_demand = Arc::clone(&edge.on_demand);
        drop(tokio::spawn(async move { on_demand.wait_for("a.customers.test", None).await }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(edge.dial.dialled("authority.test"), 1, "it is ordered at once");
        for waiting in foreign {
            waiting.await.unwrap();
        }
    }

    /// Four names that another edge orders kept all places for orders.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_anothers_turn_keeps_no_place() {
        let others = Arc::new(AnothersTurn::default());
        let edge = GrantingEdge::start(settings(), Some(Arc::clone(&others) as _));
        for number in 0..=MOST_ORDERED {
            let on_demand = Arc::clone(&edge.on_demand);
            let name = format!("{number}.customers.test");
            drop(tokio::spawn(async move { on_demand.wait_for(&name, None).await }));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(others.wanted.lock().len(), MOST_ORDERED + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_taken_from_another_edge_than_are_kept() {
        let others = Arc::new(AnothersTurn::default());
        let settings = OnDemandSettings { certificates: 0, ..settings() };
        let edge = GrantingEdge::start(settings, Some(Arc::clone(&others) as _));
        edge.on_demand.wait_for("a.customers.test", None).await;
        assert_eq!((edge.denied(Denial::Certificates), others.looked_for.lock().len()), (1, 0));
    }

    /// The clock may be wrong at a start.
    #[tokio::test(start_paused = true)]
    async fn files_are_removed_no_sooner_than_a_day_after_a_start() {
        let edge = GrantingEdge::start(settings(), None);
        let file = edge.wanted.borrow().acme.on_demand_file_of("a.customers.test");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut params = CertificateParams::new(["a.customers.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        write_certificate(&file, &params);
        let moment = Duration::from_secs(1);
        tokio::time::sleep(SWEEP - moment).await;
        assert!(file.exists());
        tokio::time::sleep(2 * moment).await;
        assert!(!file.exists());
    }

    /// With a clock that is ahead each client had one more made.
    #[tokio::test(start_paused = true)]
    async fn what_is_due_as_soon_as_it_is_made_is_not_ordered_for_each_client() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at(UNIX_EPOCH + 20_000 * DAY);
        let (on_demand, mut wishes) = OnDemand::new(clock.clone());
        let wanted = wanted(folder.path(), settings());
        let rules = wanted.on_demand().unwrap();
        on_demand.govern(Some(Arc::clone(&rules)));
        let means = means(&clock, Arc::new(NobodyThere::default()));
        let store = Store::on_demand(&wanted.acme);
        fs::create_dir_all(store.of_names()).unwrap();
        let applicant = applicant(&means, &wanted, store).unwrap();
        let granting =
            Granting::new(&means, &on_demand, (applicant, false), (&rules, &Arc::default())).unwrap();
        let name = "a.customers.test";
        let domain = Domain { name: name.into(), file: wanted.acme.on_demand_file_of(name) };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        write_certificate(&domain.file, &params);
        assert!(granting.hold(&domain).await);
        on_demand.wait_for(name, None).await;
        assert!(wishes.try_recv().is_err(), "it rests");
        tokio::time::advance(HOUR).await;
        on_demand.wait_for(name, None).await;
        assert!(wishes.try_recv().is_ok(), "once an hour");
    }

    /// A warning about `ask` had silenced that a bound is reached.
    #[test]
    fn each_reason_is_told_once_in_a_while_by_itself() {
        let mut told = LastTold::default();
        let at = |seconds: u64| Moment::from_epoch(Duration::from_secs(seconds));
        assert!(told.is_due(Denial::NotAnswered, at(0)));
        assert!(told.is_due(Denial::Certificates, at(1)) && told.is_due(Denial::Orders, at(1)));
        assert!(!told.is_due(Denial::NotAnswered, at(59)) && !told.is_due(Denial::Certificates, at(60)));
        assert!(told.is_due(Denial::NotAnswered, at(60)) && told.is_due(Denial::Certificates, at(61)));
    }

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
