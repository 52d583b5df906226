//! Queries that mean the same (No-Vary-Search): from one URL to another under which the answer is stored.
//!
//! Holds names only. An answer stays stored under the URL it was fetched by, so a purge has nothing to do here; whoever finds
//! a name looks what is stored under it now, and whether that still says what was learnt. Bounded in bytes: what falls out
//! costs a fetch.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cache_policy::NoVarySearch;
use http::HeaderMap;
use quick_cache::{Weighter, sync::Cache};

use super::Key;

/// What has been learnt.
#[derive(Debug)]
pub struct NoVarySearchIndex {
    /// Whether there is anything to find: most origins never say a word about it.
    any: AtomicBool,
    /// The rules that answers of a path stated, newest first.
    rules: Cache<Box<str>, Arc<[NoVarySearch]>, ByLength>,
    /// From a path and what its rules make of a query to the URL fetched last.
    keys: Cache<Box<str>, Key, ByLength>,
}

impl Default for NoVarySearchIndex {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            rules: Cache::with_weighter(PATHS, BUDGET, ByLength),
            keys: Cache::with_weighter(PATHS, BUDGET, ByLength),
        }
    }
}

impl NoVarySearchIndex {
    /// Learns what an answer says of its URL's query.
    pub fn learn(&self, key: &Key, head: &HeaderMap) {
        let Some(rules) = NoVarySearch::read(head) else { return };
        let (path, query) = split(key);
        let known = self.rules.get(path);
        let others = known.iter().flat_map(|known| known.iter()).filter(|other| **other != rules);
        let all: Arc<[NoVarySearch]> =
            std::iter::once(&rules).chain(others).take(MOST_RULES).cloned().collect();
        self.keys.insert(name(path, &rules, query), key.clone());
        self.rules.insert(path.into(), all);
        self.any.store(true, Ordering::Release);
    }

    /// URLs whose answers may stand for this one's; [`mean_the_same`] says whether they do.
    pub fn find(&self, key: &Key) -> Vec<Key> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let (path, query) = split(key);
        let rules = self.rules.get(path);
        let names = rules.iter().flat_map(|rules| rules.iter()).map(|rules| name(path, rules, query));
        names.filter_map(|name| self.keys.get(&name)).filter(|found| found != key).collect()
    }
}

/// Whether the answer to one URL, by its own word, is the answer to the other (draft-ietf-httpbis-no-vary-search).
pub fn mean_the_same(one: &Key, other: &Key, head: &HeaderMap) -> bool {
    let ((path, query), (other_path, other_query)) = (split(one), split(other));
    path == other_path
        && NoVarySearch::read(head).is_some_and(|rules| rules.key(query) == rules.key(other_query))
}

fn split(key: &Key) -> (&str, &str) {
    (key.without_query(), key.query())
}

fn name(path: &str, rules: &NoVarySearch, query: &str) -> Box<str> {
    format!("{path}?{}", rules.key(query)).into()
}

#[derive(Clone, Debug)]
struct ByLength;

impl Weighter<Box<str>, Arc<[NoVarySearch]>> for ByLength {
    fn weight(&self, path: &Box<str>, rules: &Arc<[NoVarySearch]>) -> u64 {
        path.len() as u64 + rules.iter().map(NoVarySearch::weight).sum::<u64>()
    }
}

impl Weighter<Box<str>, Key> for ByLength {
    fn weight(&self, name: &Box<str>, key: &Key) -> u64 {
        ENTRY + name.len() as u64 + key.as_str().len() as u64
    }
}

/// Different rules of one path that are looked for on a miss.
const MOST_RULES: usize = 2;
/// Bytes of each of the two tables.
const BUDGET: u64 = 1 << 20;
/// Only sizes the tables at the start.
const PATHS: usize = 1024;
/// What an entry costs beside its text.
const ENTRY: u64 = 96;
