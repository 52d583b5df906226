//! What answers say to scripts of other sites (CORS, in the Fetch standard), by the route's settings alone: nothing of it is stored,
//! so that one stored response answers every origin.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};

use super::body::Body;
use crate::settings::{AllowedFields, CrossOrigin};

/// The answer to a browser that asks beforehand whether a script may send a request. An origin that may not is told so by the
/// fields that are missing, as the Fetch standard has it, and by 403 for people who look.
///
/// `None` for a request that asks nothing of the kind.
pub fn preflight(said: &CrossOrigin, head: &request::Parts) -> Option<Response<Body>> {
    let fields = &head.headers;
    if head.method != Method::OPTIONS || !fields.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let origin = fields.get(header::ORIGIN)?;
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    // Who may read is said of this answer as of every other, by `share`.
    if said.allowed(origin).is_none() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Some(response);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, said.methods.clone());
    let fields = match &said.fields {
        AllowedFields::These(fields) => Some(fields),
        AllowedFields::Asked => fields.get(header::ACCESS_CONTROL_REQUEST_HEADERS),
    };
    if let Some(fields) = fields {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(said.max_age.as_secs()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Some(response)
}

/// Says of an answer who may read it, in place of what the upstream says.
pub fn share(headers: &mut HeaderMap, said: &CrossOrigin, origin: Option<&HeaderValue>) {
    for name in BY_ROUTE {
        headers.remove(name);
    }
    if !said.is_same_for_all() {
        // Other caches keep one for each origin.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    let Some(allowed) = origin.and_then(|origin| said.allowed(origin)) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if said.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Some(exposed) = &said.exposed {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}

/// Of these only the route speaks.
const BY_ROUTE: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];
