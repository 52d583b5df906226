//! Cache-Control, both ways (RFC 9111 §5.2).
//!
//! Owns the lexing of directives and their meaning as plain values. Promises that reading never panics and fails
//! towards caution: a lifetime that is no integer is zero, a restriction with an odd argument still restricts, a
//! relaxation with one does not relax. Of a repeated directive the first counts (§4.2.1).
//!
//! A field that the grammar does not cover whole (`no-cache; no-store`, `private no-cache`, `max-age=60,private;`) is
//! read for its refusals: each word of it that forbids something forbids it, a lifetime is zero, and nothing in it
//! permits anything. All lines are one field (RFC 9110 §5.3): whether a proxy joined them must not matter.

use crate::scan;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// The largest delta-seconds; greater values count as this one (RFC 9111 §1.2.2).
pub(crate) const LONGEST: Duration = Duration::from_secs(1 << 31);

/// What a response's directives say, from Cache-Control or a targeted field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: Scope,
    pub(crate) private: Scope,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) immutable: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// The field could not be read whole: what stands here restricts, and permits nothing.
    pub(crate) refusals_only: bool,
}

/// What a directive with an optional field list applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The directive is absent.
    #[default]
    Nothing,
    /// The directive names these fields.
    Fields(Vec<HeaderName>),
    /// The directive applies to the response as a whole.
    Whole,
}

impl ResponseDirectives {
    pub(crate) fn read(head: &HeaderMap) -> ResponseDirectives {
        let mut directives = ResponseDirectives::default();
        if !is_legible(head) {
            directives.refusals_only = true;
            words(head).for_each(|word| directives.take_refusal(word));
            return directives;
        }
        for directive in lines(head.get_all(CACHE_CONTROL)) {
            directives.take(&directive);
        }
        directives
    }

    /// Whether the response is marked as shareable although a request carried Authorization (§3.5).
    pub(crate) fn permits_sharing(&self) -> bool {
        !self.refusals_only && (self.public || self.must_revalidate || self.s_maxage.is_some())
    }

    /// Whether the response says, in a word that means nothing else, that it is the same for everyone.
    pub(crate) fn is_for_everyone(&self) -> bool {
        !self.refusals_only && (self.public || self.s_maxage.is_some() || self.immutable)
    }

    /// The lifetime for shared caches that a field which can be read states (§4.2.1).
    pub(crate) fn stated_lifetime(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age).filter(|_| !self.refusals_only)
    }

    /// Takes a word of a field that cannot be read whole: `public` and `immutable` are none of these, and
    /// `must-understand` refuses a status but does not lift `no-store`.
    fn take_refusal(&mut self, word: &[u8]) {
        match_name(word, |word| match word {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = Scope::Whole,
            "private" => self.private = Scope::Whole,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => self.max_age = Some(Duration::ZERO),
            "s-maxage" => self.s_maxage = Some(Duration::ZERO),
            "stale-while-revalidate" => self.stale_while_revalidate = Some(Duration::ZERO),
            "stale-if-error" => self.stale_if_error = Some(Duration::ZERO),
            _ => {}
        });
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let seconds = |slot: &mut Option<Duration>| {
            slot.get_or_insert(directive.delta_seconds().unwrap_or(Duration::ZERO));
        };
        match_name(directive.name, |name| match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache.widen(directive.scope()),
            "private" => self.private.widen(directive.scope()),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "immutable" => self.immutable = true,
            "max-age" => seconds(&mut self.max_age),
            "s-maxage" => seconds(&mut self.s_maxage),
            "stale-while-revalidate" => seconds(&mut self.stale_while_revalidate),
            "stale-if-error" => seconds(&mut self.stale_if_error),
            _ => {}
        });
    }
}

impl Scope {
    /// The fields that the scope names, none where it is absent or whole.
    pub(crate) fn fields(&self) -> &[HeaderName] {
        match self {
            Scope::Fields(names) => names,
            Scope::Nothing | Scope::Whole => &[],
        }
    }

    /// Adds another occurrence: the unqualified form is the stricter one and wins.
    pub(crate) fn widen(&mut self, other: Scope) {
        match (&mut *self, other) {
            (Scope::Whole, _) | (_, Scope::Nothing) => {}
            (Scope::Fields(names), Scope::Fields(more)) => names.extend(more),
            (_, stricter) => *self = stricter,
        }
    }

    /// Reads a comma-separated list of field names; the whole response where that is no such list.
    pub(crate) fn of_list(list: &[u8]) -> Scope {
        match elements(list).map(HeaderName::from_bytes).collect::<Result<Vec<_>, _>>() {
            Ok(names) if !names.is_empty() => Scope::Fields(names),
            _ => Scope::Whole,
        }
    }
}

/// What a client's directives say (RFC 9111 §5.2.1). Plain data, read without allocating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) max_stale: Option<MaxStale>,
}

/// How stale an answer the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxStale {
    /// However stale.
    Any,
    /// No longer past its lifetime than this.
    UpTo(Duration),
}

impl RequestDirectives {
    pub(crate) fn read(head: &HeaderMap) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        if !is_legible(head) {
            words(head).for_each(|word| directives.take_refusal(word));
            return directives;
        }
        for directive in lines(head.get_all(CACHE_CONTROL)) {
            directives.take(&directive);
        }
        directives
    }

    /// Takes a word of a field that cannot be read whole: a wish for something fresher, or to be kept out of the cache.
    fn take_refusal(&mut self, word: &[u8]) {
        match_name(word, |word| match word {
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "max-age" => self.max_age = Some(Duration::ZERO),
            _ => {}
        });
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let seconds = directive.delta_seconds();
        match_name(directive.name, |name| match name {
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => {
                self.max_age.get_or_insert(seconds.unwrap_or(Duration::ZERO));
            }
            "min-fresh" => self.min_fresh = self.min_fresh.or(seconds),
            "max-stale" => {
                let accepted = match directive.argument {
                    Argument::None => Some(MaxStale::Any),
                    _ => seconds.map(MaxStale::UpTo),
                };
                self.max_stale = self.max_stale.or(accepted);
            }
            _ => {}
        });
    }
}

/// One directive as lexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directive<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument<'a> {
    None,
    /// What should be a token.
    Token(&'a [u8]),
    /// The inside of a quoted-string; both forms are accepted (§5.2).
    Quoted(&'a [u8]),
    /// White space round `=`, an unbalanced quote, or nothing after `=`.
    Malformed,
}

impl Directive<'_> {
    /// The argument as delta-seconds; `None` where it is absent or no integer.
    fn delta_seconds(&self) -> Option<Duration> {
        match self.argument {
            Argument::Token(digits) | Argument::Quoted(digits) => delta_seconds(digits),
            Argument::None | Argument::Malformed => None,
        }
    }

    fn scope(&self) -> Scope {
        match self.argument {
            Argument::Token(list) | Argument::Quoted(list) => Scope::of_list(list),
            Argument::None | Argument::Malformed => Scope::Whole,
        }
    }

    fn is_legible(&self) -> bool {
        let argument = match self.argument {
            Argument::None | Argument::Quoted(_) => true,
            Argument::Token(token) => is_token(token),
            Argument::Malformed => false,
        };
        argument && is_token(self.name)
    }
}

/// Reads delta-seconds, capped at [`LONGEST`]; `None` for anything but digits.
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits
        .iter()
        .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// The elements of a list field over all its lines (RFC 9110 §5.6.1), trimmed; empty ones are left out.
pub fn list_elements<'h>(head: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    head.get_all(name).into_iter().flat_map(|line| elements(line.as_bytes()))
}

/// Whether a message forbids that its content is coded or otherwise changed on its way (RFC 9111 §5.2.1.6, §5.2.2.6).
pub fn forbids_transforming(head: &HeaderMap) -> bool {
    let is_named = |name: &[u8]| name.eq_ignore_ascii_case(b"no-transform");
    if !is_legible(head) {
        return words(head).any(is_named);
    }
    lines(head.get_all(CACHE_CONTROL)).any(|directive| is_named(directive.name))
}

/// Whether Cache-Control, over all its lines, is what the grammar allows: a list of tokens, each with or without an argument that
/// is a token or a quoted-string (RFC 9111 §5.2). Where it is not, only its refusals count.
pub fn is_legible(head: &HeaderMap) -> bool {
    lines(head.get_all(CACHE_CONTROL)).all(|directive| directive.is_legible())
}

/// The words of Cache-Control, whatever stands between them.
fn words(head: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    head.get_all(CACHE_CONTROL).into_iter().flat_map(|line| words_of(line.as_bytes()))
}

/// The longest runs of token characters in a text (RFC 9110 §5.6.2).
pub(crate) fn words_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| !is_token_character(byte)).filter(|word| !word.is_empty())
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_character(byte))
}

fn is_token_character(byte: u8) -> bool {
    TOKEN_CHARACTERS[usize::from(byte)]
}

static TOKEN_CHARACTERS: [bool; 256] = {
    let mut characters = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        characters[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut other = 0;
    while other < others.len() {
        characters[others[other] as usize] = true;
        other += 1;
    }
    characters
};

/// Splits a field value at the commas outside its quoted-strings. Elements are trimmed; empty ones are left out.
///
/// A quote that is never closed is an ordinary character: what follows it must not hide from the reader.
pub(crate) fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    let mut quoting = true;
    std::iter::from_fn(move || {
        loop {
            let current = rest?;
            let end = element_end(current, &mut quoting);
            rest = current.get(end + 1..);
            let element = current[..end].trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// `quoting` turns false at the first quote that is never closed, which keeps the whole scan linear.
fn element_end(text: &[u8], quoting: &mut bool) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b',' => break,
            b'"' if *quoting => match closing_quote(text, at) {
                Some(closing) => at = closing + 1,
                None => *quoting = false,
            },
            _ => at += 1,
        }
    }
    scan::looked_at(at);
    at.min(text.len())
}

/// The index of the quote that closes the one at `open`.
pub(crate) fn closing_quote(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    scan::looked_at(at - open);
    (at < text.len()).then_some(at)
}

fn lines<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = Directive<'a>> {
    values.into_iter().flat_map(|value| elements(value.as_bytes())).map(directive)
}

fn directive(element: &[u8]) -> Directive<'_> {
    let Some(equals) = scan::position(element, |byte| byte == b'=') else {
        return Directive { name: element, argument: Argument::None };
    };
    let (name, value) = (&element[..equals], &element[equals + 1..]);
    let argument = match value {
        [] => Argument::Malformed,
        _ if name.trim_ascii_end().len() != name.len() || value.trim_ascii_start().len() != value.len() => {
            Argument::Malformed
        }
        [b'"', ..] if closing_quote(value, 0) == Some(value.len() - 1) => {
            Argument::Quoted(&value[1..value.len() - 1])
        }
        [b'"', ..] => Argument::Malformed,
        token => Argument::Token(token),
    };
    Directive { name: name.trim_ascii_end(), argument }
}

/// Calls `with` with the name in lower case, without allocating; names longer than any known one are passed over.
fn match_name(name: &[u8], with: impl FnOnce(&str)) {
    let mut lower = [0_u8; 24];
    if let Some(buffer) = lower.get_mut(..name.len()) {
        buffer.copy_from_slice(name);
        buffer.make_ascii_lowercase();
        if let Ok(name) = std::str::from_utf8(buffer) {
            with(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (CACHE_CONTROL, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn max_age(lines: &[&str]) -> Option<u64> {
        ResponseDirectives::read(&head(lines)).max_age.map(|age| age.as_secs())
    }

    #[test]
    fn lifetimes_are_read_with_care() {
        assert_eq!(max_age(&["MaX-aGe=003600"]), Some(3600));
        assert_eq!(max_age(&["max-age=\"3600\""]), Some(3600));
        assert_eq!(max_age(&["max-age=1800, max-age=1"]), Some(1800));
        assert_eq!(max_age(&["max-age=1", "max-age=1800"]), Some(1));
        assert_eq!(max_age(&["max-age=99999999999999999999999"]), Some(1 << 31));
        for malformed in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=1.0",
            "max-age='1'",
            "max-age =1",
            "max-age= 1",
            "max-age=1a",
        ] {
            assert_eq!(max_age(&[malformed]), Some(0), "{malformed}");
        }
    }

    #[test]
    fn quoted_strings_hide_their_commas_and_open_quotes_hide_nothing() {
        assert_eq!(max_age(&["extension=\"max-age=3600\", max-age=1"]), Some(1));
        assert_eq!(max_age(&["extension=\"a\\\", max-age=5\", max-age=1"]), Some(1));
        assert!(ResponseDirectives::read(&head(&["extension=\"max-age=3600, no-store"])).no_store);
    }

    #[test]
    fn field_lists_limit_a_directive_and_its_bare_form_lifts_the_limit() {
        let read = |line: &str| ResponseDirectives::read(&head(&[line])).no_cache;
        let names =
            |list: &[&'static str]| Scope::Fields(list.iter().map(|n| HeaderName::from_static(n)).collect());
        assert_eq!(read("no-cache=\"A, b\""), names(&["a", "b"]));
        assert_eq!(read("no-cache=a"), names(&["a"]));
        assert_eq!(read("no-cache=\"a\", no-cache"), Scope::Whole);
        assert_eq!(read("no-cache=\"a b\""), Scope::Whole);
        assert_eq!(read("no-cache=\"\""), Scope::Whole);
        assert_eq!(read("No-Cache"), Scope::Whole);
    }

    #[test]
    fn a_malformed_relaxation_does_not_relax() {
        let read = |line: &str| RequestDirectives::read(&head(&[line]));
        assert_eq!(read("max-stale").max_stale, Some(MaxStale::Any));
        assert_eq!(read("max-stale=5").max_stale, Some(MaxStale::UpTo(Duration::from_secs(5))));
        assert_eq!(read("max-stale=x").max_stale, None);
        assert_eq!(read("max-age=x").max_age, Some(Duration::ZERO));
    }

    /// Each of these was taken for unknown directives: nothing was refused, and a heuristic week was given.
    #[test]
    fn a_field_that_cannot_be_read_whole_is_read_for_its_refusals() {
        let read = |lines: &[&str]| ResponseDirectives::read(&head(lines));
        let both = read(&["no-cache; no-store"]);
        assert!(both.no_store && both.no_cache == Scope::Whole);
        assert_eq!(read(&["private; max-age=0"]).private, Scope::Whole);
        let both = read(&["private no-cache"]);
        assert!(both.private == Scope::Whole && both.no_cache == Scope::Whole);
        assert_eq!(read(&["max-age=60,private;"]).private, Scope::Whole);
        assert_eq!(read(&["private=\"x\"; max-age=60"]).private, Scope::Whole, "its list is not believed");
        assert!(read(&["max-age=60", "a b", "no-store"]).no_store, "all lines are one field");
        assert!(read(&["x y=\"no-store\""]).no_store, "quotes hide nothing where the field is broken");
        assert!(read(&["max-age=60; must-revalidate"]).must_revalidate);
        assert!(forbids_transforming(&head(&["public; no-transform"])));
        assert!(!forbids_transforming(&head(&["x=\"no-transform\""])));
        let request = RequestDirectives::read(&head(&["no-cache; no-store; max-stale"]));
        assert!(request.no_cache && request.no_store && request.max_stale.is_none());
    }

    /// `public; s-maxage=60` let an answer to a request with Authorization be shared once `s-maxage` could be read out of it.
    #[test]
    fn nothing_is_permitted_by_a_field_that_cannot_be_read_whole() {
        let read = ResponseDirectives::read(&head(&[
            "public; max-age=60, s-maxage=60, immutable, must-revalidate, stale-if-error=60, must-understand",
        ]));
        assert!(!read.public && !read.immutable && !read.permits_sharing() && !read.is_for_everyone());
        let zero = Some(Duration::ZERO);
        assert_eq!([read.max_age, read.s_maxage, read.stale_if_error], [zero, zero, zero]);
        assert!(read.must_revalidate && read.must_understand);
    }

    proptest! {
        #[test]
        fn no_input_panics(lines in proptest::collection::vec("[ -~\u{80}-\u{ff}\t]{0,60}", 0..4)) {
            let head = lines.iter().filter_map(|line| HeaderValue::from_str(line).ok().map(|v| (CACHE_CONTROL, v)));
            let head: HeaderMap = head.collect();
            let _ = (ResponseDirectives::read(&head), RequestDirectives::read(&head));
        }

        #[test]
        fn a_word_that_refuses_is_never_missed_whatever_separates_it(
            before in "[a-z0-9=\"]{0,12}",
            left in "[;, \t:/()<>@]",
            word in prop::sample::select(vec!["no-store", "No-Cache", "PRIVATE"]),
            right in "[;, \t:/()<>@]",
            after in "[a-z0-9=]{0,12}",
        ) {
            // A closed quoted-string in a field that is right otherwise hides what it holds.
            prop_assume!(before.matches('"').count() < 2);
            let read = ResponseDirectives::read(&head(&[&format!("{before}{left}{word}{right}{after}")]));
            let refused = [read.no_store, read.no_cache == Scope::Whole, read.private == Scope::Whole];
            prop_assert_eq!(refused.iter().filter(|refused| **refused).count(), 1);
        }

        #[test]
        fn no_store_is_never_missed(before in "[a-z=\", ]{0,20}", after in "[a-z=, ]{0,20}") {
            // Whatever stands round it, a directive of its own is seen unless a closed quoted-string holds it.
            let line = format!("{before},no-store,{after}");
            let quotes = before.matches('"').count();
            prop_assume!(quotes == 0 || quotes % 2 == 1 && !after.contains('"'));
            prop_assert!(ResponseDirectives::read(&head(&[&line])).no_store);
        }
    }
}
