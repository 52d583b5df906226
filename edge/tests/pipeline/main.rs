//! The real pipeline in memory: [`edge::pipeline::handle`] between a client and a scripted origin, over pipes, on paused
//! time. Nothing here opens a socket or waits for a clock.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod caching;
mod collapsing;
mod continuing;
mod explaining;
mod failing;
mod http2;
mod parts;
mod passing;
mod purging;
mod representing;
mod script;
mod tiers;
