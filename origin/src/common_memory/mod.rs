//! What the instances of the origin remember for each other in a Redis: who has signed in, lists, counts of pieces in stock.
//!
//! ```text
//!   request ── remembered? ──▶ Redis ── yes ──▶ answer, without the database
//!                                └───── no ───▶ one asks the database and keeps it; others wait a little, or take the older one
//!   change ──▶ outbox ──▶ worker: forget ──▶ Redis, and only then the edges
//!                           └── Redis away: within `LATE + TRUST` no instance believes it any more, then the edges
//! ```
//! PostgreSQL is the truth: nothing is only here, whatever is here goes by itself, and orders and rights never ask here. Redis
//! away, slow or full costs the time of the settings, three times, and then none (`link`).
//!
//! **Forgotten at once.** What is remembered carries the stamps of its tags from before it was read, and counts only while they
//! are the same. To forget is to delete stamps, which works in a full Redis too; a missing one is made anew, by lot, so none that
//! was evicted comes back. A session that has ended is overwritten before its end is answered; tokens are never used again, so this is final.
//!
//! **Never believed for longer than it is told.** Every change that must be forgotten is a row of the outbox until it is. Each
//! instance looks there ([`CommonMemory::watch`]) and believes Redis for `TRUST` from then, unless a row is `LATE`. So while
//! an instance cannot reach Redis, or died before it did, others go on with what it would have forgotten for four seconds at most.

mod link;

use std::{
    hash::{BuildHasher as _, RandomState},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use parking_lot::Mutex;
use redis::{RedisResult, Script};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, PgPool};
use tokio::{
    sync::{self, watch},
    time::{Instant, sleep, timeout},
};

use self::link::Link;
use crate::{
    caching::{CATALOGUE, EntityTag, STOCK, Tag},
    cookies,
    observe::Metrics,
    purge::Outdated,
    sessions::User,
    settings::RedisSettings,
};

/// A handle; without a Redis in the settings it remembers nothing.
#[derive(Debug, Clone, Default)]
pub struct CommonMemory {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    settings: RedisSettings,
    trusted_until: Mutex<Option<Instant>>,
    /// Who makes what is not remembered, in this instance: by a digest, so two things may share a turn.
    turns: [sync::Mutex<()>; 256],
    digest: RandomState,
    metrics: Arc<Metrics>,
}

/// What a request is about, and with which tags it is forgotten.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    kind: &'static str,
    name: EntityTag,
    tags: &'a [Tag<'a>],
    control: HeaderValue,
}

impl<'a> Subject<'a> {
    /// A list; `name` follows from the build and the question alone.
    pub(crate) fn list(name: EntityTag, tags: &'a [Tag<'a>]) -> Self {
        Self { kind: LIST, name, tags, control: CATALOGUE }
    }

    /// The number of pieces of a product.
    pub(crate) fn stock(name: EntityTag, tags: &'a [Tag<'a>]) -> Self {
        Self { kind: STOCK_COUNT, name, tags, control: STOCK }
    }

    fn name(&self) -> &str {
        self.name.as_str().trim_matches('"')
    }

    /// The same under another Cache-Control.
    pub(crate) fn controlled(self, control: HeaderValue) -> Self {
        Self { control, ..self }
    }
}

/// What was made, or remembered, and the Cache-Control it may have.
#[derive(Debug)]
pub(crate) struct Made<T> {
    pub(crate) value: T,
    pub(crate) control: HeaderValue,
    /// It is the whole of it, and not from a replica alone.
    pub(crate) to_keep: bool,
}

/// What is known of a session.
#[derive(Debug)]
pub(crate) enum Recalled {
    Unknown,
    /// It has ended.
    Nobody,
    Somebody(User),
}

/// What Redis holds of a subject.
struct Held<T> {
    value: T,
    /// It is time to make it anew.
    is_old: bool,
}

/// What somebody holds who is about to make something.
struct Taken<T> {
    /// Nobody else is making it.
    leads: bool,
    stamps: String,
    /// What there was of it, looked at after that: whoever led before has kept what he made before he let go.
    found: Option<T>,
}

impl CommonMemory {
    /// # Errors
    /// The URL cannot be used, or the file of authorities.
    pub fn new(settings: &RedisSettings, metrics: &Arc<Metrics>) -> RedisResult<Self> {
        let Some(url) = &settings.url else { return Ok(Self::default()) };
        let inner = Inner {
            link: Link::new(url, settings, Arc::clone(metrics))?,
            settings: settings.clone(),
            trusted_until: Mutex::new(None),
            turns: std::array::from_fn(|_| sync::Mutex::default()),
            digest: RandomState::new(),
            metrics: Arc::clone(metrics),
        };
        Ok(Self { inner: Some(Arc::new(inner)) })
    }

    /// Whether there is a Redis in the settings.
    pub fn is_there(&self) -> bool {
        self.inner.is_some()
    }

    fn believed(&self) -> Option<&Inner> {
        let inner = self.inner.as_deref()?;
        inner.trusted_until.lock().is_some_and(|until| Instant::now() < until).then_some(inner)
    }

    /// What is remembered of `subject`; otherwise what `make` makes, which is remembered if it is to be kept. Of many that ask at
    /// once one makes it. Dropped meanwhile, the next one does, at once in this instance and after `LEAD` in others.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn recall<T: Serialize + DeserializeOwned, E>(
        &self,
        subject: &Subject<'_>,
        make: impl Future<Output = Result<Made<T>, E>>,
    ) -> Result<Made<T>, E> {
        // Held once, whichever way it goes.
        let make = pin!(make);
        let Some(inner) = self.believed() else { return make.await };
        let remembered = |value| Ok(Made { value, control: subject.control.clone(), to_keep: false });
        match inner.look_up(subject).await {
            // Redis does not answer.
            None => inner.make(subject, None, make).await,
            Some(Some(Held { value, is_old: false })) => {
                inner.count(subject.kind, "hit");
                remembered(value)
            }
            Some(Some(Held { value, is_old: true })) => {
                match inner.take::<T>(subject).await.filter(|taken| taken.leads) {
                    None => {
                        inner.count(subject.kind, "old");
                        remembered(value)
                    }
                    taken => inner.make(subject, taken, make).await,
                }
            }
            Some(None) => {
                let [turn, ..] = inner.digest.hash_one(subject.name()).to_le_bytes();
                // Who has waited for long enough goes on without a turn.
                let _turn =
                    timeout(inner.settings.collapse_timeout, inner.turns[usize::from(turn)].lock()).await;
                match inner.wait(subject).await {
                    Ok(value) => {
                        inner.count(subject.kind, "shared");
                        remembered(value)
                    }
                    Err(taken) => inner.make(subject, taken, make).await,
                }
            }
        }
    }

    /// Who has signed in with this token.
    pub(crate) async fn session(&self, token: &str) -> Recalled {
        let Some(inner) = self.believed() else { return Recalled::Unknown };
        let name = hex(&cookies::digest(token));
        let asked = inner.link.ask(async |mut line| {
            redis::cmd("GET").arg(line.key(SESSION, &name)).query_async(&mut line.connection).await
        });
        let held: Option<Vec<u8>> = asked.await.flatten();
        let recalled = match held.as_deref() {
            None => Recalled::Unknown,
            Some([]) => Recalled::Nobody,
            Some(user) => serde_json::from_slice(user).map_or(Recalled::Unknown, Recalled::Somebody),
        };
        inner.count(SESSION, if matches!(recalled, Recalled::Unknown) { "miss" } else { "hit" });
        recalled
    }

    /// Remembers it, unless it has ended since `read`, when the database was asked. It has `left` until it ends by itself.
    pub(crate) async fn keep_session(&self, token: &str, user: &User, read: Instant, left: Duration) {
        let Some(inner) = self.believed().filter(|_| read.elapsed() < LONGEST_READ) else { return };
        let Ok(user) = serde_json::to_vec(user) else { return };
        let name = hex(&cookies::digest(token));
        let life = milliseconds(left.min(inner.settings.sessions));
        let asked = inner.link.ask(async |mut line| {
            let mut keep = redis::cmd("SET");
            keep.arg(line.key(SESSION, &name)).arg(user).arg("NX").arg("PX").arg(life);
            keep.exec_async(&mut line.connection).await
        });
        asked.await;
    }

    /// Has these sessions, by the digests of their tokens, ended for every instance; whether that is known. Where it is not, the
    /// outbox has it done.
    pub(crate) async fn end_sessions(&self, digests: impl IntoIterator<Item = impl AsRef<[u8]>>) -> bool {
        let names = digests.into_iter().map(|digest| hex(digest.as_ref())).collect();
        self.end(names).await
    }

    async fn end(&self, names: Vec<String>) -> bool {
        let Some(inner) = self.inner.as_deref().filter(|_| !names.is_empty()) else { return true };
        let asked = inner.link.ask(async |mut line| {
            let script = Script::new(END);
            let mut end = script.prepare_invoke();
            for name in &names {
                end.key(line.key(SESSION, name));
            }
            end.arg(milliseconds(LONGEST_READ * 2)).invoke_async::<()>(&mut line.connection).await
        });
        asked.await.is_some()
    }

    /// Forgets what shows any of this; whether that is known. For the outbox, which has patience.
    pub(crate) async fn forget(&self, connection: &mut PgConnection, outdated: &Outdated) -> bool {
        let Some(inner) = self.inner.as_deref() else { return true };
        let sessions: Vec<String> = outdated.sessions().map(str::to_owned).collect();
        let products: Vec<i64> =
            outdated.tags().filter_map(|tag| tag.strip_prefix("product-")?.parse().ok()).collect();
        // Counts of stock are asked for by names.
        let named = sqlx::query_scalar::<_, String>(SLUGS).bind(products).fetch_all(connection).await;
        let Ok(slugs) = named else { return false };
        let mut tags: Vec<String> = outdated.tags().map(str::to_owned).collect();
        tags.extend(slugs.iter().map(|slug| Tag::Stock(slug).to_string()));
        tags.extend(outdated.is_everything().then(|| EVERYTHING.to_owned()));
        let asked = inner.link.ask_for(FORGET, async |mut line| {
            let mut forget = redis::cmd("UNLINK");
            for tag in &tags {
                forget.arg(line.key(STAMP, tag));
            }
            if tags.is_empty() { Ok(()) } else { forget.exec_async(&mut line.connection).await }
        });
        asked.await.is_some() && self.end(sessions).await
    }

    /// Keeps the connection, and the trust in what comes by it, until `stop` says so.
    pub async fn watch(self, pool: PgPool, mut stop: watch::Receiver<bool>) {
        let Some(inner) = self.inner else { return };
        let mut pause = CHECK;
        while !*stop.borrow() {
            let now = Instant::now();
            let answers = inner.link.tend().await;
            let behind = timeout(TRUST, sqlx::query_scalar::<_, bool>(BEHIND).fetch_one(&pool)).await;
            let trusted = answers && matches!(behind, Ok(Ok(false)));
            *inner.trusted_until.lock() = trusted.then(|| now + TRUST);
            inner.metrics.memory_believed.set(trusted.into());
            pause = if answers { CHECK } else { (pause * 2).min(LONGEST_PAUSE) };
            let _ = timeout(pause, stop.changed()).await;
        }
    }
}

impl Inner {
    fn count(&self, kind: &'static str, outcome: &'static str) {
        self.metrics.remembered(kind, outcome);
    }

    /// How long it counts as new. It is kept for twice as long: in the second half one makes it anew, and others take it as it is.
    fn fresh(&self, subject: &Subject<'_>) -> Duration {
        if subject.kind == STOCK_COUNT { self.settings.stock } else { self.settings.lists }
    }

    /// What there is of it; `None`: Redis does not answer.
    async fn look_up<T: DeserializeOwned>(&self, subject: &Subject<'_>) -> Option<Option<Held<T>>> {
        let asked = self.link.ask(async |mut line| {
            let entry = line.key(subject.kind, subject.name());
            let mut pipe = redis::pipe();
            let look = pipe.cmd("MGET").arg(&entry);
            for tag in stamped(subject) {
                look.arg(line.key(STAMP, &tag));
            }
            pipe.cmd("PTTL").arg(entry);
            pipe.query_async::<(Vec<Option<String>>, i64)>(&mut line.connection).await
        });
        let (found, left) = asked.await?;
        let is_old = u128::try_from(left).unwrap_or(0) < self.fresh(subject).as_millis();
        Some(valid(&found).map(|value| Held { value, is_old }))
    }

    /// Takes it upon itself to make it, unless somebody has; `None`: Redis does not answer.
    async fn take<T: DeserializeOwned>(&self, subject: &Subject<'_>) -> Option<Taken<T>> {
        let asked = self.link.ask(async |mut line| {
            let mut pipe = redis::pipe();
            let stamps: Vec<String> = stamped(subject).map(|tag| line.key(STAMP, &tag)).collect();
            for stamp in &stamps {
                let lot = hex(&rand::random::<[u8; 8]>());
                pipe.cmd("SET").arg(stamp).arg(lot).arg("NX").arg("PX").arg(milliseconds(STAMPS)).ignore();
            }
            pipe.cmd("SET").arg(line.key(LEADS, subject.name())).arg(1);
            pipe.arg("NX").arg("PX").arg(milliseconds(self.settings.collapse_timeout.max(LEAD)));
            pipe.cmd("MGET").arg(line.key(subject.kind, subject.name())).arg(stamps);
            pipe.query_async::<(bool, Vec<Option<String>>)>(&mut line.connection).await
        });
        let (leads, found) = asked.await?;
        let stamps: Option<Vec<&str>> = found.iter().skip(1).map(Option::as_deref).collect();
        Some(Taken { leads, stamps: stamps?.join(" "), found: valid(&found) })
    }

    /// What somebody else has made meanwhile, or the word to make it.
    async fn wait<T: DeserializeOwned>(&self, subject: &Subject<'_>) -> Result<T, Option<Taken<T>>> {
        let began = Instant::now();
        loop {
            match self.look_up(subject).await {
                None => return Err(None),
                Some(Some(held)) => return Ok(held.value),
                Some(None) => {}
            }
            let mut taken = self.take(subject).await;
            if let Some(value) = taken.as_mut().and_then(|taken| taken.found.take()) {
                if taken.is_some_and(|taken| taken.leads) {
                    self.let_go(subject).await;
                }
                return Ok(value);
            }
            if taken.as_ref().is_none_or(|taken| taken.leads)
                || began.elapsed() >= self.settings.collapse_timeout
            {
                return Err(taken);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Leaves it to others to make it.
    async fn let_go(&self, subject: &Subject<'_>) {
        let asked = self.link.ask(async |mut line| {
            let leads = line.key(LEADS, subject.name());
            redis::cmd("UNLINK").arg(leads).exec_async(&mut line.connection).await
        });
        asked.await;
    }

    async fn make<T: Serialize, E>(
        &self,
        subject: &Subject<'_>,
        taken: Option<Taken<T>>,
        make: impl Future<Output = Result<Made<T>, E>>,
    ) -> Result<Made<T>, E> {
        self.count(subject.kind, "miss");
        let made = make.await;
        let Some(taken) = taken else { return made };
        let value = made.as_ref().ok().filter(|made| made.to_keep);
        let value = value.and_then(|made| serde_json::to_string(&made.value).ok());
        let value =
            value.filter(|value| value.len() <= LARGEST).map(|value| format!("{}\n{value}", taken.stamps));
        let life = milliseconds(self.fresh(subject) * 2);
        let asked = self.link.ask(async |mut line| {
            let mut pipe = redis::pipe();
            if let Some(value) = value {
                let entry = line.key(subject.kind, subject.name());
                pipe.cmd("SET").arg(entry).arg(value).arg("PX").arg(life).ignore();
            }
            pipe.cmd("UNLINK").arg(line.key(LEADS, subject.name())).ignore();
            pipe.exec_async(&mut line.connection).await
        });
        asked.await;
        made
    }
}

/// The value of an entry, if the stamps behind it are those that it was kept with.
fn valid<T: DeserializeOwned>(found: &[Option<String>]) -> Option<T> {
    let (entry, stamps) = found.split_first()?;
    let (kept, value) = entry.as_ref()?.split_once('\n')?;
    let stamps: Option<Vec<&str>> = stamps.iter().map(Option::as_deref).collect();
    (kept == stamps?.join(" ")).then_some(())?;
    serde_json::from_str(value).ok()
}

/// By what it is forgotten.
fn stamped<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = String> + 'a {
    subject.tags.iter().map(Tag::to_string).chain([EVERYTHING.to_owned()])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

const LIST: &str = "list";
const STOCK_COUNT: &str = "stock";
const SESSION: &str = "session";
const STAMP: &str = "stamp";
const LEADS: &str = "leads";
/// The tag of whatever is remembered.
const EVERYTHING: &str = "everything";

/// Overwrites sessions, in a Redis that is full too.
const END: &str = "#!lua flags=allow-oom
for _, key in ipairs(KEYS) do redis.call('SET', key, '', 'PX', ARGV[1]) end";

const SLUGS: &str = "SELECT slug FROM products WHERE id = ANY($1)";

/// Whether something is to be forgotten that should have been long ago. `delivered_to` has the name of [`NAME`].
const BEHIND: &str = "
    SELECT EXISTS (SELECT FROM outbox
                    WHERE created_at < now() - interval '2 seconds' AND NOT delivered_to @> '{redis}')";

/// What Redis is called in the outbox.
pub(crate) const NAME: &str = "redis";

/// As [`BEHIND`] has it.
const LATE: Duration = Duration::from_secs(2);
const TRUST: Duration = Duration::from_secs(2);
/// A change that is so old is believed by nobody who has not heard of it: a second more than it takes.
pub(crate) const UNHEARD: Duration = LATE.saturating_add(TRUST).saturating_add(Duration::from_secs(1));
const CHECK: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long whoever makes something has before others try, or as long as they wait.
const LEAD: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const FORGET: Duration = Duration::from_secs(1);
/// A session that was read so long ago is not kept: the word that it has ended is there for twice as long.
const LONGEST_READ: Duration = Duration::from_secs(60);
/// A stamp that goes too early costs one time of making anew.
const STAMPS: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer values are made each time.
const LARGEST: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_and_the_constant_say_the_same() {
        assert!(BEHIND.contains(&format!("interval '{} seconds'", LATE.as_secs())));
        assert!(BEHIND.contains(&format!("'{{{NAME}}}'")));
    }
}
