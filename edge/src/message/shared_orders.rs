//! What edges that serve the same names tell each other of certificates: whose turn it is to ask the authority, what that one is to
//! be shown wherever it looks, and what it has made.
//!
//! Nothing here fails: an edge that does not reach the others goes on as if it were alone.

use std::{pin::Pin, time::Duration};

use super::challenges::SharedProof;

/// What is asked of the others.
pub type OrderFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Edges that have certificates made in turn.
pub trait SharedOrders: Send + Sync {
    /// Whether this edge may ask for a name's certificate; its turn lasts for [`TURN`], and is taken again before that ends.
    fn turn<'a>(&'a self, name: &'a str) -> OrderFuture<'a, Turn>;

    /// Ends this edge's turn. Nobody else has one for the time given.
    fn end_turn<'a>(&'a self, name: &'a str, rest: Duration) -> OrderFuture<'a, ()>;

    /// What some edge has left, where secrets are shared.
    fn find<'a>(&'a self, what: &'a str) -> OrderFuture<'a, Option<Vec<u8>>>;

    /// Leaves something for all, where secrets are shared.
    fn leave<'a>(&'a self, what: &'a str, content: &'a [u8]) -> OrderFuture<'a, ()>;

    /// Has all edges show this for a name, in place of what they showed; returns when they do.
    fn show<'a>(&'a self, name: &'a str, proof: Option<&'a SharedProof>) -> OrderFuture<'a, ()>;
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Own,
    Others,
    /// The others are not reached.
    Unknown,
}

/// How long a turn lasts that is not taken again.
pub const TURN: Duration = Duration::from_secs(30);
