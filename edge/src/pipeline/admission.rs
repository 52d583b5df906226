//! A route whose requests an upstream admits first (`forward_auth`): it is asked with the request's own head, and its 2xx lets the
//! request on. Any other answer of it is the client's.
//!
//! Promises: nothing is answered on such a route, from the cache or otherwise, before the upstream has said yes to this very
//! request; without an answer of its the client gets none. What it says of who asks goes on in fields that no client can
//! write, and such a request is to the cache one with credentials (RFC 9111 §3.5).

use std::sync::Arc;

use http::{HeaderValue, Method, Response, header, request};
use http_body_util::BodyExt as _;

use super::{Answer, OnRoute};
use crate::{
    message::{failure::Failure, hop_by_hop::strip_hop_by_hop, request_id::RequestId},
    observe::verdict::Verdict,
    request::{affinity, as_sent::AsSent, refusal::Refusal},
    response::{body::Body, fields::Handling},
    state::Edge,
    upstream::{RequestBody, ResponseBody, introduction::introduction, outbound, request_body::Errand},
};

/// What the upstream has said.
pub(super) enum Admission {
    /// The request goes on, with what it says of who asks in its head.
    Admitted,
    /// This is the client's answer.
    Answered(Box<Answer>),
}

/// Asks whether a request may go on.
///
/// # Errors
/// The refusal for want of an answer: 502, 503 or 504.
pub(super) async fn ask(
    edge: &Arc<Edge>,
    found: &OnRoute<'_>,
    head: &mut request::Parts,
    id: &RequestId,
) -> Result<Admission, Refusal> {
    let (Some(rules), Some(upstream)) = (&found.on.route.forward_auth, &found.on.admits) else {
        return Ok(Admission::Admitted);
    };
    for name in &rules.copy {
        head.headers.remove(name);
    }
    let (route, settings) = (&found.on.route, upstream.settings());
    let within = route.times.total;
    let (target, client, told) = (&found.target, &found.client, found.told);
    let asked = AsSent { head, target, client, told, route, upstream: settings };
    let errand = Errand {
        request_id: id.to_field(),
        client: found.client.own_number(&edge.state.load().settings.clients),
        first_byte: settings.response_timeout,
        between_bytes: settings.idle_timeout,
        until: Some(edge.clock.now() + within),
        introduction: introduction(settings.proxy_protocol, Some(found.ends)),
    };
    let question = outbound::asks_admission(&asked, &rules.path, RequestBody::empty(errand));
    let affinity = affinity::of(&settings.balance, &head.headers, &found.client);
    let began = edge.clock.now();
    let answer = tokio::time::timeout(within, upstream.send(question, affinity, &edge.clock)).await;
    let answer = answer.map_err(|_| Refusal::Upstream(Failure::Timeout))?.map_err(Refusal::Upstream)?;
    let took = edge.clock.now().since(began);
    let (mut parts, body) = answer.into_parts();
    if parts.status.is_success() {
        for name in &rules.copy {
            for value in parts.headers.get_all(name) {
                head.headers.append(name, value.clone());
            }
        }
        // Within the same time: what is late is dropped with its connection.
        let _ = tokio::time::timeout(within.saturating_sub(took), finish(body)).await;
        return Ok(Admission::Admitted);
    }
    strip_hop_by_hop(&mut parts.headers);
    // It is about this request's credentials, and for nobody else.
    parts.headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let status = Handling {
        forward_status: Some(parts.status),
        detail: Some("forward-auth"),
        ..Handling::new(Verdict::Pass, None)
    };
    let via = Some(parts.version);
    let body = if head.method == Method::HEAD { Body::Empty } else { Body::Upstream(Box::new(body)) };
    let response = Response::from_parts(parts, body);
    Ok(Admission::Answered(Box::new(Answer { response, status, via, upstream: Some(took) })))
}

/// Reads a short answer to its end, so that its connection serves again; a long one is dropped with it.
async fn finish(mut body: ResponseBody) {
    let mut left = MOST_READ;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Bytes of an answer that lets a request on.
const MOST_READ: usize = 16 << 10;
