//! The result of the stages: a response, and the facts that are recorded about it.

use std::time::Duration;

use http::{HeaderValue, Response, Version, header, request};
use hyper::ext::ReasonPhrase;

use crate::{
    message::request_id::{RequestId, X_REQUEST_ID},
    observe::verdict::Verdict,
    request::refusal::Refusal,
    response::{
        body::Body,
        fields::{self, Handling},
        problem,
    },
    settings::{ErrorPages, RequestIdInAnswers},
};

/// An answer on its way out of the pipeline. The fields that every answer carries are not in it yet.
#[derive(Debug)]
pub struct Answer {
    /// The response, complete but for those fields.
    pub response: Response<Body>,
    /// How the cache took part.
    pub status: Handling,
    /// The version in which an upstream's message was received, now or before; `None` for the edge's own answers.
    pub via: Option<Version>,
    /// How long the upstream took to the head of its response, where this request waited for it.
    pub upstream: Option<Duration>,
}

impl Answer {
    /// The edge's own answer to a refused request.
    pub fn refused(refusal: &Refusal, head: &request::Parts, id: &RequestId, pages: &ErrorPages) -> Self {
        let status = Handling { detail: Some(refusal.detail()), ..Handling::new(Verdict::Refused, None) };
        Self { response: problem::refusal(refusal, head, id, pages), status, via: None, upstream: None }
    }

    /// The answer that a route's settings state, and the word for what it is.
    pub fn stated(response: Response<Body>, what: &'static str) -> Self {
        let status = Handling { detail: Some(what), ..Handling::new(Verdict::Stated, None) };
        Self { response, status, via: None, upstream: None }
    }

    /// The edge's own answer to OPTIONS that is to go no further (RFC 9110 §7.6.2, §9.3.7).
    pub fn options() -> Self {
        let mut response = Response::new(Body::Empty);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(problem::ALLOWED));
        let status = Handling { detail: Some("max-forwards"), ..Handling::new(Verdict::Refused, None) };
        Self { response, status, via: None, upstream: None }
    }

    /// The response with the fields that every answer carries, and the request's id where clients are told it.
    pub fn finish(self, id: &RequestId, told: RequestIdInAnswers) -> Response<Body> {
        let Self { mut response, status, via, upstream: _ } = self;
        if response.status().canonical_reason().is_none() {
            // A reason phrase may be empty (RFC 9112 §4); where there is none hyper writes one of its own.
            response.extensions_mut().insert(ReasonPhrase::from_static(b""));
        }
        let tells_id = match told {
            RequestIdInAnswers::Always => true,
            RequestIdInAnswers::Never => false,
            RequestIdInAnswers::Errors => {
                status.verdict == Verdict::Refused && response.status().as_u16() >= 400
            }
        };
        if tells_id {
            response.headers_mut().insert(X_REQUEST_ID, id.to_field());
        }
        fields::finish(response.headers_mut(), &status, via);
        response
    }
}
