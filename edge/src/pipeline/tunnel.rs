//! After 101 (Switching Protocols): bytes both ways until one side ends or both fall silent (RFC 9110 §7.8).

use std::{io, sync::Arc, time::Duration};

use http::{HeaderValue, Request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::{message::hop_by_hop::upgrade_wanted, upstream::ResponseBody};

/// An upgrade that a client asks for, on a connection that can be upgraded.
pub struct Upgrade {
    pub protocol: HeaderValue,
    /// The client's connection, once it has switched.
    pub downstream: OnUpgrade,
}

impl Upgrade {
    /// The upgrade that a request asks for, if the edge forwards it.
    pub fn wanted<B>(request: &mut Request<B>) -> Option<Self> {
        let protocol = upgrade_wanted(request.version(), request.headers())?;
        Some(Self { protocol, downstream: hyper::upgrade::on(request) })
    }
}

/// Joins the two connections, client's and upstream's, once both have switched. Ends when both directions have ended, when
/// nothing has moved either way for `silence`, or when the edge drains. `place` is the upstream connection's place in its
/// pool.
pub fn join(ends: (OnUpgrade, OnUpgrade), place: ResponseBody, silence: Duration, drain: CancellationToken) {
    tokio::spawn(async move {
        let _place = place;
        drain.run_until_cancelled(switched(ends, silence)).await;
    });
}

async fn switched((downstream, upstream): (OnUpgrade, OnUpgrade), silence: Duration) {
    match tokio::try_join!(downstream, upstream) {
        Ok((downstream, upstream)) => {
            if let Err(error) = tunnel(TokioIo::new(downstream), TokioIo::new(upstream), silence).await {
                tracing::debug!(%error, "a tunnel ended");
            }
        }
        Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
    }
}

async fn tunnel<A, B>(left: A, right: B, silence: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (left_read, left_write) = split(left);
    let (right_read, right_write) = split(right);
    let moved = Arc::new(Notify::new());
    let both = async {
        tokio::try_join!(copy(left_read, right_write, &moved), copy(right_read, left_write, &moved))
            .map(|_| ())
    };
    tokio::pin!(both);
    loop {
        tokio::select! {
            done = &mut both => return done,
            () = moved.notified() => {}
            () = tokio::time::sleep(silence) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Copies one direction, its end included.
async fn copy<R, W>(mut from: R, mut to: W, moved: &Notify) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.notify_one();
    }
}

const BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let (mut client, left) = tokio::io::duplex(64);
        let (right, mut server) = tokio::io::duplex(64);
        let tunnel = tokio::spawn(tunnel(left, right, Duration::from_secs(60)));
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
        let error = tunnel(left, right, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
