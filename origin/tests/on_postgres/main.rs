//! The origin on a real PostgreSQL, which each test starts for itself in a temporary folder.
//!
//! Without PostgreSQL's server programs these tests fail, and say what to install.

mod api;
mod commands;
mod private_server;
mod schema;
mod support;
