//! What stands behind a proxy that is attacked: an HTTP/1.1 server that does each request's work at once, and keeps nothing of it.
//!
//! Who asks for `/hit/..` or `/miss/..` gets what [`answer`] says for it, so that a good client sees whether an answer is its own.
//! The rest is what attackers ask for.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime, sync::Barrier};

use crate::faulty::{Asked, answer};

/// Its name in [`answer`].
pub const NAME: &str = "besieged";
/// What is large.
pub const LARGE: usize = 250_000;

const STORED: &str = "public, max-age=600";
const NOT_STORED: &str = "no-store";

/// Such a server, running on a thread of its own.
#[derive(Debug)]
pub struct Besieged {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Besieged {
    /// Starts it. `/together/..` is answered once so many ask for it at once.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(together: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let gate = Arc::new(Barrier::new(together));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let gate = Arc::clone(&gate);
                let service = service_fn(move |request| serve(Arc::clone(&gate), request));
                // Whatever a proxy does to its connection is its own affair.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, runtime: Some(runtime) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Besieged {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(gate: Arc<Barrier>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut content) = request.into_parts();
    while let Some(Ok(_)) = content.frame().await {}
    let target = head.uri.to_string();
    let asked = Asked { method: head.method.to_string(), target, content: String::new() };
    let first = asked.target.split('/').nth(1).unwrap_or_default();
    let (kept, body) = match first {
        "hit" | "varied" => (STORED, answer(NAME, &asked)),
        "large-hit" => (STORED, "x".repeat(LARGE)),
        "large" => (NOT_STORED, "x".repeat(LARGE)),
        "page" => (NOT_STORED, "x".repeat(8_500)),
        "unique" => (NOT_STORED, "x".repeat(20_000)),
        "together" => {
            gate.wait().await;
            (NOT_STORED, String::new())
        }
        _ => (NOT_STORED, answer(NAME, &asked)),
    };
    let mut response = Response::new(Full::from(body));
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, header::HeaderValue::from_static(kept));
    fields.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    if first == "varied" {
        fields.insert(header::VARY, header::HeaderValue::from_static("X-Variant"));
    }
    if kept == STORED {
        fields.insert(header::ETAG, header::HeaderValue::from_static("\"v1\""));
    }
    Ok(response)
}
