//! Certificates for names that clients ask for: what handshakes find of them, and what they may wait for.
//!
//! Owns: those that are held, and the wishes for others. Who grants wishes is in [`crate::acme`]. Promises: a handshake that finds
//! its certificate takes no lock; one that does not waits for [`LONGEST_WAIT`] at most, and [`MOST_WAITING`] do so at once, so that
//! others keep their places; of those that wait, and of what is wished for, no client has more than an eighth; a name that is none,
//! or that nobody would permit, costs a comparison; one that was refused is not wished for again before its rest is over, and no
//! number of other names shortens the rest of one whose order has failed; all that is remembered has a bound. A certificate that is
//! due is wished for when a client asks for its name, and not otherwise: what nobody asks for is not renewed.

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use cache_policy::Moment;
use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use tokio::sync::{Semaphore, mpsc, watch};

use super::client_shares::{ClientShare, ClientShares};
use crate::{clock::Clock, settings::OnDemandSettings};

/// The certificates that are held, and the wishes for more.
pub struct OnDemand {
    clock: Clock,
    /// `None` where no listener has such certificates.
    rules: ArcSwapOption<OnDemandSettings>,
    held: ArcSwap<HashMap<Box<str>, HeldCertificate>>,
    wishes: Mutex<OpenWishes>,
    queue: mpsc::Sender<CertificateWish>,
    waiting: Semaphore,
    /// By client, those that wait, and what is wished for.
    waiting_by_client: Arc<ClientShares>,
    wishes_by_client: Arc<ClientShares>,
    denied: [AtomicU64; Denial::ALL.len()],
}

/// A certificate that is held for a name.
#[derive(Clone, Debug)]
pub struct HeldCertificate {
    pub key: Arc<CertifiedKey>,
    /// When the next client that asks for the name has it renewed.
    pub due: SystemTime,
    pub ends: SystemTime,
}

struct OpenWishes {
    under_way: HashMap<Box<str>, watch::Receiver<()>>,
    /// Not to be wished for before. Anyone can have as many names refused as he likes.
    refused: RememberedNames<Moment>,
    /// Apart, for that: each of these has cost an order, and would cost another.
    failed: RememberedNames<Moment>,
}

/// That a name have a certificate. Dropped, it is over: whoever waits for it looks whether there is one.
pub struct CertificateWish {
    pub name: Box<str>,
    _over: watch::Sender<()>,
    /// Whose it is.
    _share: Option<ClientShare>,
    of: Arc<OnDemand>,
}

impl Drop for CertificateWish {
    fn drop(&mut self) {
        self.of.wishes.lock().under_way.remove(&self.name);
    }
}

/// Why a wish came to nothing without an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No authority certifies such a name.
    NoName,
    /// It is on no list, and nobody is asked.
    Unlisted,
    /// Who is asked has said no.
    NotApproved,
    /// Who is asked does not answer.
    NotAnswered,
    /// It was refused, or has failed, a short time ago.
    Resting,
    /// Too many wait, or are wished for, of one client or of all.
    Busy,
    /// As many names have got their first certificate in this hour as may.
    Orders,
    /// As many certificates are kept as may be.
    Certificates,
}

impl Denial {
    pub const ALL: [Self; 8] = [
        Self::NoName,
        Self::Unlisted,
        Self::NotApproved,
        Self::NotAnswered,
        Self::Resting,
        Self::Busy,
        Self::Orders,
        Self::Certificates,
    ];

    /// Its word, in metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoName => "no-name",
            Self::Unlisted => "unlisted",
            Self::NotApproved => "not-approved",
            Self::NotAnswered => "not-answered",
            Self::Resting => "resting",
            Self::Busy => "busy",
            Self::Orders => "orders",
            Self::Certificates => "certificates",
        }
    }
}

impl OnDemand {
    /// Nothing is held, and nothing can be wished for yet. Wishes come out of the receiver.
    pub fn new(clock: Clock) -> (Arc<Self>, mpsc::Receiver<CertificateWish>) {
        let (queue, wishes) = mpsc::channel(MOST_WISHES);
        let on_demand = Self {
            clock,
            rules: ArcSwapOption::empty(),
            held: ArcSwap::default(),
            wishes: Mutex::new(OpenWishes {
                under_way: HashMap::new(),
                refused: RememberedNames::new(MOST_RESTING),
                failed: RememberedNames::new(MOST_RESTING),
            }),
            queue,
            waiting: Semaphore::new(MOST_WAITING),
            waiting_by_client: ClientShares::new(MOST_WAITING / 8),
            wishes_by_client: ClientShares::new(MOST_WISHES / 8),
            denied: Default::default(),
        };
        (Arc::new(on_demand), wishes)
    }

    /// What may be wished for from now on. What was refused or has failed may be wished for again.
    pub fn govern(&self, rules: Option<Arc<OnDemandSettings>>) {
        self.rules.store(rules);
        let mut wishes = self.wishes.lock();
        wishes.refused.clear();
        wishes.failed.clear();
    }

    /// The certificate for a name in lower case. One that is due is wished for, too.
    pub fn find(self: &Arc<Self>, name: &str) -> Option<Arc<CertifiedKey>> {
        let held = self.held.load();
        let found = held.get(name)?;
        let now = self.clock.wall();
        if now >= found.due {
            // Where this fails the next client's wish is as good.
            let _ = self.wish(name, None);
        }
        (now < found.ends).then(|| Arc::clone(&found.key))
    }

    /// Waits until there is a certificate for a name in lower case, or there will be none for now; for a client, by a number of its
    /// own, unless it stands for many. Dropping the future changes nothing.
    pub async fn wait_for(self: &Arc<Self>, name: &str, client: Option<u128>) {
        if self.find(name).is_some() {
            return;
        }
        if let Err(denial) = self.wait(name, client).await {
            self.deny(name, denial);
        }
    }

    async fn wait(self: &Arc<Self>, name: &str, client: Option<u128>) -> Result<(), Denial> {
        let Some(rules) = self.rules.load_full() else { return Ok(()) };
        if !is_certifiable(name) {
            return Err(Denial::NoName);
        }
        if rules.ask.is_none() && !rules.lists(name) {
            return Err(Denial::Unlisted);
        }
        // First, since one who finds no place to wait has his certificate made all the same, for the next attempt.
        let mut over = self.wish(name, client)?;
        let _share = share_of(&self.waiting_by_client, client)?;
        let _place = self.waiting.try_acquire().map_err(|_| Denial::Busy)?;
        // An error says that the wish is over, and late is late.
        let _ = tokio::time::timeout(LONGEST_WAIT, over.changed()).await;
        Ok(())
    }

    fn wish(self: &Arc<Self>, name: &str, client: Option<u128>) -> Result<watch::Receiver<()>, Denial> {
        let mut wishes = self.wishes.lock();
        if let Some(over) = wishes.under_way.get(name) {
            return Ok(over.clone());
        }
        let rests = [&wishes.refused, &wishes.failed].into_iter().filter_map(|names| names.get(name));
        let now = self.clock.now();
        if rests.copied().any(|until| until > now) {
            return Err(Denial::Resting);
        }
        let share = share_of(&self.wishes_by_client, client)?;
        let place = self.queue.try_reserve().map_err(|_| Denial::Busy)?;
        let (over, when_over) = watch::channel(());
        wishes.under_way.insert(name.into(), when_over.clone());
        let of = Arc::clone(self);
        place.send(CertificateWish { name: name.into(), _over: over, _share: share, of });
        Ok(when_over)
    }

    /// Says and counts that a wish came to nothing.
    pub fn deny(&self, name: &str, denial: Denial) {
        tracing::debug!(name, reason = denial.word(), "no certificate is made on demand");
        self.denied[denial as usize].fetch_add(1, Relaxed);
    }

    /// A name that was refused is not wished for again for so long, unless very many are refused meanwhile.
    pub fn rest_refused(&self, name: &str, time: Duration) {
        let until = self.clock.now() + time;
        self.wishes.lock().refused.insert(name, until);
    }

    /// A name whose order has come to nothing is not wished for again for so long.
    pub fn rest_failed(&self, name: &str, time: Duration) {
        let until = self.clock.now() + time;
        self.wishes.lock().failed.insert(name, until);
    }

    /// Holds these, in place of all that were held.
    pub fn hold_all(&self, held: HashMap<Box<str>, HeldCertificate>) {
        self.held.store(Arc::new(held));
    }

    /// Holds one more, or another for its name.
    pub fn hold(&self, name: &str, certificate: &HeldCertificate) {
        self.held.rcu(|held| {
            let mut held = HashMap::clone(held);
            held.insert(name.into(), certificate.clone());
            held
        });
    }

    /// All that are held, ended or not.
    pub fn all_held(&self) -> Arc<HashMap<Box<str>, HeldCertificate>> {
        self.held.load_full()
    }

    /// Lets go of those that have ended, and tells their names.
    pub fn let_go_of_ended(&self) -> Vec<Box<str>> {
        let now = self.clock.wall();
        let before = self.held.rcu(|held| {
            let held = held.iter().filter(|(_, one)| now < one.ends);
            held.map(|(name, one)| (name.clone(), one.clone())).collect::<HashMap<_, _>>()
        });
        before.iter().filter(|(_, one)| now >= one.ends).map(|(name, _)| name.clone()).collect()
    }

    /// What is held for a name, ended or not.
    pub fn held_for(&self, name: &str) -> Option<HeldCertificate> {
        self.held.load().get(name).cloned()
    }

    /// How many are held, and when the first of them ends.
    pub fn held(&self) -> (usize, Option<SystemTime>) {
        let held = self.held.load();
        (held.len(), held.values().map(|one| one.ends).min())
    }

    /// How often wishes came to nothing, by why.
    pub fn denied(&self) -> Vec<(&'static str, u64)> {
        Denial::ALL
            .iter()
            .map(|denial| (denial.word(), self.denied[*denial as usize].load(Relaxed)))
            .collect()
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OnDemand").field("held", &self.held.load().len()).finish_non_exhaustive()
    }
}

/// One more for this client; none is counted for one that stands for many.
fn share_of(shares: &Arc<ClientShares>, client: Option<u128>) -> Result<Option<ClientShare>, Denial> {
    client.map(|client| shares.try_take(client).ok_or(Denial::Busy)).transpose()
}

/// Whether authorities certify such a name, in lower case: at least two labels of letters, digits and hyphens (RFC 1123 §2.1), the last of
/// which is no number, so that it is no address.
pub fn is_certifiable(name: &str) -> bool {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is remembered of so many names; the one that was remembered first is forgotten first.
#[derive(Debug)]
pub struct RememberedNames<T> {
    of: HashMap<Box<str>, T>,
    order: VecDeque<Box<str>>,
    most: usize,
}

impl<T> RememberedNames<T> {
    pub fn new(most: usize) -> Self {
        Self { of: HashMap::new(), order: VecDeque::new(), most }
    }

    pub fn get(&self, name: &str) -> Option<&T> {
        self.of.get(name)
    }

    pub fn insert(&mut self, name: &str, value: T) {
        if self.of.insert(name.into(), value).is_some() {
            return;
        }
        self.order.push_back(name.into());
        if self.order.len() > self.most
            && let Some(first) = self.order.pop_front()
        {
            self.of.remove(&first);
        }
    }

    /// Forgets a name, and tells what was remembered of it.
    pub fn take(&mut self, name: &str) -> Option<T> {
        let value = self.of.remove(name)?;
        self.order.retain(|other| **other != *name);
        Some(value)
    }

    pub fn clear(&mut self) {
        self.of = HashMap::new();
        drop(mem::take(&mut self.order));
    }
}

/// How long a handshake waits for its certificate: longer than most orders take, and within `timeouts.handshake` as it is where the
/// file says nothing.
pub const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Handshakes that wait at once, over all listeners.
pub const MOST_WAITING: usize = 64;
/// Wishes that nobody looks at yet.
const MOST_WISHES: usize = 64;
/// Names of which it is remembered that they were refused, and as many that have failed.
const MOST_RESTING: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{message::challenges::proving_certificate, settings::HostPattern};

    const DAY: Duration = Duration::from_secs(86_400);

    fn rules(ask: Option<&str>) -> Option<Arc<OnDemandSettings>> {
        Some(Arc::new(OnDemandSettings {
            names: vec![HostPattern::Exact("shop.test".into()), HostPattern::Below(".customers.test".into())],
            ask: ask.map(|url| url.parse().unwrap()),
            certificates: 10,
            orders_per_hour: 10,
        }))
    }

    fn certificate(clock: &Clock, due: Duration) -> HeldCertificate {
        let key = Arc::new(proving_certificate("shop.test", &[0; 32]).unwrap());
        HeldCertificate { key, due: clock.wall() + due, ends: clock.wall() + due + DAY }
    }

    fn clock() -> Clock {
        Clock::starting_at(UNIX_EPOCH + 20_000 * DAY)
    }

    #[test]
    fn what_no_authority_certifies_is_no_name() {
        let long = format!("{}.test", "a".repeat(64));
        let longest = format!("{}test", "a.".repeat(130));
        for none in [
            "",
            "test",
            ".",
            "a..test",
            "a.test.",
            ".test",
            "10.0.0.1",
            "a.1",
            "a_b.test",
            "-a.test",
            "a-.test",
            "A.test",
            "a.test/..",
            "::1",
            &long,
            &longest,
        ] {
            assert!(!is_certifiable(none), "{none}");
        }
        for name in ["shop.test", "a-b.c1.test", "xn--bcher-kva.example", "1.example"] {
            assert!(is_certifiable(name), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_is_not_permitted() {
        let (on_demand, mut wishes) = OnDemand::new(clock());
        on_demand.wait_for("shop.test", None).await;
        assert!(wishes.try_recv().is_err(), "no listener has such certificates");
        on_demand.govern(rules(None));
        for name in ["10.0.0.1", "a.b.customers.test", "customers.test", "other.test"] {
            on_demand.wait_for(name, None).await;
        }
        assert!(wishes.try_recv().is_err(), "none of them is wished for");
        let denied: HashMap<_, _> = on_demand.denied().into_iter().collect();
        assert_eq!((denied["no-name"], denied["unlisted"]), (1, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_for_one_wish_and_go_on_when_it_is_granted() {
        let clock = clock();
        let (on_demand, mut wishes) = OnDemand::new(clock.clone());
        on_demand.govern(rules(None));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let on_demand = Arc::clone(&on_demand);
                tokio::spawn(async move {
                    on_demand.wait_for("a.customers.test", None).await;
                    on_demand.find("a.customers.test").is_some()
                })
            })
            .collect();
        let wish = wishes.recv().await.unwrap();
        on_demand.hold(&wish.name, &certificate(&clock, DAY));
        drop(wish);
        for waiting in waiting {
            assert!(waiting.await.unwrap());
        }
        assert!(wishes.try_recv().is_err(), "they had one wish");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end_and_a_bound() {
        let clock = clock();
        let (on_demand, mut wishes) = OnDemand::new(clock.clone());
        on_demand.govern(rules(Some("http://ask.test/")));
        let before = clock.now();
        on_demand.wait_for("slow.test", None).await;
        assert_eq!(clock.now().since(before), LONGEST_WAIT);
        let wish = wishes.recv().await.unwrap();
        let waiting = || {
            let on_demand = Arc::clone(&on_demand);
            tokio::spawn(async move { on_demand.wait_for("slow.test", None).await })
        };
        let waiting: Vec<_> = (0..MOST_WAITING).map(|_| waiting()).collect();
        while on_demand.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let before = clock.now();
        on_demand.wait_for("slow.test", None).await;
        on_demand.wait_for("other.test", None).await;
        assert_eq!(clock.now(), before, "one more does not wait");
        assert_eq!(*wishes.try_recv().unwrap().name, *"other.test", "but has what it asks for made");
        drop(wish);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        // What has been refused is not wished for until its rest is over.
        on_demand.rest_refused("slow.test", DAY);
        on_demand.wait_for("slow.test", None).await;
        assert!(wishes.try_recv().is_err() && clock.now() == before);
        tokio::time::advance(DAY).await;
        on_demand.wait_for("slow.test", None).await;
        assert_eq!(*wishes.try_recv().unwrap().name, *"slow.test");
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_leaves_places_and_wishes_to_others() {
        let (on_demand, mut wishes) = OnDemand::new(clock());
        on_demand.govern(rules(Some("http://ask.test/")));
        let wait = |name: String, client| {
            let on_demand = Arc::clone(&on_demand);
            tokio::spawn(async move { on_demand.wait_for(&name, Some(client)).await })
        };
        let of_one: Vec<_> = (0..2 * MOST_WAITING).map(|number| wait(format!("{number}.test"), 1)).collect();
        let of_another = wait("other.test".to_owned(), 2);
        tokio::time::sleep(LONGEST_WAIT / 2).await;
        assert_eq!(of_one.iter().filter(|waits| !waits.is_finished()).count(), MOST_WAITING / 8);
        assert!(!of_another.is_finished());
        let names: Vec<_> =
            std::iter::from_fn(|| wishes.try_recv().ok()).map(|wish| wish.name.clone()).collect();
        assert_eq!(
            (names.len(), names.last().map(|name| &**name)),
            (MOST_WISHES / 8 + 1, Some("other.test"))
        );
        for waits in of_one {
            waits.await.unwrap();
        }
        of_another.await.unwrap();
        // What it had is over: it may have as much again.
        let again = wait("more.test".to_owned(), 1);
        tokio::time::sleep(LONGEST_WAIT / 2).await;
        assert!(!again.is_finished() && *wishes.try_recv().unwrap().name == *"more.test");
    }

    /// They shared one list, so that ten thousand foreign names had a name ordered again that rests for six hours.
    #[tokio::test(start_paused = true)]
    async fn names_that_are_refused_shorten_no_rest_of_one_that_has_failed() {
        let (on_demand, mut wishes) = OnDemand::new(clock());
        on_demand.govern(rules(None));
        on_demand.rest_failed("shop.test", DAY);
        for n in 0..=MOST_RESTING {
            on_demand.rest_refused(&format!("{n}.test"), DAY);
        }
        on_demand.wait_for("shop.test", None).await;
        assert!(wishes.try_recv().is_err(), "it rests");
        on_demand.govern(rules(None));
        assert!(on_demand.wish("shop.test", None).is_ok(), "other rules end all rests");
    }

    #[tokio::test(start_paused = true)]
    async fn wishes_that_nobody_looks_at_are_bounded() {
        let (on_demand, mut wishes) = OnDemand::new(clock());
        on_demand.govern(rules(Some("http://ask.test/")));
        let denied =
            (0..2 * MOST_WISHES).filter(|n| on_demand.wish(&format!("{n}.test"), None).is_err()).count();
        assert_eq!(denied, MOST_WISHES);
        while wishes.try_recv().is_ok() {}
        assert!(on_demand.wishes.lock().under_way.is_empty(), "what is over is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_renewed_when_it_is_asked_for_and_let_go_of_when_it_has_ended() {
        let clock = clock();
        let (on_demand, mut wishes) = OnDemand::new(clock.clone());
        on_demand.govern(rules(None));
        on_demand.hold("shop.test", &certificate(&clock, DAY));
        assert!(on_demand.find("shop.test").is_some() && wishes.try_recv().is_err());
        tokio::time::advance(DAY).await;
        assert!(wishes.try_recv().is_err(), "nobody has asked for it");
        assert!(on_demand.find("shop.test").is_some(), "it is good meanwhile");
        assert_eq!(*wishes.try_recv().unwrap().name, *"shop.test");
        assert!(on_demand.let_go_of_ended().is_empty());
        tokio::time::advance(DAY).await;
        assert!(on_demand.find("shop.test").is_none(), "it has ended");
        let ended = on_demand.let_go_of_ended();
        assert_eq!((ended.len(), &*ended[0], on_demand.held().0), (1, "shop.test", 0));
    }

    #[test]
    fn the_first_remembered_is_the_first_forgotten() {
        let mut names = RememberedNames::new(2);
        for (name, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            names.insert(name, value);
        }
        assert_eq!((names.get("a"), names.get("b"), names.get("c")), (None, Some(&2), Some(&4)));
        assert_eq!((names.take("b"), names.take("b")), (Some(2), None));
        names.insert("d", 5);
        assert_eq!((names.get("c"), names.get("d")), (Some(&4), Some(&5)));
    }
}
