//! One worker's part of one public listener: connections in, until the drain.

use std::{net::TcpListener, sync::Arc};

use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::Stop;
use crate::{
    downstream::{connection, listen, socket::ConnectionPermit},
    observe::metrics::ConnectionMetrics,
    state::Edge,
};

/// One worker's socket on one listener.
pub(super) struct Accept {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) metrics: Arc<ConnectionMetrics>,
}

/// Serves every connection that comes, in a task of its own, until the drain begins.
pub(super) async fn accept_all(edge: Arc<Edge>, accept: Accept, places: Arc<Semaphore>, stop: Stop) {
    let _accepting = stop.connections.token();
    let socket = match tokio::net::TcpListener::from_std(accept.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a worker cannot use its socket"),
    };
    let serve = |(stream, address), permit| {
        let place =
            ConnectionPermit { permit, open: accept.metrics.accepted(), token: stop.connections.token() };
        let (edge, tls) = (Arc::clone(&edge), accept.tls.clone());
        tokio::spawn(connection::serve(edge, stream, address, tls, place));
    };
    loop {
        let next = listen::accept(&places, || socket.accept(), || accept.metrics.refused());
        let Some((newcomer, permit)) = stop.drain.run_until_cancelled(next).await else { break };
        serve(newcomer, permit);
    }
    // Connections in the kernel's queue when the drain begins are still served; then the socket closes. The kernel
    // itself is asked: the runtime may not have been notified of the newest yet.
    let Ok(socket) = socket.into_std() else { return };
    while let Ok(permit) = Arc::clone(&places).try_acquire_owned()
        && let Ok((stream, address)) = socket.accept()
    {
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        match stream {
            Ok(stream) => serve((stream, address), permit),
            Err(error) => tracing::debug!(%error, "a connection was lost at the drain"),
        }
    }
}
