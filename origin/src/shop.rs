//! What the handlers of one origin share.

use std::{net::IpAddr, sync::Arc};

use crate::{
    activity_log::ActivityLog, database::Database, observe::Metrics, passwords::Passwords, replicas::Reads,
    search::Searches, traces::Tracer,
};

#[derive(Debug, Clone)]
pub struct Shop {
    pub database: Database,
    /// For reading, from replicas where there are any.
    pub reads: Reads,
    pub metrics: Arc<Metrics>,
    pub tracer: Tracer,
    pub activity: ActivityLog,
    pub passwords: Passwords,
    pub searches: Searches,
    /// Where customers find the shop, for mails to them.
    pub site: Arc<str>,
    /// Peers that may say for whom they ask.
    pub proxies: Arc<[IpAddr]>,
}
