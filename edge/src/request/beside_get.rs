//! Requests that are read from the cache beside GET and HEAD, where their route says so: each by its content.
//!
//! To everything that follows such a request is a GET of its URL whose key has a further part: its method, its content and what
//! says how that is read. Only what is sent upstream has method and content again.

use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, Method, header, request};
use sha2::{Digest as _, Sha256};

use super::as_sent::overrides_method;
use crate::{
    message::{content::expects_continue, long_lived::is_incremental},
    settings::BesideGet,
};

/// As what a request may be read from the cache, as far as its head tells.
pub fn of(head: &request::Parts, also: &[BesideGet]) -> Option<BesideGet> {
    let kind = match head.method.as_str() {
        "QUERY" => BesideGet::Query,
        "POST" => BesideGet::Graphql,
        "OPTIONS" => BesideGet::Options,
        _ => return None,
    };
    let has = |name: &HeaderName| head.headers.contains_key(name);
    let is_odd = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::TRANSFER_ENCODING].iter().any(has)
        || head.headers.get_all(header::CONTENT_TYPE).iter().count() > 1
        || expects_continue(&head.headers)
        || is_incremental(&head.headers)
        || overrides_method(head);
    let is_read = match kind {
        // RFC 10008 §2: without a type its content means nothing.
        BesideGet::Query => has(&header::CONTENT_TYPE),
        // Some services prefer what stands in the URL.
        BesideGet::Graphql => {
            is_json(&head.headers) && !has(&header::CONTENT_ENCODING) && head.uri.query().is_none()
        }
        BesideGet::Options => !has(&header::CONTENT_LENGTH) && head.uri.path() != "*",
    };
    (also.contains(&kind) && !is_odd && is_read).then_some(kind)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, "charset=utf-8"));
    kind.trim().eq_ignore_ascii_case("application/json")
        && parameters.trim().eq_ignore_ascii_case("charset=utf-8")
}

/// The head of the GET that stands for it.
pub fn as_get(head: &request::Parts, kind: BesideGet) -> request::Parts {
    let mut get = head.clone();
    get.method = Method::GET;
    for name in OF_THE_MESSAGE {
        get.headers.remove(name);
    }
    if kind != BesideGet::Query {
        // RFC 9110 §13.1: of other methods they are no wish for a shorter answer.
        get.headers.remove(header::IF_NONE_MATCH);
        get.headers.remove(header::IF_MODIFIED_SINCE);
    }
    get
}

/// What of it is part of the key.
pub fn key_part(head: &request::Parts, octets: &[u8]) -> String {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    for name in READ_BY {
        head.headers.get_all(&name).iter().for_each(|value| add(value.as_bytes()));
        add(name.as_str().as_bytes());
    }
    if head.method == Method::OPTIONS {
        for name in OF_A_PREFLIGHT {
            list_elements(&head.headers, &name).for_each(&mut add);
            add(name.as_str().as_bytes());
        }
    }
    add(octets);
    let digest: String = digest.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("content={}:{digest}", head.method)
}

/// What says how content is read.
const READ_BY: [HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];

/// By these browsers ask for a script; services answer by them, and do not always say so.
const OF_A_PREFLIGHT: [HeaderName; 3] =
    [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS];

/// Fields of the message that the client has sent, and of parts, which are those of a GET's answer alone.
const OF_THE_MESSAGE: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::EXPECT, header::RANGE, header::IF_RANGE];
