//! What is secret lies in Redis sealed: whoever reads Redis without the operator's secret learns nothing of it, and whoever writes
//! there has nothing believed.

use std::{fs, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hkdf,
};

/// A seal of edges that have the same secret.
pub(super) struct Seal(RandomizedNonceKey);

impl Seal {
    /// The seal of the secret in a file.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub(super) fn of_file(file: &Path) -> Result<Self, String> {
        let remedy = "let all edges have a file alike, made by: openssl rand -hex 32";
        let secret = fs::read(file)
            .map_err(|error| format!("`secret_file` of [redis], {}: {error}; {remedy}", file.display()))?;
        let secret = secret.trim_ascii();
        if secret.len() < SHORTEST {
            let length = secret.len();
            let file = file.display();
            return Err(format!(
                "`secret_file` of [redis], {file}: {length} characters can be guessed; {remedy}"
            ));
        }
        Self::of(secret).ok_or_else(|| "no seal can be made".to_owned())
    }

    fn of(secret: &[u8]) -> Option<Self> {
        let mut key = [0; 32];
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"gatehouse").extract(secret);
        secret.expand(&[b"what edges share"], hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
        Some(Self(RandomizedNonceKey::new(&AES_256_GCM, &key).ok()?))
    }

    /// Seals a content as what it is: it is opened as nothing else.
    pub(super) fn close(&self, what: &str, content: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = content.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(what), &mut sealed).ok()?;
        Some([&nonce.as_ref()[..], &sealed].concat())
    }

    pub(super) fn open(&self, what: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<12>()?;
        let mut content = sealed.to_vec();
        let length = self.0.open_in_place(Nonce::from(nonce), Aad::from(what), &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

/// In octets.
const SHORTEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_secret_as_the_same_thing() {
        let seal = |secret: &str| Seal::of(secret.as_bytes()).unwrap();
        let sealed = seal("one").close("tickets", b"key").unwrap();
        assert!(!sealed.windows(3).any(|octets| octets == b"key"));
        assert_eq!(seal("one").open("tickets", &sealed).unwrap(), b"key");
        assert_eq!(seal("two").open("tickets", &sealed), None);
        assert_eq!(seal("one").open("account", &sealed), None);
        assert_eq!(seal("one").open("tickets", &sealed[..11]), None);
    }

    #[test]
    fn a_file_that_will_not_do_is_told_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for content in [None, Some("short\n")] {
            if let Some(content) = content {
                fs::write(&file, content).unwrap();
            }
            let told = Seal::of_file(&file).err().unwrap();
            assert!(told.contains("secret_file") && told.contains("openssl rand"), "{told}");
        }
        fs::write(&file, format!("{}\n", "0123456789abcdef".repeat(4))).unwrap();
        assert!(Seal::of_file(&file).is_ok());
    }
}
