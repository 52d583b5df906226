//! What the edge remembers, and how many requests share one fetch.
//!
//! [`key`] names a resource; [`stored`] is one stored response with its codings; [`memory`] keeps them inside a budget;
//! [`purge`] keeps what was purged from coming back; [`no_vary_search`] knows queries that mean the same; [`not_stored`] why an answer is not there; [`recording`] is a body while it is being filled; [`collapse`] lets one fetch answer many requests.
//! [`tier`] is what may stand behind memory, [`tiers`] how the edge uses it, [`pending_purges`] what a tier has not purged yet.
//! Nothing in here knows an upstream or a client.

pub mod collapse;
pub mod held;
pub mod key;
pub mod memory;
pub mod no_vary_search;
pub mod not_stored;
pub mod pending_purges;
pub mod purge;
pub mod recording;
pub mod reservation;
pub mod select;
pub mod stored;
pub mod stored_body;
pub mod tier;
pub mod tiers;

pub use collapse::{Collapser, FetchOutcome, Filling, Joined, Lead};
pub use key::Key;
pub use memory::{Memory, Resource};
pub use recording::Recording;
pub use stored::{Representation, Stored};
pub use stored_body::StoredBody;
pub use tiers::Tiers;
