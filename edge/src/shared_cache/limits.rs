//! Limits that hold over all edges: what clients near their limit have spent here goes to Redis, and what they owe by the count
//! of all comes back, a few times a second and in one round trip. No request waits for it: each edge decides by what it knows.
//!
//! A client is admitted more than its rate allows for no longer than until the next exchange, and pays for it after: over time it
//! has the rate of one edge, wherever it asks. Where Redis is away each edge limits by its own count, and what was under way
//! then counts at this edge alone.

use std::{sync::Arc, time::Duration};

use redis::RedisResult;
use tokio::time::{MissedTickBehavior, interval};

use super::{digest, live::Live, scripts, state::SharedState};
use crate::request::limit::{LimitKey, Limiter};

/// One client's spending at one limit.
struct Spending {
    limiter: Arc<Limiter>,
    client: LimitKey,
    spent: Duration,
    /// When it was taken, by the limiter's time. What it owes was true no earlier.
    at: Duration,
}

/// Exchanges for ever.
pub(super) async fn exchange_all(shared: &SharedState) {
    let mut ticks = interval(EXCHANGED_EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (Some(live), Some(limiters)) = (shared.live.load_full(), shared.limiters.get()) else { continue };
        let spendings = taken(&limiters());
        if spendings.is_empty() {
            continue;
        }
        let owed = exchange(&live, &spendings).await;
        let outcome = if owed.is_ok() { "exchanged" } else { "failed" };
        shared.metrics.shared().exchanged(outcome, spendings.len() as u64);
        for (spending, debt) in spendings.iter().zip(owed.unwrap_or_default()) {
            spending.limiter.owes(spending.client, spending.at, Duration::from_micros(debt));
        }
    }
}

/// Of all limits alike, as far as there is room.
fn taken(limiters: &[Arc<Limiter>]) -> Vec<Spending> {
    let share = MOST_AT_ONCE / limiters.len().max(1);
    let of_limiter = |limiter: &Arc<Limiter>| {
        let at = limiter.now();
        let spent = limiter.spent(share.max(1));
        let limiter = Arc::clone(limiter);
        spent.into_iter().map(move |(client, spent)| Spending {
            limiter: Arc::clone(&limiter),
            client,
            spent,
            at,
        })
    };
    limiters.iter().flat_map(of_limiter).collect()
}

async fn exchange(live: &Live, spendings: &[Spending]) -> RedisResult<Vec<u64>> {
    let mut exchange = scripts::EXCHANGE.prepare_invoke();
    exchange.key(&*live.prefix);
    for Spending { limiter, client, spent, .. } in spendings {
        let limit = limiter.limit();
        exchange.arg(digest::client(limit, *client)).arg(microseconds(*spent));
        exchange.arg(microseconds(limit.interval.saturating_mul(limit.burst.get())));
    }
    exchange.invoke_async(&mut live.heads.clone()).await
}

/// With what lies behind the point: there are rates of more than a million a second.
fn microseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e6)
}

const EXCHANGED_EACH: Duration = Duration::from_millis(100);
/// Clients in one exchange, some hundred microseconds of Redis.
const MOST_AT_ONCE: usize = 512;
