//! Purges by content systems' plugins on public listeners, where the settings let them in.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request};
use serde_json::json;
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    NotPurged, PurgeRequest,
    dialect::{Dialect, ForeignPurge},
};
use crate::{
    message::request_id::RequestId,
    request::{client::Client, refusal::Refusal},
    response::body::Body,
    settings::{PurgeAccess, Settings, Token},
    state::{Edge, State},
};

/// Purges what a request asks for, whose method means nothing else. Its content is of no matter.
///
/// # Errors
/// [`Refusal::AddressDenied`] for clients that may not purge.
pub async fn purge(
    edge: &Arc<Edge>,
    state: &State,
    client: &Client,
    head: &request::Parts,
    id: &RequestId,
) -> Result<Response<Body>, Refusal> {
    let access = state.settings.purge.as_ref().ok_or(Refusal::MethodNotAllowed)?;
    if !may_purge(access, client, &head.headers) {
        return Err(Refusal::AddressDenied);
    }
    let dialect = Dialect::Varnish;
    let Settings { listeners, routes, .. } = &state.settings;
    let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
    let foreign = ForeignPurge { method, uri, headers, content: &[], listeners };
    let purge = match foreign.read(dialect) {
        Ok(purge) => PurgeRequest { soft: purge.soft || access.soft, ..purge },
        Err(error) => return Ok(answer(StatusCode::BAD_REQUEST, &json!({ "error": error }))),
    };
    // To find what begins so takes long, and this thread has other clients.
    let (routes, memory) = (routes.clone(), Arc::clone(&edge.memory));
    let (now, here) = (edge.clock.now(), Handle::current());
    let purged = spawn_blocking(move || here.block_on(purge.run(&routes, &memory, now))).await;
    let (status, told) = match purged {
        Ok(Ok(purged)) => {
            tracing::info!(client = %client.address, purged = purged.purged, soft = purged.soft, "purge");
            (StatusCode::OK, dialect.done(purged.purged, &id.to_string()))
        }
        Ok(Err(error @ NotPurged::Unclear(_))) => {
            (StatusCode::BAD_REQUEST, json!({ "error": error.to_string() }))
        }
        Ok(Err(error @ NotPurged::Unacknowledged(..))) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": error.to_string() }))
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "the purge failed" })),
    };
    Ok(answer(status, &told))
}

fn may_purge(access: &PurgeAccess, client: &Client, headers: &HeaderMap) -> bool {
    let address = client.address.to_canonical();
    access.allow.iter().any(|network| network.contains(&address))
        || access.token.as_ref().is_some_and(|token| is_shown(token, headers))
}

/// Whether a request shows the token, in whichever field its plugin sends one.
pub fn is_shown(token: &Token, headers: &HeaderMap) -> bool {
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let own = KEYS.into_iter().filter_map(|name| headers.get(name)).map(HeaderValue::as_bytes);
    bearer.into_iter().chain(own).any(|given| token.is(given))
}

/// Fields in which the clients of Fastly and Cloudflare, and plugins for Varnish, show who they are.
const KEYS: [&str; 4] = ["fastly-key", "x-auth-key", "x-purge-token", "x-vc-purge-key"];

fn answer(status: StatusCode, told: &serde_json::Value) -> Response<Body> {
    let content = bytes::Bytes::from(format!("{told}\n"));
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
    *response.body_mut() = Body::Whole(content);
    response
}
