//! Keys that seal TLS session tickets, where several edges have the same: what one of them has begun, another resumes.
//!
//! A ticket is the name of its key, a nonce, and what is sealed. Who holds the keys, and when they change, is the business of
//! whoever sets them; without any, nothing is sealed or opened here.

use std::fmt;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

/// The keys in force. The first seals; all open.
#[derive(Debug, Default)]
pub struct TicketKeys(ArcSwap<Vec<TicketKey>>);

/// One key, of [`TicketKey::LENGTH`] octets that nobody else knows.
pub struct TicketKey {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl TicketKey {
    /// Its octets: a name that tickets show, and what is secret.
    pub const LENGTH: usize = NAME + 32;

    /// The key of these octets, if there are enough.
    pub fn of(octets: &[u8]) -> Option<Self> {
        let (name, secret) = octets.split_first_chunk::<NAME>()?;
        // So many are as good as used up by nobody: a key is changed long before its nonces may repeat.
        Some(Self { name: *name, key: RandomizedNonceKey::new(&AES_256_GCM, secret).ok()? })
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Puts these in force in place of those before.
    pub fn replace(&self, keys: Vec<TicketKey>) {
        self.0.store(keys.into());
    }

    /// A ticket for this content, if there is a key.
    pub fn seal(&self, content: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.load();
        let TicketKey { name, key } = keys.first()?;
        let mut sealed = content.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        Some([name, &nonce.as_ref()[..], &sealed].concat())
    }

    /// The content of a ticket that one of the keys has sealed.
    pub fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let keys = self.0.load();
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        let length = key.key.open_in_place(nonce, Aad::from(name), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

const NAME: usize = 16;
const NONCE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(octet: u8) -> TicketKey {
        TicketKey::of(&[octet; TicketKey::LENGTH]).unwrap()
    }

    #[test]
    fn whoever_has_the_key_opens_what_another_has_sealed_and_nobody_else() {
        let (one, other) = (TicketKeys::default(), TicketKeys::default());
        assert_eq!((one.seal(b"session"), one.open(&[7; 90])), (None, None), "without keys");
        one.replace(vec![key(1), key(2)]);
        let ticket = one.seal(b"session").unwrap();
        assert_ne!(one.seal(b"session").unwrap(), ticket, "no two are alike");
        assert_eq!(other.open(&ticket), None);
        other.replace(vec![key(3), key(1)]);
        assert_eq!(other.open(&ticket).unwrap(), b"session");
        for place in [0, 20, ticket.len() - 1] {
            let mut forged = ticket.clone();
            forged[place] ^= 1;
            assert_eq!(other.open(&forged), None);
        }
        assert_eq!(other.open(&ticket[..40]), None);
        assert!(TicketKey::of(&[1; 20]).is_none());
        assert!(!format!("{one:?}").contains('1'), "it is not shown");
    }
}
