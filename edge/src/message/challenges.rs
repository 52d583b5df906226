//! Proofs that the edge serves a name, for certificate authorities that ask (RFC 8555 §8.3, RFC 8737 §3), while they ask.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::sign::CertifiedKey;

/// The proofs that are asked for now: those of one order.
#[derive(Default)]
pub struct Challenges {
    /// By the last segment of the path.
    by_token: ArcSwap<HashMap<Box<str>, Bytes>>,
    /// By the name in lower case.
    by_name: ArcSwap<HashMap<Box<str>, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// What a path is answered with, if a proof lies there (RFC 8555 §8.3).
    pub fn at_path(&self, path: &str) -> Option<Bytes> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        self.by_token.load().get(token).cloned()
    }

    /// The certificate that proves a name in a handshake for `acme-tls/1` (RFC 8737 §3).
    pub fn of_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.by_name.load().get(&*name.to_ascii_lowercase()).cloned()
    }

    /// Answers with this text at this token, until the value that is returned goes.
    #[must_use]
    pub fn answer_at(self: &Arc<Self>, token: &str, text: Bytes) -> Proof {
        let mut proofs = HashMap::clone(&self.by_token.load());
        proofs.insert(token.into(), text);
        self.by_token.store(Arc::new(proofs));
        Proof(Arc::clone(self))
    }

    /// Shows this certificate for this name, until the value that is returned goes.
    #[must_use]
    pub fn show(self: &Arc<Self>, name: &str, certificate: Arc<CertifiedKey>) -> Proof {
        let mut proofs = HashMap::clone(&self.by_name.load());
        proofs.insert(name.into(), certificate);
        self.by_name.store(Arc::new(proofs));
        Proof(Arc::clone(self))
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Challenges").finish_non_exhaustive()
    }
}

/// Proofs are there as long as this value. One order is under way at a time, and its proofs go together.
#[derive(Debug)]
pub struct Proof(Arc<Challenges>);

impl Drop for Proof {
    fn drop(&mut self) {
        self.0.by_token.store(Arc::default());
        self.0.by_name.store(Arc::default());
    }
}

/// RFC 8555 §8.3.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The protocol of ALPN in which an authority asks (RFC 8737 §6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_there_while_it_is_asked_for() {
        let challenges = Arc::new(Challenges::default());
        let proof = challenges.answer_at("token", Bytes::from_static(b"token.print"));
        assert_eq!(
            challenges.at_path("/.well-known/acme-challenge/token").as_deref(),
            Some(&b"token.print"[..])
        );
        for other in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/token", "/"] {
            assert_eq!(challenges.at_path(other), None, "{other}");
        }
        drop(proof);
        assert_eq!(challenges.at_path("/.well-known/acme-challenge/token"), None);
    }
}
