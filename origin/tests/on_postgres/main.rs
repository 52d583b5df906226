//! The origin on a real PostgreSQL, which each test starts for itself in a temporary folder.
//!
//! Without PostgreSQL's server programs these tests fail, and say what to install.

mod accounts;
mod activity;
mod api;
mod audits;
mod commands;
mod edge_double;
mod orders;
mod outbox;
mod pressure;
mod private_server;
mod replicas;
mod schema;
mod support;
mod traces;
mod watching;
