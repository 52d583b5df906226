//! Passwords, as argon2id (RFC 9106) in PHC strings.
//!
//! A hash costs 19 MiB and tens of milliseconds by design, so it is made on a blocking thread, a core's worth at a time, with a
//! bounded queue. It must never take longer or shorter for an account that does not exist.

use std::sync::{Arc, OnceLock};

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Requests that may wait for a hash: at some 30 ms each, the last of them still has its answer within seconds.
const LONGEST_QUEUE: usize = 64;

/// The one place that hashes.
#[derive(Debug, Clone)]
pub struct Passwords {
    cores: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores: Arc::new(Semaphore::new(cores)), places: Arc::new(Semaphore::new(LONGEST_QUEUE)) }
    }
}

impl Passwords {
    /// A PHC string with a salt of its own.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        self.work(move || hash(&password)).await
    }

    /// Whether it is the password; without a `known` hash, no, after as much work.
    pub(crate) async fn verify(&self, password: String, known: Option<String>) -> Result<bool, Problem> {
        static NOBODY: OnceLock<String> = OnceLock::new();
        self.work(move || {
            let exists = known.is_some();
            // Made for the first who asks, whether they exist or not.
            let nobody = NOBODY.get_or_init(|| hash("nobody's password"));
            let phc = known.unwrap_or_else(|| nobody.clone());
            let parsed = PasswordHash::new(&phc);
            let matches = parsed
                .is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok());
            matches && exists
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let core = self.core().await?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            // Here and not with the future: a client that vanishes does not stop the thread.
            drop(core);
            result
        });
        worked.await.map_err(|error| {
            tracing::error!(%error, "a password could not be hashed");
            Problem::internal()
        })
    }

    async fn core(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(core) = Arc::clone(&self.cores).try_acquire_owned() {
            return Ok(core);
        }
        let _place = self.places.try_acquire().map_err(|_| Problem::overloaded())?;
        Arc::clone(&self.cores).acquire_owned().await.map_err(|_| Problem::internal())
    }
}

fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("any password below 4 GiB has a hash, and the system has random numbers for its salt")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_verifies_and_nobody_has_one() {
        let passwords = Passwords::default();
        let one = passwords.hash("correct horse".to_owned()).await.expect("a hash");
        let other = passwords.hash("correct horse".to_owned()).await.expect("a hash");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && one != other);
        let verify = async |password: &str, known: Option<&str>| {
            passwords.verify(password.to_owned(), known.map(str::to_owned)).await.expect("an answer")
        };
        assert!(verify("correct horse", Some(&one)).await);
        assert!(!verify("correct horsf", Some(&one)).await);
        assert!(!verify("nobody's password", None).await);
        assert!(!verify("x", Some("no PHC string")).await);
    }
}
