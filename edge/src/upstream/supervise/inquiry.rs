//! What an instance itself is asked, and not its upstream: whether it is ready, what its metrics are.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    message::byte_stream::ByteStream,
    upstream::{address::Address, connect::connect_unix},
};

/// An answer that is read from a connection of its own, which ends when this is dropped.
pub(super) struct Told {
    pub(super) answer: Response<Incoming>,
    pub(super) connection: AbortOnDropHandle<()>,
}

/// Gets a path; `accept` says in which of its forms. Waits for the answer's head without an end of its own: bound it. Dropped,
/// it closes the connection.
pub(super) async fn get(address: &Address, path: &str, accept: Option<&HeaderValue>) -> io::Result<Told> {
    let stream = connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // What becomes of it is told to whoever waits for the answer, or reads it.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let mut request = Request::get(path)
        .header(header::HOST, host(address))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    if let Some(accept) = accept {
        request.headers_mut().insert(header::ACCEPT, accept.clone());
    }
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(Told { answer, connection })
}

/// Connects to where an instance listens.
pub(super) async fn connect(address: &Address) -> io::Result<Box<dyn ByteStream>> {
    let stream = match address {
        Address::Unix(path) => return Ok(Box::new(connect_unix(path, None).await?)),
        Address::UnixOf(path, user) => return Ok(Box::new(connect_unix(path, Some(*user)).await?)),
        // No program listens there.
        Address::Files(_) => return Err(io::ErrorKind::Unsupported.into()),
        Address::Socket(address) => TcpStream::connect(address).await?,
        Address::Name { host, port } => TcpStream::connect((&**host, *port)).await?,
    };
    // While nobody listens, a connection to a port the system may also give to clients can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(Box::new(stream))
}

fn host(address: &Address) -> String {
    address.socket().map_or_else(|| "localhost".to_owned(), |address| address.to_string())
}
