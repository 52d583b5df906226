//! The one door to http-cache-semantics: it is only ever shown heads that are built here.
//!
//! That crate panics on a huge Age, knows directives in lower case only, reads one line of a repeated field and
//! one of the three date forms. So it is given a synthetic exchange: a GET, one lower-case Cache-Control line,
//! capped integers, fixdates, at most one line of each field, and a status it knows. It answers two questions:
//! may a shared cache store this, and how long is it fresh. What it has no notion of (targeted fields, stale
//! windows, field lists, must-understand, Vary, statuses) is decided by its caller and never shown to it.

use crate::date;
use crate::directives::{ResponseDirectives, Scope};
use http::header::{AUTHORIZATION, CACHE_CONTROL, DATE, EXPIRES};
use http::{HeaderValue, Request, Response};
use http_cache_semantics::{CacheOptions, CachePolicy};
use std::cell::Cell;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// An exchange reduced to what the engine understands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CanonicalExchange<'a> {
    pub(crate) directives: &'a ResponseDirectives,
    /// The request carried Authorization.
    pub(crate) authorization: bool,
    /// Expires, where it counts; an unreadable one is given as equal to `date`.
    pub(crate) expires: Option<SystemTime>,
    /// Date, or the time of receipt where there is none.
    pub(crate) date: SystemTime,
}

/// The engine's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineAnswer {
    pub(crate) storable: bool,
    pub(crate) lifetime: Duration,
}

/// All that the engine's answer depends on: without Expires a lifetime does not depend on the date.
#[derive(Clone, Copy, PartialEq, Eq)]
struct EngineQuestion {
    flags: [bool; 4],
    lifetimes: [Option<Duration>; 2],
    authorization: bool,
    dates: Option<(SystemTime, SystemTime)>,
}

thread_local! {
    /// What was asked last, and the answer: responses of one origin mostly say the same, and asking costs as much as
    /// all else that is decided about one.
    static LAST: Cell<Option<(EngineQuestion, EngineAnswer)>> = const { Cell::new(None) };
}

/// Asks the engine about an exchange.
pub(crate) fn ask(exchange: &CanonicalExchange<'_>) -> EngineAnswer {
    let asked = EngineQuestion {
        flags: flags(exchange.directives).map(|(_, present)| present),
        lifetimes: [exchange.directives.s_maxage, exchange.directives.max_age],
        authorization: exchange.authorization,
        dates: exchange.expires.map(|expires| (expires, exchange.date)),
    };
    match LAST.get() {
        Some((last, answer)) if last == asked => answer,
        _ => {
            let answer = ask_engine(exchange);
            LAST.set(Some((asked, answer)));
            answer
        }
    }
}

fn ask_engine(exchange: &CanonicalExchange<'_>) -> EngineAnswer {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static("http://canonical.invalid/");
    if exchange.authorization {
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("present"));
    }
    let mut response = Response::new(());
    let head = response.headers_mut();
    head.insert(DATE, date::format(exchange.date));
    if let Some(expires) = exchange.expires {
        head.insert(EXPIRES, date::format(expires));
    }
    head.insert(CACHE_CONTROL, line(exchange.directives));
    let policy = CachePolicy::new_options(&request, &response, exchange.date, options());
    // No Age is shown, so at the time of the response all of the lifetime is left.
    EngineAnswer { storable: policy.is_storable(), lifetime: policy.time_to_live(exchange.date) }
}

/// The directives the engine knows, in one line and in lower case.
///
/// `no-cache` is left out because it makes the engine answer a lifetime of zero, `proxy-revalidate` likewise: it
/// goes under the name of `must-revalidate`, which is what it means to a shared cache.
fn line(directives: &ResponseDirectives) -> HeaderValue {
    let lifetimes = [("s-maxage", directives.s_maxage), ("max-age", directives.max_age)];
    let mut line = String::from("canonical");
    for (name, _) in flags(directives).into_iter().filter(|(_, present)| *present) {
        line.push_str(", ");
        line.push_str(name);
    }
    for (name, lifetime) in lifetimes {
        if let Some(lifetime) = lifetime {
            write!(line, ", {name}={}", lifetime.as_secs()).expect("writing to a String cannot fail");
        }
    }
    HeaderValue::try_from(line).expect("directive names and digits are visible ASCII")
}

fn flags(directives: &ResponseDirectives) -> [(&'static str, bool); 4] {
    [
        ("no-store", directives.no_store),
        ("private", directives.private == Scope::Whole),
        ("public", directives.public),
        ("must-revalidate", directives.must_revalidate || directives.proxy_revalidate),
    ]
}

/// Heuristics are the caller's: the engine would compute them in 32-bit floating point.
fn options() -> CacheOptions {
    CacheOptions {
        shared: true,
        cache_heuristic: 0.0,
        immutable_min_time_to_live: Duration::ZERO,
        ignore_cargo_cult: false,
    }
}
