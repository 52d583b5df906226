//! The edge: a caching gateway. This file is the map of the house; modules stand in the order a request meets them.
//!
//! ```text
//! accept -> TLS -> h1/h2 -> inbound::read -> client::identify -> route::find -> limit::admit -> cache::Key
//!    -> cache.look_up -> policy::decide
//!         Serve | ServeAndRefresh      the stored answer
//!         Fetch                        collapse -> tiers -> upstream -> policy::admit -> recording -> answer
//!         Pass                         upstream, nothing stored
//!    -> preconditions, range -> content coding -> respond (Age, Via, Cache-Status) -> record
//! ```
//!
//! Arrows point one way. `cache-policy` and the pure leaves (`client`, `limit`, `route`, `inbound`, `cache::key`,
//! `upstream::choose`) know no sockets; `cache` and `upstream` own state; only [`handle`] knows the order of the stages;
//! `connection`, `server` and `admin` are shells round it.
#![forbid(unsafe_code)]

pub mod cli;
pub mod settings;

pub mod server;

pub mod listen;
pub mod local_ca;
pub mod tls;

pub mod connection;
pub mod gather;
pub mod http2;
pub mod pulse;
pub mod socket;

pub mod client;
pub mod content;
pub mod inbound;
pub mod interim;
pub mod limit;
pub mod route;

pub mod candidate;
pub mod consequences;
pub mod continuation;
pub mod fetch;
pub mod fill;
pub mod handle;
pub mod partial;
pub mod state;

pub mod cache;
pub mod upstream;

pub mod body;
pub mod compress;
pub mod failure;
pub mod refusal;
pub mod represent;
pub mod respond;
pub mod upgrade;

pub mod admin;
pub mod clock;
pub mod deciding;
pub mod explain;
pub mod metrics;
pub mod record;
