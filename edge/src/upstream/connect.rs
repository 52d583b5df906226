//! Dialling a server. A trait, so that tests can put a scripted server behind the real pipeline without a socket.

use std::{future::Future, io, pin::Pin};

use crate::message::byte_stream::ByteStream;
use tokio::net::TcpStream;

/// A connection that is being made.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send + 'a>>;

/// Makes connections.
pub trait Dial: Send + Sync + 'static {
    /// Connects to a host (a name or an address without brackets) and port. Dropping the future gives up.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a>;
}

/// Dials by TCP; names are resolved by the system, anew for each connection.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}
