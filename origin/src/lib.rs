//! The shop API over PostgreSQL that answers the edge's cache misses.
//!
//! One file a resource, with its SQL beside the handler that uses it. A request meets, in this order: [`server`] (deadline,
//! metrics), `cross_site`, a resource (`products`, `sessions`, `orders`…), [`database`] for a connection, and [`caching`] or
//! [`problem`] for the answer. What a change has to tell others it leaves in the [`outbox`]; [`workers`] do the rest.

pub mod settings;

pub mod server;
pub mod workers;

mod cross_site;
mod input;
mod newest_first;
mod openapi;

pub mod activity;
mod attempts;
mod categories;
mod health;
mod orders;
pub mod passwords;
mod products;
mod sessions;
pub mod storefront;
pub mod users;

pub mod caching;
pub mod observe;
pub mod problem;

pub mod database;
pub mod housekeeping;
pub mod outbox;
pub mod private_postgres;
pub mod purge;
pub mod replicas;
pub mod seed;

pub mod plans;
