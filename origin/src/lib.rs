//! The shop API over PostgreSQL that answers the edge's cache misses.
//!
//! One file a resource, with its SQL beside the handler that uses it. A request meets, in this order: [`server`] (deadline,
//! metrics), a resource (`categories`, `products`, `storefront`, `health`), [`database`] for a connection, and [`caching`] or
//! [`problem`] for the answer.

pub mod settings;

pub mod server;

mod cross_site;
mod input;

mod attempts;
mod categories;
mod health;
pub mod passwords;
mod products;
mod sessions;
pub mod storefront;
pub mod users;

pub mod caching;
pub mod observe;
pub mod problem;

pub mod database;
pub mod private_postgres;
pub mod seed;

pub mod plans;
