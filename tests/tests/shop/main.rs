//! The shop as a visitor meets it: the edge, the origin it runs, a real PostgreSQL, and the demo's own settings.
#![expect(clippy::unwrap_used, reason = "a test that unwraps says where")]

mod browsing;
mod catalogue;
mod changes;
mod customers;
mod load;
mod office;
mod pages;
mod processes;
mod three;
mod watching;
