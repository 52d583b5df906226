//! What one purge is about, made ready to be asked: whether a response matches costs its own key and tags, however much
//! the purge names.

use std::collections::{HashMap, HashSet};

use cache_policy::Tag;

use super::{
    key::url_of,
    rule::{Rule, host_of},
};

/// The rules of one purge.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    everything: bool,
    hosts: HashSet<Box<str>>,
    keys: HashSet<Box<str>>,
    /// The paths of the keys: see [`RuleSet::may_concern`].
    paths: HashSet<Box<str>>,
    tags: HashSet<Tag>,
    /// By origin.
    groups: HashMap<Box<str>, HashSet<Tag>>,
    /// Sorted, and none begins with another: the last one that is not after a key is the only one that can match it.
    prefixes: Vec<Box<str>>,
    /// The paths of those prefixes that end within a query.
    cut_queries: HashSet<Box<str>>,
}

impl RuleSet {
    /// Reads each rule once.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut set = Self::default();
        for rule in &rules {
            match rule {
                Rule::Everything => set.everything = true,
                Rule::Host(host) => drop(set.hosts.insert(host.clone())),
                Rule::Prefix(prefix) => {
                    set.prefixes.push(prefix.clone());
                    if let Some((path, _)) = prefix.split_once('?') {
                        set.cut_queries.insert(path.into());
                    }
                }
                Rule::Key(key) => {
                    set.keys.insert(key.clone());
                    set.paths.insert(path_of(key).into());
                }
                Rule::Tag(tag) => drop(set.tags.insert(tag.clone())),
                Rule::Group { origin, group } => {
                    set.groups.entry(origin.clone()).or_default().insert(group.clone());
                }
            }
        }
        set.prefixes.sort_unstable();
        set.prefixes.dedup_by(|later, earlier| later.starts_with(&**earlier));
        set.rules = rules;
        set
    }

    /// The rules as they were given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether only a walk over all that is stored finds what they match.
    pub fn walk(&self) -> bool {
        self.everything || !self.hosts.is_empty() || !self.prefixes.is_empty()
    }

    /// Whether one of them matches the response stored under `key` with `tags`.
    pub fn matches(&self, key: &str, tags: &[Tag]) -> bool {
        self.keys.contains(url_of(key))
            || self.match_place(key)
            || (!self.tags.is_empty() && tags.iter().any(|tag| self.tags.contains(tag)))
            || self.groups_of(key).is_some_and(|groups| tags.iter().any(|tag| groups.contains(tag)))
    }

    /// Whether one of them matches whatever is stored at this place: everything, the host, or a prefix.
    pub fn match_place(&self, key: &str) -> bool {
        self.everything
            || (!self.hosts.is_empty() && host_of(key).is_some_and(|host| self.hosts.contains(host)))
            || self.prefix_of(key)
    }

    /// Whether one of them names queries of this key's path by how they begin. What is stored there may answer for one of
    /// them by No-Vary-Search, whichever query it is stored under.
    pub fn match_queries(&self, key: &str) -> bool {
        !self.cut_queries.is_empty() && self.cut_queries.contains(path_of(key))
    }

    /// Whether one of them may match a response for `key` of which nothing else is known yet. With No-Vary-Search it
    /// may answer for any query of its path.
    pub fn may_concern(&self, key: &str) -> bool {
        !self.tags.is_empty()
            || self.match_place(key)
            || self.groups_of(key).is_some()
            || self.match_queries(key)
            || (!self.paths.is_empty() && self.paths.contains(path_of(key)))
    }

    fn prefix_of(&self, key: &str) -> bool {
        let after = self.prefixes.partition_point(|prefix| **prefix <= *key);
        after.checked_sub(1).is_some_and(|last| key.starts_with(&*self.prefixes[last]))
    }

    fn groups_of(&self, key: &str) -> Option<&HashSet<Tag>> {
        if self.groups.is_empty() {
            return None;
        }
        let authority = key.find("://")? + 3;
        let origin = authority + key[authority..].find('/')?;
        self.groups.get(&key[..=origin])
    }
}

/// A key's text without its query.
pub(super) fn path_of(key: &str) -> &str {
    let url = url_of(key);
    url.split_once('?').map_or(url, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule() -> impl Strategy<Value = Rule> {
        let text = "http://[ab]{1,2}:80/[ab/?]{0,4}".prop_map(String::into_boxed_str);
        let tag = "[ab]{1,2}".prop_map(|text| Tag::Key(text.into()));
        prop_oneof![
            1 => Just(Rule::Everything),
            8 => "[ab]{1,2}".prop_map(|host| Rule::Host(host.into())),
            8 => text.clone().prop_map(Rule::Prefix),
            8 => text.prop_map(Rule::Key),
            8 => tag.prop_map(Rule::Tag),
            8 => ("[ab]{1,2}", "[ab]{1,2}").prop_map(|(host, group)| Rule::Group {
                origin: format!("http://{host}:80/").into(),
                group: Tag::Group(group.into()),
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_set_matches_what_one_of_its_rules_matches(
            rules in proptest::collection::vec(rule(), 0..8),
            key in "http://[ab]{1,2}:80/[ab/?]{0,5}( [ab?]{1,2})?",
            words in proptest::collection::vec("[ab]{1,2}", 0..3),
        ) {
            let mut tags: Vec<_> =
                words.iter().flat_map(|word| [Tag::Key((**word).into()), Tag::Group((**word).into())]).collect();
            tags.sort_unstable();
            let one_by_one = rules.iter().any(|rule| rule.matches(&key, &tags));
            let may = rules.iter().any(|rule| rule.may_concern(&key));
            let set = RuleSet::new(rules);
            prop_assert_eq!(set.matches(&key, &tags), one_by_one);
            prop_assert!(set.may_concern(&key) || !may);
        }
    }
}
