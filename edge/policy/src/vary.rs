//! Variants: which fields a response varies on, and what makes two requests equal in them (RFC 9111 §4.1).
//!
//! Values are normalised where their own specification says that the forms mean the same, and nowhere else: a
//! missing variant costs a fetch, a shared one gives somebody another person's answer.

use crate::coding::split_weight;
use crate::directives::{elements, list_elements};
use crate::reason::Reason;
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, GetAll, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, REFERER, USER_AGENT, VARY,
};

/// The fields a stored response varies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// None: one response answers every request.
    Nothing,
    /// These, in lower case, sorted, each once.
    Fields(Box<[HeaderName]>),
    /// `*`, or a field that cannot be read: the response matches no other request.
    Any,
}

/// More fields than this in one Vary are not worth their variants.
pub const LARGEST_VARY: usize = 16;

impl Vary {
    /// Reads all lines of Vary.
    pub fn read(head: &HeaderMap) -> Vary {
        let mut names = Vec::new();
        // An element with a quote is no field name, wherever it ends.
        for element in list_elements(head, &VARY) {
            match element {
                b"*" => return Vary::Any,
                name => match HeaderName::from_bytes(name) {
                    Ok(name) => names.push(name),
                    Err(_) => return Vary::Any,
                },
            }
        }
        Vary::of(names)
    }

    /// The fields as a slice; empty for `Nothing` and `Any`.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Vary::Fields(names) => names,
            Vary::Nothing | Vary::Any => &[],
        }
    }

    /// Leaves a field out, because what it chooses is chosen elsewhere.
    #[must_use]
    pub(crate) fn without(self, field: &HeaderName) -> Vary {
        match self {
            Vary::Fields(names) => Vary::of(names.into_iter().filter(|name| name != field).collect()),
            other => other,
        }
    }

    /// Refuses what no variant can be made of.
    pub(crate) fn storable(self) -> Result<Vary, Reason> {
        match self {
            Vary::Any => Err(Reason::VaryAny),
            Vary::Fields(names) if names.len() > LARGEST_VARY => Err(Reason::VaryTooWide),
            other => Ok(other),
        }
    }

    fn of(mut names: Vec<HeaderName>) -> Vary {
        names.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
        names.dedup();
        if names.is_empty() { Vary::Nothing } else { Vary::Fields(names.into()) }
    }
}

/// A request's fields as the origin sees them: those decide which variant it gets, not the ones that the client wrote.
pub trait SentFields {
    /// The lines of one field.
    fn lines(&self, name: &HeaderName) -> FieldLines<'_>;
}

impl SentFields for HeaderMap {
    fn lines(&self, name: &HeaderName) -> FieldLines<'_> {
        FieldLines::sent(self, name)
    }
}

/// The lines of one field, in order: the client's own, or the one in their place.
#[derive(Debug)]
pub struct FieldLines<'a> {
    sent: Option<GetAll<'a, HeaderValue>>,
    replaced: Option<HeaderValue>,
}

impl<'a> FieldLines<'a> {
    /// The origin does not see the field.
    pub const NONE: FieldLines<'static> = FieldLines { sent: None, replaced: None };

    /// The client's own lines.
    pub fn sent(request: &'a HeaderMap, name: &HeaderName) -> FieldLines<'a> {
        FieldLines { sent: Some(request.get_all(name)), replaced: None }
    }

    /// One line in place of the client's.
    pub fn replaced(value: HeaderValue) -> FieldLines<'a> {
        FieldLines { sent: None, replaced: Some(value) }
    }

    /// The octets of each line.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let sent = self.sent.iter().flat_map(GetAll::iter);
        sent.chain(&self.replaced).map(HeaderValue::as_bytes)
    }
}

/// The request's values of `fields`, normalised: equal keys for equal `fields` mean the same variant.
///
/// Every octet of a value becomes one character (its ISO 8859-1 one), so the key is at most twice as long in octets
/// as the values; the request head's own limit bounds both.
pub fn variant_key(fields: &[HeaderName], request: &(impl SentFields + ?Sized)) -> Box<str> {
    let mut key = String::new();
    for field in fields {
        let lines = request.lines(field);
        // Neither a line feed nor this control character can stand in a field value.
        match lines.iter().next() {
            Some(_) => normalise(field, &lines, &mut key),
            None => key.push('\u{1}'),
        }
        key.push('\n');
    }
    key.into()
}

fn normalise(field: &HeaderName, lines: &FieldLines<'_>, key: &mut String) {
    match *field {
        ACCEPT_ENCODING | ACCEPT_LANGUAGE | ACCEPT_CHARSET => weighted(lines, CaseMatters::Nowhere, key),
        ACCEPT => weighted(lines, CaseMatters::InParameters, key),
        // Not lists: a comma is part of the text.
        USER_AGENT | COOKIE | AUTHORIZATION | REFERER | ORIGIN => join(lines.iter(), key),
        // RFC 9110 §5.3: lines combine to one list, and white space round its commas means nothing.
        _ => join(lines.iter().flat_map(elements), key),
    }
}

/// More preferences than this are compared as they are written: sorting them is not worth a variant that nobody shares.
const MOST_PREFERENCES: usize = 64;

/// Where upper and lower case are two things.
#[derive(Clone, Copy)]
enum CaseMatters {
    Nowhere,
    /// From the first semicolon on.
    InParameters,
}

impl CaseMatters {
    /// The octets of a value, with the case that means nothing lowered.
    fn normalised(self, value: &[u8]) -> impl Iterator<Item = u8> {
        let lowered = match self {
            CaseMatters::Nowhere => value.len(),
            CaseMatters::InParameters => value.iter().position(|&byte| byte == b';').unwrap_or(value.len()),
        };
        let (lowered, kept) = value.split_at(lowered);
        lowered.iter().map(u8::to_ascii_lowercase).chain(kept.iter().copied())
    }
}

/// RFC 9110 §12.5: preferences are a set with weights; the order of equals, the case and the spacing mean nothing.
fn weighted(lines: &FieldLines<'_>, case: CaseMatters, key: &mut String) {
    let count = lines.iter().flat_map(elements).take(MOST_PREFERENCES + 1).count();
    if count > MOST_PREFERENCES {
        return join(lines.iter().flat_map(elements), key);
    }
    let mut preferences: Vec<(u16, &[u8])> = Vec::with_capacity(count);
    preferences.extend(lines.iter().flat_map(elements).map(|element| {
        let (value, weight) = split_weight(element);
        (1000 - weight, value)
    }));
    let order = |(lack, value): &(u16, &[u8]), (other_lack, other): &(u16, &[u8])| {
        lack.cmp(other_lack).then_with(|| case.normalised(value).cmp(case.normalised(other)))
    };
    preferences.sort_unstable_by(order);
    preferences.dedup_by(|one, other| order(one, other).is_eq());
    for (index, (lack, value)) in preferences.into_iter().enumerate() {
        separate(index, key);
        push(case.normalised(value), key);
        if lack > 0 {
            // Set off by a character that no field value holds: `a;q=0.1` must not equal an odd `a;q=100`.
            key.push('\u{2}');
            push_number(1000 - lack, key);
        }
    }
}

fn join<'a>(parts: impl Iterator<Item = &'a [u8]>, key: &mut String) {
    for (index, part) in parts.enumerate() {
        separate(index, key);
        push(part.iter().copied(), key);
    }
}

fn separate(index: usize, key: &mut String) {
    if index > 0 {
        key.push(',');
    }
}

/// One character an octet, so that different octets stay different.
fn push(octets: impl Iterator<Item = u8>, key: &mut String) {
    key.extend(octets.map(char::from));
}

fn push_number(number: u16, key: &mut String) {
    let digit = |place: u16| char::from(b'0' + u8::try_from(number / place % 10).unwrap_or_default());
    let places = [100, 10, 1];
    key.extend(places.into_iter().skip_while(|place| number < *place && *place > 1).map(digit));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn same(field: &HeaderName, left: &[&str], right: &[&str]) -> bool {
        let key = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (field.clone(), *line)).collect();
            variant_key(std::slice::from_ref(field), &request(&lines))
        };
        key(left) == key(right)
    }

    #[test]
    fn vary_is_read_over_lines_and_stars_win() {
        let read = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (VARY, *line)).collect();
            Vary::read(&request(&lines))
        };
        for star in
            [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, foo"], &["foo, *"], &["a b"]]
        {
            assert_eq!(read(star), Vary::Any, "{star:?}");
        }
        let fields = [HeaderName::from_static("bar"), HeaderName::from_static("foo")];
        assert_eq!(read(&["Foo, bar", "FOO"]), Vary::Fields(fields.into()));
        assert_eq!(read(&["", ","]), Vary::Nothing);
    }

    #[test]
    fn forms_that_mean_the_same_are_one_variant() {
        let foo = HeaderName::from_static("foo");
        assert!(same(&foo, &["1, 2"], &["1", "2"]));
        assert!(same(&foo, &["1,2"], &[" 1,  2 "]));
        assert!(same(&ACCEPT_LANGUAGE, &["en, de"], &["de ,EN"]));
        assert!(same(&ACCEPT_LANGUAGE, &["en, de;q=0.50"], &["de; q=0.5", "en;q=1.0"]));
        assert!(same(&ACCEPT_ENCODING, &["gzip, deflate, br"], &["br,gzip,deflate"]));
        assert!(same(&ACCEPT, &["Text/HTML;level=1, */*;q=0.8"], &["*/*;Q=0.80,text/html;level=1"]));
    }

    #[test]
    fn forms_that_differ_are_two_variants() {
        let foo = HeaderName::from_static("foo");
        assert!(!same(&foo, &["1"], &["2"]));
        assert!(!same(&foo, &[], &[""]));
        assert!(!same(&foo, &["a"], &["A"]));
        assert!(!same(&foo, &["\"a,b\""], &["\"a, b\""]));
        assert!(!same(&USER_AGENT, &["a,b"], &["a, b"]));
        assert!(!same(&ACCEPT_LANGUAGE, &["en, de;q=0.5"], &["de, en;q=0.5"]));
        assert!(!same(&COOKIE, &["a=1,2"], &["a=1, 2"]));
        assert!(!same(&ACCEPT, &["a/b;c=\"d;q=0.1\""], &["a/b;c=\"d;q=0.2\""]));
        assert!(!same(&ACCEPT, &["a/b;q=0.1"], &["a/b;q=100"]));
    }

    #[test]
    fn values_cannot_reach_over_their_field() {
        let fields = [HeaderName::from_static("a"), HeaderName::from_static("b")];
        let key = |values: &[(&'static str, &str)]| {
            let values: Vec<_> = values.iter().map(|(n, v)| (HeaderName::from_static(n), *v)).collect();
            variant_key(&fields, &request(&values))
        };
        assert_ne!(key(&[("a", "1"), ("b", "2")]), key(&[("a", "12")]));
        assert_ne!(key(&[("a", "1")]), key(&[("b", "1")]));
        assert_ne!(key(&[("a", "\u{e9}")]), key(&[("a", "\u{e8}")]));
    }

    proptest! {
        #[test]
        fn no_input_panics(vary in "[ -~]{0,40}", value in "[ -~\u{80}-\u{ff}]{0,60}") {
            let head = request(&[(VARY, &vary)]);
            if let Vary::Fields(fields) = Vary::read(&head) {
                let lines: Vec<_> = fields.iter().map(|name| (name.clone(), value.as_str())).collect();
                let _ = variant_key(&fields, &request(&lines));
            }
            for field in [ACCEPT, ACCEPT_LANGUAGE, ACCEPT_ENCODING] {
                let _ = variant_key(std::slice::from_ref(&field), &request(&[(field.clone(), &value)]));
            }
        }
    }
}
