//! The edge alone, over a scripted upstream: real program, real sockets, real clients.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod caching;
mod codings;
mod codings_kept;
mod collapse;
mod commands;
mod drain;
mod failure;
mod flood;
mod http2;
mod impostors;
mod interim;
mod invalidation;
mod limits;
mod load;
mod memory;
mod metrics;
mod overload;
mod protocol;
mod purge;
mod reload;
mod resume;
mod slowness;
mod stopping;
mod streaming;
mod upgrade;
