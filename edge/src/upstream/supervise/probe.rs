//! Whether an instance is ready.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// Between two looks at an instance that is not ready yet: at first, and at most.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// What one look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn until_ready(address: SocketAddr, path: Option<&str>) {
    let (mut pause, longest) = PROBE_PAUSE;
    loop {
        if let Ok(Some(())) = timeout(PROBE_TIMEOUT, probe(address, path)).await {
            return;
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(longest);
    }
}

/// `Some` when the instance accepts a connection and, with a path, answers 2xx.
async fn probe(address: SocketAddr, path: Option<&str>) -> Option<()> {
    let stream = TcpStream::connect(address).await.ok()?;
    // While nobody listens, a connection to a port the system may also give to clients can meet itself.
    if stream.local_addr().ok()? == stream.peer_addr().ok()? {
        return None;
    }
    let Some(path) = path else { return Some(()) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection may end in the same moment in which it has read the answer: the answer counts all the same.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    answer.ok()?.status().is_success().then_some(())
}

/// What a probe asks, in words.
pub(super) struct Probe<'a>(pub(super) SocketAddr, pub(super) Option<&'a str>);

impl fmt::Display for Probe<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(path) => write!(formatter, "GET http://{}{path} with 2xx", self.0),
            None => write!(formatter, "a connection to {} (its PORT)", self.0),
        }
    }
}
