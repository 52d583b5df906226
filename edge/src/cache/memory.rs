//! The memory tier: resources within a budget of bytes, of which the popular ones are kept (quick_cache's S3-FIFO).
//!
//! One entry is a [`Resource`]: all variants of one key. It is immutable; a change replaces it through the
//! [`Gate`], which only writers pass. A look-up takes no lock of ours.

use std::{
    cell::Cell,
    collections::HashSet,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use cache_policy::{Coding, Moment, NoVarySearch, SentFields, Tag, prefers_language, variant_key};
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::{
    Key, Stored, StoredBody, Tiers,
    carriers::{CARRIED, Carried, Carriers, Cursor},
    markers::{Marker, Markers, Whose},
    no_vary_search::{NoVarySearchIndex, answers, mean_the_same},
    not_stored::LastNotStored,
    purge::{Answers, Fate, Force, Gate, Generation, Purgeable, Rule},
    reservation::Reservation,
    rule_set::RuleSet,
    standing::EdgeStanding,
    stored::StoredId,
    stored_body::Detached,
    tier::{Hearing, Hears, Purge},
    tiers::Purged,
    withdrawn::Withdrawn,
};
use crate::settings::CACHE_SHARDS;

/// Everything stored under one key.
#[derive(Debug, Default)]
pub struct Resource {
    /// Newest first, so that the most recent match is found first (RFC 9111 §4.1).
    variants: Vec<Arc<Stored>>,
    /// What makes each variant findable by its tags, in the same order.
    carried: Vec<Option<Arc<Carried>>>,
}

impl Resource {
    fn new(
        variants: Vec<Arc<Stored>>,
        lent: &Arc<Detached>,
        carry: impl Fn(&Arc<Stored>) -> Option<Arc<Carried>>,
    ) -> Self {
        for body in variants.iter().flat_map(|stored| stored.bodies()) {
            body.enter(lent);
        }
        let carried = variants.iter().map(carry).collect();
        Self { variants, carried }
    }

    /// What makes this very variant findable already.
    fn carried(&self, stored: &Arc<Stored>) -> Option<&Option<Arc<Carried>>> {
        let place = self.variants.iter().position(|other| Arc::ptr_eq(other, stored))?;
        self.carried.get(place)
    }

    /// All that is stored under the key, newest first.
    pub fn variants(&self) -> &[Arc<Stored>] {
        &self.variants
    }

    /// The stored variant whose `Vary` fields this request matches.
    pub fn select(&self, request: &impl SentFields) -> Option<&Arc<Stored>> {
        let mut variants = Variants::of(request);
        self.variants.iter().find(|stored| stored.parts().is_none() && variants.has(stored))
    }

    /// The stored part of the variant that this request matches.
    pub fn select_part(&self, request: &impl SentFields) -> Option<&Arc<Stored>> {
        let mut variants = Variants::of(request);
        self.variants.iter().find(|stored| stored.parts().is_some() && variants.has(stored))
    }

    /// The part stored of this variant.
    pub fn part_of(&self, vary: &[HeaderName], variant: &str) -> Option<&Arc<Stored>> {
        self.variants
            .iter()
            .find(|stored| stored.parts().is_some() && *stored.vary == *vary && *stored.variant == *variant)
    }

    /// A variant in the client's preferred language, where nothing but the language makes variants.
    pub fn select_language(&self, request: &HeaderMap) -> Option<&Arc<Stored>> {
        self.variants.iter().find(|stored| {
            let language = stored.identity().head.get(header::CONTENT_LANGUAGE);
            stored.parts().is_none()
                && *stored.vary == [header::ACCEPT_LANGUAGE]
                && language.is_some_and(|language| prefers_language(request, language))
        })
    }

    /// The request's values of the newest variant's `Vary`, which keep requests apart while their variant is being
    /// fetched.
    pub fn collapse_key(&self, request: &impl SentFields) -> Box<str> {
        match self.variants.first() {
            Some(newest) if !newest.vary.is_empty() => variant_key(&newest.vary, request),
            _ => Box::default(),
        }
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        for body in self.variants.iter().flat_map(|stored| stored.bodies()) {
            body.leave();
        }
    }
}

/// A request's values of each set of `Vary` fields, computed once however many responses vary on them.
struct Variants<'r, F> {
    request: &'r F,
    known: Vec<(&'r [HeaderName], Box<str>)>,
}

impl<'r, F: SentFields> Variants<'r, F> {
    fn of(request: &'r F) -> Self {
        Self { request, known: Vec::new() }
    }

    /// Whether a response is the variant that the request selects (RFC 9111 §4.1).
    fn has<'s: 'r>(&mut self, stored: &'s Stored) -> bool {
        if stored.vary.is_empty() {
            return true;
        }
        let known = self.known.iter().position(|(fields, _)| **fields == *stored.vary);
        let at = known.unwrap_or_else(|| {
            self.known.push((&stored.vary, variant_key(&stored.vary, self.request)));
            self.known.len() - 1
        });
        self.known[at].1 == stored.variant
    }
}

/// Where a response is stored: always in place of the same variant.
#[derive(Clone, Copy)]
enum Replaces {
    Variant,
    /// In place of this one as well.
    Of(StoredId),
    /// In place of this one as well, and not at all where it is gone.
    OnlyOf(StoredId),
}

impl Replaces {
    fn is_of(self, stored: &Stored) -> bool {
        match self {
            Self::Variant => false,
            Self::Of(id) | Self::OnlyOf(id) => stored.id() == id,
        }
    }

    fn is_there(self, variants: &[Arc<Stored>]) -> bool {
        !matches!(self, Self::OnlyOf(_)) || variants.iter().any(|stored| self.is_of(stored))
    }
}

/// Whether a request selects this variant.
pub fn matches(stored: &Stored, request: &impl SentFields) -> bool {
    stored.vary.is_empty() || variant_key(&stored.vary, request) == stored.variant
}

/// The shared memory tier.
#[derive(Debug)]
pub struct Memory {
    cache: Cache<Key, Arc<Resource>, ByWeight, RandomState, CountEvictions>,
    /// Every write goes through it; look-ups do not.
    gate: Gate,
    /// Leads purges from what they name to what is stored.
    carriers: Arc<Carriers>,
    /// Stored resources that purges have looked at.
    swept: AtomicU64,
    equivalents: NoVarySearchIndex,
    not_stored: LastNotStored,
    markers: Markers,
    withdrawn: Withdrawn,
    standing: Arc<EdgeStanding>,
    /// Responses stored in memory are offered to these tiers.
    tiers: Arc<Tiers>,
    /// What a resource may have and weigh: [`Memory::resize`] changes both.
    variants: AtomicUsize,
    largest: AtomicU64,
    /// The budget that is wanted, and the one that is in force.
    wanted: AtomicU64,
    budget: Mutex<u64>,
    evictions: Arc<AtomicU64>,
    /// Bytes of bodies that are being filled and do not yet count as stored.
    filling: Arc<AtomicU64>,
    /// Bodies that no longer count as stored and are still being read.
    lent: Arc<Detached>,
}

impl Memory {
    /// An empty memory tier of `budget` bytes that keeps up to `variants` variants per resource, in front of these
    /// tiers.
    pub fn new(budget: u64, variants: usize, tiers: Arc<Tiers>) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(budget)
            .estimated_items_capacity(
                usize::try_from(budget / TYPICAL_ENTRY).unwrap_or(usize::MAX).max(SHARDS),
            )
            .shards(SHARDS)
            .build()
            .expect("both capacities are given");
        let evictions = Arc::<AtomicU64>::default();
        let lifecycle = CountEvictions(Arc::clone(&evictions));
        Self {
            cache: Cache::with_options(options, ByWeight, RandomState::default(), lifecycle),
            evictions,
            gate: Gate::new(
                usize::try_from(budget / STAMPS_SHARE / STAMP)
                    .unwrap_or(usize::MAX)
                    .clamp(LEAST_STAMPS, MOST_STAMPS),
            ),
            carriers: Arc::default(),
            swept: AtomicU64::default(),
            equivalents: NoVarySearchIndex::default(),
            not_stored: LastNotStored::default(),
            markers: Markers::default(),
            withdrawn: Withdrawn::default(),
            standing: Arc::default(),
            tiers,
            variants: AtomicUsize::new(variants),
            largest: AtomicU64::new(largest(budget)),
            wanted: AtomicU64::new(budget),
            budget: Mutex::new(budget),
            filling: Arc::default(),
            lent: Arc::default(),
        }
    }

    /// Changes the budget and the number of variants. A larger budget is there at once, and nothing stored is touched. For
    /// a smaller one, or fewer variants, what is too much is dropped on a thread of its own.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn resize(self: &Arc<Self>, budget: u64, variants: usize) {
        let before = self.wanted.swap(budget, Ordering::Relaxed);
        let variants_before = self.variants.swap(variants, Ordering::Relaxed);
        let less = budget < before || variants < variants_before;
        if budget != before || less {
            let memory = Arc::clone(self);
            tokio::task::spawn_blocking(move || {
                memory.fit_budget();
                if less {
                    memory.fit_resources();
                }
            });
        }
    }

    fn fit_budget(&self) {
        let mut budget = self.budget.lock();
        loop {
            let wanted = self.wanted.load(Ordering::Relaxed);
            // A shard is locked while it is made to fit, and look-ups wait.
            let next = wanted.max(budget.saturating_sub(SHRINK_BY));
            if next == *budget {
                return;
            }
            self.largest.store(largest(next), Ordering::Relaxed);
            self.cache.set_capacity(next);
            *budget = next;
        }
    }

    /// Drops what a write would drop of each resource.
    fn fit_resources(&self) {
        let (variants, largest) =
            (self.variants.load(Ordering::Relaxed), self.largest.load(Ordering::Relaxed));
        for (key, resource) in self.cache.iter() {
            let weight: u64 = resource.variants.iter().map(|stored| stored.weight()).sum();
            if resource.variants.len() > variants || weight > largest {
                self.change(&key, |_| ());
            }
        }
    }

    pub fn look_up(&self, key: &Key) -> Option<Arc<Resource>> {
        self.cache.get(key)
    }

    /// The response stored under an equivalent query (No-Vary-Search), with its key.
    pub fn look_up_equivalent(&self, key: &Key, request: &impl SentFields) -> Option<(Key, Arc<Stored>)> {
        self.equivalents.find(key).into_iter().find_map(|other| {
            let stored = Arc::clone(self.look_up(&other)?.select(request)?);
            answers(key, &other, &stored.identity().head).then_some((other, stored))
        })
    }

    /// Why the last response of each key was not stored.
    pub fn not_stored(&self) -> &LastNotStored {
        &self.not_stored
    }

    /// The generation of a fetch that begins now.
    pub fn generation(&self) -> Generation {
        self.gate.generation()
    }

    /// Whether the response of a fetch that began at `began` may have been purged since.
    pub fn outdated(&self, began: Generation, key: &Key) -> bool {
        self.standing.doubts(began) || self.gate.outdated(began, key)
    }

    /// Whether this edge has heard of the purges of others.
    pub fn standing(&self) -> &EdgeStanding {
        &self.standing
    }

    /// Lets the tiers behind memory tell it what other edges do. Until a tier that others share has granted a lease,
    /// nothing stored is served before it is validated.
    pub fn attach_tiers(self: &Arc<Self>) {
        let hears: Arc<dyn Hears> =
            Arc::new(HearingMemory { memory: Arc::downgrade(self), standing: Arc::clone(&self.standing) });
        self.tiers.attach(&hears);
    }

    /// The tiers behind this one.
    pub fn tiers(&self) -> &Arc<Tiers> {
        &self.tiers
    }

    /// Stores a variant in place of the one it matches, unless it has been purged since its fetch began. The oldest
    /// variant is dropped when there are too many or they are too heavy. The variant is offered to the tiers behind
    /// memory.
    pub fn store(&self, key: &Key, stored: Arc<Stored>) {
        self.put(key, stored, Replaces::Variant, |stored| self.tiers.offer(key, stored));
    }

    /// Stores a response in place of the one that it answers for, also where its `Vary` makes it another variant.
    pub fn store_in_place_of(&self, key: &Key, old: Option<StoredId>, stored: Arc<Stored>) {
        let place = old.map_or(Replaces::Variant, Replaces::Of);
        self.put(key, stored, place, |stored| self.tiers.offer(key, stored));
    }

    /// Stores a response found in a tier behind memory.
    pub fn store_found(&self, key: &Key, stored: Arc<Stored>) {
        self.put(key, stored, Replaces::Variant, |_| ());
    }

    /// Replaces `old` with `new`, if `old` is still stored.
    pub fn replace(&self, key: &Key, old: StoredId, new: Arc<Stored>) {
        self.put(key, new, Replaces::OnlyOf(old), |stored| self.tiers.offer(key, stored));
    }

    fn put(&self, key: &Key, stored: Arc<Stored>, place: Replaces, stores: impl FnOnce(&Stored)) {
        if stored.parts().is_none() {
            self.equivalents.learn(key, &stored.identity().head);
        }
        self.expect(key, &stored);
        self.change(key, |variants| {
            if !place.is_there(variants) || self.withdrawn.concerns(key, stored.meta.received_at) {
                return;
            }
            // A coding may have been computed after a 304 moved the entry's body to a new entry.
            let same_body = |other: &&Arc<Stored>| other.identity().body.same(&stored.identity().body);
            let stored = match variants.iter().find(same_body) {
                Some(other) => self.admitted(key, Arc::new(stored.adopting(other)), &other.tags),
                None => self.admitted(key, stored, &[]),
            };
            let Some(stored) = stored else {
                return variants.retain(|other| !place.is_of(other));
            };
            let same = |other: &&Arc<Stored>| other.vary == stored.vary && other.variant == stored.variant;
            if stored.parts().is_some() && variants.iter().filter(same).any(|other| other.parts().is_none()) {
                // A whole that was stored meanwhile serves every part.
                return;
            }
            if variants.iter().filter(same).any(|other| other.meta.received_at > stored.meta.received_at) {
                // Its body took longer than that of a newer one.
                return;
            }
            variants.retain(|other| !same(&other) && !place.is_of(other));
            stores(&stored);
            variants.insert(0, stored);
            self.markers.clear(key);
        });
    }

    /// Adds a coding to the stored response that now holds the body it was computed from: a 304 or another coding may
    /// have replaced the entry for which it was requested. One for which there is no room beside the others is dropped: in
    /// its place the response itself would go. It has been asked for, and is not asked for again.
    pub fn add_coding(&self, key: &Key, identity: &StoredBody, coding: Coding, coded: Option<StoredBody>) {
        self.change(key, |variants| {
            let all: u64 = variants.iter().map(|stored| stored.weight()).sum();
            if let Some(place) = variants.iter_mut().find(|stored| stored.identity().body.same(identity)) {
                let with_coding = place.with_coding(coding, coded);
                if all - place.weight() + with_coding.weight() <= self.largest.load(Ordering::Relaxed) {
                    *place = Arc::new(with_coding);
                }
            }
        });
    }

    /// Marks this key: its responses are not shared.
    pub fn mark(&self, key: &Key, whose: Whose, marker: Marker) {
        self.markers.set(key, whose, marker);
    }

    /// The marker of this key, until it expires.
    pub fn marker(&self, key: &Key, whose: Whose, now: Moment) -> Option<Marker> {
        self.markers.of(key, whose, now)
    }

    /// Drops one entry, if it is still stored, and the resource in the tiers behind memory.
    pub fn remove(&self, key: &Key, stored: &Stored) {
        self.change(key, |variants| {
            if stored.parts().is_none() {
                self.tiers.forget(key);
            }
            variants.retain(|other| other.id() != stored.id());
        });
    }

    /// The upstream has replaced or withdrawn what it sent before it was asked for its last response, which is not stored:
    /// a body that is on its way by now is not stored either.
    pub fn withdraw(&self, key: &Key, asked: Moment, is_displaced: impl Fn(&Stored) -> bool) {
        self.withdrawn.note(key, asked);
        self.displace(key, is_displaced);
    }

    /// Whether what was received then has been withdrawn under this key since.
    pub fn is_withdrawn(&self, key: &Key, received: Moment) -> bool {
        self.withdrawn.concerns(key, received)
    }

    /// Drops the responses that the upstream has replaced or withdrawn, and the resource in the tiers behind memory.
    pub fn displace(&self, key: &Key, is_displaced: impl Fn(&Stored) -> bool) {
        // Most responses that are not stored displace nothing, and take no turn among the writers.
        let Some(resource) = self.look_up(key) else { return };
        if !resource.variants.iter().any(|stored| is_displaced(stored)) {
            return;
        }
        self.change(key, |variants| {
            variants.retain(|stored| !is_displaced(stored));
            self.tiers.forget(key);
        });
    }

    /// Purges memory and every tier behind it. When it returns and every tier has acknowledged, no response that the
    /// rules match is found any more; where a tier has not, this process still finds none. Memory is purged on a thread
    /// of its own: what a purge finds may be much. If the future is dropped, memory is purged all the same, and the
    /// tiers when they catch up.
    pub async fn purge_all_tiers(self: &Arc<Self>, rules: Vec<Rule>, force: Force, now: Moment) -> Purged {
        let telling = self.tiers().begin(|| rules.clone(), (force, Hearing::Everyone), now);
        let memory = self.purge_aside(rules, force, now).await;
        Purged { memory, tiers: telling.finish().await }
    }

    /// As [`Memory::purge`], on a thread of its own unless it finds little; it ends also if the future is dropped.
    pub async fn purge_aside(self: &Arc<Self>, rules: Vec<Rule>, force: Force, now: Moment) -> usize {
        if self.finds_little(&rules) {
            return self.purge(rules, force, now);
        }
        let memory = Arc::clone(self);
        aside(move || memory.purge(rules, force, now)).await
    }

    /// Purges what the rules match in memory alone: see [`Memory::purge_all_tiers`]. When it returns, no look-up that
    /// begins finds a match, and no fetch under way stores one. Returns how many responses matched. It costs what the
    /// rules find by keys and tags; for everything, hosts and prefixes it walks over all resources, one at a time.
    pub fn purge(&self, rules: Vec<Rule>, force: Force, now: Moment) -> usize {
        let rules = RuleSet::new(rules);
        self.gate.purge(&rules, force, now, |before| {
            let act = match force {
                Force::Hard => Act::Drop,
                Force::Soft => Act::MakeStale(now),
            };
            self.sweep(&rules, Sweep::new(act, before))
        })
    }

    /// Invalidates one resource in all its variants, also one that is being fetched now, and what answers for it by
    /// No-Vary-Search, in memory alone.
    pub fn invalidate(&self, key: &Key) {
        self.gate.invalidate(key, |at| {
            if self.carriers.any_equivalents() {
                // A response that answers for this key may be on its way into another one's place.
                self.gate.wait_for_writers();
                self.sweep_equivalents(key, &mut Sweep::new(Act::Drop, at));
            }
            self.change(key, |variants| variants.retain(|stored| stored.began >= at));
        });
    }

    /// How many stored responses the rules match: counted on a thread of its own.
    pub async fn count(self: &Arc<Self>, rules: Vec<Rule>) -> usize {
        let memory = Arc::clone(self);
        aside(move || memory.sweep(&RuleSet::new(rules), Sweep::new(Act::Count, Generation::MAX))).await
    }

    /// Stored resources that purges have looked at since the start.
    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }

    fn finds_little(&self, rules: &[Rule]) -> bool {
        let few = |facet| self.carriers.read(facet, &mut Cursor::start()).len() < FEW;
        rules.len() <= FEW
            && rules.iter().all(|rule| match rule {
                Rule::Key(_) => !self.carriers.any_equivalents(),
                Rule::Tag(tag) => few(self.carriers.with_tag("", tag)),
                Rule::Group { origin, group } => few(self.carriers.with_tag(without_slash(origin), group)),
                Rule::Everything | Rule::Host(_) | Rule::Prefix(_) => false,
            })
    }

    fn sweep(&self, rules: &RuleSet, mut sweep: Sweep) -> usize {
        for rule in rules.rules() {
            match rule {
                Rule::Key(text) => {
                    let Some(key) = Key::of_text(text) else { continue };
                    self.sweep_equivalents(&key, &mut sweep);
                    self.visit(&key, &mut sweep, |_| true);
                }
                Rule::Tag(tag) => self.sweep_carriers(self.carriers.with_tag("", tag), rules, &mut sweep),
                Rule::Group { origin, group } => {
                    let facet = self.carriers.with_tag(without_slash(origin), group);
                    self.sweep_carriers(facet, rules, &mut sweep);
                }
                Rule::Everything | Rule::Host(_) | Rule::Prefix(_) => {}
            }
        }
        if rules.walk() {
            for (key, _) in self.cache.iter() {
                self.swept.fetch_add(1, Ordering::Relaxed);
                if rules.match_place(key.as_str()) {
                    self.visit(&key, &mut sweep, |_| true);
                } else if rules.match_queries(key.as_str()) {
                    self.visit(&key, &mut sweep, |stored| answers_for(stored).is_some());
                }
            }
        }
        sweep.matched
    }

    fn sweep_carriers(&self, facet: u64, rules: &RuleSet, sweep: &mut Sweep) {
        self.each_carrier(facet, |key| {
            self.visit(key, sweep, |stored| rules.matches(key.as_str(), &stored.tags));
        });
    }

    fn sweep_equivalents(&self, named: &Key, sweep: &mut Sweep) {
        if self.carriers.any_equivalents() {
            self.each_carrier(self.carriers.parted(named), |key| {
                self.visit(key, sweep, |_| key.url() == named.url());
            });
        }
        for facet in self.carriers.equivalents_of(named) {
            self.each_carrier(facet, |key| {
                self.visit(key, sweep, |stored| mean_the_same(named, key, &stored.identity().head));
            });
        }
    }

    fn each_carrier(&self, facet: u64, mut visit: impl FnMut(&Key)) {
        let mut cursor = Cursor::start();
        loop {
            let keys = self.carriers.read(facet, &mut cursor);
            if keys.is_empty() {
                return;
            }
            keys.iter().for_each(&mut visit);
        }
    }

    /// Does to a resource what a purge does to it, in a write of its own. If one variant is to go, all that are as old
    /// go with it.
    fn visit(&self, key: &Key, sweep: &mut Sweep, matches: impl Fn(&Stored) -> bool) {
        self.swept.fetch_add(1, Ordering::Relaxed);
        let Sweep { act, before, .. } = *sweep;
        let old = |stored: &Stored| stored.began < before;
        let concerned = |stored: &Stored| old(stored) && matches(stored);
        let count = |variants: &[Arc<Stored>]| variants.iter().filter(|stored| concerned(stored)).count();
        match act {
            Act::Count => {
                let matching = self.cache.peek(key).map_or(0, |resource| count(&resource.variants));
                sweep.count(key, matching);
            }
            Act::Drop => {
                let matching = Cell::new(0);
                let look = |variants: &[Arc<Stored>]| matching.set(count(variants));
                self.change_seen(key, look, |variants| {
                    if matching.get() > 0 {
                        variants.retain(|stored| !old(stored));
                    }
                });
                sweep.matched += matching.get();
            }
            Act::MakeStale(since) => {
                let look = |variants: &[Arc<Stored>]| sweep.count(key, count(variants));
                self.change_seen(key, look, |variants| {
                    for stored in variants.iter_mut().filter(|stored| concerned(stored)) {
                        *stored = Arc::new(stored.stale_since(since));
                    }
                });
            }
        }
    }

    /// Every write goes through here. Purged responses are swept out by writes too; where a purge walks over all that is
    /// stored, and could miss one that is put back into another place, they are dropped or made stale on the way.
    fn change(&self, key: &Key, change: impl FnOnce(&mut Vec<Arc<Stored>>)) {
        self.change_seen(key, |_| (), change);
    }

    /// As [`Memory::change`]; `look` sees what is there before any of it is dropped.
    fn change_seen(
        &self,
        key: &Key,
        look: impl FnOnce(&[Arc<Stored>]),
        change: impl FnOnce(&mut Vec<Arc<Stored>>),
    ) {
        self.gate.write(key, || {
            let walked = self.gate.walked();
            let old = self.cache.peek(key);
            look(old.as_ref().map_or(&[], |old| old.variants()));
            let mut variants: Vec<_> = old.iter().flat_map(|old| &old.variants).cloned().collect();
            if walked {
                variants = variants.into_iter().filter_map(|stored| self.surviving(key, stored)).collect();
            }
            change(&mut variants);
            variants.truncate(self.variants.load(Ordering::Relaxed));
            let (mut weight, largest) = (0, self.largest.load(Ordering::Relaxed));
            variants.retain(|stored| {
                weight += stored.weight();
                weight <= largest
            });
            if variants.is_empty() {
                if old.is_some() {
                    self.cache.remove(key);
                }
            } else {
                let carry = |stored: &Arc<Stored>| match old.as_ref().and_then(|old| old.carried(stored)) {
                    Some(carried) => carried.clone(),
                    None => self.carriers.enter(key, &stored.tags, answers_for(stored)).map(Arc::new),
                };
                let resource = Resource::new(variants, &self.lent, carry);
                self.cache.insert(key.clone(), Arc::new(resource));
            }
        });
    }

    /// Says that a response is about to be written, before the write asks its fate.
    fn expect(&self, key: &Key, stored: &Stored) {
        if !key.parts().is_empty() || answers_for(stored).is_some() {
            self.carriers.expect_equivalents();
        }
    }

    /// What purges leave of a response that is about to be stored, whose body another one with these tags may have had.
    fn admitted(&self, key: &Key, stored: Arc<Stored>, others: &[Tag]) -> Option<Arc<Stored>> {
        let answers = if answers_for(&stored).is_some() { Answers::Equivalents } else { Answers::Itself };
        let fate = |tags| self.gate.fate(stored.began, Purgeable { key, tags, answers });
        match fate(&stored.tags).or(fate(others)) {
            Fate::Alive => Some(stored),
            Fate::StaleSince(moment) => Some(Arc::new(stored.stale_since(moment))),
            Fate::Gone => None,
        }
    }

    fn surviving(&self, key: &Key, stored: Arc<Stored>) -> Option<Arc<Stored>> {
        match self.gate.fate_of_place(stored.began, key) {
            Fate::Alive => Some(stored),
            Fate::StaleSince(moment) => Some(Arc::new(stored.stale_since(moment))),
            Fate::Gone => None,
        }
    }

    /// Reserves room for a piece of a body that is being filled; `None` when a quarter of the budget is in flight:
    /// being filled, or being sent to clients that read slowly after the entry was evicted. Small pieces may have an
    /// eighth more, so that a few large downloads that trickle do not keep every page from being stored.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let eighth = self.cache.capacity() / 8;
        let limit = if bytes <= SMALL { 3 * eighth } else { 2 * eighth };
        let (reservation, taken) = Reservation::take(&self.filling, bytes);
        (taken + self.lent.bytes() <= limit).then_some(reservation)
    }

    /// Counts a filled body as in flight, whether it will be stored or not.
    pub fn lend(&self, body: &StoredBody) {
        body.lend(&self.lent);
    }

    /// Bytes of bodies that are being filled, or still being sent after eviction: beside [`Memory::weight`].
    pub fn in_flight(&self) -> u64 {
        self.filling.load(Ordering::Relaxed) + self.lent.bytes()
    }

    /// Bytes stored, by our own weights.
    pub fn weight(&self) -> u64 {
        self.cache.weight()
    }

    /// Resources evicted by others, or for a smaller budget, since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// How many resources are stored.
    pub fn resources(&self) -> usize {
        self.cache.len()
    }
}

/// The way in for a tier that other edges share.
#[derive(Debug)]
struct HearingMemory {
    memory: Weak<Memory>,
    standing: Arc<EdgeStanding>,
}

impl Hears for HearingMemory {
    fn purge(&self, purge: Purge, now: Moment) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let memory = self.memory.upgrade();
        Box::pin(async move {
            if let Some(memory) = memory {
                memory.purge_aside(purge.rules, purge.force, now).await;
            }
        })
    }

    fn generation(&self) -> Generation {
        self.memory.upgrade().map_or_else(Generation::default, |memory| memory.generation())
    }

    fn doubt(&self) {
        if let Some(memory) = self.memory.upgrade() {
            self.standing.doubt(memory.gate.advance());
        }
    }

    fn catch_up(&self) {
        if let Some(memory) = self.memory.upgrade()
            && memory.tiers.out_of_step()
        {
            let tiers = Arc::clone(&memory.tiers);
            tokio::spawn(async move { tiers.catch_up().await });
        }
    }

    fn standing(&self) -> &EdgeStanding {
        &self.standing
    }
}

/// The most that a resource may weigh: quick_cache silently refuses an entry heavier than the hot part of a shard.
fn largest(budget: u64) -> u64 {
    budget / SHARDS as u64 / 10 * 9
}

fn without_slash(origin: &str) -> &str {
    origin.strip_suffix('/').unwrap_or(origin)
}

/// Runs what may take long on a thread for such work.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime stops, and with it whoever would be told.
            Err(_) => std::future::pending().await,
        },
    }
}

/// What a purge does to what it finds.
#[derive(Clone, Copy)]
enum Act {
    Drop,
    MakeStale(Moment),
    Count,
}

/// A purge on its way through memory.
struct Sweep {
    act: Act,
    /// Only what began before.
    before: Generation,
    matched: usize,
    /// Resources that have been counted and are still there. Bounded by what is stored.
    counted: HashSet<Key>,
}

impl Sweep {
    fn new(act: Act, before: Generation) -> Self {
        Self { act, before, matched: 0, counted: HashSet::new() }
    }

    /// Counts a resource that stays, once for all rules that lead to it.
    fn count(&mut self, key: &Key, matching: usize) {
        if matching > 0 && self.counted.insert(key.clone()) {
            self.matched += matching;
        }
    }
}

/// The No-Vary-Search by which a response answers for queries under which it is not stored.
fn answers_for(stored: &Stored) -> Option<NoVarySearch> {
    stored.parts().is_none().then(|| NoVarySearch::read(&stored.identity().head))?
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<Key, Arc<Resource>> for ByWeight {
    fn weight(&self, key: &Key, resource: &Arc<Resource>) -> u64 {
        // By its URL a key with parts is found as a response is by a tag.
        let found = if key.parts().is_empty() { 0 } else { CARRIED };
        RESOURCE
            + found
            + key.as_str().len() as u64
            + resource.variants.iter().map(|stored| stored.weight()).sum::<u64>()
    }
}

#[derive(Clone, Debug)]
struct CountEvictions(Arc<AtomicU64>);

impl Lifecycle<Key, Arc<Resource>> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Key, _: Arc<Resource>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Few shards, so that the largest object fits one; look-ups take only a shard's read lock.
const SHARDS: usize = CACHE_SHARDS;
/// What an entry costs beside its variants: the table's slot and its share of the free ones, the ghost that remembers
/// it after eviction, reference counts, the vector. Calibrated by the flood test, which prints the resident memory.
const RESOURCE: u64 = 640;
/// Bytes by which the budget shrinks at a time.
const SHRINK_BY: u64 = 16 << 20;
/// What a socket usually takes at once, so that such pieces are sent soon.
const SMALL: u64 = 64 * 1024;
/// Only sizes the table at the start.
const TYPICAL_ENTRY: u64 = 16 * 1024;
/// What a purge may do at once where it is asked for.
const FEW: usize = 32;
/// The part of the budget, beside it, that stamps of purges may take: of the budget at the start.
const STAMPS_SHARE: u64 = 64;
/// Bytes that a stamp takes, with its share of the free places.
const STAMP: u64 = 32;
const LEAST_STAMPS: usize = 16 * 1024;
const MOST_STAMPS: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use cache_policy::{Arrival, RequestFacts, Rules};
    use http::{HeaderValue, Method, Request, StatusCode};

    use super::*;
    use crate::{cache::stored::Facts, message::target::Scheme, request::inbound};

    fn key() -> Key {
        let (head, ()) = Request::builder().uri("/").header("host", "a").body(()).unwrap().into_parts();
        Key::new(&inbound::read(&head, Scheme::Http).unwrap())
    }

    fn body(length: usize) -> StoredBody {
        StoredBody::new(&[Bytes::from(vec![b'x'; length])])
    }

    /// A response of this length, one of several variants.
    fn stored(variant: &str, length: usize) -> Arc<Stored> {
        let now = Moment::default();
        let arrival = Arrival { requested_at: now, received_at: now, wall: SystemTime::UNIX_EPOCH };
        let head = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("max-age=9"))]);
        let plain = RequestFacts::read(&Method::GET, &HeaderMap::new(), &Rules::default());
        let admitted =
            cache_policy::admit(&plain, StatusCode::OK, &head, arrival, &Rules::default()).unwrap();
        let facts = Facts {
            meta: admitted.meta,
            vary: [header::ACCEPT_LANGUAGE].into(),
            variant: variant.into(),
            tags: Box::default(),
            began: Generation::default(),
            codable: true,
        };
        Arc::new(Stored::new(facts, &admitted.head, body(length)))
    }

    fn tagged(memory: &Memory, tag: &str) -> Arc<Stored> {
        let plain = stored("", 4096);
        let tags = [Tag::Key("all".into()), Tag::Key(tag.into())];
        let facts = Facts { tags: tags.into(), began: memory.generation(), ..(**plain).clone() };
        Arc::new(plain.freshened(facts, &plain.identity().head))
    }

    /// Before, the response that had been coded went, was fetched again, coded again, and went again; or another variant did.
    #[test]
    fn a_coding_that_does_not_fit_is_dropped_and_not_the_response_nor_another_variant() {
        for variants in [&["de"][..], &["en", "de"]] {
            let memory = Memory::new(8 << 20, 4, Arc::default());
            let length = usize::try_from(largest(8 << 20)).unwrap() * 2 / 3 / variants.len();
            for variant in variants {
                memory.store(&key(), stored(variant, length));
            }
            let newest = Arc::clone(&memory.look_up(&key()).unwrap().variants()[0]);
            assert!(newest.ask(Coding::Gzip));
            memory.add_coding(&key(), &newest.identity().body, Coding::Gzip, Some(body(length - 1)));
            let coded = Some(body(usize::try_from(largest(8 << 20)).unwrap() / 2));
            memory.add_coding(&key(), &newest.identity().body, Coding::Brotli, coded);
            let resource = memory.look_up(&key()).unwrap();
            assert_eq!(resource.variants().len(), variants.len());
            let newest = &resource.variants()[0];
            assert!(newest.coded(Coding::Brotli).is_none() && !newest.ask(Coding::Gzip), "asked for once");
        }
    }

    /// So many resources of some 4 KiB, and one of two variants.
    fn filled(memory: &Arc<Memory>, resources: usize) {
        for number in 0..resources {
            let key = Key::of_text(&format!("https://shop.example:443/{number}")).unwrap();
            memory.store(&key, tagged(memory, &number.to_string()));
        }
    }

    fn resize(memory: &Arc<Memory>, budget: u64, variants: usize) {
        memory.wanted.store(budget, Ordering::Relaxed);
        memory.variants.store(variants, Ordering::Relaxed);
        memory.fit_budget();
        memory.fit_resources();
    }

    #[test]
    fn a_smaller_budget_evicts_down_to_it_and_a_larger_one_touches_nothing() {
        let memory = Arc::new(Memory::new(64 << 20, 4, Arc::default()));
        filled(&memory, 8000);
        let (weight, resources) = (memory.weight(), memory.resources());
        assert!(weight > 32 << 20 && memory.evictions() == 0, "{weight} bytes");
        resize(&memory, 96 << 20, 4);
        assert_eq!((memory.weight(), memory.resources(), memory.evictions()), (weight, resources, 0));
        resize(&memory, 8 << 20, 4);
        let shrunk = memory.weight();
        assert!((6 << 20..=8 << 20).contains(&shrunk), "{shrunk} bytes");
        assert_eq!(memory.evictions(), (resources - memory.resources()) as u64);
        assert_eq!(memory.carriers.len(), 2 * memory.resources(), "what leads to them went, too");
        resize(&memory, 64 << 20, 4);
        filled(&memory, 8000);
        assert!(memory.weight() > 32 << 20, "there is room again: {} bytes", memory.weight());
    }

    #[test]
    fn a_smaller_budget_holds_for_the_largest_resource_and_for_bodies_on_their_way() {
        let memory = Arc::new(Memory::new(64 << 20, 4, Arc::default()));
        memory.store(&key(), stored("en", 4 << 20));
        let on_its_way = memory.reserve(4 << 20).unwrap();
        resize(&memory, 8 << 20, 4);
        assert_eq!(memory.resources(), 0);
        assert!(memory.reserve(1).is_none(), "more than a quarter of it is on its way");
        drop(on_its_way);
        assert!(memory.reserve(1).is_some());
        memory.store(&key(), stored("en", 4 << 20));
        assert_eq!(memory.resources(), 0);
        resize(&memory, 64 << 20, 4);
        memory.store(&key(), stored("en", 4 << 20));
        assert_eq!(memory.resources(), 1);
    }

    #[test]
    fn fewer_variants_leave_the_newest() {
        let memory = Arc::new(Memory::new(8 << 20, 4, Arc::default()));
        for variant in ["de", "fr", "en"] {
            memory.store(&key(), stored(variant, 100));
        }
        resize(&memory, 8 << 20, 2);
        let resource = memory.look_up(&key()).unwrap();
        let left: Vec<&str> = resource.variants().iter().map(|stored| &*stored.variant).collect();
        assert_eq!(left, ["en", "fr"]);
        resize(&memory, 8 << 20, 4);
        memory.store(&key(), stored("de", 100));
        assert_eq!(memory.look_up(&key()).unwrap().variants().len(), 3);
    }

    /// Every write of a resource adds and removes its entries; evictions remove them too.
    #[test]
    fn what_leads_to_stored_responses_leaves_with_them() {
        let memory = Memory::new(1 << 20, 4, Arc::default());
        for number in 0..2000 {
            let key = Key::of_text(&format!("https://shop.example:443/{number}")).unwrap();
            memory.store(&key, tagged(&memory, &number.to_string()));
            if let Some(resource) = memory.look_up(&key) {
                memory.add_coding(&key, &resource.variants[0].identity().body, Coding::Gzip, None);
            }
        }
        assert!(memory.evictions() > 1000 && memory.resources() > 10);
        assert_eq!(memory.carriers.len(), 2 * memory.resources(), "two tags each");
        let (stored, rule) = (memory.resources(), Rule::Tag(Tag::Key("all".into())));
        assert_eq!(memory.purge(vec![rule], Force::Hard, Moment::default()), stored);
        assert_eq!((memory.resources(), memory.carriers.len(), memory.weight()), (0, 0, 0));
    }
}
