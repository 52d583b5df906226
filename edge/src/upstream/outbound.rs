//! The head of a request to an upstream: the client's fields that are forwarded, and the edge's own.
//!
//! Whatever could change a stored response is in the cache key or in `Vary`. Other fields that upstreams are known to
//! act upon are set by the edge or dropped ([`AsSent`]), so that no client can poison the answer of another.

use std::time::Duration;

use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use super::RequestBody;
use crate::{
    message::{entity_tag::uncoded_tag, hop_by_hop::via},
    request::as_sent::{AsSent, Audience},
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

/// Writes a request's head and puts `body` behind it.
pub fn request(asked: &AsSent<'_>, purpose: Purpose<'_>, body: RequestBody) -> Request<RequestBody> {
    let &AsSent { head, target: inbound, route, .. } = asked;
    let (target, mut headers) = match purpose {
        Purpose::Pass => {
            let mut headers = asked.fields(Audience::Client);
            if route.compress || route.decompress {
                uncode_conditions(&mut headers);
            }
            if takes_trailers(&head.headers) {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
            }
            (&*inbound.path_and_query, headers)
        }
        Purpose::Store { target, conditions } => {
            let mut headers = asked.fields(Audience::Cache);
            for name in CONDITIONS {
                headers.remove(name);
            }
            for (name, value) in conditions {
                headers.insert(name, value.clone());
            }
            (target, headers)
        }
    };
    // Work for an answer that comes later than this is wasted; an upstream that knows the field stops in time.
    headers.insert(REQUEST_DEADLINE, HeaderValue::from(milliseconds(route.upstream.response_timeout)));
    headers.append(header::VIA, via(head.version));

    let mut request = Request::new(body);
    *request.method_mut() = match purpose {
        Purpose::Pass => head.method.clone(),
        // What is stored is the answer to a GET, also where a HEAD is the occasion to ask for it.
        Purpose::Store { .. } => Method::GET,
    };
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
    fn tags_of_our_codings_are_translated_back() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static("W/\"v1;gatehouse-br\", \"v2;gzip\""));
        uncode_conditions(&mut headers);
        assert_eq!(headers[header::IF_MATCH], "\"v1\", \"v2;gzip\"");
    }
}
