//! One spelling of a path and query, for keys, purges and invalidations (RFC 3986 §6.2.2).
//!
//! Promises that two texts get one spelling only where RFC 3986 holds them to be the same: hexadecimal digits of
//! percent-encodings in upper case (§6.2.2.1), unreserved characters decoded (§6.2.2.2), and what may not stand in a URI
//! as itself encoded (§2.1). Reserved characters stay as they are: `/` and `%2F` are not the same. A text with a `%` that
//! encodes nothing stays as it is as a whole, so that spelling twice never changes what was spelt once.

use std::borrow::Cow;

/// The one spelling of a path, a query, or both.
pub fn one_spelling(text: &str) -> Cow<'_, str> {
    if text.bytes().all(stays) {
        return Cow::Borrowed(text);
    }
    spelt(text.as_bytes()).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The unreserved character that a text begins with in percent-encoding (RFC 3986 §2.3).
pub fn decode_unreserved(text: &str) -> Option<char> {
    let octet = encoded(text.as_bytes())?;
    is_unreserved(octet).then_some(char::from(octet))
}

/// As [`one_spelling`], of octets that may be no text: what a field holds.
pub(crate) fn one_spelling_of_octets(octets: &[u8]) -> String {
    let as_it_is = || {
        let mut text = String::with_capacity(octets.len());
        octets.iter().for_each(|&octet| {
            if octet.is_ascii() { text.push(char::from(octet)) } else { encode(octet, &mut text) }
        });
        text
    };
    spelt(octets).unwrap_or_else(as_it_is)
}

/// `None` where a `%` encodes nothing.
fn spelt(octets: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(octets.len() + 16);
    let mut rest = octets;
    while let [octet, after @ ..] = rest {
        rest = after;
        match octet {
            b'%' => {
                let octet = encoded_after_percent(after)?;
                if is_unreserved(octet) {
                    text.push(char::from(octet));
                } else {
                    encode(octet, &mut text);
                }
                rest = &after[2..];
            }
            &octet if stays(octet) => text.push(char::from(octet)),
            &octet => encode(octet, &mut text),
        }
    }
    Some(text)
}

fn encoded(octets: &[u8]) -> Option<u8> {
    encoded_after_percent(octets.strip_prefix(b"%")?)
}

fn encoded_after_percent(octets: &[u8]) -> Option<u8> {
    let value = |at: usize| char::from(*octets.get(at)?).to_digit(16);
    u8::try_from(value(0)? * 16 + value(1)?).ok()
}

fn encode(octet: u8, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(octet >> 4)]));
    text.push(char::from(DIGITS[usize::from(octet & 15)]));
}

const fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// Whether it is spelt as itself: unreserved or reserved (RFC 3986 §2.2). `%` is looked at more closely.
const fn stays(octet: u8) -> bool {
    octet.is_ascii_graphic()
        && !matches!(octet, b'%' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `/caf%c3%a9` and `/caf%C3%A9` made two keys, and a purge of one left the other.
    #[test]
    fn spellings_of_one_resource_become_one() {
        for (written, one) in [
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/%7Euser/%61?b=%2d", "/~user/a?b=-"),
            ("/a%2fb?c=%26", "/a%2Fb?c=%26"),
            ("/x?a={\"b\"|<c>}", "/x?a=%7B%22b%22%7C%3Cc%3E%7D"),
            ("/a%2Fb", "/a%2Fb"),
            ("/100%?a=%zz%41", "/100%?a=%zz%41"),
            ("/a[1]?b[]=!$&'()*+,;=:@", "/a[1]?b[]=!$&'()*+,;=:@"),
        ] {
            assert_eq!(one_spelling(written), one, "{written}");
        }
        assert_eq!(one_spelling_of_octets(b"/caf\xe9 %41"), "/caf%E9%20A");
    }

    proptest! {
        #[test]
        fn spelling_twice_changes_nothing(text in "([a-f0-9%/?&=~]|\\PC){0,24}") {
            let once = one_spelling(&text).into_owned();
            prop_assert_eq!(one_spelling(&once), once.as_str());
            prop_assert_eq!(once.find('?').is_some(), text.contains('?'));
        }
    }
}
