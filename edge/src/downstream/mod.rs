//! What a client's socket says: from a listening address to requests and their answers on the wire.
//!
//! [`listen`] makes the sockets, [`tls`] terminates; [`connection`] is one client's connection from accept to close, [`http2`]
//! its streams where it speaks HTTP/2; [`socket`] sits under either, [`coalesce`] gathers what HTTP/2 writes, [`deadlines`]
//! says when a connection is late. Nothing here knows what a request is answered with: that is [`crate::pipeline`]'s.

pub mod coalesce;
pub mod connection;
pub mod deadlines;
pub mod http2;
pub mod listen;
pub mod socket;
pub mod tls;
