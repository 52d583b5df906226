//! Equivalent queries (No-Vary-Search): leads from one URL to another under which the response is stored.
//!
//! Holds URLs only. A response stays stored under the URL it was fetched by, so a purge changes nothing here: whoever
//! finds a URL looks up the response stored under it now, and checks that its No-Vary-Search still allows the match.
//! Bounded in bytes: an evicted rule costs a fetch.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cache_policy::NoVarySearch;
use http::HeaderMap;
use quick_cache::{Weighter, sync::Cache};

use super::Key;

/// The rules and URLs learnt.
#[derive(Debug)]
pub struct NoVarySearchIndex {
    /// Whether anything was learnt: most origins never send No-Vary-Search.
    any: AtomicBool,
    /// The rules stated by responses of a path, newest first.
    rules: Cache<Box<str>, Arc<[NoVarySearch]>, ByPathLength>,
    /// From a path and the query normalised by its rules to the URL fetched last.
    keys: Cache<Box<str>, Key, ByPathLength>,
}

impl Default for NoVarySearchIndex {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            rules: Cache::with_weighter(PATHS, BUDGET, ByPathLength),
            keys: Cache::with_weighter(PATHS, BUDGET, ByPathLength),
        }
    }
}

impl NoVarySearchIndex {
    /// Learns the No-Vary-Search of a response.
    pub fn learn(&self, key: &Key, head: &HeaderMap) {
        let Some(rules) = NoVarySearch::read(head) else { return };
        let path = key.without_query();
        let known = self.rules.get(path);
        let others = known.iter().flat_map(|known| known.iter()).filter(|other| **other != rules);
        let all: Arc<[NoVarySearch]> =
            std::iter::once(&rules).chain(others).take(MOST_RULES).cloned().collect();
        self.keys.insert(name(key, &rules), key.clone());
        self.rules.insert(path.into(), all);
        self.any.store(true, Ordering::Release);
    }

    /// URLs whose responses may answer this one; [`mean_the_same`] decides.
    pub fn find(&self, key: &Key) -> Vec<Key> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let rules = self.rules.get(key.without_query());
        let names = rules.iter().flat_map(|rules| rules.iter()).map(|rules| name(key, rules));
        names.filter_map(|name| self.keys.get(&name)).filter(|found| found != key).collect()
    }
}

/// Whether the response to one request, by its own No-Vary-Search, answers the other (draft-ietf-httpbis-no-vary-search), which has
/// the same of all that is part of the keys beside.
pub fn answers(one: &Key, other: &Key, head: &HeaderMap) -> bool {
    one.parts() == other.parts() && mean_the_same(one, other, head)
}

/// Whether the response to one URL, by its own No-Vary-Search, is one to the other, whatever else is part of their keys: a purge
/// asks.
pub fn mean_the_same(one: &Key, other: &Key, head: &HeaderMap) -> bool {
    let ((path, query), (other_path, other_query)) = (split(one), split(other));
    path == other_path
        && NoVarySearch::read(head).is_some_and(|rules| rules.key(query) == rules.key(other_query))
}

fn split(key: &Key) -> (&str, &str) {
    (key.without_query(), key.query())
}

fn name(key: &Key, rules: &NoVarySearch) -> Box<str> {
    let (path, query) = split(key);
    format!("{path}?{} {}", rules.key(query), key.parts()).into()
}

#[derive(Clone, Debug)]
struct ByPathLength;

impl Weighter<Box<str>, Arc<[NoVarySearch]>> for ByPathLength {
    fn weight(&self, path: &Box<str>, rules: &Arc<[NoVarySearch]>) -> u64 {
        path.len() as u64 + rules.iter().map(NoVarySearch::weight).sum::<u64>()
    }
}

impl Weighter<Box<str>, Key> for ByPathLength {
    fn weight(&self, name: &Box<str>, key: &Key) -> u64 {
        ENTRY + name.len() as u64 + key.as_str().len() as u64
    }
}

/// Different rules of one path that are tried on a miss.
const MOST_RULES: usize = 2;
/// Bytes of each of the two tables.
const BUDGET: u64 = 1 << 20;
/// Only sizes the tables at the start.
const PATHS: usize = 1024;
/// What an entry costs beside its text.
const ENTRY: u64 = 96;
