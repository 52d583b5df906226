//! Client, target, route and limit of a request: everything read from its head before a look-up.

pub mod affinity;
pub mod as_sent;
pub mod basic_auth;
pub mod beside_get;
pub mod by_proxy;
pub mod canary;
pub mod client;
pub mod graphql;
pub mod inbound;
pub mod limit;
pub mod maintenance;
pub mod refusal;
pub mod route;
