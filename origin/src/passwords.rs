//! Passwords, as argon2id (RFC 9106) in PHC strings.
//!
//! A hash costs 19 MiB and tens of milliseconds by design, so it is made on a blocking thread, a core's worth at a time, with a
//! bounded queue. It must never take longer or shorter for an account that does not exist.

use std::sync::Arc;

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash};
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
    metrics: Arc<Metrics>,
}

impl Passwords {
    /// Counts in `metrics` what it computes.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (cores, places) = (Arc::new(Semaphore::new(cores)), Arc::new(Semaphore::new(LONGEST_QUEUE)));
        Self { cores, places, metrics }
    }

    /// A PHC string with a salt of its own.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        let metrics = Arc::clone(&self.metrics);
        self.work(move || make(&metrics, &password)).await
    }

    /// Whether it is the password of the `known` hash. Without one the answer is no, after as much work.
    pub(crate) async fn verify(&self, password: String, known: Option<String>) -> Result<Verified, Problem> {
        let metrics = Arc::clone(&self.metrics);
        self.work(move || {
            let Ok(parsed) = PasswordHash::new(known.as_deref().unwrap_or(NOBODY)) else {
                return Verified { matches: false, upgraded: None };
            };
            let compared = counted(&metrics).verify_password(password.as_bytes(), &parsed).is_ok();
            let matches = compared && known.is_some();
            let upgraded = (matches && !is_usual(&parsed)).then(|| make(&metrics, &password));
            Verified { matches, upgraded }
        })
        .await
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

fn make(metrics: &Metrics, password: &str) -> String {
    let hash = counted(metrics).hash_password(password.as_bytes());
    hash.expect("any password below 4 GiB has a hash, and the system has random numbers for its salt")
        .to_string()
}

/// Whether a hash is made as [`make`] would make it today.
fn is_usual(hash: &PasswordHash) -> bool {
    let today = PasswordHash::new(NOBODY).expect("it is a PHC string");
    (&hash.algorithm, hash.version, &hash.params) == (&today.algorithm, today.version, &today.params)
}

/// Counts the one computation it is made for.
fn counted(metrics: &Metrics) -> Argon2<'static> {
    metrics.password_hashes.inc();
    Argon2::default()
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

    use argon2::password_hash::phc::Output;
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
        let made = Argon2::default().hash_password(b"correct horse").expect("a hash");
        let nobody = PasswordHash::new(NOBODY).expect("a PHC string");
        assert_eq!(
            (nobody.algorithm, nobody.version, &nobody.params),
            (made.algorithm, made.version, &made.params)
        );
        let length = |hash: &PasswordHash| hash.hash.as_ref().map(Output::len);
        assert_eq!(length(&nobody), length(&made));
        // Computed, not refused: a wrong password is the one reason to say no.
        let compared = Argon2::default().verify_password(b"correct horse", &nobody);
        assert!(matches!(compared, Err(argon2::password_hash::Error::PasswordInvalid)), "{compared:?}");
    }
}
