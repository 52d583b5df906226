//! Purges: stamped and told in one step, then waited for.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cache_policy::Moment;
use redis::RedisResult;
use tokio::time::sleep;

use super::{digest, lease::LEASE, live::Live, scripts, state::SharedState};
use crate::cache::{
    codec::encode_purge,
    purge::Force,
    tier::{Hearing, Purge, TierError},
};

/// Purges, and waits for a connection that comes back, or an epoch that begins, where that takes no longer than a moment: what was
/// lost of this purge is told again.
pub(super) async fn purge(shared: &Arc<SharedState>, purge: &Purge) -> Result<Option<u64>, TierError> {
    let began = shared.clock.now();
    let waits = purge.hearing == Hearing::Everyone;
    loop {
        let live = connected(shared, waits).await?;
        let failed = match told(shared, &live, purge).await {
            Ok(count) => return Ok(count),
            Err(failed) => failed,
        };
        // Whatever failed there, another connection may do.
        while shared.live.load().as_ref().is_none_or(|now| Arc::ptr_eq(now, &live)) {
            if !waits || shared.clock.now().since(began) > PATIENCE {
                return Err(failed);
            }
            sleep(LOOK_AGAIN).await;
        }
        if shared.clock.now().since(began) > PATIENCE {
            return Err(failed);
        }
    }
}

/// The connection there is, or one that was lost a moment ago and comes back.
async fn connected(shared: &SharedState, waits: bool) -> Result<Arc<Live>, TierError> {
    loop {
        if let Some(live) = shared.live.load_full() {
            return Ok(live);
        }
        let lost = *shared.lost.lock();
        let long = lost.is_some_and(|lost| shared.clock.now().since(lost) > PATIENCE);
        if !waits || long {
            return Err("there is no connection to Redis".into());
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Stamps a purge and tells all edges. When it returns, no look-up in Redis finds what it matches, and every edge has heard it
/// or has no lease any more. Dropped, it may be under way all the same.
async fn told(shared: &SharedState, live: &Live, purge: &Purge) -> Result<Option<u64>, TierError> {
    let (facets, prefixes) = digest::facets_of_purge(&purge.rules);
    let record = encode_purge(purge);
    // The others doubt whatever they have stored when they hear of what they cannot read.
    let told = if record.len() <= LONGEST_TOLD { &record[..] } else { &[] };
    let at = purge.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut stamp = scripts::PURGE.prepare_invoke();
    stamp.key(&*live.prefix).arg(&*live.epoch).arg(&*shared.edge);
    stamp.arg(match purge.force {
        Force::Hard => "h",
        Force::Soft => "s",
    });
    stamp.arg(u64::try_from(at).unwrap_or(u64::MAX)).arg(facets).arg(told).arg(STAMPS).arg(prefixes);
    let seq: u64 = stamp.invoke_async(&mut live.heads.clone()).await?;
    if seq == 0 {
        return Err("Redis has lost what purges rest on; it is begun anew".into());
    }
    UnheardPurge { shared, live, seq, said: HashMap::new() }.wait(purge.hearing).await?;
    Ok(None)
}

/// A purge that not everyone has heard yet.
struct UnheardPurge<'a> {
    shared: &'a SharedState,
    live: &'a Live,
    seq: u64,
    /// What each edge said last, and when this was first seen.
    said: HashMap<String, (String, Moment)>,
}

impl UnheardPurge<'_> {
    async fn wait(mut self, hearing: Hearing) -> Result<(), TierError> {
        let began = self.shared.clock.now();
        let mut pause = FIRST_PAUSE;
        loop {
            let now = self.shared.clock.now();
            if self.all_have_heard().await? {
                break;
            }
            if hearing == Hearing::Briefly && now.since(began) > BRIEFLY {
                return Ok(());
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
        // An edge of the epoch before may still trust in its lease.
        let ends = self.live.since + LEASE;
        if hearing == Hearing::Everyone {
            sleep(ends.since(self.shared.clock.now())).await;
        }
        Ok(())
    }

    async fn all_have_heard(&mut self) -> Result<bool, TierError> {
        let edges: RedisResult<HashMap<String, String>> = redis::cmd("HGETALL")
            .arg(format!("{}:edges", self.live.prefix))
            .query_async(&mut self.live.heads.clone())
            .await;
        // Read after the answer came: what an edge said is older.
        let (edges, now) = (edges?, self.shared.clock.now());
        if edges.get("").is_none_or(|epoch| **epoch != *self.live.epoch) {
            return Err("Redis has lost what purges rest on; it is begun anew".into());
        }
        let mut all = true;
        for (edge, said) in edges {
            let heard =
                said.split(' ').nth(1).and_then(|heard| heard.parse::<u64>().ok()).unwrap_or_default();
            if edge.is_empty() || *edge == *self.shared.edge || heard >= self.seq {
                continue;
            }
            let (before, since) = self.said.entry(edge.clone()).or_insert_with(|| (said.clone(), now));
            if *before != said {
                (*before, *since) = (said, now);
            } else if now.since(*since) > LEASE {
                // It has said nothing for as long as it may trust in what it said.
                if self.live.leave_if(&edge, &said).await? > 0 {
                    tracing::warn!(
                        edge,
                        "redis: an edge has not been heard of, and is not waited for any more"
                    );
                    continue;
                }
            }
            all = false;
        }
        Ok(all)
    }
}

/// How long a purge waits for Redis to be there again.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The bound of a purge: patience, and a lease of an edge that is gone, or of an epoch that has ended, with some to spare.
pub(super) const LONGEST: Duration = Duration::from_secs(6);
/// A purge that is longer is not told word by word.
const LONGEST_TOLD: usize = 64 * 1024;
/// Purged things that Redis remembers, of some hundred octets each.
const STAMPS: u64 = 100_000;
/// How long an unsafe request waits for the other edges.
const BRIEFLY: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
