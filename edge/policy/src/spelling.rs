//! One spelling of a path and query, for keys, purges and invalidations (RFC 3986 §6.2.2).
//!
//! Promises that two texts get one spelling only where RFC 3986 holds them to be the same: hexadecimal digits of
//! percent-encodings in upper case (§6.2.2.1), unreserved characters decoded (§6.2.2.2), and what may not stand in a URI
//! as itself encoded (§2.1). Reserved characters stay as they are: `/` and `%2F` are not the same. A `%` that encodes
//! nothing stays as it is, and nothing is decoded that would complete it, so that spelling twice never changes what was
//! spelt once. What a text ends with never changes how it begins, so that prefixes meet what begins with them.

use std::borrow::Cow;

/// The one spelling of a path, a query, or both.
pub fn one_spelling(text: &str) -> Cow<'_, str> {
    if text.as_bytes().iter().all(|octet| stays(*octet)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(one_spelling_of_octets(text.as_bytes()))
}

/// The one spelling of a host (RFC 3986 §6.2.2, RFC 4291 §2.2): lower case, unreserved characters decoded, IPv6 in its
/// short form, and without the dot that ends an absolute name in DNS.
pub fn one_host(host: &str) -> Box<str> {
    let is_plain =
        |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'.');
    if host.as_bytes().iter().all(|octet| is_plain(*octet)) && (host.len() == 1 || !host.ends_with('.')) {
        return host.into();
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(address) = literal.and_then(|literal| literal.parse::<std::net::Ipv6Addr>().ok()) {
        return format!("[{address}]").into();
    }
    let mut plain = String::with_capacity(host.len());
    let mut rest = host;
    while let Some(character) = rest.chars().next() {
        let (decoded, length) =
            decode_unreserved(rest).map_or((character, character.len_utf8()), |decoded| (decoded, 3));
        plain.push(decoded.to_ascii_lowercase());
        rest = &rest[length..];
    }
    if plain.len() > 1 && plain.ends_with('.') && !plain.ends_with("..") {
        plain.pop();
    }
    plain.into()
}

/// As [`one_spelling`], of octets that may be no text: what a field holds.
pub(crate) fn one_spelling_of_octets(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() + 16);
    let mut encodes_nothing = None;
    let mut rest = octets;
    while let [octet, after @ ..] = rest {
        rest = after;
        match (octet, encoded_after_percent(after)) {
            (b'%', None) => {
                encodes_nothing = Some(text.len());
                text.push('%');
            }
            (b'%', Some(octet)) => {
                rest = &after[2..];
                let completes =
                    octet.is_ascii_hexdigit() && encodes_nothing.is_some_and(|place| text.len() - place <= 2);
                if is_unreserved(octet) && !completes {
                    text.push(char::from(octet));
                } else {
                    encode(octet, &mut text);
                }
            }
            (&octet, _) if stays(octet) => text.push(char::from(octet)),
            (&octet, _) => encode(octet, &mut text),
        }
    }
    text
}

/// The unreserved character that a text begins with in percent-encoding (RFC 3986 §2.3).
fn decode_unreserved(text: &str) -> Option<char> {
    let octet = encoded(text.as_bytes())?;
    is_unreserved(octet).then_some(char::from(octet))
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
    STAYS[octet as usize]
}

static STAYS: [bool; 256] = {
    let mut stays = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        let encoded =
            matches!(octet as u8, b'%' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
        stays[octet] = (octet as u8).is_ascii_graphic() && !encoded;
        octet += 1;
    }
    stays
};

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
            ("/100%?a=%zz%41", "/100%?a=%zzA"),
            ("/%%34%31?%a%31", "/%%341?%a%31"),
            ("/a[1]?b[]=!$&'()*+,;=:@", "/a[1]?b[]=!$&'()*+,;=:@"),
        ] {
            assert_eq!(one_spelling(written), one, "{written}");
        }
        assert_eq!(one_spelling_of_octets(b"/caf\xe9 %41"), "/caf%E9%20A");
    }

    /// `shop.test.` was another host than `shop.test`, with keys of its own.
    #[test]
    fn spellings_of_one_host_become_one() {
        for (written, one) in [
            ("Shop.Test.", "shop.test"),
            ("%53hop%2dA.test", "shop-a.test"),
            ("a%C3%a9.test", "a%c3%a9.test"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            (".", "."),
            ("a..", "a.."),
        ] {
            assert_eq!(&*one_host(written), one, "{written}");
            assert_eq!(&*one_host(one), one, "{written}");
        }
    }

    proptest! {
        /// A `%` that encodes nothing, anywhere, kept the whole text from being spelt: `/caf%c3%a9?x=%` did not begin with
        /// `/caf%C3%A9`, and a purge of that prefix left it.
        #[test]
        fn what_follows_changes_nothing_before_it(
            text in "([a-f0-9%/?&=~]|\\PC){0,12}",
            more in "([a-f0-9%/?&=~]|\\PC){0,12}",
        ) {
            let (whole, begin) = (format!("{text}/{more}"), format!("{text}/"));
            prop_assert!(one_spelling(&whole).starts_with(&*one_spelling(&begin)));
        }

        #[test]
        fn spelling_twice_changes_nothing(text in "([a-f0-9%/?&=~]|\\PC){0,24}") {
            let once = one_spelling(&text).into_owned();
            prop_assert_eq!(one_spelling(&once), once.as_str());
            prop_assert_eq!(once.find('?').is_some(), text.contains('?'));
        }
    }
}
