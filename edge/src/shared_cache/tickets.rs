//! Keys of TLS session tickets, the same at all edges that have one secret: changed every six hours by whichever edge comes first,
//! and known to all one change before they seal.
//!
//! Where Redis is away the keys there are stay in use for half a day; then each edge has its own again, as without Redis.

use std::{collections::VecDeque, future::pending, time::Duration};

use aws_lc_rs::rand;
use cache_policy::Moment;
use redis::RedisResult;
use tokio::time::sleep;

use super::{live::Live, scripts, seal::Seal, state::SharedState};
use crate::message::ticket_keys::TicketKey;

/// Shares them for ever.
pub(super) async fn share_tickets(shared: &SharedState) {
    let Some(seal) = &shared.seal else { return pending().await };
    let mut known = KnownKeys::default();
    loop {
        let now = shared.clock.now();
        let asked = match shared.live.load_full() {
            Some(live) => known.ask(&live, seal).await,
            None => None,
        };
        if let Some(keys) = asked {
            known.as_of = Some(now);
            if known.learn(keys) {
                shared.secrets.tickets.replace(known.in_order());
            }
        } else if known.as_of.is_some_and(|as_of| now.since(as_of) > OLDEST) {
            known = KnownKeys::default();
            shared.secrets.tickets.replace(Vec::new());
        }
        sleep(if known.as_of.is_some() { ASKED_EACH } else { ASKED_AT_FIRST }).await;
    }
}

/// Keys as their octets.
#[derive(Default)]
struct KnownKeys {
    /// The present one first, then the next, then those before, of which the oldest go.
    keys: VecDeque<Vec<u8>>,
    as_of: Option<Moment>,
    /// Whether it has been told that others seal by another secret.
    told: bool,
}

impl KnownKeys {
    /// The keys that Redis has by now: before, present and next.
    async fn ask(&mut self, live: &Live, seal: &Seal) -> Option<[Option<Vec<u8>>; 3]> {
        let [present, next] = [0, 1].map(|at| self.keys.get(at).cloned().or_else(new));
        let sealed = |key: Option<Vec<u8>>| seal.close(WHAT, &key?);
        let mut ask = scripts::TICKETS.prepare_invoke();
        ask.key(&*live.prefix).arg(sealed(present)?).arg(sealed(next)?).arg(sealed(new())?);
        ask.arg(CHANGED_EACH.as_secs());
        let kept: RedisResult<(Vec<u8>, Vec<u8>, Vec<u8>)> = ask.invoke_async(&mut live.heads.clone()).await;
        let (before, present, next) = kept.ok()?;
        let keys = [before, present, next].map(|sealed| seal.open(WHAT, &sealed));
        if keys[1].is_none() && !self.told {
            self.told = true;
            tracing::warn!(
                "redis: the keys of session tickets are sealed by another secret; let `secret_file` be alike at all edges, \
                 or take {}:tickets out of Redis",
                live.prefix
            );
        }
        keys[1].is_some().then_some(keys)
    }

    /// Whether they are others than before. Keys that others have replaced still open.
    fn learn(&mut self, [before, present, next]: [Option<Vec<u8>>; 3]) -> bool {
        let mut keys: VecDeque<Vec<u8>> = [present, next, before].into_iter().flatten().collect();
        for key in &self.keys {
            if !keys.contains(key) {
                keys.push_back(key.clone());
            }
        }
        keys.truncate(MOST);
        let other = keys != self.keys;
        self.keys = keys;
        other
    }

    fn in_order(&self) -> Vec<TicketKey> {
        self.keys.iter().filter_map(|key| TicketKey::of(key)).collect()
    }
}

fn new() -> Option<Vec<u8>> {
    let mut octets = vec![0; TicketKey::LENGTH];
    rand::fill(&mut octets).ok()?;
    Some(octets)
}

/// What is sealed.
const WHAT: &str = "tickets";
const CHANGED_EACH: Duration = Duration::from_secs(6 * 3600);
/// Without word from the others, keys are used no longer.
const OLDEST: Duration = Duration::from_secs(12 * 3600);
const ASKED_EACH: Duration = Duration::from_secs(10);
const ASKED_AT_FIRST: Duration = Duration::from_millis(100);
/// A flush of Redis may bring others at any time.
const MOST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_key_comes_first_and_those_before_still_open() {
        let mut known = KnownKeys::default();
        let key = |octet: u8| Some(vec![octet; TicketKey::LENGTH]);
        let firsts = |known: &KnownKeys| known.keys.iter().map(|key| key[0]).collect::<Vec<_>>();
        assert!(known.learn([None, key(1), key(2)]));
        assert!(!known.learn([None, key(1), key(2)]));
        assert!(known.learn([key(1), key(2), key(3)]));
        assert_eq!(firsts(&known), [2, 3, 1]);
        assert!(known.learn([None, key(8), key(9)]), "of a Redis that has begun anew");
        assert_eq!(firsts(&known), [8, 9, 2, 3]);
        assert_eq!(known.in_order().len(), 4);
    }
}
