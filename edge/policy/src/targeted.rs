//! Targeted cache control (RFC 9213): `CDN-Cache-Control` and its like, in place of Cache-Control and Expires.
//!
//! The fields are Dictionaries of Structured Fields: keys in lower case, and one mistake voids the whole field.

use crate::directives::{LONGEST, ResponseDirectives, Scope};
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};
use std::time::Duration;

/// The directives of the first field of `targets` that is present, valid and not empty (RFC 9213 §2.2).
pub(crate) fn read(head: &HeaderMap, targets: &[HeaderName]) -> Option<ResponseDirectives> {
    targets.iter().find_map(|target| {
        let dictionary = dictionary(head, target)?;
        (!dictionary.is_empty()).then(|| directives(&dictionary))
    })
}

/// The field that stands in place of Cache-Control and Expires: of `targets` the first that is present, valid and not
/// empty. One that is present and void is as if absent.
pub fn targeted_field<'t>(head: &HeaderMap, targets: &'t [HeaderName]) -> Option<&'t HeaderName> {
    targets.iter().find(|target| dictionary(head, target).is_some_and(|dictionary| !dictionary.is_empty()))
}

fn dictionary(head: &HeaderMap, target: &HeaderName) -> Option<Dictionary> {
    let mut lines = head.get_all(target).iter();
    let first = lines.next()?;
    let mut whole = first.as_bytes().to_vec();
    for line in lines {
        whole.extend_from_slice(b", ");
        whole.extend_from_slice(line.as_bytes());
    }
    Parser::new(&whole).parse().ok()
}

fn directives(dictionary: &Dictionary) -> ResponseDirectives {
    let flag = |name: &str| dictionary.get(name).is_some_and(|member| !is_false(member));
    let seconds = |name: &str| dictionary.get(name).map(delta_seconds);
    ResponseDirectives {
        no_store: flag("no-store"),
        no_cache: scope(dictionary.get("no-cache")),
        private: scope(dictionary.get("private")),
        public: flag("public"),
        must_revalidate: flag("must-revalidate"),
        proxy_revalidate: flag("proxy-revalidate"),
        must_understand: flag("must-understand"),
        immutable: flag("immutable"),
        max_age: seconds("max-age"),
        s_maxage: seconds("s-maxage"),
        stale_while_revalidate: seconds("stale-while-revalidate"),
        stale_if_error: seconds("stale-if-error"),
        // One mistake voids the whole field, which is then as if absent (§2.2).
        refusals_only: false,
    }
}

fn is_false(member: &ListEntry) -> bool {
    matches!(member, ListEntry::Item(Item { bare_item: BareItem::Boolean(false), .. }))
}

/// A value of another type than Integer is not coerced (§2.1): it counts as malformed, which is stale.
fn delta_seconds(member: &ListEntry) -> Duration {
    match member {
        ListEntry::Item(Item { bare_item: BareItem::Integer(seconds), .. }) => {
            let seconds = u64::try_from(i64::from(*seconds)).unwrap_or(0);
            Duration::from_secs(seconds).min(LONGEST)
        }
        _ => Duration::ZERO,
    }
}

fn scope(member: Option<&ListEntry>) -> Scope {
    match member {
        None => Scope::Nothing,
        Some(member) if is_false(member) => Scope::Nothing,
        Some(ListEntry::Item(Item { bare_item: BareItem::String(list), .. })) => {
            Scope::of_list(list.as_str().as_bytes())
        }
        Some(_) => Scope::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const TARGET: HeaderName = HeaderName::from_static("cdn-cache-control");

    fn of(lines: &[&str]) -> Option<ResponseDirectives> {
        let head = lines.iter().map(|line| (TARGET, HeaderValue::from_str(line).unwrap())).collect();
        read(&head, &[TARGET])
    }

    #[test]
    fn a_valid_field_is_read_over_all_its_lines() {
        let directives = of(&["max-age=60, foo", "no-cache=\"a\", private=?0"]).unwrap();
        assert_eq!(directives.max_age, Some(Duration::from_secs(60)));
        assert_eq!(directives.no_cache, Scope::Fields(vec![HeaderName::from_static("a")]));
        assert_eq!(directives.private, Scope::Nothing);
    }

    #[test]
    fn an_empty_or_broken_field_is_as_if_absent() {
        for field in ["", " ", "max-age=10000, &&&&&", "max-age =100", "max-age= 100", "MaX-aGe=3600"] {
            assert_eq!(of(&[field]), None, "{field}");
            let head = HeaderMap::from_iter([(TARGET, HeaderValue::from_str(field).unwrap())]);
            assert_eq!(targeted_field(&head, &[TARGET]), None, "{field}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_stale() {
        for field in ["max-age=\"10000\"", "max-age=1.5", "max-age", "max-age=-1", "max-age=(1)"] {
            assert_eq!(of(&[field]).unwrap().max_age, Some(Duration::ZERO), "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(line in "[ -~]{0,60}") {
            let _ = of(&[&line]);
        }
    }
}
