//! One worker's part of one public listener: connections in, until the listener goes or the edge drains.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    downstream::{
        connection::{self, CONNECTIONS, Entrance, share_of},
        listen,
        places::{Place, Places},
        socket::ConnectionPermit,
    },
    message::client_shares::ClientShare,
    observe::metrics::ConnectionMetrics,
    state::Edge,
};

/// What all connections share.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) edge: Arc<Edge>,
    pub(super) places: Arc<Places>,
    /// Of those of them that are encrypted, the places of handshakes.
    pub(super) handshakes: Arc<Places>,
    /// Open connections, and the listeners while they may still accept one.
    pub(super) connections: TaskTracker,
}

/// How the newcomers of a listener are received, until a reload gives others.
pub(super) struct Terms {
    pub(super) entrance: Entrance,
    pub(super) metrics: Arc<ConnectionMetrics>,
}

/// One worker's socket on one listener.
pub(super) struct Accept {
    pub(super) socket: TcpListener,
    pub(super) terms: Arc<ArcSwap<Terms>>,
    /// Cancelled when the listener goes, and when the edge drains.
    pub(super) closing: CancellationToken,
}

/// Serves every connection that comes, in a task of its own, until `closing`. Then the socket closes, and those that the
/// kernel had already received are still served.
pub(super) async fn accept_all(serving: Serving, accept: Accept) {
    let _accepting = serving.connections.token();
    let Accept { socket, terms, closing } = accept;
    let serve = |Newcomer { stream, address, share }, place: Place| {
        let terms = terms.load();
        let (open, token) = (terms.metrics.accepted(), serving.connections.token());
        let permit = ConnectionPermit { place, share, open, token };
        let edge = Arc::clone(&serving.edge);
        tokio::spawn(connection::serve(edge, stream, address, terms.entrance.clone(), permit));
    };
    // Behind a load balancer that introduces clients, whose it is turns out later.
    let admit = |(stream, address): (TcpStream, SocketAddr)| {
        let introduced = terms.load().entrance.introducers.is_some();
        let share =
            if introduced { None } else { share_of(&serving.edge, &serving.places, address.ip()).ok()? };
        Some(Newcomer { stream, address, share })
    };
    let places = &serving.places;
    // Where the closing finds a newcomer without a place. It closes idle connections, too.
    let mut waiting = None;
    loop {
        let next = accepting::next(|| socket.accept(), || terms.load().metrics.not_accepted());
        let Some(newcomer) = closing.run_until_cancelled(next).await else { break };
        // Before it waits for a place: who has too many must not have others' closed.
        let Some(newcomer) = admit(newcomer) else { continue };
        if let Some(place) = places.try_take() {
            serve(newcomer, place);
            continue;
        }
        // With every place taken, one newcomer waits here for one to be given up, the others in the kernel's queue.
        serving.edge.metrics.cut_off(CONNECTIONS);
        match closing.run_until_cancelled(places.take()).await {
            Some(place) => serve(newcomer, place),
            None => {
                waiting = Some(Some(newcomer));
                break;
            }
        }
    }
    // The kernel itself is asked who is in its queue: the runtime may not have been notified of the newest yet.
    let Ok(socket) = socket.into_std() else { return };
    let queued = || {
        let (stream, address) = socket.accept().ok()?;
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        Some((stream.ok()?, address))
    };
    let last = Instant::now() + LAST_NEWCOMERS;
    // No more than the queue holds: others may go on coming as fast as they are served.
    for _ in 0..listen::BACKLOG {
        let Some(newcomer) = waiting.take().or_else(|| queued().map(&admit)) else { break };
        let Some(newcomer) = newcomer else { continue };
        match tokio::time::timeout_at(last, places.take()).await {
            Ok(place) => serve(newcomer, place),
            Err(_) => tracing::debug!("no place for a newcomer at a listener that closes"),
        }
    }
}

/// A connection that may wait for a place.
struct Newcomer {
    stream: TcpStream,
    address: SocketAddr,
    /// One of those that its client may have.
    share: Option<ClientShare>,
}

/// How long newcomers wait for places when the listener closes.
pub(super) const LAST_NEWCOMERS: Duration = Duration::from_secs(1);
