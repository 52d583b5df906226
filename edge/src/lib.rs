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
pub mod server;

pub mod admin;
pub mod downstream;

pub mod explain;
pub mod pipeline;

pub mod fetch;
pub mod state;

pub mod response;

pub mod cache;
pub mod upstream;

pub mod observe;
pub mod request;

pub mod clock;
pub mod message;
pub mod settings;
