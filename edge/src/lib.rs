//! The edge: a caching gateway. This file is the map of the house; rooms stand from the top floor to the ground.
//!
//! The life of a request, with the room that each step is in:
//!
//! ```text
//! downstream   accept -> TLS -> HTTP/1.x or HTTP/2 -> pipeline::handle
//! request      inbound::read -> client::identify -> route::find -> limit::Limiter::admit
//! cache        Key::on_route -> Memory::look_up -> select::Selection::find, decide (by cache-policy)
//! pipeline       Serve            the stored answer
//!                ServeAndRefresh  the stored answer, and a fetch behind the client's back
//!                Fetch            lead a fetch or follow one: Collapser -> fetch::start
//!                Pass             upstream, for this client alone
//!                OnlyIfCached     504
//! fetch        tiers -> upstream -> cache_policy::admit -> Recording -> Memory::store; readers follow
//! response     preconditions, range -> content coding -> Age, Via, Cache-Status
//! observe      the record travels in the body: log line and metrics at its end
//! ```
//!
//! Arrows point down: a room imports rooms of lower floors only, and never one of its own floor.
//!
//! ```text
//! cli           commands
//! server        every thread and task: start, accept, reload, drain, stop
//! admin         the operator's listener
//! downstream    connections of clients
//! pipeline      the order of the stages       | explain    why a request is answered as it is
//! fetch         one fetch for the cache
//! state         what all threads share
//! response      what a client gets
//! cache         stored responses and fills    | upstream   where misses go
//! request       who, what, where, how often   | observe    what is recorded of a request
//! message       the words that all rooms share
//! settings, clock                             the ground, open to all; cache-policy lies under it
//! ```
//!
//! Only [`pipeline`] knows the order of the stages. Below [`downstream`] only [`pipeline::tunnel`] touches a client's
//! socket; what decides (`cache-policy`, [`request`], `cache::select`, `upstream::choose`) does no I/O.
#![forbid(unsafe_code)]

pub mod cli;
pub mod server;

pub mod admin;
pub mod downstream;

pub mod explain;
pub mod pipeline;

pub mod fetch;
pub mod state;

pub mod acme;
pub mod response;

pub mod cache;
pub mod upstream;

pub mod observe;
pub mod request;

pub mod clock;
pub mod message;
pub mod settings;
pub mod shared_cache;
