//! The one language in which tests say what an upstream answers, whatever carries it.
//!
//! A script is a function from a request, [`Seen`], to a [`Reply`]. [`Scripted`] answers by it, remembers what it was asked, and
//! serves any stream: a pipe in memory, where time may be paused, or a socket. So a test moves to another layer by changing
//! its harness, and its script stays as it is. Replies wait for [`Gate`]s that the test opens, and for nothing else.
//!
//! `Scripted` speaks through hyper and so cannot say anything malformed, nor interim responses; [`Verbatim`] writes the octets
//! it is given.

mod gate;
mod reply;
mod scripted;
mod verbatim;

pub use gate::Gate;
pub use reply::{Pieces, Reply, first, saying};
pub use scripted::{Scripted, Seen};
pub use verbatim::{Octets, Verbatim};
