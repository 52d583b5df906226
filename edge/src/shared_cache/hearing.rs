//! Follows the log of purges, and keeps this edge's lease.
//!
//! ```text
//!   connect ---> join: the epoch ---> wait for the log ---> each purge passes this edge's gate ---> say how far --.
//!      ^                                    ^                                                                     |
//!      '-- whatever fails, after a pause ---+---- the lease runs again, once all is heard that was there ---------'
//! ```
//!
//! **The lease.** Whoever purges waits for every edge that has said something within [`super::lease::LEASE`], by the purger's own clock. This
//! edge counts its lease from *before* it said so, and a tenth less, so that its own ends first, whatever the distance between
//! it and Redis. The answer says how many purges there were at that moment; the lease is granted once all of them have
//! passed the gate. No wall clock takes part.
//!
//! **The epoch.** Where the server is another, or has lost what purges rest on, a new epoch begins: nothing in Redis counts that
//! was written before, and what this edge has stored is doubted. Purges of the new epoch wait until every lease of the old one
//! has run out.

use std::{sync::Arc, time::Duration};

use cache_policy::Moment;
use redis::RedisResult;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{
    connection::Connections,
    lease::{OWN_LEASE, WAIT},
    limits::exchange_all,
    live::Live,
    offers::write_all,
    queue::OfferedLater,
    scripts, sentinel,
    state::SharedState,
    tickets::share_tickets,
};
use crate::{
    cache::{
        codec::decode_purge,
        tier::{Hears, TierError},
    },
    settings::Unheard,
};

/// Follows until this edge leaves.
pub(super) async fn until_told(shared: &Arc<SharedState>, offered: OfferedLater) {
    tokio::select! {
        () = shared.leaves.cancelled() => {}
        () = follow(shared) => {}
        () = write_all(shared, offered) => {}
        () = exchange_all(shared) => {}
        () = share_tickets(shared) => {}
        () = show(shared) => {}
    }
}

/// Connects, follows, and connects again.
async fn follow(shared: &Arc<SharedState>) {
    let Some(hears) = shared.hears.get() else { return };
    let mut hearer = Hearer {
        shared,
        hears: &**hears,
        epoch: String::new(),
        since: Moment::default(),
        heard: 0,
        turn: 0,
        proofs: String::new(),
    };
    let mut told = String::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let failed = match timeout(CONNECTING, Connections::open(&shared.settings)).await {
            Ok(Ok(connections)) => {
                pause = SHORTEST_PAUSE;
                told.clear();
                let address = connections.address.clone();
                tokio::select! {
                    failed = hearer.hear(connections) => failed,
                    failed = sentinel::until_another(&shared.settings, address.as_ref()) => failed,
                }
            }
            Ok(Err(failed)) => failed,
            Err(_) => "no answer in time".into(),
        };
        shared.lose();
        let said = failed.to_string();
        if said != told {
            tracing::warn!(url = %shared.settings.url, "redis: {said}; this edge goes on without, and tries again");
            told = said;
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// Shows whether this edge hears the others.
async fn show(shared: &SharedState) {
    let Some(hears) = shared.hears.get() else { return };
    let mut ticks = interval(SHOWN_EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leased = false;
    loop {
        ticks.tick().await;
        let runs = match shared.settings.unheard {
            Unheard::Validate => hears.standing().is_granted(shared.clock.now()),
            Unheard::Serve => shared.live.load().is_some(),
        };
        shared.metrics.shared().in_touch(runs);
        if leased && !runs {
            tracing::warn!("redis: out of touch with the other edges");
        } else if runs && !leased {
            tracing::info!("redis: in touch with the other edges");
        }
        leased = runs;
    }
}

struct Hearer<'a> {
    shared: &'a Arc<SharedState>,
    hears: &'a dyn Hears,
    epoch: String,
    since: Moment,
    /// The last purge that has passed this edge's gate.
    heard: u64,
    /// What it says is another thing each time, so that whoever looks twice sees that it lives.
    turn: u64,
    /// What certificate authorities are shown at all edges, as last heard.
    proofs: String,
}

/// A purge of the log: its id, and its fields.
type LogEntry = (String, Vec<Vec<u8>>);

impl Hearer<'_> {
    /// Follows until something fails.
    async fn hear(&mut self, mut connections: Connections) -> TierError {
        loop {
            match self.hear_epoch(&mut connections).await {
                // A Redis that loses what it is told again and again is not asked without a pause.
                Ok(()) => sleep(SHORTEST_PAUSE).await,
                Err(failed) => return failed,
            }
        }
    }

    /// Joins, and follows until the epoch ends.
    async fn hear_epoch(&mut self, connections: &mut Connections) -> Result<(), TierError> {
        let (epoch, seq) = connections.join((&self.epoch, self.heard)).await?;
        if epoch != self.epoch {
            if self.shared.settings.unheard == Unheard::Validate {
                self.hears.standing().end();
            }
            if !self.epoch.is_empty() {
                tracing::warn!(
                    "redis: purges may have been lost; what is stored is validated before it is served"
                );
                self.shared.metrics.shared().epoch();
            }
            self.shared.positions.clear();
            (self.epoch, self.since) = (epoch, self.shared.clock.now());
            self.lose_until(seq);
        }
        let live = Live {
            heads: connections.heads.clone(),
            bodies: connections.bodies.clone(),
            prefix: connections.prefix.clone(),
            epoch: self.epoch.as_str().into(),
            since: self.since,
        };
        self.shared.find(live);
        self.hears.catch_up();
        loop {
            if !self.say(connections).await? {
                self.shared.lose();
                return Ok(());
            }
            let news = self.wait(connections).await?;
            self.pass(news).await;
        }
    }

    /// Waits for a purge, or for the time to say again that this edge lives.
    async fn wait(&self, connections: &mut Connections) -> RedisResult<Vec<LogEntry>> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX));
        read.arg("STREAMS").arg(format!("{}:log", connections.prefix)).arg(format!("{}-0", self.heard));
        let read: Option<Vec<(String, Vec<LogEntry>)>> = read.query_async(&mut connections.log).await?;
        Ok(read.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    /// Says how far this edge has heard, and hears the rest; false where the epoch is another.
    async fn say(&mut self, connections: &mut Connections) -> RedisResult<bool> {
        loop {
            self.turn += 1;
            let asked = self.shared.clock.now();
            let mut position = scripts::POSITION.prepare_invoke();
            position.key(&*connections.prefix).arg(&self.epoch).arg(&*self.shared.edge);
            position.arg(self.turn).arg(self.heard).arg(AT_ONCE);
            let (epoch, seq, news, proofs): (String, u64, Vec<LogEntry>, String) =
                position.invoke_async(&mut connections.heads).await?;
            if epoch != self.epoch {
                return Ok(false);
            }
            if proofs != self.proofs {
                self.shared.show_proofs(&proofs);
                self.proofs = proofs;
            }
            let before = self.heard;
            let gap = news.is_empty() && seq > before;
            self.pass(news).await;
            if gap {
                // The log has lost them.
                self.lose_until(seq);
            }
            if self.heard >= seq {
                if self.shared.settings.unheard == Unheard::Validate {
                    self.hears.standing().grant(asked + OWN_LEASE);
                }
                if self.heard == before {
                    return Ok(true);
                }
                // Whoever purged waits for this edge to say that it has heard.
            }
        }
    }

    /// Lets purges pass this edge's gate, in their order.
    async fn pass(&mut self, news: Vec<LogEntry>) {
        let mut heard = 0;
        for (id, fields) in news {
            let Some(seq) = id.split('-').next().and_then(|seq| seq.parse::<u64>().ok()) else { continue };
            if seq <= self.heard {
                continue;
            }
            let field =
                |name: &[u8]| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| &pair[1]);
            if field(b"epoch").is_none_or(|epoch| **epoch != *self.epoch.as_bytes()) {
                // Of another server, which another connection has reached: `say` will tell.
                return;
            }
            if seq != self.heard + 1 {
                self.lose_until(seq - 1);
            }
            // This edge's own have passed its gate before Redis was told.
            if field(b"edge").is_none_or(|edge| **edge != *self.shared.edge.as_bytes()) {
                match field(b"purge").map(|record| decode_purge(record)) {
                    Some(Ok(purge)) => self.hears.purge(purge, self.shared.clock.now()).await,
                    // Too long for the log, or of an edge of another version.
                    _ => self.hears.doubt(),
                }
                heard += 1;
            }
            self.heard = seq;
        }
        if heard > 0 {
            self.shared.metrics.shared().heard(heard);
        }
        self.shared.positions.note(self.hears.generation(), self.heard);
    }

    /// The purges up to there will not be heard any more.
    fn lose_until(&mut self, seq: u64) {
        self.hears.doubt();
        self.heard = seq;
        self.shared.positions.note(self.hears.generation(), seq);
    }
}

/// Purges heard at once.
const AT_ONCE: usize = 128;
const CONNECTING: Duration = Duration::from_secs(3);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHOWN_EACH: Duration = Duration::from_millis(100);
