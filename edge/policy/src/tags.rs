//! The tags a response is purged by: those of the fields that CDNs and content systems know, and Cache-Groups (RFC 9875).
//!
//! Promises that a response whose tags cannot all be remembered is not stored: a purge would not reach it.

use crate::reason::Reason;
use crate::rules::Rules;
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Item, List, ListEntry, Parser};

/// More tags than this on one response keep it out of the cache, unless the route says otherwise.
pub const MOST_TAGS: usize = 256;

/// A longer tag, in octets, keeps its response out of the cache. RFC 9875 §2.1 asks for 32 at least.
pub const LONGEST_TAG: usize = 1024;

/// What a response is purged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// A word of Surrogate-Key, Cache-Tag and the like; known to the whole cache.
    Key(Box<str>),
    /// A group of Cache-Groups; known within one origin (RFC 9875 §2).
    Group(Box<str>),
}

/// The fields whose words are tags where a route does not name others: of Fastly, Cloudflare, Varnish, and of the content systems that name their own.
pub static TAG_FIELDS: [HeaderName; 7] =
    [SURROGATE_KEY, CACHE_TAG, XKEY, X_CACHE_TAGS, X_MAGENTO_TAGS, CACHE_TAGS, PURGE_CACHE_TAGS];

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const XKEY: HeaderName = HeaderName::from_static("xkey");
const X_CACHE_TAGS: HeaderName = HeaderName::from_static("x-cache-tags");
const X_MAGENTO_TAGS: HeaderName = HeaderName::from_static("x-magento-tags");
/// Drupal's.
const CACHE_TAGS: HeaderName = HeaderName::from_static("cache-tags");
const PURGE_CACHE_TAGS: HeaderName = HeaderName::from_static("purge-cache-tags");
pub(crate) const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The tags of a response: sorted, each once.
///
/// # Errors
/// [`Reason::TagsUnusable`] where there are more, or longer ones, than the route will remember.
pub fn tags(head: &HeaderMap, rules: &Rules) -> Result<Vec<Tag>, Reason> {
    let keys = rules.tag_fields.iter().flat_map(|name| words(head, name, separator(name)));
    let groups = groups(head, &CACHE_GROUPS).into_iter().map(Tag::Group);
    let mut tags: Vec<_> = keys.chain(groups).collect();
    tags.sort_unstable();
    tags.dedup();
    let remembered = tags.len() <= rules.max_tags && tags.iter().all(|tag| tag.as_str().len() <= LONGEST_TAG);
    if remembered { Ok(tags) } else { Err(Reason::TagsUnusable) }
}

/// The groups that a response to an unsafe method invalidates (RFC 9875 §3), within its origin. To be asked only where
/// [`crate::invalidates`] says yes.
pub fn invalidated_groups(head: &HeaderMap) -> Vec<Tag> {
    groups(head, &CACHE_GROUP_INVALIDATION).into_iter().map(Tag::Group).collect()
}

/// Why no response carries a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTag {
    /// It is empty, or begins or ends with white space.
    Untrimmed,
    /// It has white space, which separates the words of Surrogate-Key, and a comma, which separates those of Cache-Tag.
    Several,
    /// It has characters that no field holds.
    Control,
    /// It is longer than [`LONGEST_TAG`].
    Long,
}

impl Tag {
    /// The tag that an operator names.
    ///
    /// # Errors
    /// [`NoTag`], where no response can carry it.
    pub fn named(text: &str) -> Result<Tag, NoTag> {
        if text.is_empty() || text.trim_ascii().len() < text.len() {
            Err(NoTag::Untrimmed)
        } else if text.contains(|character: char| character.is_ascii_control() && character != '\t') {
            Err(NoTag::Control)
        } else if text.contains(',') && text.contains(|character: char| character.is_ascii_whitespace()) {
            Err(NoTag::Several)
        } else if text.len() > LONGEST_TAG {
            Err(NoTag::Long)
        } else {
            Ok(Tag::Key(text.into()))
        }
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        match self {
            Tag::Key(text) | Tag::Group(text) => text,
        }
    }
}

/// What parts the words of a field.
fn separator(field: &HeaderName) -> fn(u8) -> bool {
    if *field == SURROGATE_KEY {
        |byte| byte.is_ascii_whitespace()
    } else if [CACHE_TAG, X_MAGENTO_TAGS].contains(field) {
        |byte| byte == b','
    } else {
        // Some write theirs with commas, some with spaces, and none has words that hold either.
        |byte| byte == b',' || byte.is_ascii_whitespace()
    }
}

fn words<'a>(
    head: &'a HeaderMap,
    field: &HeaderName,
    separates: fn(u8) -> bool,
) -> impl Iterator<Item = Tag> + 'a {
    let lines = head.get_all(field).into_iter();
    let words = lines.flat_map(move |line| line.as_bytes().split(move |&byte| separates(byte)));
    let words = words.map(<[u8]>::trim_ascii).filter(|word| !word.is_empty());
    words.map(|word| Tag::Key(text_of_field(word)))
}

/// The text of a field or of a part of one. Octets that are no UTF-8 are read as ISO 8859-1 (RFC 9110 §5.5), so that what holds them
/// can be named too.
pub fn text_of_field(word: &[u8]) -> Box<str> {
    match std::str::from_utf8(word) {
        Ok(text) => text.into(),
        Err(_) => word.iter().map(|&octet| char::from(octet)).collect::<String>().into(),
    }
}

/// A List of Strings; members of other types are passed over, parameters ignored, a broken field is as if absent.
fn groups(head: &HeaderMap, field: &HeaderName) -> Vec<Box<str>> {
    let lines: Vec<_> = head.get_all(field).iter().map(http::HeaderValue::as_bytes).collect();
    let list: List = match Parser::new(&lines.join(&b", "[..])).parse() {
        Ok(list) => list,
        Err(_) => return Vec::new(),
    };
    let strings = list.into_iter().filter_map(|member| match member {
        ListEntry::Item(Item { bare_item: BareItem::String(text), .. }) => Some(text.as_str().into()),
        _ => None,
    });
    strings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn head(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn all_three_fields_over_all_their_lines() {
        let head = head(&[
            (SURROGATE_KEY, "b  a"),
            (SURROGATE_KEY, "a"),
            (CACHE_TAG, "c, d e ,"),
            (CACHE_GROUPS, "\"b\";x, 1, \"g h\""),
            (CACHE_GROUPS, "\"i\""),
        ]);
        let key = |text: &str| Tag::Key(text.into());
        let group = |text: &str| Tag::Group(text.into());
        let wanted = [key("a"), key("b"), key("c"), key("d e"), group("b"), group("g h"), group("i")];
        assert_eq!(tags(&head, &Rules::default()).unwrap(), wanted);
    }

    /// A content system's own fields named tags that no purge found.
    #[test]
    fn the_fields_of_content_systems_are_tags() {
        let head = head(&[
            (XKEY, "a b"),
            (XKEY, "c"),
            (X_MAGENTO_TAGS, "cat_p_1,cms b"),
            (X_CACHE_TAGS, "node:1 node:2"),
            (X_CACHE_TAGS, "page,post"),
        ]);
        let tags = tags(&head, &Rules::default()).unwrap();
        let texts: Vec<_> = tags.iter().map(Tag::as_str).collect();
        assert_eq!(texts, ["a", "b", "c", "cat_p_1", "cms b", "node:1", "node:2", "page", "post"]);
    }

    /// Where a system names its field otherwise, its own words are tags, and those of the fields that it does not send are not.
    #[test]
    fn a_route_names_the_fields_of_its_tags() {
        let own = HeaderName::from_static("x-shop-tags");
        let head = head(&[
            (own.clone(), "a, b c"),
            (SURROGATE_KEY, "d"),
            (CACHE_TAG, "e f"),
            (CACHE_GROUPS, "\"g\""),
        ]);
        let of = |tag_fields: Vec<HeaderName>| {
            let tags = tags(&head, &Rules { tag_fields, ..Rules::default() }).unwrap();
            tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of(vec![own.clone()]), ["a", "b", "c", "g"]);
        assert_eq!(of(vec![CACHE_TAG, own]), ["a", "b", "c", "e f", "g"]);
        assert_eq!(of(Vec::new()), ["g"]);
    }

    /// `Surrogate-Key: café` was read as Latin-1, and no purge named it.
    #[test]
    fn tags_are_read_as_utf_8_and_as_latin_1_where_they_are_none() {
        let carried = |octets: &[u8]| {
            let field = (SURROGATE_KEY, HeaderValue::from_bytes(octets).unwrap());
            tags(&HeaderMap::from_iter([field]), &Rules::default()).unwrap()
        };
        assert_eq!(carried("café".as_bytes()), [Tag::named("café").unwrap()]);
        assert_eq!(carried(b"caf\xe9"), [Tag::named("café").unwrap()]);
    }

    /// A purge by such a tag said that it had purged nothing, as if nothing were stored.
    #[test]
    fn what_no_response_carries_is_no_tag() {
        for (text, why) in [
            ("", NoTag::Untrimmed),
            (" a", NoTag::Untrimmed),
            ("a b,c", NoTag::Several),
            ("a\u{1}", NoTag::Control),
            (&"x".repeat(LONGEST_TAG + 1), NoTag::Long),
        ] {
            assert_eq!(Tag::named(text), Err(why), "{text}");
        }
        for text in ["a", "a,b", "d e", "café"] {
            assert_eq!(Tag::named(text), Ok(Tag::Key(text.into())));
        }
    }

    #[test]
    fn a_broken_group_field_is_ignored() {
        assert_eq!(tags(&head(&[(CACHE_GROUPS, "\"a\", &")]), &Rules::default()), Ok(vec![]));
        assert_eq!(
            invalidated_groups(&head(&[(CACHE_GROUP_INVALIDATION, "\"a\"")])),
            [Tag::Group("a".into())]
        );
    }

    #[test]
    fn what_cannot_be_remembered_is_refused() {
        let many = (0..=MOST_TAGS).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let of =
            |field, value: &str, rules: &Rules| tags(&head(&[(field, value)]), rules).map(|tags| tags.len());
        assert_eq!(of(SURROGATE_KEY, &many, &Rules::default()), Err(Reason::TagsUnusable));
        assert_eq!(of(X_CACHE_TAGS, &many, &Rules { max_tags: 257, ..Rules::default() }), Ok(257));
        assert_eq!(of(CACHE_TAG, &"x".repeat(LONGEST_TAG + 1), &Rules::default()), Err(Reason::TagsUnusable));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "[ -~\u{80}-\u{ff}]{0,60}") {
            let mut fields: Vec<_> = TAG_FIELDS.iter().map(|name| (name.clone(), &*text)).collect();
            fields.push((CACHE_GROUPS, &text));
            let _ = tags(&head(&fields), &Rules::default());
        }
    }
}
