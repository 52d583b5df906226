//! Stored responses, and fetches that many requests share.
//!
//! [`key`] names a resource; [`stored`] is one stored response with its codings; [`memory`] keeps them inside a budget;
//! [`purge`] keeps purged responses from being stored again: [`rule_set`] says what a purge is about, [`stamps`] remembers
//! it for fetches under way, and [`carriers`] finds what is stored. [`no_vary_search`] finds equivalent queries;
//! [`not_stored`] remembers why a response was not stored; [`recording`] is a body while it is being filled;
//! [`collapse`] lets one fetch answer many requests. [`tier`] is the contract of the tiers behind memory, [`tiers`]
//! uses them, [`pending_purges`] holds the purges that a tier has not acknowledged, [`breaker`] leaves a failing one alone,
//! [`slices`] are octets of one size, each stored by itself; [`codec`] writes what outlives the process, and [`standing`] says whether this edge has heard of the purges of others.
//! Nothing in here knows an upstream or a client.

pub mod breaker;
pub mod carriers;
pub mod codec;
pub mod collapse;
pub mod held;
pub mod key;
mod key_parts;
pub mod locking;
pub mod markers;
pub mod memory;
pub mod no_vary_search;
pub mod not_stored;
pub mod pending_purges;
pub mod purge;
pub mod recording;
pub mod reservation;
pub mod rule;
pub mod rule_set;
pub mod select;
pub mod slices;
pub mod stamps;
pub mod standing;
pub mod stored;
pub mod stored_body;
pub mod tier;
pub mod tiers;
pub mod withdrawn;

pub use collapse::{Collapser, FetchOutcome, Filling, Joined, Lead, Published};
pub use key::Key;
pub use memory::{Memory, Resource};
pub use recording::Recording;
pub use stored::{Representation, Stored};
pub use stored_body::StoredBody;
pub use tiers::Tiers;
