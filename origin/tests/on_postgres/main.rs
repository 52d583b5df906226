//! The origin on a real PostgreSQL, which each test starts for itself in a temporary folder.
//!
//! Without PostgreSQL's server programs these tests fail, and say what to install.

mod edge_double;
mod origin_process;
mod redis_server;
mod requests;
mod test_server;

mod account_life;
mod accounts;
mod activity;
mod api;
mod audits;
mod commands;
mod common_memory;
mod failover;
mod office;
mod orders;
mod outbox;
mod pictures;
mod pressure;
mod private_server;
mod replicas;
mod round_trips;
mod schema;
mod search;
mod slow_queries;
mod traces;
mod typed_statements;

use std::time::Duration;

/// Far above anything that happens: a test that hangs should say where.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
