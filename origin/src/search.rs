//! Searching: what somebody has typed, as the database takes it, and bounds that keep it from costing others their answers.
//!
//! A search is the one read whose cost its sender chooses. So it has a rate of its own for each client, a share of the
//! connections, and a time after which it is given up; whoever is over them is told when to come back, and nobody else waits.

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock as _, state::keyed::HashMapStateStore};
use tokio::{sync::Semaphore, time::timeout};

use crate::{client::Client, problem::Problem, settings::SearchSettings};

const LONGEST: usize = 100;
const MOST_WORDS: usize = 12;
/// Shorter beginnings of words are in too many of them.
const SHORTEST_PREFIX: usize = 2;

/// Words to look for, in one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    /// For entity tags: lower case, one space between any two.
    pub(crate) spelled: String,
    /// As `to_tsquery` takes it: words of letters and digits only, so nothing in it can be an operator of somebody's own.
    pub(crate) query: String,
}

impl Words {
    /// All words, the last of them perhaps only begun; without those after a hyphen (`red kettle -enamel`). `None`: nothing is
    /// asked for.
    ///
    /// # Errors
    /// 400 for more than 100 characters, more than twelve words, or none that is to be found: what is only to be left out
    /// would be looked for in every product.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, Problem> {
        if text.chars().count() > LONGEST || text.contains('\0') {
            return Err(Problem::invalid("`search` is at most 100 characters of text"));
        }
        let spelled = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        if spelled.is_empty() {
            return Ok(None);
        }
        let (mut query, mut words, mut wanted) = (String::new(), 0, 0);
        let mut parts = spelled.split(' ').flat_map(|part| {
            let left_out = part.starts_with('-');
            let words = part.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
            words.map(move |word| (left_out, word))
        });
        let mut next = parts.next();
        while let Some((left_out, word)) = next {
            next = parts.next();
            words += 1;
            wanted += usize::from(!left_out);
            let begun = next.is_none() && !left_out && word.chars().nth(SHORTEST_PREFIX - 1).is_some();
            let (before, after) = (if left_out { "!" } else { "" }, if begun { ":*" } else { "" });
            let and = if words > 1 { " & " } else { "" };
            write!(query, "{and}{before}'{word}'{after}").expect("a string takes what is written to it");
        }
        if words > MOST_WORDS {
            return Err(Problem::invalid("`search` is at most twelve words"));
        }
        if wanted == 0 {
            return Err(Problem::invalid("`search` names a word to find, not only what to leave out"));
        }
        Ok(Some(Self { spelled, query }))
    }
}

/// The bounds of searching, shared by all requests.
#[derive(Debug, Clone)]
pub struct Searches {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// By a digest of the client that has so few values that the map cannot grow large. Two clients of the same one share a rate.
    rates: RateLimiter<u16, HashMapStateStore<u16>, governor::clock::DefaultClock>,
    digest: RandomState,
    places: Semaphore,
    patience: Duration,
}

impl Searches {
    pub fn new(settings: &SearchSettings) -> Self {
        let quota = Quota::per_second(settings.rate).allow_burst(settings.burst);
        let shared = Shared {
            rates: RateLimiter::hashmap(quota),
            digest: RandomState::new(),
            places: Semaphore::new(settings.connections.get() as usize),
            patience: settings.timeout,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Does the work of one search within the bounds. Given up, it is dropped, which ends its statement.
    ///
    /// # Errors
    /// 429 for a client that asks too often, 503 when there is no answer in time; otherwise the work's own.
    pub(crate) async fn within<T, E: From<Problem>>(
        &self,
        client: Client,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Shared { rates, digest, places, patience } = &*self.shared;
        let [low, high, ..] = digest.hash_one(client.text()).to_le_bytes();
        if let Err(early) = rates.check_key(&u16::from_le_bytes([low, high])) {
            return Err(Problem::too_many_searches(early.wait_time_from(rates.clock().now())).into());
        }
        let placed = async {
            let _place = places.acquire().await.map_err(|_| Problem::internal())?;
            work.await
        };
        timeout(*patience, placed).await.unwrap_or_else(|_| Err(Problem::search_too_slow().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_words_and_never_an_operator() {
        for (typed, query) in [
            ("Kettle", "'kettle':*"),
            ("  Red  Kettle ", "'red' & 'kettle':*"),
            ("cast-iron pan", "'cast' & 'iron' & 'pan':*"),
            ("kettle -enamel", "'kettle' & !'enamel'"),
            ("-cast-iron kettle", "!'cast' & !'iron' & 'kettle':*"),
            ("k", "'k'"),
            ("ke", "'ke':*"),
            ("a' | 'b:* & (c) <-> !d\\", "'a' & 'b' & 'c' & 'd'"),
            ("Größe 4", "'größe' & '4'"),
        ] {
            let words = Words::parse(typed).expect("valid").expect("words");
            assert_eq!(words.query, query, "{typed}");
        }
        assert_eq!(Words::parse(" \t").expect("nothing is asked for"), None);
        for refused in ["-zzz", "-a -b", "!!", "- -", &"a ".repeat(13), &"a".repeat(101), "a\0b"] {
            assert!(Words::parse(refused).is_err(), "{refused}");
        }
    }
}
