//! What all parts of a shared cache know.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwapOption;
use cache_policy::Moment;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{live::Live, positions::Positions, queue::OfferQueue, seal::Seal};
use crate::{
    cache::tier::Hears,
    clock::Clock,
    message::{
        challenges::{Challenges, SharedProof},
        ticket_keys::TicketKeys,
    },
    observe::metrics::TierMetrics,
    request::limit::Limiter,
    settings::RedisSettings,
};

/// What all who speak to Redis know.
pub(super) struct SharedState {
    pub(super) settings: RedisSettings,
    /// How many variants of one resource are kept.
    pub(super) variants: usize,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<TierMetrics>,
    /// This process, among the edges.
    pub(super) edge: Box<str>,
    pub(super) live: ArcSwapOption<Live>,
    /// Since when there is no connection, where there is none.
    pub(super) lost: Mutex<Option<Moment>>,
    /// What is secret, and how it is sealed.
    pub(super) seal: Option<Seal>,
    pub(super) secrets: EdgeSecrets,
    pub(super) positions: Positions,
    pub(super) queue: OfferQueue,
    pub(super) hears: OnceLock<Arc<dyn Hears>>,
    /// Those that are common to all edges.
    pub(super) limiters: OnceLock<LimitersInForce>,
    pub(super) leaves: CancellationToken,
}

/// The limiters in force.
pub type LimitersInForce = Box<dyn Fn() -> Vec<Arc<Limiter>> + Send + Sync>;

/// Where what edges share arrives that is not about what is stored.
#[derive(Clone, Debug, Default)]
pub struct EdgeSecrets {
    pub tickets: Arc<TicketKeys>,
    pub challenges: Arc<Challenges>,
}

impl SharedState {
    /// There is a connection.
    pub(super) fn find(&self, live: Live) {
        *self.lost.lock() = None;
        self.live.store(Some(Arc::new(live)));
    }

    /// There is none any more.
    pub(super) fn lose(&self) {
        self.lost.lock().get_or_insert_with(|| self.clock.now());
        self.live.store(None);
    }

    /// Shows what an edge that asks for a certificate has to be shown at all.
    pub(super) fn show_proofs(&self, proofs: &str) {
        self.secrets.challenges.show_others(SharedProof::read_all(proofs));
    }
}

impl fmt::Debug for SharedState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedState").field("settings", &self.settings).finish_non_exhaustive()
    }
}
