//! The query of a cache key: a route's normalisation, and No-Vary-Search of a response.
//!
//! Promises that two queries get one key only where the route's operator, or the origin, has said that they mean the
//! same. Without rules the query is the key, octet by octet.

use crate::scan;
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, InnerList, Item, ListEntry, Parser};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How a route normalises the query of its keys. `QueryRules::default()` changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// Only these parameters stay, where given. A name may end in `*`: any that begins so.
    pub keep: Option<Vec<String>>,
    /// These go; `*` as above.
    pub drop: Vec<String>,
    /// Parameters are put in the order of their names; those of one name keep theirs.
    pub sort: bool,
}

/// Normalises a query (without its `?`). Empty: no parameter is left.
pub fn normalise_query<'a>(query: &'a str, rules: &QueryRules) -> Cow<'a, str> {
    if *rules == QueryRules::default() || query.is_empty() {
        return Cow::Borrowed(query);
    }
    let stays =
        |pair: &&str| rules.keep.as_ref().is_none_or(|keep| listed(keep, pair)) && !listed(&rules.drop, pair);
    let in_order = |left: &&str, right: &&str| name_octets(left).cmp(name_octets(right));
    let sorted = || !rules.sort || query.split('&').is_sorted_by(|left, right| in_order(left, right).is_le());
    if query.split('&').all(|pair| stays(&pair)) && sorted() {
        return Cow::Borrowed(query);
    }
    let mut kept: Vec<&str> = query.split('&').filter(stays).collect();
    if rules.sort {
        kept.sort_by(in_order);
    }
    Cow::Owned(kept.join("&"))
}

fn listed(names: &[String], pair: &str) -> bool {
    names.iter().any(|listed| match listed.strip_suffix('*') {
        Some(prefix) => name_octets(pair).take(prefix.len()).eq(prefix.bytes()),
        None => name_octets(pair).eq(listed.bytes()),
    })
}

/// What No-Vary-Search says of a response: which differences of the query do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NoVarySearch {
    order_matters_not: bool,
    ignored: Ignored,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ignored {
    These(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

impl Default for Ignored {
    fn default() -> Ignored {
        Ignored::These(BTreeSet::new())
    }
}

impl NoVarySearch {
    /// Reads the field. `None` where it is absent, broken, or says that every difference matters.
    pub fn read(head: &HeaderMap) -> Option<NoVarySearch> {
        const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");
        let lines: Vec<_> = head.get_all(NO_VARY_SEARCH).iter().map(http::HeaderValue::as_bytes).collect();
        let dictionary: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
        let rules = NoVarySearch {
            order_matters_not: dictionary.get("key-order").map_or(Some(false), boolean)?,
            ignored: ignored(&dictionary)?,
        };
        (rules != NoVarySearch::default()).then_some(rules)
    }

    /// A key that two queries share exactly where they are equivalent under these rules. Names and values are compared
    /// decoded, as application/x-www-form-urlencoded.
    pub fn key(&self, query: &str) -> Box<str> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        let mut pairs: Vec<_> = pairs.filter(|(name, _)| !self.ignores(name)).collect();
        if self.order_matters_not {
            pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        let mut key = String::new();
        for (name, value) in &pairs {
            encode(name, &mut key);
            key.push('=');
            encode(value, &mut key);
            key.push('&');
        }
        key.into()
    }

    /// About how many bytes of memory it holds.
    pub fn weight(&self) -> u64 {
        let (Ignored::These(names) | Ignored::AllBut(names)) = &self.ignored;
        96 + names.iter().map(|name| 48 + name.len() as u64).sum::<u64>()
    }

    fn ignores(&self, name: &str) -> bool {
        match &self.ignored {
            Ignored::These(names) => names.contains(name),
            Ignored::AllBut(names) => !names.contains(name),
        }
    }
}

fn ignored(dictionary: &Dictionary) -> Option<Ignored> {
    let except = dictionary.get("except").map(names);
    match (dictionary.get("params"), except) {
        (None, None) => Some(Ignored::default()),
        // `except` means something only beside a `params` of true.
        (None, Some(_)) => None,
        (Some(params), except) => match (boolean(params), except) {
            (Some(true), None) => Some(Ignored::AllBut(BTreeSet::new())),
            (Some(true), Some(except)) => Some(Ignored::AllBut(except?)),
            (Some(false), None) => Some(Ignored::default()),
            (None, None) => Some(Ignored::These(names(params)?)),
            (_, Some(_)) => None,
        },
    }
}

fn boolean(member: &ListEntry) -> Option<bool> {
    match member {
        ListEntry::Item(Item { bare_item: BareItem::Boolean(value), .. }) => Some(*value),
        _ => None,
    }
}

fn names(member: &ListEntry) -> Option<BTreeSet<String>> {
    let ListEntry::InnerList(InnerList { items, .. }) = member else {
        return None;
    };
    let name = |item: &Item| match &item.bare_item {
        BareItem::String(name) => Some(decoded(name.as_str())),
        _ => None,
    };
    items.iter().map(name).collect()
}

fn name_octets(pair: &str) -> impl Iterator<Item = u8> {
    octets(pair.split_once('=').map_or(pair, |(name, _)| name))
}

fn decoded(text: &str) -> String {
    let octets: Vec<u8> = octets(text).collect();
    String::from_utf8_lossy(&octets).into_owned()
}

/// application/x-www-form-urlencoded: `+` is a space, `%XX` an octet, and octets are UTF-8.
fn octets(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&octet, after) = rest.split_first()?;
        scan::looked_at(1);
        let escaped = after.get(..2).filter(|_| octet == b'%').and_then(hexadecimal);
        rest = if escaped.is_some() { &after[2..] } else { after };
        Some(match octet {
            b'+' => b' ',
            other => escaped.unwrap_or(other),
        })
    })
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()
}

/// Escapes what separates the parts of a key.
fn encode(text: &str, key: &mut String) {
    for character in text.chars() {
        match character {
            '%' => key.push_str("%25"),
            '&' => key.push_str("%26"),
            '=' => key.push_str("%3D"),
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn rules(field: &str) -> Option<NoVarySearch> {
        let name = HeaderName::from_static("no-vary-search");
        NoVarySearch::read(&HeaderMap::from_iter([(name, HeaderValue::from_str(field).unwrap())]))
    }

    fn same(field: &str, left: &str, right: &str) -> bool {
        let rules = rules(field).expect("a field that says something");
        rules.key(left) == rules.key(right)
    }

    #[test]
    fn a_route_keeps_drops_and_sorts() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let tracking = QueryRules { drop: names(&["utm_*", "fbclid"]), ..QueryRules::default() };
        assert_eq!(normalise_query("a=1&utm_source=x&b=2&fbclid=y", &tracking), "a=1&b=2");
        assert_eq!(normalise_query("%75tm_source=x&a", &tracking), "a");
        assert_eq!(normalise_query("utm_source=x", &tracking), "");
        let sorted = QueryRules { sort: true, ..QueryRules::default() };
        assert_eq!(normalise_query("b=2&a=2&b=1&a=1", &sorted), "a=2&a=1&b=2&b=1");
        let kept = QueryRules { keep: Some(names(&["id"])), ..QueryRules::default() };
        assert_eq!(normalise_query("id=1&x=2", &kept), "id=1");
        assert_eq!(normalise_query("b&a&&", &QueryRules::default()), "b&a&&");
    }

    #[test]
    fn no_vary_search_ignores_what_it_names() {
        assert!(same("params=(\"a\")", "a=1&b=2", "b=2&a=3"));
        assert!(!same("params=(\"a\")", "b=1", "b=2"));
        assert!(!same("params=(\"a\")", "b=1&c=1", "c=1&b=1"));
        assert!(same("params", "a=1", "b=2"));
        assert!(same("params, except=(\"b\")", "a=1&b=1", "b=1"));
        assert!(!same("params, except=(\"b\")", "b=2", "b=1"));
        assert!(same("key-order", "a=1&b=2", "b=2&a=1"));
        assert!(!same("key-order", "a=1&a=2", "a=2&a=1"));
        assert!(same("key-order", "a=%31+&b", "b=&a=1%20"));
        assert!(!same("key-order", "a=1%26b=2", "a=1&b=2"));
    }

    #[test]
    fn a_field_that_is_broken_or_empty_says_nothing() {
        for field in [
            "",
            "params=?0",
            "key-order=?0",
            "params=a",
            "except=(\"a\")",
            "params=(\"a\"), except=(\"b\")",
            "params=(1)",
            "key-order=1",
            "params=(\"a\"",
            "params, except=\"b\"",
        ] {
            assert_eq!(rules(field), None, "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(field in "(params|except|key-order)?[ -~]{0,30}", query in "\\PC{0,30}") {
            if let Some(rules) = rules(&field) {
                let _ = rules.key(&query);
            }
            let _ = normalise_query(&query, &QueryRules { sort: true, ..QueryRules::default() });
        }

        #[test]
        fn normalising_twice_changes_nothing(query in "[a-c=&%0-9]{0,30}") {
            let rules = QueryRules { drop: vec!["a".to_owned()], sort: true, ..QueryRules::default() };
            let once = normalise_query(&query, &rules).into_owned();
            prop_assert_eq!(normalise_query(&once, &rules), once.as_str());
        }
    }
}
