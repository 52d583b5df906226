//! Choosing among stored variants by Content-Language (RFC 9110 §12.5.4, RFC 4647 §3.3.1).

use crate::coding::for_each_weighted;
use http::HeaderValue;
use http::header::{ACCEPT_LANGUAGE, HeaderMap};

/// Whether a stored variant in `content_language` is what the client likes best: every language it gives its highest
/// weight to is that one. With two favourites only the origin knows which it would choose.
///
/// DEVIATION: this looks beyond RFC 9111 §4.1, which compares fields: it is right only for an origin that varies on nothing but the language, so
/// it is for routes that ask for it.
pub fn prefers_language(request: &HeaderMap, content_language: &HeaderValue) -> bool {
    // A weight of zero accepts nothing.
    let mut highest = 1;
    let (mut matches, mut seen) = (false, false);
    for_each_weighted(request, &ACCEPT_LANGUAGE, |range, weight| {
        if weight > highest || weight == highest && !seen {
            seen = true;
            (highest, matches) = (weight, covers(range, content_language.as_bytes()));
        } else if weight == highest {
            matches &= covers(range, content_language.as_bytes());
        }
    });
    matches
}

/// Basic filtering: the range is the tag, or its beginning up to a hyphen. `*` is no favourite.
fn covers(range: &[u8], tag: &[u8]) -> bool {
    let (beginning, rest) = tag.split_at(range.len().min(tag.len()));
    beginning.eq_ignore_ascii_case(range) && matches!(rest, [] | [b'-', ..]) && !range.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accepted: &str, language: &str) -> bool {
        let request = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_str(accepted).unwrap())]);
        prefers_language(&request, &HeaderValue::from_str(language).unwrap())
    }

    #[test]
    fn the_single_favourite_is_found() {
        assert!(prefers("fr;q=0.5, de;q=1.0", "de"));
        assert!(prefers("DE", "de-CH"));
        assert!(!prefers("fr, de", "de"));
        assert!(!prefers("de;q=0", "de"));
        assert!(!prefers("de-CH", "de"));
        assert!(!prefers("d", "de"));
        assert!(!prefers("*", "de"));
        assert!(!prefers("", "de"));
    }
}
