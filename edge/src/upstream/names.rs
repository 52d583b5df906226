//! What names stand for: looked up behind the requests, and kept while nothing newer is known.
//!
//! A name is looked up when it is first needed, and again when the time that its name server gave it is over: by a task, while
//! requests go on with what was found last. When a look-up fails, what was found last stays in force, however old, and the
//! operator is told once. Bounded by the names in the settings: those that nobody asks for are forgotten.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use cache_policy::Moment;
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use parking_lot::{Mutex, RwLock};
use tokio::{net::lookup_host, runtime::Handle, sync::Notify};

use crate::clock::Clock;

/// A look-up under way.
pub type LookingUp<'a> = Pin<Box<dyn Future<Output = io::Result<FoundAddresses>> + Send + 'a>>;

/// Looks names up.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name, at least one, and how long they are good for.
    fn look_up<'a>(&'a self, host: &'a str) -> LookingUp<'a>;
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAddresses {
    pub addresses: Vec<IpAddr>,
    pub good_for: Duration,
}

/// The names in use.
pub struct Names {
    known: Mutex<HashMap<Arc<str>, Name>>,
    resolver: RwLock<Arc<dyn Resolve>>,
    clock: Clock,
    /// Where look-ups run: they outlive the request that made them.
    runtime: Handle,
    this: Weak<Self>,
}

#[derive(Default)]
struct Name {
    /// What was found last; `None` before the first look-up has ended.
    found: Option<Arc<[IpAddr]>>,
    /// When it has to be looked up again.
    due: Moment,
    looking: bool,
    /// Why the last look-up found nothing.
    failed: Option<Arc<io::Error>>,
    asked: Moment,
    changed: Arc<Notify>,
}

impl Names {
    /// No name yet. Look-ups run on the runtime that this is called on.
    pub fn new(resolver: impl Resolve, clock: Clock) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            known: Mutex::default(),
            resolver: RwLock::new(Arc::new(resolver)),
            clock,
            runtime: Handle::current(),
            this: Weak::clone(this),
        })
    }

    /// Asks others from now on. What is known stays until it is due.
    pub fn ask(&self, resolver: impl Resolve) {
        *self.resolver.write() = Arc::new(resolver);
    }

    /// What a name stands for, as far as it is known; a look-up that is due is begun.
    pub fn now(&self, host: &Arc<str>) -> Option<Arc<[IpAddr]>> {
        self.with(host, |name| name.found.clone())
    }

    /// What a name stands for; waits for the first look-up. Dropping the future ends no look-up.
    ///
    /// # Errors
    /// When it has never been found.
    pub async fn addresses(&self, host: &Arc<str>) -> io::Result<Arc<[IpAddr]>> {
        loop {
            let changed = self.with(host, |name| Arc::clone(&name.changed));
            let changed = changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (found, failed, looking) =
                self.with(host, |name| (name.found.clone(), name.failed.clone(), name.looking));
            match (found, failed) {
                (Some(found), _) => return Ok(found),
                (None, Some(error)) if !looking => return Err(io::Error::new(error.kind(), error)),
                _ => changed.await,
            }
        }
    }

    fn with<R>(&self, host: &Arc<str>, read: impl FnOnce(&Name) -> R) -> R {
        let now = self.clock.now();
        let mut known = self.known.lock();
        if !known.contains_key(host) {
            known.retain(|_, name| now < name.asked + FORGOTTEN);
        }
        let name = known.entry(Arc::clone(host)).or_default();
        name.asked = now;
        let never = name.found.is_none() && name.failed.is_none();
        if !name.looking && (never || now >= name.due) {
            name.looking = true;
            self.begin(Arc::clone(host));
        }
        read(name)
    }

    fn begin(&self, host: Arc<str>) {
        let Some(names) = self.this.upgrade() else { return };
        self.runtime.spawn(async move {
            let resolver = Arc::clone(&names.resolver.read());
            let found = match tokio::time::timeout(LOOK_UP, resolver.look_up(&host)).await {
                Ok(found) => found,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            names.settle(&host, found);
        });
    }

    fn settle(&self, host: &Arc<str>, found: io::Result<FoundAddresses>) {
        let now = self.clock.now();
        let mut known = self.known.lock();
        let Some(name) = known.get_mut(host) else { return };
        name.looking = false;
        match found {
            Ok(FoundAddresses { mut addresses, good_for }) => {
                let mut seen = HashSet::new();
                addresses.retain(|address| seen.insert(*address));
                let many = addresses.len() > MOST_ADDRESSES;
                if many && name.found.as_ref().is_none_or(|found| found.len() < MOST_ADDRESSES) {
                    let count = addresses.len();
                    tracing::warn!(
                        host = &**host,
                        count,
                        "a name has more addresses than {MOST_ADDRESSES}: the rest is not used"
                    );
                }
                addresses.truncate(MOST_ADDRESSES);
                name.due = now + good_for.clamp(SHORTEST, LONGEST);
                if name.failed.take().is_some() && name.found.is_some() {
                    tracing::warn!(host = &**host, "a name is found again");
                }
                // Name servers put the same addresses into another order each time: those are no others.
                let same = |found: &Arc<[IpAddr]>| {
                    found.len() == addresses.len() && found.iter().all(|address| seen.contains(address))
                };
                if !name.found.as_ref().is_some_and(same) {
                    tracing::debug!(host = &**host, ?addresses, "what a name stands for");
                    name.found = Some(addresses.into());
                }
            }
            Err(error) => {
                name.due = now + RETRY;
                if name.failed.is_none() && name.found.is_some() {
                    let error = error.to_string();
                    tracing::warn!(
                        host = &**host,
                        error,
                        "a name is not found; what it stood for last stays in force"
                    );
                }
                name.failed = Some(Arc::new(error));
            }
        }
        name.changed.notify_waiters();
    }
}

/// The name servers of the system or of the settings, then whatever else the system asks (its own names, mDNS).
pub struct NameServers {
    resolver: Option<TokioResolver>,
    falls_back: bool,
}

impl NameServers {
    /// Those of the settings, or the system's where there are none.
    ///
    /// # Errors
    /// When they cannot be made use of.
    pub fn new(servers: &[std::net::SocketAddr]) -> io::Result<Self> {
        let builder = match servers {
            [] => match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                // A system without resolv.conf still knows names of its own.
                Err(_) => return Ok(Self { resolver: None, falls_back: true }),
            },
            servers => {
                let servers = servers.iter().map(|server| {
                    let mut config = NameServerConfig::udp_and_tcp(server.ip());
                    for connection in &mut config.connections {
                        connection.port = server.port();
                    }
                    config
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let mut builder = builder;
        let options = builder.options_mut();
        // What is found is kept here, by its own time.
        options.cache_size = 0;
        options.timeout = ATTEMPT;
        options.negative_max_ttl = Some(Duration::ZERO);
        let resolver = builder.build().map_err(io::Error::other)?;
        Ok(Self { resolver: Some(resolver), falls_back: servers.is_empty() })
    }
}

impl Resolve for NameServers {
    fn look_up<'a>(&'a self, host: &'a str) -> LookingUp<'a> {
        Box::pin(async move {
            let failed = match &self.resolver {
                None => io::ErrorKind::NotFound.into(),
                Some(resolver) => match resolver.lookup_ip(host).await {
                    Ok(found) => {
                        let addresses: Vec<IpAddr> = found.iter().collect();
                        let lifetimes = found.as_lookup().answers().iter().map(|record| record.ttl);
                        let good_for = Duration::from_secs(lifetimes.min().unwrap_or(0).into());
                        if !addresses.is_empty() {
                            return Ok(FoundAddresses { addresses, good_for });
                        }
                        io::ErrorKind::NotFound.into()
                    }
                    Err(error) => io::Error::other(error),
                },
            };
            if !self.falls_back {
                return Err(failed);
            }
            let addresses: Vec<IpAddr> = lookup_host((host, 0)).await?.map(|address| address.ip()).collect();
            if addresses.is_empty() {
                Err(failed)
            } else {
                Ok(FoundAddresses { addresses, good_for: UNSTATED })
            }
        })
    }
}

/// For all attempts at one look-up.
const LOOK_UP: Duration = Duration::from_secs(10);
/// For one question to one name server.
const ATTEMPT: Duration = Duration::from_secs(2);
/// When a failed look-up is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What is found is good for at least this long, or a name server that says 0 would be asked for every request.
const SHORTEST: Duration = Duration::from_secs(1);
/// And for no longer than this, so that a slip in a zone is not held on to.
const LONGEST: Duration = Duration::from_secs(300);
/// How long what the system finds by itself is good for: it does not say.
const UNSTATED: Duration = Duration::from_secs(5);
/// A name that nobody has asked for in so long is forgotten when another one comes.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Addresses of one name that are kept.
const MOST_ADDRESSES: usize = 64;

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::atomic::{AtomicUsize, Ordering},
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    /// Answers by its script, one look-up after the other, the last one for ever.
    #[derive(Clone)]
    struct Script {
        answers: Arc<Mutex<VecDeque<Answered>>>,
        asked: Arc<AtomicUsize>,
    }

    /// Addresses and the seconds that they are good for; or none.
    type Answered = Option<(&'static str, u64)>;

    impl Script {
        fn new(answers: &[Answered]) -> Self {
            let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
            Self { answers, asked: Arc::default() }
        }

        fn count(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl Resolve for Script {
        fn look_up<'a>(&'a self, _: &'a str) -> LookingUp<'a> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut answers = self.answers.lock();
            let answer = if answers.len() > 1 { answers.pop_front().flatten() } else { answers[0] };
            Box::pin(async move {
                match answer {
                    Some((addresses, seconds)) => Ok(FoundAddresses {
                        addresses: addresses.split(' ').map(|address| address.parse().unwrap()).collect(),
                        good_for: Duration::from_secs(seconds),
                    }),
                    None => Err(io::ErrorKind::NotFound.into()),
                }
            })
        }
    }

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn names(script: &Script) -> (Arc<Names>, Arc<str>) {
        (Names::new(script.clone(), Clock::starting_at(start())), "app.internal".into())
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn shown(found: impl IntoIterator<Item = Arc<[IpAddr]>>) -> String {
        let found: Vec<_> = found.into_iter().collect();
        let all: Vec<String> = found.iter().flat_map(|found| found.iter()).map(ToString::to_string).collect();
        all.join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_behind_the_requests_when_its_time_is_over() {
        let script = Script::new(&[Some(("10.0.0.1", 30)), Some(("10.0.0.2 10.0.0.1", 30))]);
        let (names, host) = names(&script);
        assert_eq!(names.now(&host), None);
        assert_eq!(shown(names.addresses(&host).await.ok()), "10.0.0.1");
        tokio::time::advance(Duration::from_secs(29)).await;
        names.now(&host);
        settle().await;
        assert_eq!(script.count(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shown(names.now(&host)), "10.0.0.1", "nobody waits for the look-up");
        settle().await;
        assert_eq!(shown(names.now(&host)), "10.0.0.2 10.0.0.1");
        assert_eq!(script.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_last_stays_when_a_look_up_fails() {
        let script = Script::new(&[Some(("10.0.0.1", 1)), None, None, Some(("10.0.0.9", 60))]);
        let (names, host) = names(&script);
        names.addresses(&host).await.unwrap();
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(1)).await;
            names.now(&host);
            settle().await;
            assert_eq!(shown(names.now(&host)), "10.0.0.1");
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        names.now(&host);
        settle().await;
        assert_eq!(shown(names.now(&host)), "10.0.0.9");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_was_never_found_is_looked_up_again_after_a_second() {
        let script = Script::new(&[None, Some(("10.0.0.1", 60))]);
        let (names, host) = names(&script);
        assert_eq!(names.addresses(&host).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(names.addresses(&host).await.is_err());
        assert_eq!(script.count(), 1, "not for every request");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shown(names.addresses(&host).await.ok()), "10.0.0.1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifetime_of_nothing_is_a_second() {
        let script = Script::new(&[Some(("10.0.0.1", 0))]);
        let (names, host) = names(&script);
        names.addresses(&host).await.unwrap();
        for _ in 0..100 {
            names.now(&host);
            settle().await;
        }
        assert_eq!(script.count(), 1);
    }
}
