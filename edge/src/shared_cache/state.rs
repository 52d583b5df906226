//! What all parts of a shared cache know.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use super::{live::Live, positions::Positions, queue::OfferQueue};
use crate::{cache::tier::Hears, clock::Clock, observe::metrics::TierMetrics, settings::RedisSettings};

/// What all who speak to Redis know.
#[derive(Debug)]
pub(super) struct SharedState {
    pub(super) settings: RedisSettings,
    /// How many variants of one resource are kept.
    pub(super) variants: usize,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<TierMetrics>,
    /// This process, among the edges.
    pub(super) edge: Box<str>,
    pub(super) live: ArcSwapOption<Live>,
    pub(super) positions: Positions,
    pub(super) queue: OfferQueue,
    pub(super) hears: OnceLock<Arc<dyn Hears>>,
    pub(super) leaves: CancellationToken,
}
