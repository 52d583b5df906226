//! After 101 (Switching Protocols): bytes both ways until one side ends or both fall silent (RFC 9110 §7.8).
//!
//! When the edge stops, a tunnel has the drain's time like a request. Then it is closed, a WebSocket with a word.

use std::{io, time::Duration};

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::{
    message::{
        hop_by_hop::{is_upgrade_to, upgrade_asked},
        websocket,
    },
    settings::UpgradeProtocol,
    upstream::SwitchedStream,
};

/// An upgrade that a client asks for, on a connection that can be upgraded.
pub struct Upgrade {
    pub protocol: HeaderValue,
    /// The client's connection, once it has switched.
    pub downstream: OnUpgrade,
}

impl Upgrade {
    /// The upgrade that a request asks for, whether or not its route passes it on.
    pub fn asked<B>(request: &mut Request<B>) -> Option<Self> {
        let protocol = upgrade_asked(request.version(), request.headers())?.clone();
        Some(Self { protocol, downstream: hyper::upgrade::on(request) })
    }

    /// Whether an answer of 101 switches to what was asked for, and to nothing else (RFC 9110 §7.8).
    pub fn is_agreed_to(&self, answer: &HeaderMap) -> bool {
        let mut protocols = answer.get_all(header::UPGRADE).iter();
        let agreed = protocols
            .next()
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()));
        agreed && protocols.next().is_none()
    }

    /// Whether it is to one of these.
    pub fn is_to(&self, allowed: &[UpgradeProtocol]) -> bool {
        is_upgrade_to(&self.protocol, allowed)
    }
}

/// How long a tunnel goes on.
#[derive(Clone, Debug)]
pub struct TunnelBounds {
    /// Without a movement either way.
    pub silence: Duration,
    /// After `stop`: a little less than the drain, so that both sides still hear of the end.
    pub drain: Duration,
    /// Cancelled when the edge stops.
    pub stop: CancellationToken,
}

/// What is spoken in a tunnel, as far as it matters at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    WebSocket,
    Other,
}

impl Upgrade {
    /// What its protocol is.
    pub fn spoken(&self) -> Spoken {
        let is_websocket =
            self.protocol.as_bytes().eq_ignore_ascii_case(UpgradeProtocol::WEBSOCKET.as_bytes());
        if is_websocket { Spoken::WebSocket } else { Spoken::Other }
    }
}

/// Joins the two connections, client's and upstream's, once the client's has switched too. Ends when both directions have
/// ended, when nothing has moved either way for too long, or with the drain.
pub fn join(downstream: OnUpgrade, upstream: SwitchedStream, spoken: Spoken, bounds: TunnelBounds) {
    tokio::spawn(async move {
        match downstream.await {
            Ok(downstream) => {
                if let Err(error) = tunnel(TokioIo::new(downstream), upstream, spoken, &bounds).await {
                    tracing::debug!(%error, "a tunnel ended");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
}

async fn tunnel<C, S>(client: C, server: S, spoken: Spoken, bounds: &TunnelBounds) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (client_read, client_write) = split(client);
    let (server_read, server_write) = split(server);
    let (mut up, mut down) = (Direction::new(server_write), Direction::new(client_write));
    let moved = Notify::new();
    let ended = {
        let both = async {
            tokio::try_join!(up.copy(client_read, &moved), down.copy(server_read, &moved)).map(|_| ())
        };
        let time_is_up = async {
            bounds.stop.cancelled().await;
            tokio::time::sleep(bounds.drain.saturating_sub((bounds.drain / 10).min(FAREWELL))).await;
        };
        tokio::pin!(both, time_is_up);
        loop {
            tokio::select! {
                done = &mut both => break Some(done),
                () = moved.notified() => {}
                () = tokio::time::sleep(bounds.silence) => break Some(Err(io::ErrorKind::TimedOut.into())),
                () = &mut time_is_up => break None,
            }
        }
    };
    if let Some(ended) = ended {
        return ended;
    }
    tracing::info!("a tunnel is closed: the edge stops");
    let goodbyes = async {
        tokio::join!(
            down.say_goodbye(spoken, websocket::GOING_AWAY_TO_CLIENT),
            up.say_goodbye(spoken, websocket::GOING_AWAY_TO_SERVER)
        )
    };
    tokio::time::timeout(FAREWELL, goodbyes).await.map(drop).map_err(io::Error::from)
}

/// What goes one way.
struct Direction<W> {
    to: W,
    frames: websocket::Frames,
    /// Whether a piece has been sent in part: nobody knows how far.
    in_a_piece: bool,
}

impl<W: AsyncWrite + Unpin> Direction<W> {
    fn new(to: W) -> Self {
        Self { to, frames: websocket::Frames::default(), in_a_piece: false }
    }

    /// Copies all that comes, its end included.
    async fn copy(&mut self, mut from: impl AsyncRead + Unpin, moved: &Notify) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return self.to.shutdown().await;
            }
            self.in_a_piece = true;
            self.to.write_all(&buffer[..read]).await?;
            self.to.flush().await?;
            self.frames.sent(&buffer[..read]);
            self.in_a_piece = false;
            moved.notify_one();
        }
    }

    /// Ends this direction, with a last frame where one may stand.
    async fn say_goodbye(&mut self, spoken: Spoken, frame: &[u8]) {
        if spoken == Spoken::WebSocket && !self.in_a_piece && self.frames.at_end() {
            // A side that hears nothing any more needs no goodbye.
            let _ = self.to.write_all(frame).await;
        }
        let _ = self.to.shutdown().await;
    }
}

const BUFFER: usize = 16 * 1024;
/// How long saying goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> TunnelBounds {
        let (silence, drain) = (Duration::from_secs(60), Duration::from_secs(10));
        TunnelBounds { silence, drain, stop: CancellationToken::new() }
    }

    /// Once, a stop cut each WebSocket at once and without a word.
    #[tokio::test(start_paused = true)]
    async fn a_websocket_has_the_drains_time_and_is_then_told_that_the_edge_goes_away() {
        let (mut client, left) = tokio::io::duplex(64);
        let (right, mut server) = tokio::io::duplex(64);
        let bounds = bounds();
        let stop = bounds.stop.clone();
        let tunnel = tokio::spawn(async move { tunnel(left, right, Spoken::WebSocket, &bounds).await });
        stop.cancel();
        tokio::time::advance(Duration::from_secs(8)).await;
        server.write_all(b"\x81\x05hello").await.unwrap();
        let mut frame = [0; 7];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x81\x05hello", "it goes on");
        // The client is in the middle of a frame: the server gets no goodbye into it.
        client.write_all(b"\x81\x85\0").await.unwrap();
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        client.read_to_end(&mut to_client).await.unwrap();
        server.read_to_end(&mut to_server).await.unwrap();
        assert_eq!(
            (to_client.as_slice(), to_server.as_slice()),
            (websocket::GOING_AWAY_TO_CLIENT, &b"\x81\x85\0"[..])
        );
        tunnel.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let (mut client, left) = tokio::io::duplex(64);
        let (right, mut server) = tokio::io::duplex(64);
        let tunnel = tokio::spawn(async move { tunnel(left, right, Spoken::Other, &bounds()).await });
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping");
        server.write_all(b"pong").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
        tunnel.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_tunnel_ends() {
        let (_client, left) = tokio::io::duplex(64);
        let (right, _server) = tokio::io::duplex(64);
        let error = tunnel(left, right, Spoken::WebSocket, &bounds()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
