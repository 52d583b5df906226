//! The shop API over PostgreSQL that answers the edge's cache misses.
//!
//! One file a resource, with its SQL beside the handler that uses it. A request meets, in this order: [`listener`], [`server`]
//! (deadline, metrics, [`traces`]), `cross_site`, a resource (`products`, `sessions`, `orders`…), [`database`] for a connection, and [`caching`] or
//! [`problem`] for the answer. What a change has to tell others it leaves in the [`outbox`]; [`workers`] do the rest.

pub mod settings;

pub mod listener;
pub mod server;
pub mod shop;
pub mod workers;

mod client;
mod cookies;
mod cross_site;
mod idempotency;
mod input;
pub mod numbers;
mod openapi;
mod pagination;
mod parameters;

mod account;
mod activity;
mod attempts;
mod catalogue;
mod categories;
mod health;
mod office;
mod orders;
mod pages;
pub mod passwords;
mod pictures;
mod products;
pub mod search;
mod sessions;
pub mod users;

pub mod caching;
pub mod common_memory;
pub mod observe;
pub mod problem;
pub mod traces;

pub mod activity_log;
mod batches;
pub mod database;
pub mod housekeeping;
pub mod mail;
pub mod outbox;
pub mod outgoing;
pub mod primary;
pub mod purge;
pub mod replicas;
pub mod seed;

pub mod statements;
