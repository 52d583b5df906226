//! What the edge remembers, and how many requests share one fetch.
//!
//! [`key`] names a resource; [`stored`] is one stored response with its codings; [`memory`] keeps them inside a budget;
//! [`purge`] keeps what was purged from coming back; [`equivalent`] knows queries that mean the same; [`refused`] why an answer is not there; [`recording`] is a body while it is being filled; [`collapse`] lets one fetch answer many requests.
//! [`tier`] is what may stand behind memory, [`tiers`] how the edge uses it, [`underway`] what a tier has not purged yet.
//! Nothing in here knows an upstream or a client.

pub mod collapse;
pub mod equivalent;
pub mod key;
pub mod memory;
pub mod purge;
pub mod recording;
pub mod refused;
pub mod segments;
pub mod stored;
pub mod tier;
pub mod tiers;
pub mod underway;

pub use collapse::{Collapser, Filling, Joined, Lead, Outcome};
pub use key::Key;
pub use memory::{Memory, Resource};
pub use recording::Recording;
pub use segments::Segments;
pub use stored::{Representation, Stored};
pub use tiers::Tiers;
