//! The head of a request to an upstream: the client's fields that are forwarded, and the edge's own.
//!
//! Whatever could change a stored response is in the cache key or in `Vary`. Other fields that upstreams are known to
//! act upon are set by the edge or dropped here, so that no client can poison the answer of another.

use std::time::Duration;

use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header, request};

use super::RequestBody;
use crate::{
    message::{
        entity_tag::uncoded_tag,
        hop_by_hop::{strip_hop_by_hop, via},
        target::Target,
    },
    request::client::Client,
    settings::Route,
};

/// What the upstream's answer is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// This client alone.
    Pass,
    /// The cache: a response that does not depend on what this client has.
    Store {
        /// Path and query of the key.
        target: &'a str,
        /// The conditions that validate the stored response, or a range.
        conditions: &'a [(HeaderName, HeaderValue)],
    },
}

/// A request: its client, its target and its route.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub head: &'a request::Parts,
    pub target: &'a Target,
    pub client: &'a Client,
    pub route: &'a Route,
}

/// Writes a request's head and puts `body` behind it.
pub fn request(asker: &Asker<'_>, purpose: Purpose<'_>, body: RequestBody) -> Request<RequestBody> {
    let &Asker { head, target: inbound, client, route } = asker;
    let mut headers = head.headers.clone();
    strip_hop_by_hop(&mut headers);
    strip_impostors(&mut headers);
    headers.remove(header::EXPECT);
    let target = match purpose {
        Purpose::Pass => {
            uncode_conditions(&mut headers);
            if takes_trailers(&head.headers) {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
            }
            &inbound.path_and_query
        }
        Purpose::Store { target, conditions } => {
            for name in CONDITIONS {
                headers.remove(name);
            }
            if route.compress {
                headers.remove(header::ACCEPT_ENCODING);
            }
            // Where one matters, the answer may be that person's page, and all of them go.
            if !route.rules.ignored_cookies.matter_in(&head.headers) {
                headers.remove(header::COOKIE);
            }
            for (name, value) in conditions {
                headers.insert(name, value.clone());
            }
            target
        }
    };
    let authority = inbound.authority();
    if let Ok(host) = HeaderValue::from_str(&authority) {
        headers.insert(header::HOST, host.clone());
        headers.insert("x-forwarded-host", host);
    }
    if let Ok(address) = HeaderValue::from_str(&client.address.to_string()) {
        headers.insert("x-forwarded-for", address);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static(inbound.scheme.as_str()));
    // Work for an answer that comes later than this is wasted; an upstream that knows the field stops in time.
    headers.insert(REQUEST_DEADLINE, HeaderValue::from(milliseconds(route.upstream.response_timeout)));
    headers.append(header::VIA, via(head.version));

    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = target.parse::<Uri>().expect("parts of a path and query that parsed do so too");
    *request.headers_mut() = headers;
    request
}

/// Turns a request's head into one for the octets from `from` on of the representation that a strong validator names
/// (RFC 9110 §14.2, §13.1.5).
pub fn ask_for_rest(headers: &mut HeaderMap, from: u64, same: &HeaderValue) {
    for name in CONDITIONS {
        headers.remove(name);
    }
    let range = HeaderValue::try_from(format!("bytes={from}-"));
    headers.insert(header::RANGE, range.expect("digits and punctuation are visible ASCII"));
    headers.insert(header::IF_RANGE, same.clone());
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the client accepts trailer fields (RFC 9110 §10.1.4); then the upstream is sent `TE: trailers`.
fn takes_trailers(headers: &HeaderMap) -> bool {
    list_elements(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

fn strip_impostors(headers: &mut HeaderMap) {
    let impostors: Vec<HeaderName> =
        headers.keys().filter(|name| is_impostor(name.as_str())).cloned().collect();
    for name in &impostors {
        headers.remove(name);
    }
}

/// Whether a field pretends to come from a proxy, or to change the request. A name with `_` is one that CGI-like
/// interfaces (WSGI, Rack, PHP) cannot tell from the name with `-`, so it would pass every check by name.
fn is_impostor(name: &str) -> bool {
    name.contains('_')
        || name.starts_with("x-forwarded")
        || name.starts_with("forwarded")
        || IMPOSTORS.contains(&name)
}

/// Entity tags of our codings are unknown upstream: each is replaced by the tag it was made from. Not in If-Range: a
/// client that holds a part of a coded body has no use for a part of the identity form.
fn uncode_conditions(headers: &mut HeaderMap) {
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        if !headers.get_all(&name).iter().any(|line| line.as_bytes().contains(&b';')) {
            continue;
        }
        let tags: Vec<Vec<u8>> = list_elements(headers, &name)
            .map(|tag| uncoded_tag(tag).unwrap_or_else(|| tag.to_owned()))
            .collect();
        let value = HeaderValue::try_from(tags.join(&b", "[..]));
        headers.insert(&name, value.expect("parts of valid values, joined by visible characters, are one"));
    }
}

/// How long the edge waits for the answer, in milliseconds from the request's end. A convention of this project.
const REQUEST_DEADLINE: HeaderName = HeaderName::from_static("x-request-deadline");

/// Fields by which a client pretends to be a proxy or another request.
const IMPOSTORS: [&str; 17] = [
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-host",
    "x-original-host",
    "x-http-host-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-request-deadline",
    "http2-settings",
    // Becomes HTTP_PROXY in CGI programs ("httpoxy").
    "proxy",
];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_forwards_is_dropped() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-forwarded-for", "x-forwarded-prefix", "forwarded", "x-original-url", "proxy", "accept"]
        {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        strip_impostors(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn tags_of_our_codings_are_translated_back() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static("W/\"v1;br\", \"v2\""));
        uncode_conditions(&mut headers);
        assert_eq!(headers[header::IF_MATCH], "\"v1\", \"v2\"");
    }
}
