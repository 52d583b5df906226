//! Certificates of all edges: one of them asks the authority at a time, each shows what that one is to find, and has what was made.
//!
//! Accounts and certificates lie sealed, and only where there is a secret; turns and proofs are no secret.

use std::time::Duration;

use redis::RedisResult;
use tokio::time::sleep;

use super::{SharedCache, lease::WAIT, live::Live, scripts};
use crate::message::{
    challenges::SharedProof,
    shared_orders::{OrderFuture, SharedOrders, TURN, Turn},
};

impl SharedOrders for SharedCache {
    fn turn<'a>(&'a self, name: &'a str) -> OrderFuture<'a, Turn> {
        Box::pin(async move {
            match self.take_turn(name, TURN).await {
                Some(true) => Turn::Own,
                Some(false) => Turn::Others,
                None => Turn::Unknown,
            }
        })
    }

    fn end_turn<'a>(&'a self, name: &'a str, rest: Duration) -> OrderFuture<'a, ()> {
        // Where this fails the turn ends by itself.
        Box::pin(async move {
            self.take_turn(name, rest).await;
        })
    }

    fn find<'a>(&'a self, what: &'a str) -> OrderFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let (seal, live) = (self.shared.seal.as_ref()?, self.shared.live.load_full()?);
            let mut get = redis::cmd("GET");
            get.arg(place(&live, what));
            let found: Option<Vec<u8>> = get.query_async(&mut live.heads.clone()).await.ok()?;
            seal.open(what, &found?)
        })
    }

    fn leave<'a>(&'a self, what: &'a str, content: &'a [u8]) -> OrderFuture<'a, ()> {
        Box::pin(async move {
            let (Some(seal), Some(live)) = (&self.shared.seal, self.shared.live.load_full()) else { return };
            let Some(sealed) = seal.close(what, content) else { return };
            let mut set = redis::cmd("SET");
            set.arg(place(&live, what)).arg(sealed).arg("EX").arg(KEPT.as_secs());
            if let Err(error) = set.query_async::<()>(&mut live.heads.clone()).await {
                tracing::warn!("redis: the other edges do not get {what}: {error}");
            }
        })
    }

    fn show<'a>(&'a self, name: &'a str, proof: Option<&'a SharedProof>) -> OrderFuture<'a, ()> {
        Box::pin(async move {
            let Some(live) = self.shared.live.load_full() else { return };
            let mut show = scripts::SHOW.prepare_invoke();
            show.key(&*live.prefix).arg(name).arg(proof.map(SharedProof::to_line).unwrap_or_default());
            show.arg(u64::try_from(SHOWN.as_millis()).unwrap_or(u64::MAX));
            let shown: RedisResult<i64> = show.invoke_async(&mut live.heads.clone()).await;
            if shown.is_ok() && proof.is_some() {
                // Each of them hears of it when it says that it lives.
                sleep(HEARD).await;
            }
        })
    }
}

impl SharedCache {
    /// Whether this edge has the turn for so long; `None` where nobody says so.
    async fn take_turn(&self, name: &str, time: Duration) -> Option<bool> {
        let live = self.shared.live.load_full()?;
        let mut turn = scripts::TURN.prepare_invoke();
        turn.key(&*live.prefix).arg(name).arg(&*self.shared.edge);
        turn.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let taken: RedisResult<u8> = turn.invoke_async(&mut live.heads.clone()).await;
        Some(taken.ok()? == 1)
    }
}

fn place(live: &Live, what: &str) -> String {
    format!("{}:s:{what}", live.prefix)
}

/// Every edge that hears has said so again by then.
const HEARD: Duration = WAIT.saturating_mul(5).checked_div(2).expect("two is not zero");
/// Longer than any order takes.
const SHOWN: Duration = Duration::from_secs(600);
/// Longer than a certificate is valid that is worth having.
const KEPT: Duration = Duration::from_secs(400 * 86_400);
