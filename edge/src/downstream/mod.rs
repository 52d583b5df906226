//! The client side: from a listening address to requests and their answers on the wire.
//!
//! [`listen`] makes the sockets, [`places`] counts who may come in, [`proxy_protocol`] learns from
//! load balancers who they are, [`tls`] terminates; [`connection`] is one client's connection from accept to close,
//! [`http2`] its streams where it speaks HTTP/2; [`socket`] wraps the socket of either, with [`request_line`] for
//! HTTP/1.x, [`coalesce`] gathers the writes of HTTP/2, [`unsent`] bounds what waits for them, `turns` shares the thread among
//! connections, [`unread`] tells of heads that are no requests, [`deadlines`] finds connections that are late. Nothing here decides
//! the answer to a request: [`crate::pipeline`] does.

pub mod coalesce;
pub mod connection;
pub mod control_frames;
pub mod deadlines;
pub mod http2;
pub mod listen;
pub mod places;
pub mod proxy_protocol;
pub mod request_line;
pub mod socket;
pub mod tls;
mod turns;
pub mod unread;
pub mod unsent;
