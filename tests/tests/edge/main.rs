//! The edge alone, over a scripted upstream: real program, real sockets, real clients.

mod caching;
mod coding;
mod drain;
mod failure;
mod http2;
mod limits;
mod load;
mod memory;
mod protocol;
mod reload;
mod streaming;
mod upgrade;
