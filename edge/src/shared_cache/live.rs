//! A Redis that answers, as all who speak to it know it.

use std::fmt;

use cache_policy::Moment;
use redis::{RedisResult, aio::MultiplexedConnection};

use super::scripts;

/// A Redis that answers.
pub(super) struct Live {
    pub(super) heads: MultiplexedConnection,
    pub(super) bodies: MultiplexedConnection,
    /// What all keys begin with.
    pub(super) prefix: Box<str>,
    pub(super) epoch: Box<str>,
    /// Since when this edge knows of the epoch. Leases of the one before have run out a lease later.
    pub(super) since: Moment,
}

impl fmt::Debug for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Live").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Live {
    /// Tells the others that an edge is gone.
    pub(super) async fn leave(&self, edge: &str) -> RedisResult<i64> {
        self.leave_if(edge, "").await
    }

    /// Forgets an edge that has said nothing since it said this.
    pub(super) async fn leave_if(&self, edge: &str, said: &str) -> RedisResult<i64> {
        let mut heads = self.heads.clone();
        let mut leave = scripts::LEAVE.prepare_invoke();
        leave.key(&*self.prefix).arg(&*self.epoch).arg(edge).arg(said);
        leave.invoke_async(&mut heads).await
    }
}
