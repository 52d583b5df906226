//! What the origin believes to be an edge: takes purges, or refuses them, and says which.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{Json, Router, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use crate::PATIENCE;

/// Stands for the tags of a purge of everything.
pub(crate) const EVERYTHING: &str = "(everything)";

/// Before each tag of a soft purge.
pub(crate) const SOFT: &str = "~";

pub(crate) struct EdgeDouble {
    pub(crate) address: SocketAddr,
    status: Arc<AtomicU16>,
    purges: mpsc::UnboundedReceiver<(u16, Vec<String>)>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Double {
    status: Arc<AtomicU16>,
    purges: mpsc::UnboundedSender<(u16, Vec<String>)>,
}

impl EdgeDouble {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address")).await
    }

    pub(crate) async fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, purges) = mpsc::unbounded_channel();
        let status = Arc::new(AtomicU16::new(200));
        let double = Double { status: Arc::clone(&status), purges: sender };
        let router = Router::new().route("/purge", post(purge)).with_state(double);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, status, purges, server }
    }

    /// Answers so from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The tags of the next purge, or [`EVERYTHING`], and the answer it got.
    pub(crate) async fn next(&mut self) -> (u16, Vec<String>) {
        tokio::time::timeout(PATIENCE, self.purges.recv()).await.expect("a purge in time").expect("it runs")
    }

    /// The tags of the next purge that was acknowledged.
    pub(crate) async fn purged(&mut self) -> Vec<String> {
        loop {
            if let (200, tags) = self.next().await {
                return tags;
            }
        }
    }
}

impl Drop for EdgeDouble {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn purge(
    State(double): State<Double>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    assert_eq!(headers["authorization"], "Bearer secret");
    let mut tags: Vec<String> = serde_json::from_value(body["tags"].clone()).expect("a list of tags");
    // What an origin says once when it starts, beside what a test is about.
    let said_at_start = tags.iter().any(|tag| tag == "storefront");
    tags.retain(|tag| tag != "storefront");
    if said_at_start && tags.is_empty() {
        return (StatusCode::OK, Json(json!({ "purged": 0 })));
    }
    if body["soft"] == true {
        tags.iter_mut().for_each(|tag| tag.insert_str(0, SOFT));
    }
    if body["everything"] == true {
        tags.push(EVERYTHING.to_owned());
    }
    let status = double.status.load(Ordering::SeqCst);
    let _ = double.purges.send((status, tags.clone()));
    (StatusCode::from_u16(status).expect("a status"), Json(json!({ "purged": tags.len() })))
}
