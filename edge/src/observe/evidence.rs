//! The header lines that a verdict rests on, for whoever asks why.
//!
//! Must never reveal a secret: of cookies and credentials only the names are shown.

use cache_policy::{LifetimeSource, Meta, Reason, Rules, targeted_field};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The names of the lines of a request and of a response that a reason rests on.
#[derive(Clone, Copy, Debug)]
struct Names {
    request: &'static [HeaderName],
    response: &'static [HeaderName],
}

/// The lines of a request that a reason rests on, as `request NAME: VALUE`.
pub fn request_lines(reason: Reason, request: &HeaderMap) -> Vec<String> {
    lines("request", request, names(Some(reason), None).request.iter())
}

/// The lines of a response that a reason rests on, as `response NAME: VALUE`; `None` means that it is stored and fresh.
/// `meta` holds policy's facts about it, where it was admitted: it narrows the lines to those that gave the lifetime.
pub fn response_lines(
    reason: Option<Reason>,
    response: &HeaderMap,
    meta: Option<&Meta>,
    rules: &Rules,
) -> Vec<String> {
    let names = names(reason, meta).response.iter();
    match targeted_field(response, &rules.targeted) {
        // The targeted field replaces both (RFC 9213 §2.2).
        Some(targeted) => {
            let names = names.filter(|name| **name != header::EXPIRES);
            let names = names.map(|name| if *name == header::CACHE_CONTROL { targeted } else { name });
            lines("response", response, names)
        }
        None => lines("response", response, names),
    }
}

/// One line of a head, without secrets and cut to a readable length.
pub fn line(whose: &str, name: &HeaderName, value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    let shown = match *name {
        header::SET_COOKIE | header::COOKIE => cookie_names(&text),
        header::AUTHORIZATION => text.split(' ').next().unwrap_or_default().to_owned() + " …",
        _ => text.into_owned(),
    };
    let end = shown.char_indices().nth(LONGEST).map_or(shown.len(), |(end, _)| end);
    let cut = if end < shown.len() { "…" } else { "" };
    format!("{whose} {name}: {}{cut}", &shown[..end])
}

fn lines<'n>(whose: &str, head: &HeaderMap, names: impl Iterator<Item = &'n HeaderName>) -> Vec<String> {
    let values = names.flat_map(|name| head.get_all(name).iter().map(move |value| (name, value)));
    values.take(MOST).map(|(name, value)| line(whose, name, value)).collect()
}

/// The names before each `=` in `Set-Cookie: a=1; Path=/` and `Cookie: a=1; b=2`.
fn cookie_names(field: &str) -> String {
    let names = field.split(';').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{}=…", name.trim()),
        None => pair.trim().to_owned(),
    });
    names.collect::<Vec<_>>().join("; ")
}

fn names(reason: Option<Reason>, meta: Option<&Meta>) -> Names {
    const fn request(request: &'static [HeaderName]) -> Names {
        Names { request, response: &[] }
    }
    const fn response(response: &'static [HeaderName]) -> Names {
        Names { request: &[], response }
    }
    let lifetime = match meta.map(|meta| meta.lifetime_source) {
        Some(LifetimeSource::SharedMaxAge | LifetimeSource::MaxAge) => STATED,
        Some(LifetimeSource::Expires) => EXPIRES,
        Some(LifetimeSource::Heuristic) => HEURISTIC,
        Some(
            LifetimeSource::Ttl | LifetimeSource::Route | LifetimeSource::None | LifetimeSource::SoftPurge,
        )
        | None => ANY_LIFETIME,
    };
    let Some(reason) = reason else { return response(lifetime) };
    match reason {
        Reason::Stale
        | Reason::StaleWhileRevalidate
        | Reason::StaleIfError
        | Reason::StaleOnDisconnect
        | Reason::StaleOnStatus
        | Reason::StaleOnSharedFailure
        | Reason::FreshOnError
        | Reason::TooStale
        | Reason::NoStaleIfError => response(lifetime),
        Reason::RequestMaxAge | Reason::RequestMinFresh | Reason::MaxStale => {
            Names { request: STATED, response: lifetime }
        }
        Reason::RequestNoStore => request(STATED),
        Reason::RequestNoCache => request(&[header::CACHE_CONTROL, header::PRAGMA]),
        Reason::RequestCookie => request(&[header::COOKIE]),
        Reason::OriginPrecondition => request(&[header::IF_MATCH, header::IF_UNMODIFIED_SINCE]),
        Reason::RequestContent => request(&[header::CONTENT_LENGTH, header::TRANSFER_ENCODING]),
        Reason::RequestPart => {
            request(&[header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE])
        }
        Reason::Upgrade => request(&[header::CONNECTION, header::UPGRADE]),
        Reason::Authorization | Reason::NotShared => {
            Names { request: &[header::AUTHORIZATION], response: STATED }
        }
        Reason::PartialMiss => request(&[header::RANGE, header::IF_RANGE]),
        Reason::NoCache
        | Reason::MustRevalidate
        | Reason::NoStore
        | Reason::Private
        | Reason::NotUnderstood => response(STATED),
        Reason::SetCookie => response(&[header::SET_COOKIE]),
        Reason::Status | Reason::StatusForbidsStoring => response(&[header::CACHE_CONTROL, header::EXPIRES]),
        Reason::EventStream => response(&[header::CONTENT_TYPE, header::CACHE_CONTROL, header::EXPIRES]),
        Reason::NoFreshness => response(ANY_LIFETIME),
        Reason::VaryMiss | Reason::VaryAny | Reason::VaryTooWide => response(&[header::VARY]),
        Reason::TagsUnusable => response(&TAGS),
        Reason::PartialUnusable => {
            response(&[header::CONTENT_RANGE, header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED])
        }
        Reason::TooLarge | Reason::LengthMismatch => response(&[header::CONTENT_LENGTH]),
        Reason::ValidatorMismatch => response(&[header::ETAG, header::LAST_MODIFIED]),
        Reason::Miss | Reason::Method | Reason::NotAFailure | Reason::NoRoom => response(&[]),
    }
}

const STATED: &[HeaderName] = &[header::CACHE_CONTROL];
const EXPIRES: &[HeaderName] = &[header::EXPIRES, header::DATE];
const HEURISTIC: &[HeaderName] = &[header::LAST_MODIFIED, header::DATE];
const ANY_LIFETIME: &[HeaderName] =
    &[header::CACHE_CONTROL, header::EXPIRES, header::LAST_MODIFIED, header::ETAG];
static TAGS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("cache-groups"),
];
/// Characters of one value.
const LONGEST: usize = 200;
/// Lines of one reason.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn secrets_are_not_told() {
        let request = head(&[("cookie", "session=secret; theme=dark"), ("authorization", "Bearer secret")]);
        assert_eq!(request_lines(Reason::RequestCookie, &request), ["request cookie: session=…; theme=…"]);
        assert_eq!(request_lines(Reason::NotShared, &request), ["request authorization: Bearer …"]);
        let response = head(&[("set-cookie", "id=secret; Path=/; HttpOnly")]);
        assert_eq!(
            response_lines(Some(Reason::SetCookie), &response, None, &Rules::default()),
            ["response set-cookie: id=…; Path=…; HttpOnly"]
        );
    }

    #[test]
    fn a_targeted_field_is_told_in_place_of_what_it_stands_for() {
        let told = |lines: &[(&'static str, &str)]| {
            response_lines(Some(Reason::NoStore), &head(lines), None, &Rules::default())
        };
        let both = [("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")];
        assert_eq!(told(&both), ["response cdn-cache-control: no-store"]);
        let void = [("cache-control", "no-store"), ("cdn-cache-control", "Max-Age=60")];
        assert_eq!(told(&void), ["response cache-control: no-store"]);
    }

    #[test]
    fn every_line_and_their_number_are_bounded() {
        let mut response = HeaderMap::new();
        for _ in 0..20 {
            response.append(header::VARY, HeaderValue::from_str(&"é".repeat(300)).unwrap());
        }
        let told = response_lines(Some(Reason::VaryTooWide), &response, None, &Rules::default());
        assert_eq!(told.len(), MOST);
        assert!(told.iter().all(|line| line.chars().count() < LONGEST + 20 && line.ends_with('…')));
    }
}
