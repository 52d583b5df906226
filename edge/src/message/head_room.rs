//! Heads of answers that get fields of the edge's own: made with room for these, they need not grow.

use http::HeaderMap;

/// As many fields as are mostly added on the way to the client.
pub const ADDED: usize = 6;

/// A copy with room for them. A clone has none.
pub fn roomy(head: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(head.len() + ADDED);
    for (name, value) in head {
        copy.append(name, value.clone());
    }
    copy
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, header};

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_does_not_grow() {
        let mut head = HeaderMap::new();
        for value in ["Accept", "Cookie"] {
            head.append(header::VARY, HeaderValue::from_static(value));
        }
        head.insert(header::ETAG, HeaderValue::from_static("\"a\""));
        let mut copy = roomy(&head);
        assert_eq!(copy, head);
        let room = copy.capacity();
        for name in ["a", "b", "c", "d", "e", "f"] {
            copy.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        assert_eq!(copy.capacity(), room);
    }
}
