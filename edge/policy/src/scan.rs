//! Looking through octets that a peer wrote. Readers search through here, so that tests can count how many octets they
//! look at: each reader must look at a small multiple of what the peer sent, however it is written.

/// The first octet that is wanted.
pub(crate) fn position(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let found = text.iter().position(|&octet| wanted(octet));
    looked_at(found.map_or(text.len(), |at| at + 1));
    found
}

/// The last octet that is wanted.
pub(crate) fn last_position(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let found = text.iter().rposition(|&octet| wanted(octet));
    looked_at(found.map_or(text.len(), |at| text.len() - at));
    found
}

/// So many octets have been looked at.
#[cfg(not(test))]
pub(crate) fn looked_at(_octets: usize) {}

#[cfg(test)]
pub(crate) use counting::{counted, looked_at};

#[cfg(test)]
mod counting {
    use std::cell::Cell;

    thread_local! {
        static OCTETS: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn looked_at(octets: usize) {
        OCTETS.set(OCTETS.get() + octets);
    }

    /// How many octets are looked at by this work.
    pub(crate) fn counted(work: impl FnOnce()) -> usize {
        let before = OCTETS.get();
        work();
        OCTETS.get() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ClientDirectives, IgnoredCookies, QueryRules, RequestFacts, Rules, Vary, asks_for_one_part,
        choose_coding, coding::Codings, forbids_transforming, invalidated_groups, normalise_query,
        precondition, prefers_language, range, tags, variant_key,
    };
    use http::Method;
    use http::header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue,
        IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PRAGMA, RANGE, VARY,
    };
    use proptest::prelude::*;

    proptest! {
        /// Looking for a quote anew in each element of a list made one small request cost a third of a second.
        #[test]
        fn readers_look_at_a_small_multiple_of_what_a_peer_sends(
            lines in prop::collection::vec((prop::sample::select(FIELDS.to_vec()), piece(), 1..4096_usize), 1..4),
        ) {
            let mut head = HeaderMap::new();
            for (field, piece, length) in &lines {
                let value = piece.repeat(length / piece.len() + 1);
                head.append(field, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let size: usize = head.iter().map(|(_, value)| value.len()).sum();
            let looked = counted(|| read(&head));
            prop_assert!(looked <= READERS * size + 64, "{looked} octets of {size}");
        }
    }

    /// All that reads a client's head, and what reads an origin's.
    fn read(head: &HeaderMap) {
        for client_directives in [ClientDirectives::Honour, ClientDirectives::IgnoreReloads] {
            let ignored_cookies = IgnoredCookies::Named(vec!["a".to_owned()]);
            let rules = Rules { client_directives, ignored_cookies, ..Rules::default() };
            RequestFacts::read(&Method::GET, head, &rules);
        }
        let etag = HeaderValue::from_static("\"v1\"");
        precondition(&Method::GET, head, Some(&etag), None);
        range(&Method::GET, head, Some(&etag), None, 1000);
        asks_for_one_part(head);
        choose_coding(head, Codings::IDENTITY);
        prefers_language(head, &etag);
        variant_key(&FIELDS, head);
        forbids_transforming(head);
        Vary::read(head);
        drop(tags(head, &Rules::default()));
        drop(invalidated_groups(head));
        if let Some(Ok(query)) = head.get(COOKIE).map(HeaderValue::to_str) {
            let rules = QueryRules { drop: vec!["utm_*".to_owned()], sort: true, ..QueryRules::default() };
            normalise_query(query, &rules);
        }
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a,",
            "a;q=0.5,",
            "\"",
            "\"a,",
            "\"a\",",
            "W/\"a\",",
            "\\\"",
            ",",
            ";",
            "=",
            "a=b;",
            "a=\"",
            "0-1,",
            "bytes=0-1,",
            "max-age=1,",
            "no-cache=\"",
            "*,",
            " ",
            "a&",
            "%41&",
            "\u{e9}",
        ])
    }

    const FIELDS: [HeaderName; 12] = [
        ACCEPT,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        CACHE_CONTROL,
        COOKIE,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        PRAGMA,
        RANGE,
        VARY,
    ];

    /// An octet is looked at by each reader of its field, by some for its comma, its quote and its semicolon.
    const READERS: usize = 32;
}
