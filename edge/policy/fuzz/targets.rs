//! What must hold for every input of each reader. The fuzz targets call these, and so do ordinary tests with the seeds
//! (`edge/policy/tests/fuzz_seeds.rs`), which need no nightly compiler.

#[path = "input.rs"]
pub(crate) mod input;

use std::{
    ops::Range,
    time::{Duration, UNIX_EPOCH},
};

use cache_policy::{
    Arrival, Coding, Codings, ContentRange, Decision, IgnoredCookies, Moment, Newer, NoVarySearch,
    PartAnswer, Parts, QueryRules, RangeAnswer, RequestFacts, ResourceName, Rules, Vary, admit, admit_part,
    asks_for_one_part, choose_coding, decide, format_date, freshen, freshen_by_head, invalidated_groups,
    invalidated_targets, invalidates, multipart, normalise_query, parse_date, precondition, prefers_language,
    range, stands_for_get, tags, variant_key,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use self::input::Input;

/// A target by its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 7] = [
    ("date", date),
    ("negotiation", negotiation),
    ("parts", parts),
    ("query", query),
    ("reference", reference),
    ("request", request),
    ("response", response),
];

/// HTTP-date: a line that says now, and one with the date. What is read is written so that it is read alike.
pub(crate) fn date(octets: &[u8]) {
    let mut input = Input::new(octets);
    let now = UNIX_EPOCH + Duration::from_secs(input.number() & 0xffff_ffff);
    let text = input.rest();
    if let Some(date) = parse_date(text, now) {
        assert_eq!(parse_date(format_date(date).as_bytes(), now), Some(date));
    }
}

/// What a client prefers: a line with Vary, one with a language, and the client's fields. A coding is only chosen from those
/// offered; equal heads are equal variants.
pub(crate) fn negotiation(octets: &[u8]) {
    const PREFERENCES: [&str; 6] =
        ["accept", "accept-charset", "accept-encoding", "accept-language", "user-agent", "x"];
    let mut input = Input::new(octets);
    let (vary, language) = (input.line(), input.line());
    let request = input.fields(&PREFERENCES);
    let _ = choose_coding(&request, Codings::ALL);
    if let Some(chosen) = choose_coding(&request, Codings::IDENTITY) {
        assert_eq!(chosen, Coding::Identity);
    }
    if let Ok(language) = HeaderValue::from_bytes(language) {
        let _ = prefers_language(&request, &language);
    }
    if let Ok(vary) = HeaderValue::from_bytes(vary) {
        let vary = Vary::read(&HeaderMap::from_iter([(header::VARY, vary)]));
        assert_eq!(variant_key(vary.fields(), &request), variant_key(vary.fields(), &request.clone()));
    }
}

/// Range, Content-Range and the arithmetic of parts: two lines with numbers, one with Range, and Content-Ranges. What is said to
/// be held is held, what is said to be missing is not, both together are what was asked for; and a frame is as long as it says.
pub(crate) fn parts(octets: &[u8]) {
    let mut input = Input::new(octets);
    let (one, other, asked) = (input.number(), input.number(), input.line());
    let mut parts = Parts::default();
    for place in input.lines().into_iter().filter_map(ContentRange::parse) {
        assert_eq!(ContentRange::parse(place.to_field().as_bytes()).as_ref(), Some(&place));
        if parts.add(&place) {
            assert!(parts.holds(&place.range));
        }
    }
    assert!(parts.held().windows(2).all(|pair| pair[0].end < pair[1].start));
    let wanted = one.min(other)..one.max(other);
    let length = |range: &Range<u64>| range.end - range.start;
    let missing = parts.missing(&wanted);
    let inside = |held: &Range<u64>| held.end.min(wanted.end).saturating_sub(held.start.max(wanted.start));
    let held: u64 = parts.held().iter().map(inside).sum();
    assert_eq!(held + missing.iter().map(length).sum::<u64>(), length(&wanted));
    assert!(missing.iter().all(|gap| !gap.is_empty() && !parts.holds(gap)));

    let Ok(asked) = HeaderValue::from_bytes(asked) else { return };
    let request = HeaderMap::from_iter([(header::RANGE, asked)]);
    let _ = asks_for_one_part(&request);
    if let PartAnswer::Held(RangeAnswer::Single(range)) = parts.answer(&request) {
        assert!(parts.holds(&range));
    }
    if let RangeAnswer::Several(ranges) = range(&Method::GET, &request, None, None, one) {
        let framed = multipart(&ranges, one, None, "boundary");
        let preambles: u64 = framed.parts.iter().map(|part| part.preamble.len() as u64).sum();
        let octets: u64 = ranges.iter().map(length).sum();
        assert_eq!(framed.length, preambles + octets + framed.closing.len() as u64);
    }
}

/// Queries, normalised by a route's rules and told apart by No-Vary-Search: two lines with queries, one that says whether their
/// order counts, and lines of No-Vary-Search. Normalising is done once and for all; what is the same query is the same under
/// every rule.
pub(crate) fn query(octets: &[u8]) {
    const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");
    let mut input = Input::new(octets);
    let (query, other, sort) = (input.text(), input.text(), input.line() == b"sort");
    let rules = QueryRules { drop: vec!["utm_*".to_owned()], sort, ..QueryRules::default() };
    let once = normalise_query(query, &rules).into_owned();
    assert_eq!(normalise_query(&once, &rules), once);
    let mut head = HeaderMap::new();
    for line in input.lines() {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            head.append(NO_VARY_SEARCH, line);
        }
    }
    if let Some(rules) = NoVarySearch::read(&head) {
        let key = rules.key(query);
        assert_eq!(rules.key(&key), key, "a key is its own key");
        assert_eq!(rules.key(&format!("{query}&")), key, "an empty pair is none");
        let _ = rules.key(other);
    }
}

/// References: a line with the status, one with Location and one with Content-Location. A resolved path never climbs, and nothing
/// of another origin is found.
pub(crate) fn reference(octets: &[u8]) {
    const BASE: ResourceName<'_> =
        ResourceName { scheme: "https", authority: "a.test:8443", path_and_query: "/b/c?d" };
    let mut input = Input::new(octets);
    let status = status(&mut input);
    let (location, content_location) = (input.line(), input.line());
    if let Some(found) = BASE.same_origin(location) {
        let path = found.split('?').next().unwrap_or_default();
        assert!(path.starts_with('/') && !path.split('/').any(|segment| segment == ".."), "{found}");
    }
    let mut head = HeaderMap::new();
    for (name, value) in [(header::LOCATION, location), (header::CONTENT_LOCATION, content_location)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            head.insert(name, value);
        }
    }
    assert!(invalidated_targets(&BASE, &head).iter().all(|target| target.starts_with('/')));
    for method in [Method::GET, Method::POST, Method::DELETE] {
        assert!(method != Method::GET || !invalidates(&method, status));
        let facts = RequestFacts::read(&method, &HeaderMap::new(), &Rules::default());
        let _ = stands_for_get(&method, &facts, &BASE, status, &head);
    }
}

/// A request's fields, after a line with the length of what is asked for: directives, cookies, conditions, ranges, codings,
/// variants.
pub(crate) fn request(octets: &[u8]) {
    const FIELDS: [&str; 14] = [
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "content-length",
        "cookie",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
        "x",
    ];
    let mut input = Input::new(octets);
    let length = input.number();
    let headers = input.fields(&FIELDS);
    let rules = Rules { ignored_cookies: IgnoredCookies::Named(vec!["a*".to_owned()]), ..Rules::default() };
    let _ = RequestFacts::read(&Method::GET, &headers, &rules);
    let etag = HeaderValue::from_static("\"a\"");
    let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let _ = precondition(&Method::GET, &headers, Some(&etag), Some(modified));
    let _ = range(&Method::GET, &headers, Some(&etag), Some(modified), length);
    let _ = choose_coding(&headers, Codings::ALL);
    let _ = variant_key(&FIELDS.map(HeaderName::from_static), &headers);
}

/// A response's fields, stored and freshened: lines with the status, the seconds since and a query, the fields, and after an empty
/// line those that freshen it. Nothing is fresh past its lifetime.
pub(crate) fn response(octets: &[u8]) {
    const FIELDS: [&str; 20] = [
        "age",
        "cache-control",
        "cache-group-invalidation",
        "cache-groups",
        "cache-tag",
        "cdn-cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "date",
        "etag",
        "expires",
        "last-modified",
        "no-vary-search",
        "pragma",
        "set-cookie",
        "surrogate-key",
        "vary",
        "x",
    ];
    let mut input = Input::new(octets);
    let status = status(&mut input);
    let (elapsed, query) = (input.number() & 0xffff_ffff, input.text());
    let (first, second) = (input.fields(&FIELDS), input.fields(&FIELDS));
    let rules = Rules::default();
    let request = RequestFacts::read(&Method::GET, &HeaderMap::new(), &rules);
    let start = Moment::from_epoch(Duration::from_secs(1 << 40));
    let wall = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let arrival = Arrival { requested_at: start, received_at: start, wall };
    if let Ok(stored) = admit(&request, status, &first, arrival, &rules) {
        let now = start + Duration::from_secs(elapsed);
        let served = decide(&request, Some(&stored.meta), &rules, now) == (Decision::Serve { stale: None });
        assert!(!served || stored.meta.age(now) < stored.meta.lifetime);
        let newer = Newer { request: &request, head: &second, arrival, rules: &rules };
        let _ = freshen(&stored.meta, &stored.head, &newer);
        let _ = freshen_by_head(&stored.meta, &stored.head, &newer);
    }
    let mut parts = Parts::default();
    for head in [&first, &second] {
        let _ = admit_part(&request, head, arrival, &rules);
        if let Some(part) = ContentRange::read(head) {
            parts.add(&part);
        }
        let _ = (
            tags(head, &rules),
            invalidated_groups(head),
            NoVarySearch::read(head).map(|rules| rules.key(query)),
        );
    }
    let _ = parts.answer(&HeaderMap::new());
}

fn status(input: &mut Input<'_>) -> StatusCode {
    let number = u16::try_from(input.number()).unwrap_or_default();
    StatusCode::from_u16(number).unwrap_or(StatusCode::OK)
}
