//! Looks at servers apart from the requests they answer: one task an upstream, which ends with the upstream.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::task::JoinSet;

use super::{Upstream, choose::Chance, health::LookRules};
use crate::{clock::Clock, settings::Check};

/// Looks at every server of an upstream, again and again, until the upstream is gone or replaced. A server that takes long to
/// answer a look holds up no look at another one.
pub(super) async fn watch(upstream: Weak<Upstream>, check: Arc<Check>, clock: Clock) {
    let chance = Chance::default();
    let mut looks = JoinSet::new();
    loop {
        {
            let Some(upstream) = upstream.upgrade() else { return };
            if upstream.is_replaced() {
                return;
            }
            while looks.try_join_next().is_some() {}
            look_at_each(&upstream, &check, &clock, &mut looks);
        }
        tokio::time::sleep(jittered(check.interval, chance.next())).await;
    }
}

fn look_at_each(upstream: &Arc<Upstream>, check: &Arc<Check>, clock: &Clock, looks: &mut JoinSet<()>) {
    let rules = LookRules { rise: check.rise, fall: check.fall, slow_start: upstream.settings.slow_start };
    for member in &upstream.members().list {
        let Some(looking) = member.pool.begin_look() else { continue };
        let (check, clock, dial) = (Arc::clone(check), clock.clone(), Arc::clone(&upstream.dial));
        let upstream = Arc::downgrade(upstream);
        looks.spawn(async move {
            let look = looking.pool().look(&check, dial.as_ref(), &clock).await;
            // What a reload has replaced says nothing any more.
            if upstream.upgrade().is_some_and(|upstream| !upstream.is_replaced()) {
                looking.pool().health().looked(look, rules, clock.now());
            }
        });
    }
}

/// A tenth shorter or longer: many edges, and many upstreams of one, do not all look at the same moment.
fn jittered(interval: Duration, random: u64) -> Duration {
    interval * 9 / 10 + interval.mul_f64((random >> 40) as f64 / (1_u64 << 24) as f64 / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_tenth_shorter_or_longer_at_most() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0), Duration::from_millis(900));
        let longest = jittered(second, u64::MAX);
        assert!(
            longest > Duration::from_millis(1_099) && longest <= Duration::from_millis(1_100),
            "{longest:?}"
        );
    }
}
