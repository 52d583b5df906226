//! The real pipeline in memory: [`edge::pipeline::handle`] between a client and a scripted origin, over pipes, on paused
//! time. Nothing here opens a socket or waits for a clock.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod admission;
mod as_sent;
mod balance;
mod beside_get;
mod caching;
mod client;
mod codings;
mod collapse;
mod cookies;
mod cross_origin;
mod evidence;
mod explain;
mod failure;
mod freshening;
mod front;
mod hostile;
mod http2;
mod interim;
mod invalidation;
mod keys;
mod lifetimes;
mod limits;
mod parts;
mod pass;
mod played;
mod pool;
mod purge;
mod reach;
mod representation;
mod request_id;
mod resume;
mod routes;
mod servers;
mod shares;
mod slices;
mod tiers;
mod times;
mod unasked;
mod upstream;
mod withdrawn;
