//! What must hold for every head: no panic, never fresh past the lifetime, and agreement with http-cache-semantics on
//! the heads it reads correctly.

use cache_policy::{
    Admitted, Arrival, Decision, Moment, Newer, Reason, RequestFacts, Rules, SetCookie, Ttl, UpstreamError,
    admit, decide, format_date, freshen, may_share, stale_on_error,
};
use http::header::{AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WALL: u64 = 1_790_000_000;
const START: u64 = 1_000_000_000_000;

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(WALL)
}

fn moment(seconds: u64) -> Moment {
    Moment::from_epoch(Duration::from_secs(START + seconds))
}

fn arrival() -> Arrival {
    Arrival { requested_at: moment(0), received_at: moment(0), wall: wall() }
}

/// Field lines near enough to real ones to reach deep, far enough to be wrong in every way.
fn field_line() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let name = prop::sample::select(vec![
        "age",
        "cache-control",
        "cdn-cache-control",
        "connection",
        "content-length",
        "content-range",
        "date",
        "etag",
        "expires",
        "last-modified",
        "pragma",
        "set-cookie",
        "vary",
        "x",
    ]);
    let date =
        (0..400_000_000_000_u64).prop_map(|seconds| format_date(UNIX_EPOCH + Duration::from_secs(seconds)));
    let text = |pattern: &'static str| {
        pattern.prop_filter_map("no field value", |text| HeaderValue::from_str(&text).ok())
    };
    let directive = "(no-store|no-cache|private|public|max-age|s-maxage|must-revalidate|must-understand|immutable|\
                     stale-if-error|stale-while-revalidate|x)(=\"?[a-z0-9, ]{0,12}\"?)?;?";
    let directives = vec(directive, 0..5)
        .prop_filter_map("no field value", |all| HeaderValue::from_str(&all.join(",")).ok());
    let value = prop_oneof![date, directives, text("[0-9]{0,25}"), text("[ -~\u{80}-\u{ff}]{0,30}")];
    (name, value).prop_map(|(name, value)| (HeaderName::from_static(name), value))
}

fn head() -> impl Strategy<Value = HeaderMap> {
    vec(field_line(), 0..10).prop_map(|lines| {
        let mut head = HeaderMap::new();
        for (name, value) in lines {
            head.append(name, value);
        }
        head
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let span = || option::of((0..10_000_u64).prop_map(Duration::from_secs));
    (span(), span(), span(), span(), any::<bool>()).prop_map(
        |(default_ttl, max_ttl, revalidate, error, strip)| Rules {
            default_ttl,
            max_ttl,
            stale_while_revalidate: revalidate,
            stale_if_error: error,
            set_cookie: if strip { SetCookie::Strip } else { SetCookie::Refuse },
            ..Rules::default()
        },
    )
}

fn get() -> RequestFacts {
    RequestFacts::read(&Method::GET, &HeaderMap::new(), &Rules::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_is_fresh_past_its_lifetime(
        head in head(),
        rules in rules(),
        status in 100_u16..1000,
        delay in 0..1000_u64,
        elapsed in 0..5_000_000_000_u64,
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let arrival = Arrival { requested_at: moment(0), received_at: moment(delay), wall: wall() };
        if let Ok(Admitted { meta, .. }) = admit(&get(), status, &head, arrival, &rules) {
            let now = moment(delay + elapsed);
            let decision = decide(&get(), Some(&meta), &rules, now);
            let fresh = meta.age(now) < meta.lifetime;
            prop_assert_eq!(meta.is_fresh(now), fresh);
            prop_assert_eq!(decision == Decision::Serve { stale: None }, fresh && !meta.no_cache);
            prop_assert!(meta.age(now) >= Duration::from_secs(elapsed + delay));
            prop_assert!(rules.max_ttl.is_none_or(|limit| meta.lifetime <= limit));
            prop_assert_eq!(meta.lifetime_left(now) > 0, meta.lifetime.saturating_sub(meta.age(now)) >= Duration::from_secs(1));
        }
    }

    #[test]
    fn what_is_stored_carries_nothing_that_must_not_be(head in head(), rules in rules(), status in 200_u16..600) {
        let status = StatusCode::from_u16(status).unwrap();
        if let Ok(admitted) = admit(&get(), status, &head, arrival(), &rules) {
            for field in ["age", "connection", "transfer-encoding", "set-cookie"] {
                prop_assert!(!admitted.head.contains_key(field), "{}", field);
            }
            prop_assert_eq!(admitted.head.get_all(DATE).iter().count().min(1), 1);
        }
    }

    #[test]
    fn a_persons_answer_reaches_nobody_else(
        first in head(),
        second in head(),
        rules in rules(),
        forced in any::<bool>(),
        status in 200_u16..600,
        elapsed in 0..20_000_u64,
    ) {
        let lifetime = Ttl::of_answers(Duration::from_secs(60));
        let rules = Rules { ttl: forced.then_some(lifetime), ..rules };
        let cookie = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("session=1"))]);
        let person = RequestFacts::read(&Method::GET, &cookie, &rules);
        let status = StatusCode::from_u16(status).unwrap();
        // What answered a person is stored by a word of its own, and without a cookie; what freshens it likewise.
        if let Ok(admitted) = admit(&person, status, &first, arrival(), &rules) {
            prop_assert!(admitted.meta.for_everyone && !admitted.head.contains_key("set-cookie"));
            let newer = Newer { request: &person, head: &second, arrival: arrival(), rules: &rules };
            if let Ok(fresher) = freshen(&admitted.meta, &admitted.head, &newer) {
                prop_assert!(fresher.meta.for_everyone);
            }
        }
        // What answered somebody else answers a person by such a word alone, fresh, stale, shared or in place of an error.
        if let Ok(Admitted { meta, .. }) = admit(&get(), status, &first, arrival(), &rules)
            && !meta.for_everyone
        {
            let now = moment(elapsed);
            prop_assert_eq!(decide(&person, Some(&meta), &rules, now), Decision::Pass(Reason::RequestCookie));
            prop_assert_eq!(stale_on_error(&person, &meta, &rules, UpstreamError::Disconnected, now), Err(Reason::RequestCookie));
            prop_assert!(!may_share(&person, &meta));
        }
    }

    #[test]
    fn freshening_never_panics_and_keeps_the_length(first in head(), second in head(), rules in rules()) {
        if let Ok(stored) = admit(&get(), StatusCode::OK, &first, arrival(), &rules)
            && let Ok(fresher) = freshen(&stored.meta, &stored.head, &Newer { request: &get(), head: &second, arrival: arrival(), rules: &rules })
        {
            prop_assert_eq!(stored.head.get("content-length"), fresher.head.get("content-length"));
            prop_assert_eq!(fresher.meta.status, StatusCode::OK);
        }
    }

    #[test]
    fn requests_never_panic(lines in head(), stored in head(), elapsed in 0..100_000_u64) {
        let rules = Rules::default();
        let request = RequestFacts::read(&Method::GET, &lines, &rules);
        if let Ok(Admitted { meta, .. }) = admit(&get(), StatusCode::OK, &stored, arrival(), &rules) {
            let _ = decide(&request, Some(&meta), &rules, moment(elapsed));
            let _ = stale_on_error(&request, &meta, &rules, UpstreamError::Disconnected, moment(elapsed));
        }
    }
}

/// An exchange that both implementations are meant to read alike.
#[derive(Clone, Debug)]
struct Canonical {
    status: u16,
    directives: Vec<&'static str>,
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    expires: Option<i64>,
    age: Option<u64>,
    authorization: bool,
}

impl Canonical {
    fn head(&self) -> HeaderMap {
        let mut line: Vec<String> = self.directives.iter().map(ToString::to_string).collect();
        line.extend(self.max_age.map(|seconds| format!("max-age={seconds}")));
        line.extend(self.s_maxage.map(|seconds| format!("s-maxage={seconds}")));
        let mut head = HeaderMap::from_iter([(DATE, format_date(wall()))]);
        head.insert(LAST_MODIFIED, format_date(wall() - Duration::from_secs(1000)));
        if !line.is_empty() {
            head.insert(
                CACHE_CONTROL,
                HeaderValue::from_str(&line.join(", ")).expect("directives are ASCII"),
            );
        }
        if let Some(offset) = self.expires {
            let expires = UNIX_EPOCH + Duration::from_secs(WALL.saturating_add_signed(offset));
            head.insert(EXPIRES, format_date(expires));
        }
        if let Some(age) = self.age {
            head.insert(AGE, HeaderValue::from(age));
        }
        head
    }

    fn request(&self) -> HeaderMap {
        let line = (AUTHORIZATION, HeaderValue::from_static("x"));
        self.authorization.then_some(line).into_iter().collect()
    }
}

fn canonical() -> impl Strategy<Value = Canonical> {
    let directives =
        prop::sample::subsequence(vec!["public", "private", "no-store", "must-revalidate", "no-cache"], 0..3);
    let seconds = || option::of(0..1000_u64);
    let status =
        prop::sample::select(vec![200_u16, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501]);
    (status, directives, seconds(), seconds(), option::of(-100..1000_i64), seconds(), any::<bool>()).prop_map(
        |(status, directives, max_age, s_maxage, expires, age, authorization)| Canonical {
            status,
            directives,
            max_age,
            s_maxage,
            expires,
            age,
            authorization,
        },
    )
}

fn engine(exchange: &Canonical) -> CachePolicy {
    let mut request = Request::get("http://example.com/").body(()).expect("a valid request");
    *request.headers_mut() = exchange.request();
    let mut response = Response::builder().status(exchange.status).body(()).expect("a valid response");
    *response.headers_mut() = exchange.head();
    let options = CacheOptions { cache_heuristic: 0.0, ..CacheOptions::default() };
    CachePolicy::new_options(&request, &response, wall(), options)
}

fn ours(exchange: &Canonical) -> Result<Admitted, Reason> {
    let rules = Rules { heuristic: false, ..Rules::default() };
    let request = RequestFacts::read(&Method::GET, &exchange.request(), &rules);
    let status = StatusCode::from_u16(exchange.status).expect("a valid status");
    admit(&request, status, &exchange.head(), arrival(), &rules)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn both_store_the_same(exchange in canonical()) {
        let admitted = ours(&exchange);
        prop_assert_eq!(admitted.is_ok(), engine(&exchange).is_storable(), "{:?}", admitted.err());
    }

    #[test]
    fn both_find_the_same_fresh(exchange in canonical(), elapsed in 0..2000_u64) {
        if let Ok(Admitted { meta, .. }) = ours(&exchange) {
            let (engine, later) = (engine(&exchange), wall() + Duration::from_secs(elapsed));
            prop_assert_eq!(meta.age(moment(elapsed)), engine.age(later));
            if !meta.no_cache {
                prop_assert_eq!(meta.is_fresh(moment(elapsed)), !engine.is_stale(later));
                let left = meta.lifetime.saturating_sub(meta.age(moment(elapsed)));
                prop_assert_eq!(left, engine.time_to_live(later));
            }
        }
    }

    #[test]
    fn both_let_the_same_requests_be_answered(
        mut exchange in canonical(),
        elapsed in 0..2000_u64,
        directive in prop::sample::select(vec!["", "no-cache", "max-age=", "min-fresh=", "max-stale", "max-stale="]),
        seconds in 1..1000_u64,
    ) {
        // The engine lets `max-stale` lift s-maxage, and takes its limit to be exclusive.
        if directive.starts_with("max-stale") {
            exchange.s_maxage = None;
        }
        exchange.authorization = false;
        if let Ok(Admitted { meta, .. }) = ours(&exchange) {
            prop_assume!(meta.staleness(moment(elapsed)) != Duration::from_secs(seconds));
            let line = if directive.ends_with('=') { format!("{directive}{seconds}") } else { directive.to_owned() };
            let mut request = Request::get("http://example.com/").body(()).unwrap();
            if !line.is_empty() {
                request.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_str(&line).unwrap());
            }
            let facts = RequestFacts::read(&Method::GET, request.headers(), &Rules::default());
            let decision = decide(&facts, Some(&meta), &Rules::default(), moment(elapsed));
            let served = matches!(decision, Decision::Serve { .. });
            let later = wall() + Duration::from_secs(elapsed);
            // The engine knows `no-cache` of a response only as a lifetime of zero, which `max-stale` then lifts.
            if !meta.no_cache {
                let accepted = engine(&exchange).before_request(&request, later).satisfies_without_revalidation();
                // Stricter: no client's `max-stale` speaks for an answer that nobody called fit for another use.
                let fit = !directive.starts_with("max-stale") || meta.is_to_be_used_again();
                prop_assert_eq!(served, accepted && fit, "{:?} {}", decision, line);
            } else {
                prop_assert!(!served);
            }
        }
    }
}
