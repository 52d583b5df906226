//! What must hold of the repository itself.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod book;
mod lints;
mod rooms;
mod versions;
