//! Who carries what: from a tag, a group, a query that means the same as others, or a URL whose responses are for requests with
//! further parts, to the keys stored with it. So a purge
//! costs what it finds, not what is stored.
//!
//! Exact in one direction: whatever is stored is found here. A [`Carried`] is made before its response is stored and
//! dropped after it has gone, so that a key may be found whose response has just left, and never the other way round.
//! Bounded by what is stored, whose weight counts it. No lock of this module is held while anything else is asked.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use cache_policy::{NoVarySearch, Tag};

use super::{
    Key,
    locking::{Counter, Locking, ParkingLot},
    stamps::{Facet, hash},
};

/// The keys stored with each tag, group and equivalent query.
pub struct Carriers<L: Locking = ParkingLot> {
    hasher: L::Hasher,
    shards: Vec<L::Mutex<FacetEntries>>,
    /// By path, the No-Vary-Search of what is stored there, each with how often.
    rules: Vec<L::Mutex<RuleCounts>>,
    /// How many responses with No-Vary-Search, or under keys with parts, have been about to be stored: most origins never send it,
    /// and most routes have no such keys.
    equivalents: L::Counter,
}

/// Sorted, so that the keys of one facet can be read a few at a time. Each with how many hold it there: while a resource
/// is replaced, both the old one and the new one do.
type FacetEntries = BTreeMap<FacetEntry, u32>;

type RuleCounts = HashMap<Box<str>, Vec<(NoVarySearch, u32)>>;

/// A facet, and the hash and the key of a resource that carries it.
type FacetEntry = (u64, u64, Key);

/// A stored response's entries; dropping it removes them.
pub struct Carried<L: Locking = ParkingLot> {
    carriers: Arc<Carriers<L>>,
    key: Key,
    hash: u64,
    facets: Box<[u64]>,
    rules: Option<NoVarySearch>,
}

/// Where a reading of a facet's keys goes on.
#[derive(Debug)]
pub struct Cursor(Option<FacetEntry>);

impl<L: Locking> Default for Carriers<L> {
    fn default() -> Self {
        Self {
            hasher: L::Hasher::default(),
            shards: (0..SHARDS).map(|_| L::mutex(FacetEntries::default())).collect(),
            rules: (0..SHARDS).map(|_| L::mutex(RuleCounts::default())).collect(),
            equivalents: L::Counter::default(),
        }
    }
}

impl<L: Locking> Carriers<L> {
    /// Makes a response findable; `None` where only its key leads to it.
    pub fn enter(
        self: &Arc<Self>,
        key: &Key,
        tags: &[Tag],
        rules: Option<NoVarySearch>,
    ) -> Option<Carried<L>> {
        if tags.is_empty() && rules.is_none() && key.parts().is_empty() {
            return None;
        }
        let mut facets: Vec<u64> = tags.iter().map(|tag| self.hash(tag_facet(key.origin(), tag))).collect();
        if !key.parts().is_empty() {
            facets.push(self.parted(key));
        }
        if let Some(rules) = &rules {
            facets.push(self.equivalent(key, rules));
            let path = key.without_query();
            L::locked(self.rules_of(path), |known| {
                let known = known.entry(path.into()).or_default();
                match known.iter_mut().find(|(other, _)| other == rules) {
                    Some((_, count)) => *count += 1,
                    None => known.push((rules.clone(), 1)),
                }
            });
        }
        // Only to spread them.
        let hash = self.hash(Facet::Key(key.as_str()));
        for facet in &facets {
            L::locked(self.shard(*facet), |places| {
                *places.entry((*facet, hash, key.clone())).or_default() += 1;
            });
        }
        Some(Carried { carriers: Arc::clone(self), key: key.clone(), hash, facets: facets.into(), rules })
    }

    /// A response with No-Vary-Search, or under a key with parts, is about to be stored. To be said before its fate is asked, so that either it
    /// learns of an invalidation, or [`Carriers::any_equivalents`] says so to the one who invalidates.
    pub fn expect_equivalents(&self) {
        self.equivalents.raise(1);
    }

    /// Whether any response may answer for a URL that is not the whole of its key.
    pub fn any_equivalents(&self) -> bool {
        self.equivalents.get() > 0
    }

    /// All keys with this tag; a group's only of this origin (`scheme://host:port`).
    pub fn with_tag(&self, origin: &str, tag: &Tag) -> u64 {
        self.hash(tag_facet(origin, tag))
    }

    /// The facet under which keys with parts are found by their URL.
    pub fn parted(&self, key: &Key) -> u64 {
        self.hash(Facet::Key(key.url()))
    }

    /// The facets under which responses are found that answer for this key by their No-Vary-Search.
    pub fn equivalents_of(&self, key: &Key) -> Vec<u64> {
        if !self.any_equivalents() {
            return Vec::new();
        }
        let path = key.without_query();
        let rules: Vec<NoVarySearch> = L::locked(self.rules_of(path), |known| {
            known
                .get(path)
                .map_or_else(Vec::new, |known| known.iter().map(|(rules, _)| rules.clone()).collect())
        });
        rules.iter().map(|rules| self.equivalent(key, rules)).collect()
    }

    /// The next keys of a facet; few, so that no store waits long. Empty when all have been read. What enters later may
    /// be missed.
    pub fn read(&self, facet: u64, cursor: &mut Cursor) -> Vec<Key> {
        let from = match cursor.0.take() {
            Some(place) => Bound::Excluded(place),
            None => Bound::Included((facet, 0, Key::least())),
        };
        let places: Vec<FacetEntry> = L::locked(self.shard(facet), |places| {
            let range = places.range((from, Bound::Unbounded));
            range
                .take_while(|((of, ..), _)| *of == facet)
                .take(SLICE)
                .map(|(place, _)| place.clone())
                .collect()
        });
        cursor.0 = places.last().cloned();
        places.into_iter().map(|(_, _, key)| key).collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| L::locked(shard, |places| places.len())).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn equivalent(&self, key: &Key, rules: &NoVarySearch) -> u64 {
        let (path, query) = (key.without_query(), rules.key(key.query()));
        self.hash(Facet::Equivalent { path, rules, query: &query })
    }

    fn hash(&self, facet: Facet<'_>) -> u64 {
        hash(&self.hasher, facet)
    }

    fn shard(&self, facet: u64) -> &L::Mutex<FacetEntries> {
        &self.shards[(facet >> 48) as usize % SHARDS]
    }

    fn rules_of(&self, path: &str) -> &L::Mutex<RuleCounts> {
        &self.rules[(self.hash(Facet::SomeQueryOf(path)) >> 48) as usize % SHARDS]
    }
}

impl Cursor {
    /// Before the first key.
    pub const fn start() -> Self {
        Self(None)
    }
}

impl<L: Locking> Drop for Carried<L> {
    fn drop(&mut self) {
        let carriers = &self.carriers;
        for facet in &self.facets {
            L::locked(carriers.shard(*facet), |places| {
                let place = (*facet, self.hash, self.key.clone());
                if let Some(count) = places.get_mut(&place) {
                    *count -= 1;
                    if *count == 0 {
                        places.remove(&place);
                    }
                }
            });
        }
        if let Some(rules) = &self.rules {
            let path = self.key.without_query();
            L::locked(carriers.rules_of(path), |known| {
                let Some(of_path) = known.get_mut(path) else { return };
                if let Some(place) = of_path.iter().position(|(other, _)| other == rules) {
                    of_path[place].1 -= 1;
                    if of_path[place].1 == 0 {
                        of_path.swap_remove(place);
                    }
                }
                if of_path.is_empty() {
                    known.remove(path);
                }
            });
        }
    }
}

impl<L: Locking> std::fmt::Debug for Carriers<L> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Carriers").finish_non_exhaustive()
    }
}

impl<L: Locking> std::fmt::Debug for Carried<L> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Carried").field("key", &self.key).finish_non_exhaustive()
    }
}

/// By what a tag of a response of this origin is found.
pub(super) fn tag_facet<'a>(origin: &'a str, tag: &'a Tag) -> Facet<'a> {
    match tag {
        Tag::Key(text) => Facet::Tag(text),
        Tag::Group(group) => Facet::Group { origin, group },
    }
}

/// What a tag of a stored response weighs here: the facet twice, the hash, the key, the count, and its share of the tree.
pub(super) const CARRIED: u64 = 104;

const SHARDS: usize = 64;
/// Keys read at once.
const SLICE: usize = 128;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn key(number: usize) -> Key {
        Key::of_text(&format!("https://shop.example:443/x?utm={number}&id={}", number % 2)).unwrap()
    }

    fn all(carriers: &Carriers, facet: u64) -> Vec<Key> {
        let mut cursor = Cursor::start();
        let slices =
            std::iter::from_fn(|| Some(carriers.read(facet, &mut cursor)).filter(|keys| !keys.is_empty()));
        slices.flatten().collect()
    }

    #[test]
    fn what_is_stored_is_found_by_each_tag_until_the_last_one_has_left() {
        let carriers = Arc::<Carriers>::default();
        let (shoe, red) = (Tag::Key("shoe".into()), Tag::Key("red".into()));
        let tags = [red.clone(), shoe.clone()];
        let carried: Vec<_> = (0..1000).map(|number| carriers.enter(&key(number), &tags, None)).collect();
        let again = carriers.enter(&key(1), &tags[1..], None);
        let found = all(&carriers, carriers.with_tag("", &shoe));
        assert_eq!(found.iter().collect::<std::collections::HashSet<_>>().len(), 1000);
        assert_eq!(found.len(), 1000, "each once");
        drop(carried);
        assert_eq!(all(&carriers, carriers.with_tag("", &shoe)), [key(1)]);
        assert!(all(&carriers, carriers.with_tag("", &red)).is_empty());
        drop(again);
        assert!(carriers.is_empty());
        assert!(carriers.enter(&key(1), &[], None).is_none(), "its key leads to it");
    }

    #[test]
    fn what_answers_for_a_key_is_found_by_it() {
        let carriers = Arc::<Carriers>::default();
        let field = (HeaderName::from_static("no-vary-search"), HeaderValue::from_static("params=(\"utm\")"));
        let rules = NoVarySearch::read(&HeaderMap::from_iter([field]));
        assert!(carriers.equivalents_of(&key(8)).is_empty());
        carriers.expect_equivalents();
        let carried: Vec<_> = (0..4).map(|number| carriers.enter(&key(number), &[], rules.clone())).collect();
        let found = |of: &Key| {
            carriers.equivalents_of(of).into_iter().flat_map(|facet| all(&carriers, facet)).count()
        };
        assert_eq!(found(&key(8)), 2, "of four, two have the same id");
        drop(carried);
        assert_eq!((found(&key(8)), carriers.len()), (0, 0));
        assert!(carriers.rules.iter().all(|rules| rules.lock().is_empty()));
    }
}
