//! By what things are known in Redis: the first 16 octets of their SHA-256, the same in every edge. Two things of one digest
//! would cost a fetch where it is about purges; a stored response says itself which resource it is of.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _};

use cache_policy::{NoVarySearch, Tag};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};

use crate::{
    cache::{Key, purge::Rule},
    request::limit::LimitKey,
    settings::Limit,
};

/// A resource, as Redis's own tools show it well.
pub(super) fn resource(key: &Key) -> String {
    hexadecimal(&of(b'r', &[key.as_str()]))
}

/// A variant of a resource; of what varies on nothing there is one, without a digest.
pub(super) fn variant(vary: &str, variant: &str) -> Vec<u8> {
    if vary.is_empty() { Vec::new() } else { of(b'v', &[vary, variant]).to_vec() }
}

/// A client at a limit. Edges whose settings differ in a limit do not count together. Whoever tries all addresses finds which one it
/// is; it is there while the client owes something.
pub(super) fn client(limit: &Limit, client: LimitKey) -> String {
    let manner = format!("{} {}", limit.interval.as_nanos(), limit.burst);
    hexadecimal(&of(b'l', &[&limit.name, &manner, &client.to_string()]))
}

/// What a stored response can be purged by, but for prefixes: as [`crate::cache::purge::Gate`] asks it.
pub(super) fn facets_of_response(key: &Key, tags: &[Tag], head: &HeaderMap) -> Vec<u8> {
    let mut facets = vec![everything(), host(key.host()), named(key.url())];
    facets.extend(tags.iter().map(|tag| of_tag(key.origin(), tag)));
    if NoVarySearch::read(head).is_some() {
        // It may answer for any query of its path.
        let path = key.without_query();
        facets.extend([named(path), some_query_of(path)]);
    }
    facets.concat()
}

/// What a purge is about: digests, and prefixes.
pub(super) fn facets_of_purge(rules: &[Rule]) -> (Vec<u8>, Vec<&str>) {
    let (mut facets, mut prefixes) = (Vec::new(), Vec::new());
    for rule in rules {
        match rule {
            Rule::Everything => facets.push(everything()),
            Rule::Host(name) => facets.push(host(name)),
            Rule::Prefix(prefix) => {
                prefixes.push(&**prefix);
                facets.extend(prefix.split_once('?').map(|(path, _)| some_query_of(path)));
            }
            Rule::Key(key) => {
                facets.push(named(key));
                facets.extend(key.split_once('?').map(|(path, _)| some_query_of(path)));
            }
            Rule::Tag(tag) => facets.push(of_tag("", tag)),
            Rule::Group { origin, group } => {
                facets.push(of_tag(origin.strip_suffix('/').unwrap_or(origin), group));
            }
        }
    }
    (facets.concat(), prefixes)
}

/// A word that no other process has.
pub(super) fn random() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one("one"), random.hash_one("two"))
}

fn everything() -> [u8; 16] {
    of(b'a', &[])
}

fn host(host: &str) -> [u8; 16] {
    of(b'h', &[host])
}

fn named(key: &str) -> [u8; 16] {
    of(b'k', &[key])
}

fn some_query_of(path: &str) -> [u8; 16] {
    of(b'q', &[path])
}

fn of_tag(origin: &str, tag: &Tag) -> [u8; 16] {
    match tag {
        Tag::Key(text) => of(b't', &[text]),
        Tag::Group(group) => of(b'g', &[origin, group]),
    }
}

fn of(kind: u8, texts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update([kind]);
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let whole: [u8; 32] = hash.finalize().into();
    let mut digest = [0; 16];
    digest.copy_from_slice(&whole[..16]);
    digest
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}
