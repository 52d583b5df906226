//! An upstream's body: bounded in pauses; at its end the connection returns to its pool.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    http1::SwitchedStream,
    idle::Lease,
    sender::{ResponseContent, SendError, Sender},
};
use crate::message::{body_error::BodyError, patience::Patience, trailers::keep_trailers};

/// A response's head and the body that follows it.
pub type UpstreamResponse = http::Response<ResponseBody>;

/// The body of an upstream's response. Dropping it before its end closes the connection.
pub struct ResponseBody {
    content: ResponseContent,
    server: u64,
    patience: Patience,
    lease: Option<Lease>,
}

impl ResponseBody {
    /// A body from the server of this id, with at most `pause` between two pieces.
    pub fn new(content: ResponseContent, server: u64, pause: Duration, lease: Option<Lease>) -> Self {
        Self { content, server, patience: Patience::new(pause), lease }
    }

    /// The id of the server that sends it.
    pub fn server(&self) -> u64 {
        self.server
    }

    /// The connection's stream, where the response has switched protocols.
    pub fn switched(mut self) -> Option<SwitchedStream> {
        self.lease.take()?.into_switched()
    }

    fn poll_content(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        match &mut self.lease {
            Some(lease) => lease.sender_mut().poll_frame(&mut self.content, context),
            None => Poll::Ready(None),
        }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn broke_off(&mut self, reason: &'static str) {
        if let Some(lease) = self.lease.take() {
            lease.broke_off(reason);
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ResponseBody").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.poll_content(context) {
            Poll::Pending => this.patience.poll(context).map(|()| {
                this.broke_off("stalled");
                Some(Err(BodyError::UpstreamStalled))
            }),
            Poll::Ready(None) => {
                this.give_back();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let client = this.lease.as_ref().and_then(Lease::client_broke);
                this.broke_off("broken");
                Poll::Ready(Some(Err(client.unwrap_or_else(|| BodyError::Upstream(Arc::new(error))))))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                this.patience.rest();
                if let Some(trailers) = frame.trailers_mut() {
                    keep_trailers(trailers, |_| true);
                }
                if this.is_end_stream() {
                    this.give_back();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.content, self.lease.as_ref().map(Lease::sender)) {
            (ResponseContent::OfConnection, Some(Sender::Http1(connection))) => connection.is_end_stream(),
            (ResponseContent::OfStream(incoming), _) => incoming.is_end_stream(),
            _ => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.content, self.lease.as_ref().map(Lease::sender)) {
            (ResponseContent::OfConnection, Some(Sender::Http1(connection))) => connection.size_hint(),
            (ResponseContent::OfStream(incoming), _) => incoming.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }
}
