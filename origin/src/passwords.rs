//! Passwords, as argon2id (RFC 9106) in PHC strings.
//!
//! A hash costs 19 MiB and tens of milliseconds by design, so it is made on a blocking thread, a core's worth at a time, with a
//! bounded queue, in memory that is kept for the next: to be given so much anew costs a tenth of the time again, and allocators
//! keep what each thread has had. It must never take longer or shorter for an account that does not exist.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{observe::Metrics, problem::Problem};

/// Requests that may wait for a hash: at some 30 ms each, the last of them still has its answer within seconds.
const LONGEST_QUEUE: usize = 64;

/// What is compared for an account that does not exist: a hash of as much work as any other, which no password has.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUu$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The one place that hashes.
#[derive(Debug, Clone)]
pub struct Passwords {
    cores: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// What hashes were made in, and are made in: no more of it than cores.
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
    metrics: Arc<Metrics>,
}

impl Passwords {
    /// Counts in `metrics` what it computes.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (cores, places) = (Arc::new(Semaphore::new(cores)), Arc::new(Semaphore::new(LONGEST_QUEUE)));
        Self { cores, places, memory: Arc::default(), metrics }
    }

    /// A PHC string with a salt of its own.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        let passwords = self.clone();
        self.work(move || passwords.make(&password)).await
    }

    /// Whether it is the password of the `known` hash. Without one the answer is no, after as much work.
    pub(crate) async fn verify(&self, password: String, known: Option<String>) -> Result<Verified, Problem> {
        let passwords = self.clone();
        self.work(move || {
            let Ok(parsed) = PasswordHash::new(known.as_deref().unwrap_or(NOBODY)) else {
                return Verified { matches: false, upgraded: None };
            };
            let compared = passwords.compare(&password, &parsed).unwrap_or(false);
            let matches = compared && known.is_some();
            let upgraded = (matches && !is_usual(&parsed)).then(|| passwords.make(&password));
            Verified { matches, upgraded }
        })
        .await
    }

    fn make(&self, password: &str) -> String {
        let usual = Argon2::default();
        let made = || {
            let salt = Salt::new(&rand::random::<[u8; 16]>()).ok()?;
            let hash = self.compute(&usual, password, &salt, Params::DEFAULT_OUTPUT_LEN)?;
            let params = ParamsString::try_from(usual.params()).ok()?;
            let (algorithm, version) = (Algorithm::Argon2id.ident(), Some(Version::V0x13.into()));
            Some(PasswordHash { algorithm, version, params, salt: Some(salt), hash: Some(hash) }.to_string())
        };
        made().expect("any password below 4 GiB has a hash")
    }

    /// Whether it is the password of this hash, in a time that tells nothing of how nearly; `None` for a hash that is none.
    fn compare(&self, password: &str, known: &PasswordHash) -> Option<bool> {
        let algorithm = Algorithm::try_from(known.algorithm.as_str()).ok()?;
        let version = Version::try_from(known.version?).ok()?;
        let argon2 = Argon2::new(algorithm, version, Params::try_from(known).ok()?);
        let (salt, hash) = (known.salt.as_ref()?, known.hash.as_ref()?);
        Some(self.compute(&argon2, password, salt, hash.len())? == *hash)
    }

    fn compute(&self, argon2: &Argon2<'_>, password: &str, salt: &Salt, length: usize) -> Option<Output> {
        self.metrics.password_hashes.inc();
        let (mut buffer, blocks) = ([0; Output::MAX_LENGTH], argon2.params().block_count());
        let output = buffer.get_mut(..length)?;
        // Hashes of other parameters are rare, and need another amount.
        let kept = self.memory.lock().pop().filter(|kept| kept.len() == blocks);
        let mut memory = kept.unwrap_or_else(|| vec![Block::new(); blocks]);
        let done = argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, &mut memory);
        self.memory.lock().push(memory);
        done.ok()?;
        Output::new(output).ok()
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let core = self.core().await?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            // Freed by the thread and not by the future: when a client vanishes, the thread goes on.
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

/// What became of a password that was compared.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) matches: bool,
    /// A hash of the same password to keep in place of the old one, which was made with other parameters than are usual now.
    pub(crate) upgraded: Option<String>,
}

/// Whether a hash is made as one would be today.
fn is_usual(hash: &PasswordHash) -> bool {
    let today = PasswordHash::new(NOBODY).expect("it is a PHC string");
    (&hash.algorithm, hash.version, &hash.params) == (&today.algorithm, today.version, &today.params)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use argon2::{PasswordHasher as _, PasswordVerifier as _};
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn only_the_password_verifies_and_nobody_has_one() {
        let passwords = Passwords::new(Arc::new(Metrics::new(Duration::from_secs(1))));
        let one = passwords.hash("correct horse".to_owned()).await.expect("a hash");
        let other = passwords.hash("correct horse".to_owned()).await.expect("a hash");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && one != other);
        let verify = async |password: &str, known: Option<&str>| {
            let known = known.map(str::to_owned);
            passwords.verify(password.to_owned(), known).await.expect("an answer").matches
        };
        assert!(verify("correct horse", Some(&one)).await);
        assert!(!verify("correct horsf", Some(&one)).await);
        assert!(!verify("nobody's password", None).await);
        assert!(!verify("x", Some("no PHC string")).await);
    }

    #[tokio::test]
    async fn no_more_hashes_are_made_at_once_than_there_are_cores_and_who_finds_no_place_is_told_at_once() {
        let cores = 3;
        let passwords = Passwords {
            cores: Arc::new(Semaphore::new(cores)),
            ..Passwords::new(Arc::new(Metrics::new(Duration::from_secs(1))))
        };
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // As many as there are cores wait for each other: if fewer could run at once, none would end.
        let together = Arc::new(Barrier::new(cores));
        let works: JoinSet<_> = (0..4 * cores)
            .map(|_| {
                let (passwords, together) = (passwords.clone(), Arc::clone(&together));
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        together.wait();
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    passwords.work(work).await.expect("a place in the queue");
                }
            })
            .collect();
        works.join_all().await;
        assert_eq!(most.load(Ordering::SeqCst), cores);

        let _cores = passwords.cores.acquire_many(3).await.expect("all");
        let places = u32::try_from(passwords.places.available_permits()).expect("few");
        let _places = passwords.places.acquire_many(places).await.expect("all");
        let refused = passwords.hash("correct horse".to_owned()).await.expect_err("there is no place");
        assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn nobodys_hash_is_as_much_work_as_any() {
        let passwords = Passwords::new(Arc::new(Metrics::new(Duration::from_secs(1))));
        let made = passwords.make("correct horse");
        let made = PasswordHash::new(&made).expect("a PHC string");
        let nobody = PasswordHash::new(NOBODY).expect("a PHC string");
        assert_eq!(
            (nobody.algorithm, nobody.version, &nobody.params),
            (made.algorithm, made.version, &made.params)
        );
        let length = |hash: &PasswordHash| hash.hash.as_ref().map(Output::len);
        assert_eq!(length(&nobody), length(&made));
        // Computed, not refused: a wrong password is the one reason to say no.
        assert_eq!(passwords.compare("correct horse", &nobody), Some(false));
        // By whatever else makes such hashes, too, and in memory that was used before.
        for _ in 0..2 {
            assert_eq!(Argon2::default().verify_password(b"correct horse", &made), Ok(()));
            assert_eq!(passwords.compare("correct horse", &made), Some(true));
            assert_eq!(passwords.compare("correct horsf", &made), Some(false));
        }
        let weaker = Params::new(64, 1, 1, None).expect("parameters");
        let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, weaker).hash_password(b"correct horse");
        assert_eq!(passwords.compare("correct horse", &weaker.expect("a hash")), Some(true));
        assert_eq!(passwords.memory.lock().len(), 1);
    }
}
