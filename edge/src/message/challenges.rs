//! Proofs that the edge serves a name, for certificate authorities that ask (RFC 8555 §8.3, RFC 8737 §3), while they ask.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use crate::settings::credentials::provider;

/// The proofs that are asked for now, those of a few orders.
#[derive(Default)]
pub struct Challenges {
    /// By the last segment of the path.
    by_token: ArcSwap<HashMap<Box<str>, Bytes>>,
    /// By the name in lower case.
    by_name: ArcSwap<HashMap<Box<str>, Arc<CertifiedKey>>>,
    /// Those of other edges, which order for names that lead here as well.
    of_others: ArcSwap<ProofsOfOthers>,
}

#[derive(Default)]
struct ProofsOfOthers {
    by_token: HashMap<Box<str>, Bytes>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
}

/// A proof as edges tell it to each other. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedProof {
    /// The text that lies at a token.
    Token { token: String, text: String },
    /// The digest that a certificate for the name has, in hexadecimal.
    Name { name: String, digest: String },
}

impl SharedProof {
    /// In a line.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            Self::Token { token, text } => format!("token {token} {text}"),
            Self::Name { name, digest } => format!("name {name} {digest}"),
        }
    }

    /// Those of all these lines that can be read.
    #[must_use]
    pub fn read_all(lines: &str) -> Vec<Self> {
        let read = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
            ["token", token, text] => Some(Self::Token { token: token.to_owned(), text: text.to_owned() }),
            ["name", name, digest] => Some(Self::Name { name: name.to_owned(), digest: digest.to_owned() }),
            _ => None,
        };
        lines.lines().filter_map(read).take(MOST_OF_OTHERS).collect()
    }
}

/// Orders under way at other edges.
const MOST_OF_OTHERS: usize = 64;

/// A certificate by which a name is proven (RFC 8737 §3).
///
/// # Errors
/// Why none can be made, in words.
pub fn proving_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let make = || {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        Ok::<_, rcgen::Error>((params.self_signed(&key)?, key))
    };
    let (certificate, key) = make().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The octets of a digest of SHA-256 in hexadecimal.
fn octets(hexadecimal: &str) -> Option<Vec<u8>> {
    let whole = hexadecimal.len() == 64 && hexadecimal.is_ascii();
    let octet = |at: usize| u8::from_str_radix(hexadecimal.get(at..at + 2)?, 16).ok();
    whole.then(|| (0..64).step_by(2).map(octet).collect()).flatten()
}

impl Challenges {
    /// What a path is answered with, if a proof lies there (RFC 8555 §8.3).
    pub fn at_path(&self, path: &str) -> Option<Bytes> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        let own = self.by_token.load().get(token).cloned();
        own.or_else(|| self.of_others.load().by_token.get(token).cloned())
    }

    /// The certificate that proves a name in a handshake for `acme-tls/1` (RFC 8737 §3).
    pub fn of_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let own = self.by_name.load().get(&*name).cloned();
        own.or_else(|| self.of_others.load().by_name.get(&*name).cloned())
    }

    /// Shows what other edges' orders need, in place of what was shown for them.
    pub fn show_others(&self, proofs: Vec<SharedProof>) {
        let mut of_others = ProofsOfOthers::default();
        for proof in proofs {
            match proof {
                SharedProof::Token { token, text } => {
                    of_others.by_token.insert(token.into(), text.into());
                }
                SharedProof::Name { name, digest } => {
                    let made = octets(&digest).and_then(|digest| proving_certificate(&name, &digest).ok());
                    of_others.by_name.extend(made.map(|made| (name.into(), Arc::new(made))));
                }
            }
        }
        self.of_others.store(Arc::new(of_others));
    }

    /// Answers with this text at this token, until the value that is returned goes.
    #[must_use]
    pub fn answer_at(self: &Arc<Self>, token: &str, text: Bytes) -> Proof {
        self.by_token.rcu(move |proofs| {
            let mut proofs = HashMap::clone(proofs);
            proofs.insert(token.into(), text.clone());
            proofs
        });
        Proof { of: Arc::clone(self), lies: ProofLies::AtToken(token.into()) }
    }

    /// Shows this certificate for this name, until the value that is returned goes.
    #[must_use]
    pub fn show(self: &Arc<Self>, name: &str, certificate: Arc<CertifiedKey>) -> Proof {
        self.by_name.rcu(move |proofs| {
            let mut proofs = HashMap::clone(proofs);
            proofs.insert(name.into(), Arc::clone(&certificate));
            proofs
        });
        Proof { of: Arc::clone(self), lies: ProofLies::OfName(name.into()) }
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Challenges").finish_non_exhaustive()
    }
}

/// A proof is there as long as this value.
#[derive(Debug)]
pub struct Proof {
    of: Arc<Challenges>,
    lies: ProofLies,
}

#[derive(Debug)]
enum ProofLies {
    AtToken(Box<str>),
    OfName(Box<str>),
}

impl Drop for Proof {
    fn drop(&mut self) {
        match &self.lies {
            ProofLies::AtToken(token) => {
                self.of.by_token.rcu(|proofs| without(proofs, token));
            }
            ProofLies::OfName(name) => {
                self.of.by_name.rcu(|proofs| without(proofs, name));
            }
        }
    }
}

fn without<T: Clone>(proofs: &HashMap<Box<str>, T>, gone: &str) -> HashMap<Box<str>, T> {
    let mut proofs = proofs.clone();
    proofs.remove(gone);
    proofs
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
        let other = challenges.answer_at("other", Bytes::from_static(b"other.print"));
        drop(proof);
        assert_eq!(challenges.at_path("/.well-known/acme-challenge/token"), None);
        assert!(challenges.at_path("/.well-known/acme-challenge/other").is_some(), "another order's");
        drop(other);
        assert_eq!(challenges.at_path("/.well-known/acme-challenge/other"), None);
    }

    #[test]
    fn what_another_edge_has_to_show_is_shown_until_it_is_told_otherwise() {
        let challenges = Arc::new(Challenges::default());
        let proofs = [
            SharedProof::Token { token: "theirs".to_owned(), text: "theirs.print".to_owned() },
            SharedProof::Name { name: "shop.test".to_owned(), digest: "ab".repeat(32) },
        ];
        let lines: Vec<String> = proofs.iter().map(SharedProof::to_line).collect();
        let read = SharedProof::read_all(&format!("{}\nnonsense\nname a.test xyz", lines.join("\n")));
        assert_eq!(read[..2], proofs);
        challenges.show_others(read);
        assert_eq!(
            challenges.at_path("/.well-known/acme-challenge/theirs").as_deref(),
            Some(&b"theirs.print"[..])
        );
        assert!(challenges.of_name("SHOP.test").is_some() && challenges.of_name("a.test").is_none());
        drop(challenges.answer_at("ours", Bytes::from_static(b"ours.print")));
        assert!(
            challenges.at_path("/.well-known/acme-challenge/theirs").is_some(),
            "this edge's own end alone"
        );
        challenges.show_others(Vec::new());
        assert!(challenges.at_path("/.well-known/acme-challenge/theirs").is_none());
        assert!(challenges.of_name("shop.test").is_none());
    }
}
