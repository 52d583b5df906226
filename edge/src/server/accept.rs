//! One worker's part of one public listener: connections in, until the drain.

use std::{net::TcpListener, sync::Arc, time::Duration};

use tokio_rustls::TlsAcceptor;

use super::Stop;
use crate::{
    downstream::{connection, listen, places::Places, socket::ConnectionPermit},
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
pub(super) async fn accept_all(edge: Arc<Edge>, accept: Accept, places: Arc<Places>, stop: Stop) {
    let _accepting = stop.connections.token();
    let socket = match tokio::net::TcpListener::from_std(accept.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a worker cannot use its socket"),
    };
    let serve = |(stream, address), permit| {
        let (open, token) = (accept.metrics.accepted(), stop.connections.token());
        let place = ConnectionPermit { permit, places: Arc::clone(&places), open, token };
        let (edge, tls) = (Arc::clone(&edge), accept.tls.clone());
        tokio::spawn(connection::serve(edge, stream, address, tls, place));
    };
    loop {
        let next = listen::next(|| socket.accept(), || accept.metrics.refused());
        let Some(newcomer) = stop.drain.run_until_cancelled(next).await else { break };
        // With every place taken, one newcomer waits here for one to be given up, the others in the kernel's queue.
        match stop.drain.run_until_cancelled(places.take()).await {
            Some(permit) => serve(newcomer, permit),
            // The drain closes idle connections too.
            None => match tokio::time::timeout(LAST_NEWCOMER, places.take()).await {
                Ok(permit) => serve(newcomer, permit),
                Err(_) => tracing::debug!("no place for a newcomer at the drain"),
            },
        }
    }
    // Connections in the kernel's queue when the drain begins are still served; then the socket closes. The kernel
    // itself is asked: the runtime may not have been notified of the newest yet.
    let Ok(socket) = socket.into_std() else { return };
    while let Some(permit) = places.try_take()
        && let Ok((stream, address)) = socket.accept()
    {
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        match stream {
            Ok(stream) => serve((stream, address), permit),
            Err(error) => tracing::debug!(%error, "a connection was lost at the drain"),
        }
    }
}

/// How long a newcomer without a place is kept when the drain begins.
const LAST_NEWCOMER: Duration = Duration::from_secs(1);
