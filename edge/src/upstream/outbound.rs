//! The head of a request to an upstream: the client's fields that are forwarded, and the edge's own.
//!
//! Whatever could change a stored response is in the cache key or in `Vary`. Other fields that upstreams are known to
//! act upon are set by the edge or dropped ([`AsSent`]), so that no client can poison the answer of another.

use std::{borrow::Cow, sync::Arc};

use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request};

use super::{
    RequestBody,
    request_body::{AskedContent, Errand},
};
use crate::{
    message::{entity_tag::uncoded_tag, hop_by_hop::via, request_id::X_REQUEST_ID, target::route_path},
    request::as_sent::{AsSent, Audience},
    settings::{PathRewrite, UpstreamSettings},
};

/// Writes the head of a request that is passed on for this client alone, and puts `body` behind it.
pub fn passed_on(asked: &AsSent<'_>, body: RequestBody) -> Request<RequestBody> {
    let &AsSent { head, target, route, upstream, .. } = asked;
    let mut headers = asked.fields(Audience::Client);
    if route.compress || route.decompress {
        uncode_conditions(&mut headers);
    }
    if takes_trailers(&head.headers) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    let headers = sent(headers, head.version, body.errand(), upstream);
    // Upstreams may take a trailer field for one of the head, and here such fields say who asks.
    let body = if route.forward_auth.is_some() { body } else { body.to(upstream) };
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri(head, &target.path_and_query, &route.rewrite);
    *request.headers_mut() = headers;
    request
}

/// Asks an upstream whether a request may go on: its head without its content, and without what asks for less than a whole
/// answer; method and target stand in fields.
pub fn asks_admission(asked: &AsSent<'_>, path: &Uri, body: RequestBody) -> Request<RequestBody> {
    let &AsSent { head, target, upstream, .. } = asked;
    let mut headers = asked.fields(Audience::Client);
    for name in CONDITIONS.iter().chain(&OF_CONTENT) {
        headers.remove(name);
    }
    if let Ok(method) = HeaderValue::from_str(head.method.as_str()) {
        headers.insert(X_FORWARDED_METHOD, method);
    }
    if let Ok(uri) = HeaderValue::from_str(&target.path_and_query) {
        headers.insert(X_FORWARDED_URI, uri);
    }
    let headers = sent(headers, head.version, body.errand(), upstream);
    let mut request = Request::new(body);
    *request.uri_mut() = path.clone();
    *request.headers_mut() = headers;
    request
}

/// A question of the cache's: for a response that does not depend on what the client has who is the occasion to ask. It is kept
/// while the answer comes, so that it can be asked again.
#[derive(Debug)]
pub struct CacheQuestion {
    /// The fields of the client's request as the upstream sees them, for `Vary`.
    pub fields: HeaderMap,
    uri: Uri,
    /// The conditions that validate the stored response, or a range.
    conditions: Vec<(HeaderName, HeaderValue)>,
    wishes: Wishes,
    received: Version,
    upstream: Arc<UpstreamSettings>,
    /// Whose question it is, and how long its answer may take.
    pub errand: Errand,
    /// Method and content, where it is no GET.
    asked: Option<AskedContent>,
}

/// Whether the client's directives go upstream with a question of the cache's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wishes {
    /// The client waits for the answer.
    Told,
    /// It has been answered: a wish for `no-store` or for a reload was about that answer.
    Untold,
}

impl CacheQuestion {
    /// Asks for the path and query of the key.
    pub fn new(
        asked: &AsSent<'_>,
        target: &str,
        conditions: Vec<(HeaderName, HeaderValue)>,
        wishes: Wishes,
        errand: Errand,
    ) -> Self {
        let &AsSent { head, route, upstream, .. } = asked;
        let (uri, fields) = (uri(head, target, &route.rewrite), asked.fields(Audience::Cache));
        Self {
            fields,
            uri,
            conditions,
            wishes,
            received: head.version,
            upstream: Arc::clone(upstream),
            errand,
            asked: None,
        }
    }

    /// The same question by another method, with content.
    #[must_use]
    pub fn asking(self, asked: Option<&AskedContent>) -> Self {
        Self { asked: asked.cloned(), ..self }
    }

    /// Whether it is a GET, so that a part can be asked for.
    pub fn is_get(&self) -> bool {
        self.asked.is_none()
    }

    /// Whether it is a POST, which is read from the cache where it asks a GraphQL service.
    pub fn asks_graphql(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.method == Method::POST)
    }

    /// The request. What is stored is the answer to a GET, also where a HEAD is the occasion to ask for it.
    pub fn request(&self) -> Request<RequestBody> {
        let is_sent = |name: &HeaderName| {
            !CONDITIONS.contains(name) && (self.wishes == Wishes::Told || !WISHES.contains(name))
        };
        let mut headers = HeaderMap::with_capacity(self.fields.len() + self.conditions.len() + 3);
        for (name, value) in self.fields.iter().filter(|(name, _)| is_sent(name)) {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.conditions {
            headers.insert(name, value.clone());
        }
        let mut request = match &self.asked {
            None => Request::new(RequestBody::empty(self.errand.clone())),
            Some(asked) => {
                let mut request = Request::new(RequestBody::asking(asked.clone(), self.errand.clone()));
                *request.method_mut() = asked.method.clone();
                request
            }
        };
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = sent(headers, self.received, &self.errand, &self.upstream);
        request
    }

    /// The request for the whole in place of a range.
    pub fn for_whole(&self) -> Request<RequestBody> {
        let mut request = self.request();
        for range in [header::RANGE, header::IF_RANGE] {
            request.headers_mut().remove(range);
        }
        request
    }

    /// The request for the octets from `from` on of the representation that a strong validator names (RFC 9110 §14.2,
    /// §13.1.5).
    pub fn for_rest(&self, from: u64, same: &HeaderValue) -> Request<RequestBody> {
        let mut request = self.request();
        let headers = request.headers_mut();
        for name in CONDITIONS {
            headers.remove(name);
        }
        let range = HeaderValue::try_from(format!("bytes={from}-"));
        headers.insert(header::RANGE, range.expect("digits and punctuation are visible ASCII"));
        headers.insert(header::IF_RANGE, same.clone());
        request
    }

    /// Whether the request names a representation, so that a 304 tells something about it.
    pub fn validates(&self) -> bool {
        let validates =
            |name: &HeaderName| *name == header::IF_NONE_MATCH || *name == header::IF_MODIFIED_SINCE;
        self.conditions.iter().any(|(name, _)| validates(name))
    }
}

/// The client's own URI where it is the one that is asked for.
fn uri(head: &request::Parts, target: &str, rewrite: &PathRewrite) -> Uri {
    if !rewrite.is_nothing()
        && target != "*"
        && let Ok(uri) = rewritten(target, rewrite).parse()
    {
        return uri;
    }
    match head.uri.path_and_query() {
        Some(own) if own.as_str() == target => Uri::from(own.clone()),
        _ => target.parse().expect("parts of a path and query that parsed do so too"),
    }
}

/// A path and query as the upstream of a route sees it.
fn rewritten(target: &str, PathRewrite { strip, add, replace }: &PathRewrite) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if let Some(replace) = replace {
        return replace.applied(&route_path(path), query).unwrap_or_else(|| target.to_owned());
    }
    let left = strip.as_deref().and_then(|prefix| {
        // Most paths are spelt as the file spells them; the others have matched in the one spelling that routes go by.
        let left = path.strip_prefix(prefix).map(Cow::Borrowed);
        let left = left.or_else(|| Some(route_path(path).strip_prefix(prefix)?.to_owned().into()));
        left.filter(|left| left.is_empty() || left.starts_with('/'))
    });
    let path = left.as_deref().unwrap_or(path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    [add.as_deref().unwrap_or_default(), slash, path, query].concat()
}

/// Fields with those that every request upstream has.
fn sent(
    mut headers: HeaderMap,
    received: Version,
    errand: &Errand,
    upstream: &UpstreamSettings,
) -> HeaderMap {
    if upstream.request_fields.of(&X_REQUEST_ID).is_none() {
        headers.insert(X_REQUEST_ID, errand.request_id.clone());
    }
    if upstream.request_fields.of(&header::VIA).is_none() {
        headers.append(header::VIA, via(received));
    }
    headers
}

/// Whether the client accepts trailer fields (RFC 9110 §10.1.4); then the upstream is sent `TE: trailers`.
fn takes_trailers(headers: &HeaderMap) -> bool {
    list_elements(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Entity tags of our codings are unknown upstream: each is replaced by the tag it was made from. Not in If-Range: a
/// client that holds a part of a coded body has no use for a part of the identity form.
fn uncode_conditions(headers: &mut HeaderMap) {
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        if !headers.get_all(&name).iter().any(|line| line.as_bytes().contains(&b';')) {
            continue;
        }
        // One buffer for all: as many tags may be listed as fit into a head.
        let mut tags: Vec<u8> =
            Vec::with_capacity(headers.get_all(&name).iter().map(|line| line.len() + 2).sum());
        for tag in list_elements(headers, &name) {
            if !tags.is_empty() {
                tags.extend_from_slice(b", ");
            }
            match uncoded_tag(tag) {
                Some(uncoded) => tags.extend_from_slice(&uncoded),
                None => tags.extend_from_slice(tag),
            }
        }
        let value = HeaderValue::try_from(tags);
        headers.insert(&name, value.expect("parts of valid values, joined by visible characters, are one"));
    }
}

/// Fields that ask for less than a complete response.
const CONDITIONS: [HeaderName; 7] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    HeaderName::from_static("a-im"),
];

/// Fields that describe a request's content (RFC 9110 §8).
const OF_CONTENT: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
];

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// By these a client says what it wants of a cache.
const WISHES: [HeaderName; 2] = [header::CACHE_CONTROL, header::PRAGMA];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off_whole_however_it_is_spelt_and_another_put_before() {
        let rewritten = |target, strip: Option<&str>, add: Option<&str>| {
            rewritten(
                target,
                &PathRewrite { strip: strip.map(Into::into), add: add.map(Into::into), replace: None },
            )
        };
        for (target, seen) in [
            ("/api/x?a=/api", "/x?a=/api"),
            ("/api", "/"),
            ("/api?a", "/?a"),
            ("/api/", "/"),
            ("/%61pi/x%2Fy", "/x%2Fy"),
            ("//api//x", "/x"),
            ("/apix", "/apix"),
        ] {
            assert_eq!(rewritten(target, Some("/api"), None), seen, "{target}");
        }
        assert_eq!(rewritten("/api/x", Some("/api"), Some("/v2")), "/v2/x");
        assert_eq!(rewritten("/api", Some("/api"), Some("/v2")), "/v2/");
        assert_eq!(rewritten("/x", None, Some("/v2")), "/v2/x");
    }

    #[test]
    fn tags_of_our_codings_are_translated_back() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static("W/\"v1;gatehouse-br\", \"v2;gzip\""));
        uncode_conditions(&mut headers);
        assert_eq!(headers[header::IF_MATCH], "\"v1\", \"v2;gzip\"");
    }
}
