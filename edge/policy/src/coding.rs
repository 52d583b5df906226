//! Content codings and their negotiation (RFC 9110 §8.4.1, §12.5.3).

use crate::directives::elements;
use crate::scan;
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderName};

/// A content coding that the edge can apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// No coding.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Every coding, in the order of [`Coding::index`].
    pub const ALL: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd];

    /// The coding's token in Content-Encoding.
    pub const fn token(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// The coding's place in an array of one slot per coding; identity is 0.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The coding of a token, compared without case; `x-gzip` is gzip (RFC 9110 §8.4.1.3).
    pub fn of_token(token: &[u8]) -> Option<Coding> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Coding::Gzip);
        }
        Coding::ALL.into_iter().find(|coding| coding.token().as_bytes().eq_ignore_ascii_case(token))
    }
}

/// A set of codings; identity is always in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Codings(u8);

impl Codings {
    /// Identity alone.
    pub const IDENTITY: Codings = Codings(1);
    /// Identity and gzip.
    pub const GZIP: Codings = Codings(0b11);
    /// Every coding.
    pub const ALL: Codings = Codings(0b1111);

    /// Whether `coding` is in the set.
    pub const fn contains(self, coding: Coding) -> bool {
        self.0 & 1 << coding.index() != 0
    }
}

impl Default for Codings {
    fn default() -> Codings {
        Codings::IDENTITY
    }
}

/// The offered coding the client likes best; `None` where it accepts none of them, identity included.
///
/// The highest q-value wins, then br before zstd before gzip before identity. Identity is always on offer; where the
/// client does not name it, any coding it does name is preferred.
pub fn choose_coding(request: &HeaderMap, offered: Codings) -> Option<Coding> {
    if !request.contains_key(ACCEPT_ENCODING) {
        return Some(Coding::Identity);
    }
    let mut named: [Option<u16>; 4] = [None; 4];
    let mut others: Option<u16> = None;
    for_each_weighted(request, &ACCEPT_ENCODING, |token, weight| {
        if token == b"*" {
            others.get_or_insert(weight);
        } else if let Some(coding) = Coding::of_token(token) {
            named[coding.index()].get_or_insert(weight);
        }
    });
    // Identity is acceptable unless excluded (§12.5.3); unnamed, it comes after everything that is named.
    let identity = named[Coding::Identity.index()].unwrap_or(match others {
        Some(0) => 0,
        _ => LEAST,
    });
    let weight = |coding: Coding| match coding {
        Coding::Identity => identity,
        _ if !offered.contains(coding) => 0,
        _ => named[coding.index()].or(others).unwrap_or(0),
    };
    let best = PREFERENCE.into_iter().max_by_key(|&coding| weight(coding))?;
    (weight(best) > 0).then_some(best)
}

/// The weight of something acceptable that nobody asked for: below q=0.001, which is 1.
const LEAST: u16 = 1;

/// Among equals the last wins.
const PREFERENCE: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Zstd, Coding::Brotli];

/// Calls `with` for each element of a weighted list (RFC 9110 §12.4.2): its value, white space and weight removed, and
/// its weight in thousandths. A weight that cannot be read stays part of the value, which then weighs 1.
pub fn for_each_weighted(request: &HeaderMap, field: &HeaderName, mut with: impl FnMut(&[u8], u16)) {
    for element in request.get_all(field).iter().flat_map(|line| elements(line.as_bytes())) {
        let (value, weight) = split_weight(element);
        with(value, weight);
    }
}

/// Splits a weight off: it is the last parameter, by its name.
pub(crate) fn split_weight(element: &[u8]) -> (&[u8], u16) {
    if let Some(semicolon) = scan::last_position(element, |byte| byte == b';') {
        let parameter = element[semicolon + 1..].trim_ascii();
        if let [b'q' | b'Q', b'=', value @ ..] = parameter
            && let Some(weight) = thousandths(value)
        {
            return (element[..semicolon].trim_ascii(), weight);
        }
    }
    (element, 1000)
}

/// Reads a q-value: `0`, `1`, or with up to three decimals, in thousandths.
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, decimals) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let whole = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let mut place = 100;
    let mut sum = whole;
    for digit in decimals {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum += u16::from(digit - b'0') * place;
        place /= 10;
    }
    Some(sum.min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn choose(accepted: &str) -> Option<Coding> {
        let request = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(accepted).unwrap())]);
        choose_coding(&request, Codings::ALL)
    }

    #[test]
    fn the_highest_weight_wins_then_our_preference() {
        assert_eq!(choose("gzip, deflate, br, zstd"), Some(Coding::Brotli));
        assert_eq!(choose("gzip, zstd"), Some(Coding::Zstd));
        assert_eq!(choose("gzip;q=1.0, br;q=0.9"), Some(Coding::Gzip));
        assert_eq!(choose("X-GZIP"), Some(Coding::Gzip));
        assert_eq!(choose("br;q=0, gzip;q=0.001"), Some(Coding::Gzip));
        assert_eq!(choose("gzip;q=0.5, identity"), Some(Coding::Identity));
    }

    #[test]
    fn identity_is_accepted_unless_excluded() {
        assert_eq!(choose_coding(&HeaderMap::new(), Codings::ALL), Some(Coding::Identity));
        assert_eq!(choose(""), Some(Coding::Identity));
        assert_eq!(choose("deflate"), Some(Coding::Identity));
        assert_eq!(choose("gzip;q=0"), Some(Coding::Identity));
        assert_eq!(choose("identity;q=0"), None);
        assert_eq!(choose("*;q=0"), None);
        assert_eq!(choose("*;q=0, identity"), Some(Coding::Identity));
        assert_eq!(choose("*;q=0, gzip"), Some(Coding::Gzip));
        assert_eq!(choose("*"), Some(Coding::Brotli));
        assert_eq!(choose("br;q=0, *"), Some(Coding::Zstd));
    }

    #[test]
    fn only_what_is_offered_is_chosen() {
        let request = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"))]);
        assert_eq!(choose_coding(&request, Codings::IDENTITY), Some(Coding::Identity));
        assert_eq!(choose_coding(&request, Codings::GZIP), Some(Coding::Gzip));
    }

    proptest! {
        #[test]
        fn what_is_excluded_is_never_chosen(accepted in "[a-z*;=q0-9., ]{0,40}") {
            let refused = format!("br;q=0, {accepted}, zstd;q=0");
            prop_assert_ne!(choose(&refused), Some(Coding::Brotli));
        }

        #[test]
        fn no_input_panics(accepted in "[ -~]{0,60}") {
            let _ = choose(&accepted);
        }
    }
}
