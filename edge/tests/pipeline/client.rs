//! A client that speaks HTTP/2, and its connection to the edge.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use edge::{
    downstream::{
        deadlines::{Deadlines, Protocol},
        http2::{Connection, ConnectionShared, Met},
    },
    message::target::Scheme,
    pipeline::Peer,
    settings::Bounds,
};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::{sync::Notify, task::JoinHandle};

use crate::front::Front;

/// A client's connection to the edge, and the edge's end of it.
pub(crate) struct Client {
    pub requests: SendRequest<Bytes>,
    pub served: JoinHandle<Result<(), h2::Error>>,
    pub close: Arc<Notify>,
}

pub(crate) async fn client(front: &Front) -> Client {
    client_with(front, &h2::client::Builder::new()).await
}

pub(crate) async fn client_with(front: &Front, builder: &h2::client::Builder) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let close = Arc::new(Notify::new());
    let served = tokio::spawn({
        let (edge, close) = (Arc::clone(&front.edge), Arc::clone(&close));
        let deadlines = Deadlines::new(&edge.clock, Protocol::Http2, Duration::from_secs(90));
        let peer = Peer {
            address: [192, 0, 2, 1].into(),
            port: 1234,
            reached: ([10, 0, 0, 1], 443).into(),
            scheme: Scheme::Https,
            acquaintance: None,
        };
        let bounds = Bounds { ..edge.state.load().settings.bounds.clone() };
        let shared = ConnectionShared::new(edge, Met { peer, acquaintance: None, hsts: None }, deadlines);
        let mut connection = Connection::new(far, &bounds, shared);
        async move {
            loop {
                tokio::select! {
                    ended = poll_fn(|context| connection.poll(context)) => return ended,
                    () = close.notified() => connection.close(),
                }
            }
        }
    });
    let (requests, connection) = builder.handshake(near).await.unwrap();
    tokio::spawn(connection);
    Client { requests, served, close }
}

impl Client {
    pub(crate) fn send(
        &mut self,
        request: http::request::Builder,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        self.requests.send_request(request.body(()).unwrap(), ends).unwrap()
    }

    pub(crate) fn get(&mut self, path: &str) -> ResponseFuture {
        self.send(Request::get(format!("https://shop.example{path}")), true).0
    }

    pub(crate) fn post(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        self.send(Request::post(format!("https://shop.example{path}")), false)
    }
}

pub(crate) async fn next_interim(response: &mut ResponseFuture) -> (u16, HeaderMap) {
    let interim = poll_fn(|context| response.poll_informational(context)).await;
    let (head, ()) = interim.expect("an interim response comes first").unwrap().into_parts();
    (head.status.as_u16(), head.headers)
}

/// All of a response's content and its trailers, giving window as it is read.
pub(crate) async fn read(body: &mut RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    Ok((String::from_utf8(text).unwrap(), body.trailers().await?))
}
