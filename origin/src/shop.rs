//! What the handlers of one origin share.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;

use crate::{
    activity_log::ActivityLog, common_memory::CommonMemory, database::Database, observe::Metrics,
    passwords::Passwords, replicas::Reads, search::Searches, traces::Tracer,
};

#[derive(Debug, Clone)]
pub struct Shop {
    pub database: Database,
    /// For reading, from replicas where there are any.
    pub reads: Reads,
    /// What all instances remember of what was read.
    pub memory: CommonMemory,
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

impl Shop {
    /// What is remembered of what everybody may see: nothing for who has just written, and reads what they wrote.
    pub(crate) fn memory_for(&self, headers: &HeaderMap) -> CommonMemory {
        if self.reads.has_written(headers) { CommonMemory::default() } else { self.memory.clone() }
    }
}
