//! Explanations without an edge, from a given response head.

use std::time::{Duration, SystemTime};

use cache_policy::{
    Admitted, Arrival, ContentRange, Decision, Moment, Parts, Reason, Rules, Supply, Tag, Vary, admit,
    admit_instead_of_part, admit_part, decide, tags, variant_key,
};
use http::{HeaderMap, StatusCode, header};

use super::{
    Explanation, Question, StoredAs, StoredParts, browser_note, cookie_note, freshness, held, notes, read,
    variant, words,
};
use crate::{
    cache::Key,
    fetch::want::{self, Want},
    observe::evidence,
    request::{canary, route},
    settings::{Route, Settings},
};

/// Explains what would become of a response to a request.
///
/// # Errors
/// What is wrong with the question, for the operator.
pub fn dry(
    settings: &Settings,
    question: &Question,
    status: StatusCode,
    response: &HeaderMap,
    now: SystemTime,
) -> Result<Explanation, String> {
    let asked = match read(settings, question) {
        Ok(asked) => asked,
        Err(undecided) => return undecided.told(),
    };
    let super::Explained { head, route, .. } = &asked;
    let rules = &route.rules;
    let facts = route::facts(head, route);
    let moment = Moment::from_epoch(Duration::from_secs(1));
    let arrival = Arrival { requested_at: moment, received_at: moment, wall: now };
    let key = Key::of_request(&asked.as_sent());
    let wants_part = matches!(want::want(head, None, &facts, rules), Want::Part);
    let past = route.bypass.iter().any(|sign| canary::has_field(&head.headers, sign));
    let judged = match decide(&facts, None, rules, moment) {
        _ if past => Err(Reason::Bypass),
        Decision::Pass(reason) => Err(reason),
        _ if wants_part && status == StatusCode::PARTIAL_CONTENT => {
            admit_part(&facts, response, arrival, rules).map(|(admitted, place)| (admitted, Some(place)))
        }
        _ if wants_part => {
            admit_instead_of_part(&facts, status, response, arrival, rules).map(|admitted| (admitted, None))
        }
        _ => admit(&facts, status, response, arrival, rules).map(|admitted| (admitted, None)),
    };
    let judged = judged.and_then(|judged| fits(judged, response, (settings, rules)));
    let mut notes = notes(status, response, route);
    match &judged {
        Err(Reason::NoFreshness | Reason::TooLarge | Reason::TagsUnusable) | Ok(_) => {
            notes.extend(browser_note(status, route));
        }
        Err(_) => {}
    }
    let said = match &judged {
        Ok((admitted, ..)) => Some(admitted.meta.for_everyone),
        Err(reason) => (*reason == Reason::RequestCookie).then_some(false),
    };
    notes.extend(cookie_note(&head.headers, rules, said));
    let named = Explanation {
        key: key.as_str().to_owned(),
        route: route.name.to_string(),
        notes,
        ..Explanation::default()
    };
    Ok(match judged {
        Ok((Admitted { meta, head: stored, vary }, place, tags)) => Explanation {
            verdict: "stored".to_owned(),
            variant: match &vary {
                Vary::Fields(fields) => variant(fields, &variant_key(fields, &asked.as_sent())),
                Vary::Nothing | Vary::Any => Vec::new(),
            },
            lines: evidence::response_lines(None, response, Some(&meta), rules)
                .into_iter()
                .chain(response.get(header::AGE).map(|age| evidence::line("response", &header::AGE, age)))
                .collect(),
            stored: place.map(|place| as_part(&place)),
            freshness: Some(freshness(&meta, &stored, route, moment)),
            tags: tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
            ..named
        },
        Err(reason) => {
            let supply = Supply::of(status, response, rules);
            let Explanation { reason: token, meaning, remedy, .. } = words(Some(reason), Some(supply), rules);
            let lines = lines(reason, &head.headers, status, response, route);
            let lines = if reason == Reason::Method {
                vec![format!("request method {}", head.method)]
            } else {
                lines
            };
            Explanation { verdict: "not-stored".to_owned(), reason: token, meaning, remedy, lines, ..named }
        }
    })
}

type Assessed = (Admitted, Option<ContentRange>);

/// The checks of a fetch beside policy.
fn fits(
    (admitted, place): Assessed,
    response: &HeaderMap,
    (settings, rules): (&Settings, &Rules),
) -> Result<(Admitted, Option<ContentRange>, Vec<Tag>), Reason> {
    let length =
        response.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > settings.cache.largest_object) {
        return Err(Reason::TooLarge);
    }
    let tags = tags(&admitted.head, rules)?;
    Ok((admitted, place, tags))
}

fn as_part(place: &ContentRange) -> StoredAs {
    let mut parts = Parts::default();
    parts.add(place);
    let parts = StoredParts { held: held(&parts), length: place.complete, ..StoredParts::default() };
    let status = StatusCode::PARTIAL_CONTENT.as_u16();
    StoredAs { by: "part".to_owned(), status, parts: Some(parts), ..StoredAs::default() }
}

fn lines(
    reason: Reason,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    route: &Route,
) -> Vec<String> {
    let mut lines = evidence::request_lines(reason, request);
    if matches!(reason, Reason::Status | Reason::StatusForbidsStoring | Reason::NotUnderstood) {
        lines.push(format!("response status {}", status.as_u16()));
    }
    lines.extend(evidence::response_lines(Some(reason), response, None, &route.rules));
    lines
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::settings;

    fn settings(rules: &str) -> Settings {
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nservers = [\"http://o:80\"]\n\
             [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"o\"\ncache = {{ {rules} }}\n"
        );
        settings::parse(&text, "test.toml").unwrap()
    }

    fn explained(
        rules: &str,
        request: &[(&str, &str)],
        status: u16,
        response: &[(&'static str, &str)],
    ) -> Explanation {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let question = Question {
            url: "https://shop.example/a".to_owned(),
            method: super::super::get(),
            headers: request.iter().map(pair).collect(),
        };
        let response = response
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_200);
        let status = StatusCode::from_u16(status).unwrap();
        dry(&settings(rules), &question, status, &response.collect(), now).unwrap()
    }

    #[test]
    fn a_stored_response_shows_its_arithmetic() {
        let head = [("cache-control", "max-age=60"), ("age", "10"), ("surrogate-key", "a b")];
        let told = explained("", &[], 200, &head);
        let freshness = told.freshness.unwrap();
        assert_eq!((told.verdict.as_str(), freshness.lifetime, freshness.left), ("stored", 60, 50));
        assert_eq!((freshness.lifetime_from.as_str(), freshness.age_at_arrival), ("max-age", 10));
        assert_eq!(told.tags, ["a", "b"]);
        assert_eq!(told.lines, ["response cache-control: max-age=60", "response age: 10"]);
        let limited = explained("max_ttl = \"30s\"", &[], 200, &head).freshness.unwrap();
        assert_eq!((limited.lifetime, limited.at_max_ttl), (30, true));
    }

    #[test]
    fn a_refusal_names_the_line_that_decided_and_what_would_help() {
        let told = explained("", &[], 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=1")]);
        assert_eq!((told.verdict.as_str(), told.reason.as_deref()), ("not-stored", Some("set-cookie")));
        assert_eq!(told.lines, ["response set-cookie: a=…"]);
        assert!(told.remedy.unwrap().contains("set_cookie"));
        let told = explained("", &[("cookie", "session=1")], 200, &[("cache-control", "max-age=60")]);
        assert_eq!(told.reason.as_deref(), Some("request-cookie"));
        assert_eq!(told.lines, ["request cookie: session=…"]);
        let told = explained("", &[], 403, &[]);
        assert_eq!(
            (told.reason.as_deref(), &*told.lines),
            (Some("status"), &["response status 403".to_owned()][..])
        );
    }

    /// A 404 to a client's range was told to be stored, which the edge does not do.
    #[test]
    fn what_answers_a_range_is_judged_as_the_edge_judges_it() {
        let told = explained("", &[("range", "bytes=5-9")], 404, &[("cache-control", "max-age=60")]);
        assert_eq!((told.verdict.as_str(), told.reason.as_deref()), ("not-stored", Some("range-answer")));
        assert_eq!(told.lines, ["request range: bytes=5-9"]);
        let whole = explained("", &[("range", "bytes=5-9")], 200, &[("cache-control", "max-age=60")]);
        assert_eq!(whole.verdict, "stored");
    }

    /// `default_ttl` was advised for a 404, and for `max-age=0`, where it changes nothing.
    #[test]
    fn no_remedy_is_told_that_changes_nothing() {
        let remedy = |status, line: Option<&str>| {
            let head: Vec<_> = line.map(|line| ("cache-control", line)).into_iter().collect();
            let told = explained("", &[], status, &head);
            assert_eq!(told.reason.as_deref(), Some("no-freshness"), "{status} {line:?}");
            told.remedy.unwrap()
        };
        assert!(remedy(200, None).contains("`default_ttl`"));
        for (status, line) in [(404, None), (410, None), (204, None), (200, Some("public, max-age=0"))] {
            let told = remedy(status, line);
            assert!(!told.contains("default_ttl") && told.contains("`ttl`"), "{status} {line:?}: {told}");
        }
        let told = remedy(200, Some("no-cache"));
        assert!(!told.contains("ttl") && told.contains("validator"), "{told}");
    }

    /// `default_ttl` with an origin that says `max-age=0` did nothing, and nothing said so.
    #[test]
    fn whichever_lifetime_wins_is_told() {
        let zero = [("cache-control", "public, max-age=0"), ("etag", "\"a\"")];
        let told = explained("default_ttl = \"60s\"", &[], 200, &zero);
        assert_eq!(told.freshness.unwrap().lifetime_from, "max-age");
        assert!(
            told.notes[0].contains("`default_ttl` does not count: the origin states"),
            "{:?}",
            told.notes
        );
        let told = explained("ttl = \"60s\", default_ttl = \"5s\"", &[], 200, &zero);
        let freshness = told.freshness.unwrap();
        assert_eq!((freshness.lifetime, freshness.lifetime_from.as_str()), (60, "ttl"));
        assert!(told.notes[0].contains("`ttl` of 60 s is in force"), "{:?}", told.notes);
        let told = explained("default_ttl = \"60s\"", &[], 404, &[]);
        assert!(told.notes[0].contains("does not count for a 404"), "{:?}", told.notes);
        let told = explained("default_ttl = \"60s\"", &[], 200, &[]);
        assert!(told.notes.is_empty() && told.freshness.unwrap().lifetime_from == "route");
    }

    #[test]
    fn the_rule_that_decides_about_cookies_is_told() {
        let cookie = [("cookie", "session=1")];
        let note = |rules: &str, line: &str| {
            let told = explained(rules, &cookie, 200, &[("cache-control", line)]);
            (told.verdict, told.notes.concat())
        };
        let (verdict, said) = note("", "max-age=60");
        assert!(verdict == "not-stored" && said.contains("\"origin\"`: the response says none of"), "{said}");
        let (verdict, said) = note("", "max-age=60, public");
        assert!(verdict == "stored" && said.contains("\"origin\"`: the response says `public`"), "{said}");
        let (verdict, said) = note("cookies = \"bypass\"", "max-age=60, public");
        assert!(verdict == "not-stored" && said.contains("\"bypass\"` or `bypass`: a cookie"), "{said}");
        let (verdict, said) = note("ignore_cookies = [\"session\"]", "max-age=60");
        assert!(
            verdict == "stored" && said.contains("no cookie of this request counts, by `ignore_cookies`"),
            "{said}"
        );
        let told = explained(
            "set_cookie = \"strip\"",
            &cookie,
            200,
            &[("cache-control", "max-age=60, public"), ("set-cookie", "session=2")],
        );
        assert!(!told.remedy.unwrap().contains("strip"), "it is stripped already, and that is not enough");
    }

    #[test]
    fn a_field_that_cannot_be_read_whole_and_an_event_stream_are_told() {
        let told = explained("", &[], 200, &[("cache-control", "private; max-age=0")]);
        assert_eq!(told.reason.as_deref(), Some("private"));
        assert!(told.notes[0].contains("max-age=0 cannot be read whole"), "{:?}", told.notes);
        let told = explained("default_ttl = \"60s\"", &[], 200, &[("content-type", "text/event-stream")]);
        assert_eq!(told.reason.as_deref(), Some("event-stream"));
        assert_eq!(told.lines, ["response content-type: text/event-stream"]);
        assert!(!told.remedy.unwrap().contains("ttl"));
    }

    /// Whether gzip went to a client that refuses it could only be found out by asking.
    #[test]
    fn what_becomes_of_the_origins_gzip_is_told() {
        let notes = |line: &str| {
            let head = [("content-encoding", "gzip"), ("cache-control", line)];
            explained("", &[], 200, &head).notes.concat()
        };
        let told = "response content-encoding: gzip: decoded for clients that refuse gzip";
        assert!(notes("max-age=60").starts_with(told), "{}", notes("max-age=60"));
        assert_eq!(notes("max-age=60, no-transform"), "");
    }

    #[test]
    fn what_clients_are_told_is_told_where_they_are() {
        let notes = |line: &str| {
            explained("browser = \"no-cache\"", &[], 200, &[("cache-control", line)]).notes.concat()
        };
        assert_eq!(notes("max-age=0"), "clients get cache-control: no-cache");
        assert_eq!(notes("private"), "");
    }

    #[test]
    fn what_a_fetch_looks_at_beside_policy_counts() {
        let fresh = ("cache-control", "max-age=60");
        let told = explained("", &[], 200, &[fresh, ("content-length", "999999999")]);
        assert_eq!(told.reason.as_deref(), Some("too-large"));
        let tag = "x".repeat(cache_policy::LONGEST_TAG + 1);
        let told = explained("", &[], 200, &[fresh, ("surrogate-key", &tag)]);
        assert_eq!(told.reason.as_deref(), Some("tags-unusable"));
    }

    #[test]
    fn a_targeted_field_is_named_and_a_void_one_is_too() {
        let both = [("cache-control", "no-store"), ("cdn-cache-control", "max-age=60")];
        let told = explained("", &[], 200, &both);
        let freshness = told.freshness.unwrap();
        assert_eq!(freshness.targeted.as_deref(), Some("cdn-cache-control"));
        assert_eq!(told.lines, ["response cdn-cache-control: max-age=60"]);
        assert!(told.notes[0].contains("in place of cache-control"), "{:?}", told.notes);
        let void = [("cache-control", "no-store"), ("cdn-cache-control", "Max-Age=60")];
        let told = explained("", &[], 200, &void);
        assert_eq!(
            (told.reason.as_deref(), &*told.lines),
            (Some("no-store"), &["response cache-control: no-store".to_owned()][..])
        );
        assert!(
            told.notes[0].starts_with("response cdn-cache-control: Max-Age=60 is ignored"),
            "{:?}",
            told.notes
        );
    }

    #[test]
    fn a_part_is_judged_as_a_part() {
        let part = [("cache-control", "max-age=60"), ("content-range", "bytes 0-4/10"), ("etag", "\"a\"")];
        let told = explained("", &[("range", "bytes=0-4")], 206, &part);
        let parts = told.stored.unwrap().parts.unwrap();
        assert_eq!(
            (told.verdict.as_str(), &*parts.held, parts.length),
            ("stored", &["0-4".to_owned()][..], Some(10))
        );
        let unasked = explained("", &[], 206, &part);
        assert_eq!(unasked.reason.as_deref(), Some("status-forbids-storing"));
    }
}
