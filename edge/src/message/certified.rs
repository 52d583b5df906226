//! Certificates of both sides: which names those of a listener are for, and what upstreams are told of a client's.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, HeaderValue};

use crate::settings::UnknownNames;

/// The certificates of a listener, by their numbers, and the names (RFC 5280 §4.2.1.6) that each is for.
#[derive(Debug, Default)]
pub struct CertifiedNames {
    /// By lower-case name; a wildcard stands without its star: `.example.com`.
    by_name: HashMap<Box<str>, usize>,
    of_each: Vec<Box<[Box<str>]>>,
}

impl CertifiedNames {
    /// Adds a certificate for these names, in lower case. Of several for one name the first counts.
    pub fn add(&mut self, names: &[Box<str>]) {
        let number = self.of_each.len();
        let names: Box<[Box<str>]> =
            names.iter().map(|name| name.strip_prefix('*').unwrap_or(name).into()).collect();
        for name in &names {
            self.by_name.entry(name.clone()).or_insert(number);
        }
        self.of_each.push(names);
    }

    /// The certificate for a name in lower case: one that has the very name before one with a wildcard.
    pub fn find(&self, name: &str) -> Option<usize> {
        let wildcard = || self.by_name.get(&name[name.find('.')?..]);
        self.by_name.get(name).or_else(wildcard).copied()
    }

    /// Whether a certificate is for a name in lower case, be there a better one or not.
    fn covers(&self, number: usize, name: &str) -> bool {
        let parent = name.find('.').map(|dot| &name[dot..]);
        let is = |of: &str| of == name || Some(of) == parent;
        self.of_each.get(number).is_some_and(|names| names.iter().any(|of| is(of)))
    }

    /// How many certificates there are.
    pub fn certificates(&self) -> usize {
        self.of_each.len()
    }

    /// How many names they have together.
    pub fn names(&self) -> usize {
        self.by_name.len()
    }

    /// The names that more than one certificate has, each with the first two of these.
    pub fn overlaps(&self) -> Vec<(String, usize, usize)> {
        let twice = |(number, names): (usize, &[Box<str>])| {
            let mut sorted: Vec<&str> = names.iter().map(|name| &**name).collect();
            sorted.sort();
            sorted.dedup();
            let other = |name: &&str| self.by_name.get(*name).copied().filter(|first| *first != number);
            let found = sorted.iter().filter_map(|name| Some((written(name), other(name)?, number)));
            found.collect::<Vec<_>>()
        };
        self.of_each.iter().map(|names| &**names).enumerate().flat_map(twice).collect()
    }
}

/// A name as certificates write it.
fn written(name: &str) -> String {
    if name.starts_with('.') { format!("*{name}") } else { name.to_owned() }
}

/// What edge and client know of each other by their certificates, where that does not go without saying.
#[derive(Debug, Default)]
pub struct Acquaintance {
    /// The certificate that the client was shown, where it may ask for any host and others are shown others.
    pub shown: Option<ShownCertificate>,
    /// What upstreams are told of the client's own. What they answer may then be for this client alone.
    pub told: Vec<(HeaderName, HeaderValue)>,
}

/// The certificate that a connection's client was shown, and the name it had asked for.
#[derive(Debug)]
pub struct ShownCertificate {
    pub of: Arc<CertifiedNames>,
    pub number: usize,
    /// In lower case.
    pub name: Box<str>,
    pub unknown: UnknownNames,
}

impl ShownCertificate {
    /// Whether a request for a host came by a connection that is not for it: another certificate is, or none is and such
    /// connections are refused. The client had no reason to believe that it may ask here (RFC 9113 §9.1.1), or has not looked.
    pub fn is_not_for(&self, host: &str) -> bool {
        if *self.name == *host {
            return false;
        }
        match self.of.find(host) {
            Some(number) => number != self.number && !self.of.covers(self.number, host),
            None => self.unknown == UnknownNames::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(certificates: &[&[&str]]) -> CertifiedNames {
        let mut all = CertifiedNames::default();
        for names in certificates {
            let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
            all.add(&names);
        }
        all
    }

    #[test]
    fn a_very_name_comes_before_a_wildcard_and_the_first_before_the_second() {
        let names = names(&[&["a.test", "*.wild.test"], &["a.test", "exact.wild.test"]]);
        for (name, number) in [
            ("a.test", Some(0)),
            ("b.wild.test", Some(0)),
            ("exact.wild.test", Some(1)),
            ("wild.test", None),
            ("a.b.wild.test", None),
            ("test", None),
            ("", None),
        ] {
            assert_eq!(names.find(name), number, "{name}");
        }
        assert_eq!(names.overlaps(), [("a.test".to_owned(), 0, 1)]);
    }

    #[test]
    fn a_connection_is_for_what_its_certificate_is_for() {
        let of = Arc::new(names(&[&["a.test", "*.a.test"], &["b.test", "own.a.test"]]));
        let shown =
            |unknown| ShownCertificate { of: Arc::clone(&of), number: 0, name: "a.test".into(), unknown };
        for unknown in [UnknownNames::Default, UnknownNames::Refuse] {
            let shown = shown(unknown);
            for host in ["a.test", "x.a.test", "own.a.test"] {
                assert!(!shown.is_not_for(host), "{host}");
            }
            assert!(shown.is_not_for("b.test"));
            assert_eq!(shown.is_not_for("c.test"), unknown == UnknownNames::Refuse);
            assert_eq!(shown.is_not_for("10.0.0.1"), unknown == UnknownNames::Refuse);
        }
    }
}
