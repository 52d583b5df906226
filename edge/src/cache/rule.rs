//! What a purge is about, and what it does to a response: the words that the gate, its tables and the tiers share.

use cache_policy::{Moment, Tag};

use super::{Key, key::url_of};

/// Counts purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// After all others.
    pub(super) const MAX: Self = Self(u64::MAX);

    /// Whether exactly one purge lies between the two.
    pub fn is_next_after(self, earlier: Self) -> bool {
        self.0 == earlier.0 + 1
    }

    pub(super) const fn count(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(super) const fn of(count: u64) -> Self {
        Self(count)
    }
}

/// Which responses a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everything stored.
    Everything,
    /// Everything of a host (lower case), on every port and scheme.
    Host(Box<str>),
    /// Every resource whose key begins with this text; a key is `scheme://host:port/path?query`. Where the text ends within
    /// a query, also what is stored of that path and answers for other queries than its own (No-Vary-Search).
    Prefix(Box<str>),
    /// One URL: all that is stored for it, in all variants and by whatever else of requests, and what answers for it by
    /// No-Vary-Search.
    Key(Box<str>),
    /// Every response that carries this tag (Surrogate-Key, Cache-Tag).
    Tag(Tag),
    /// Every response of one origin (`scheme://host:port/`) that carries this group (RFC 9875 §2).
    Group {
        /// The origin, with which its keys begin.
        origin: Box<str>,
        group: Tag,
    },
}

impl Rule {
    /// Whether it matches the response stored under `key` with `tags` (sorted). What answers for a key under another one
    /// is not known here.
    pub fn matches(&self, key: &str, tags: &[Tag]) -> bool {
        match self {
            Self::Everything => true,
            Self::Host(host) => host_of(key).is_some_and(|of_key| *of_key == **host),
            Self::Prefix(prefix) => key.starts_with(&**prefix),
            Self::Key(one) => **one == *url_of(key),
            Self::Tag(tag) => tags.binary_search(tag).is_ok(),
            Self::Group { origin, group } => key.starts_with(&**origin) && tags.binary_search(group).is_ok(),
        }
    }

    /// Whether it may match a response for `key` of which nothing else is known yet.
    pub fn may_concern(&self, key: &str) -> bool {
        match self {
            Self::Tag(_) => true,
            Self::Group { origin, .. } => key.starts_with(&**origin),
            rule => rule.matches(key, &[]),
        }
    }
}

/// The host in a key: between `://` and the last colon of the authority. No host holds a `/`.
pub(super) fn host_of(key: &str) -> Option<&str> {
    let authority = key.split_once("://")?.1.split('/').next()?;
    Some(authority.rsplit_once(':')?.0)
}

/// A response, as far as purges can concern it.
#[derive(Clone, Copy, Debug)]
pub struct Purgeable<'a> {
    pub key: &'a Key,
    pub tags: &'a [Tag],
    /// For which queries it may answer.
    pub answers: Answers,
}

/// For which queries a response may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Its own.
    Itself,
    /// Others of its path too (No-Vary-Search).
    Equivalents,
}

/// Whether purged responses are removed or only stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// They are never served again.
    Hard,
    /// They are stale from now on: validated before use, and served stale where policy permits.
    Soft,
}

/// What purges did to a response since its fetch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No purge matched it.
    Alive,
    /// A soft purge matched it at this moment.
    StaleSince(Moment),
    /// A hard purge matched it.
    Gone,
}

impl Fate {
    /// The worse of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone, _) | (_, Self::Gone) => Self::Gone,
            (Self::StaleSince(one), Self::StaleSince(other)) => Self::StaleSince(one.min(other)),
            (Self::StaleSince(since), Self::Alive) | (Self::Alive, Self::StaleSince(since)) => {
                Self::StaleSince(since)
            }
            (Self::Alive, Self::Alive) => Self::Alive,
        }
    }
}
