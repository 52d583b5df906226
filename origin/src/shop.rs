//! What the handlers of one origin share.

use std::{net::IpAddr, sync::Arc};

use crate::{
    activity_log::ActivityLog, database::Database, observe::Metrics, passwords::Passwords, replicas::Reads,
    traces::Tracer,
};

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Shop {
    /// The catalogue and all else that lasts.
    pub database: Database,
    /// The same for reading, from replicas where there are any.
    pub reads: Reads,
    /// Counters of this process.
    pub metrics: Arc<Metrics>,
    /// Where spans begin.
    pub tracer: Tracer,
    /// Where events go.
    pub activity: ActivityLog,
    /// Where passwords are hashed.
    pub passwords: Passwords,
    /// Peers that may say for whom they ask.
    pub proxies: Arc<[IpAddr]>,
}
