//! Names and passwords that a route asks for (RFC 7617).
//!
//! Promises: a password costs its hash once, on a thread of its own and few at a time, whoever tries how many; a name that
//! nobody has takes as long as any other; no password is kept, only a digest under a key that dies with the process.

use std::sync::{Arc, OnceLock};

use argon2::{Argon2, PasswordVerifier as _, password_hash::phc::PasswordHash};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use quick_cache::sync::Cache;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use crate::settings::{BasicAuth, HashText};

/// Passwords that are tried at once, over all routes.
const AT_ONCE: usize = 2;
/// Requests that may wait for one of them.
const MOST_WAITING: usize = 64;
/// Names and passwords that are known to be right.
const REMEMBERED: usize = 1024;

/// What is asked of a route's users, and who has shown already that they are one.
#[derive(Debug)]
pub struct Gatekeeper {
    settings: Arc<BasicAuth>,
    known: Cache<[u8; 32], ()>,
}

impl Gatekeeper {
    /// Knows nobody yet.
    pub fn new(settings: &Arc<BasicAuth>) -> Self {
        Self { settings: Arc::clone(settings), known: Cache::new(REMEMBERED) }
    }

    /// By what it judges.
    pub fn settings(&self) -> &Arc<BasicAuth> {
        &self.settings
    }

    /// Lets a request in whose `Authorization` names a user of the route.
    ///
    /// # Errors
    /// 401 without a name and password that are right, 503 when too many are being tried.
    pub async fn admit(&self, authorization: Option<&HeaderValue>) -> Result<(), Refusal> {
        let refused = || Refusal::Unauthorized(self.settings.challenge.clone());
        let (name, password) = authorization.and_then(credentials).ok_or_else(refused)?;
        let (hash, exists) = match self.settings.users.get(&name) {
            Some(hash) => (hash.clone(), true),
            None => (self.settings.users.any().cloned().ok_or_else(refused)?, false),
        };
        let digest = digest(&name, &password, &hash);
        if self.known.get(&digest).is_some() {
            return Ok(());
        }
        let right = verified(password, hash).await?;
        if !right || !exists {
            return Err(refused());
        }
        self.known.insert(digest, ());
        Ok(())
    }
}

/// Name and password; the name holds no colon.
fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

async fn verified(password: String, hash: HashText) -> Result<bool, Refusal> {
    static CORES: Semaphore = Semaphore::const_new(AT_ONCE);
    static PLACES: Semaphore = Semaphore::const_new(MOST_WAITING);
    let _place = PLACES.try_acquire().map_err(|_| Refusal::PasswordsBusy)?;
    let core = CORES.acquire().await.map_err(|_| Refusal::PasswordsBusy)?;
    let work = move || {
        let right = match &hash {
            HashText::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            HashText::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        };
        // Given back by the thread and not by the future: when a client leaves, the thread goes on.
        drop(core);
        right
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::PasswordsBusy)
}

/// Names a name, a password and its hash for as long as the process runs.
fn digest(name: &str, password: &str, hash: &HashText) -> [u8; 32] {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = [0; 32];
        aws_lc_rs::default_provider().secure_random.fill(&mut key).expect("the system has random numbers");
        key
    });
    let (HashText::Bcrypt(hash) | HashText::Argon2(hash)) = hash;
    let mut digest = Sha256::new_with_prefix(key);
    for part in [name, password, hash] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_read_as_the_rfc_writes_them() {
        let read = |text: &str| credentials(&HeaderValue::from_str(text).unwrap());
        let ada = Some(("ada".to_owned(), "a:b c".to_owned()));
        assert_eq!(read("Basic YWRhOmE6YiBj"), ada);
        assert_eq!(read("basic  YWRhOmE6YiBj "), ada);
        for bad in ["Bearer YWRhOmE6YiBj", "Basic", "Basic YWRh", "Basic !", "Basic /w=="] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
