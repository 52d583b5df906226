//! What several edges share through a Redis: what each has stored, and each other's purges.
//!
//! A tier behind memory as [`crate::cache::tier`] has it; `docs/decisions/0016-one-cache-of-several-edges.md` says why it is
//! built so.
//!
//! ```text
//!   worker: a miss ------ look_up.lua: the head, and what was purged since; a large body beside it --> Redis
//!   worker: stored ------ queue, bounded ---> thread `shared-cache`: body, then write.lua -----------> Redis
//!   purge --------------- purge.lua: stamps and log; then waits until every edge has heard -----------> Redis
//!   thread `shared-cache`: the log, heard purge by purge; position.lua: how far, which grants the lease
//!   thread `shared-cache`: each 100 ms exchange.lua: what clients near their limits have spent, and owe
//! ```
//!
//! Nothing here is in the way of a hit, and nothing that fails here fails a request: a look-up that finds no Redis finds
//! nothing. `digest` names things, `scripts` are what runs within Redis, `connection` is the way there, `hearing`
//! follows the log and keeps the `lease`, `positions` sets this process's count of purges beside Redis's, `offers` writes
//! from the `queue`, `reading` looks up, `purging` waits, `limits` exchanges what clients spend,
//! `tickets` and `orders` share what TLS needs, under a `seal`, and `sentinel` says where Redis is.

mod compressing;
mod connection;
mod digest;
mod hearing;
mod lease;
mod limits;
mod live;
mod offers;
mod orders;
mod place;
mod positions;
mod purging;
mod queue;
mod reading;
mod scripts;
mod seal;
mod sentinel;
mod state;
mod tickets;

use std::{
    io,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{runtime, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{
        Key,
        tier::{Found, Hears, Offered, Purge, Tier, TierFuture},
        tiers::TierBounds,
    },
    clock::Clock,
    observe::metrics::Metrics,
    settings::{RedisSettings, Unheard},
};
use positions::Positions;
use queue::OfferedLater;
use seal::Seal;
use state::SharedState;
pub use state::{EdgeSecrets, LimitersInForce};

/// What is wrong with the file that the settings name, if something is.
#[must_use]
pub fn fault(settings: &RedisSettings) -> Option<String> {
    Seal::of_file(settings.secret_file.as_deref()?).err()
}

/// The tier, and the thread that follows what others do.
#[derive(Debug)]
pub struct SharedCache {
    shared: Arc<SharedState>,
    /// Taken when it is attached.
    offered: Mutex<Option<OfferedLater>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl SharedCache {
    /// A tier by these settings, which is idle until it is attached. What is no response goes to `secrets`.
    ///
    /// # Errors
    /// What is wrong with the file of the secret.
    pub fn new(
        settings: RedisSettings,
        variants: usize,
        (clock, metrics): (&Clock, &Metrics),
        secrets: &EdgeSecrets,
    ) -> Result<Arc<Self>, String> {
        let seal = settings.secret_file.as_deref().map(Seal::of_file).transpose()?;
        let (queue, offered) = queue::queue();
        let metrics = metrics.for_tier(NAME);
        metrics.shared().in_touch(false);
        let shared = Arc::new(SharedState {
            settings,
            variants,
            clock: clock.clone(),
            metrics,
            edge: digest::random().into(),
            live: ArcSwapOption::empty(),
            lost: Mutex::new(Some(clock.now())),
            seal,
            secrets: secrets.clone(),
            positions: Positions::default(),
            queue,
            hears: OnceLock::new(),
            limiters: OnceLock::new(),
            leaves: CancellationToken::new(),
        });
        Ok(Arc::new(Self { shared, offered: Mutex::new(Some(offered)), thread: Mutex::default() }))
    }

    /// The bounds that the edge sets it.
    #[must_use]
    pub fn bounds(&self) -> TierBounds {
        TierBounds {
            // Twice, since one edge may have to wait for what another fetches, and then reads it.
            look_up: 2 * self.shared.settings.look_up_timeout + self.shared.settings.collapse_timeout,
            purge: purging::LONGEST,
            look_ups: TierBounds::default().look_ups,
        }
    }

    /// Has these limits count what is spent at all edges. Once.
    pub fn share_limits(&self, limiters: LimitersInForce) {
        // Whoever starts the edge calls it.
        drop(self.shared.limiters.set(limiters));
    }

    /// Tells the others that this edge is gone, so that no purge waits for it, and ends the thread. Waits for it no
    /// longer than a moment.
    pub fn leave(&self) {
        self.shared.leaves.cancel();
        if let Some(thread) = self.thread.lock().take() {
            // It ends within FAREWELL.
            drop(thread.join());
        }
    }

    fn start(&self, offered: OfferedLater) -> io::Result<thread::JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("shared-cache".to_owned()).spawn(move || {
            runtime.block_on(async {
                hearing::until_told(&shared, offered).await;
                if let Some(live) = shared.live.swap(None) {
                    drop(timeout(FAREWELL, live.leave(&shared.edge)).await);
                }
            });
            // A large purge may still be under way in memory.
            runtime.shutdown_background();
        })
    }
}

impl Tier for SharedCache {
    fn name(&self) -> &'static str {
        NAME
    }

    fn look_up<'a>(&'a self, key: &'a Key, request: &'a HeaderMap) -> TierFuture<'a, Option<Found>> {
        Box::pin(async move {
            // While there is no connection nobody waits for one, and nothing is stored there as far as can be known.
            match self.shared.live.load_full() {
                Some(live) => reading::look_up(&self.shared, &live, key, request).await,
                None => Ok(None),
            }
        })
    }

    fn offer(&self, key: &Key, offered: Offered) {
        if let Err(outcome) = self.shared.queue.offer(key, offered, self.shared.settings.largest_object) {
            self.shared.metrics.offered(outcome);
        }
    }

    fn forget(&self, key: &Key) {
        self.shared.queue.forget(key);
    }

    fn purge<'a>(&'a self, purge: &'a Purge) -> TierFuture<'a, Option<u64>> {
        Box::pin(purging::purge(&self.shared, purge))
    }

    fn attach(&self, edge: Arc<dyn Hears>) {
        let Some(offered) = self.offered.lock().take() else { return };
        if self.shared.settings.unheard == Unheard::Validate {
            edge.standing().end();
        }
        drop(self.shared.hears.set(edge));
        match self.start(offered) {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => tracing::error!(%error, "no thread for the shared cache: this edge stands alone"),
        }
    }
}

/// In logs, metrics and Cache-Status.
const NAME: &str = "redis";
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(200);
