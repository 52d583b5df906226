//! The id by which one request is found again: in the logs, at its upstream, and in what its client was told.
//!
//! Promises: an id is one word that stands unquoted in a header field, in JSON and in a log line, of a bounded length.
//! Ids are told apart, not kept secret: nothing may be permitted to whoever knows one.

use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher as _, RandomState},
    io::Write as _,
};

use http::{HeaderName, HeaderValue};

/// The id of one request. Making and cloning one allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Origin);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// Made here: written as 32 hexadecimal digits.
    Here(u64, u64),
    /// Taken from who asked.
    Peer(HeaderValue),
}

impl RequestId {
    /// One that no other request has, of this edge or of another.
    pub fn next() -> Self {
        // Each thread counts for itself, from a start of its own.
        NEXT.with(|next| {
            let (thread, number) = next.get().unwrap_or_else(|| {
                let random = RandomState::new();
                (random.hash_one("thread"), random.hash_one("number"))
            });
            next.set(Some((thread, number.wrapping_add(STEP))));
            Self(Origin::Here(thread, mixed(number)))
        })
    }

    /// A peer's own; `None` where it is too long, or is not one word of letters, digits and a few signs.
    pub fn of_peer(value: &HeaderValue) -> Option<Self> {
        let octets = value.as_bytes();
        let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_.:+/=@~".contains(octet);
        let sane = (1..=LONGEST).contains(&octets.len()) && octets.iter().all(plain);
        sane.then(|| Self(Origin::Peer(value.clone())))
    }

    /// As a field's value.
    pub fn to_field(&self) -> HeaderValue {
        match &self.0 {
            Origin::Here(..) => {
                let mut digits = [0; 32];
                write!(digits.as_mut_slice(), "{self}").expect("there are 32 digits");
                HeaderValue::from_bytes(&digits).expect("digits are a field's value")
            }
            Origin::Peer(value) => value.clone(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Here(thread, number) => write!(formatter, "{thread:016x}{number:016x}"),
            Origin::Peer(value) => formatter.write_str(value.to_str().unwrap_or_default()),
        }
    }
}

thread_local! {
    static NEXT: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// Different numbers for different numbers (SplitMix64), so that an id's last digits tell as much as its first ones.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// A UUID has 36 characters, a trace's name 55, what some proxies make up a little over 60.
const LONGEST: usize = 128;
/// Where proxies and applications write it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_made_here_are_32_digits_and_all_differ() {
        let made = || (0..10_000).map(|_| RequestId::next().to_string()).collect::<Vec<_>>();
        let mut all: HashSet<String> = made().into_iter().collect();
        all.extend(std::thread::spawn(made).join().unwrap());
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|id| id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())));
    }

    #[test]
    fn a_peers_id_is_one_bounded_word() {
        let taken = |text: &[u8]| {
            RequestId::of_peer(&HeaderValue::from_bytes(text).unwrap()).map(|id| id.to_string())
        };
        for sane in [
            "1",
            "6f9a1c1e-4b0b-4c57-9d1e-0a4b1f7f3c2d",
            "Root=1-67891233-abcdef012345678912345678",
            "a/b+c==",
        ] {
            assert_eq!(taken(sane.as_bytes()).as_deref(), Some(sane));
        }
        for not in [&b""[..], b"a b", b"a\"b", b"a,b", b"<b>", b"a\tb", "é".as_bytes(), &[b'a'; 129]] {
            assert_eq!(taken(not), None);
        }
        assert!(taken(&[b'a'; 128]).is_some());
    }
}
