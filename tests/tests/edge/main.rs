//! The edge alone, over a scripted upstream: real program, real sockets, real clients.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod bounds;
mod caching;
mod codings;
mod collapse;
mod commands;
mod cves;
mod drain;
mod failure;
mod faults;
mod http1;
mod http2;
mod impostors;
mod interim;
mod invalidation;
mod jobs;
mod leaving;
mod limits;
mod load;
mod log;
mod one_reading;
mod pass;
mod pool;
mod programs;
mod proxy_protocol;
mod purge;
mod reach;
mod reload;
mod representation;
mod resume;
mod routes;
mod siege;
mod streaming;
mod tls;
mod upgrade;
