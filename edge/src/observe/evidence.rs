//! The header lines that a verdict rests on, for whoever asks why.
//!
//! Must never reveal a secret: of cookies and credentials only the names are shown.

use cache_policy::{LifetimeSource, Meta, Reason, Rules, targeted_field};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The names of the lines of a request and of a response that a reason rests on.
#[derive(Clone, Copy, Debug)]
struct DecidingFields {
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
    let targeted = targeted_field(response, &rules.targeted);
    let names = standing_for(names(reason, meta).response, targeted);
    lines("response", response, names.chain(of_tags(reason, rules)))
}

/// The lines of a request and of its response that a refusal to store rests on, one after the other. Written at once,
/// because this is kept for each response that is not stored.
pub fn refusal(reason: Reason, request: &HeaderMap, response: &HeaderMap, rules: &Rules) -> Box<str> {
    let DecidingFields { request: of_request, response: of_response } = names(Some(reason), None);
    let mut text = String::new();
    for (name, value) in values(request, of_request.iter()) {
        write_line(&mut text, "request", name, value);
        text.push('\n');
    }
    let targeted = targeted_field(response, &rules.targeted);
    let names = standing_for(of_response, targeted).chain(of_tags(Some(reason), rules));
    for (name, value) in values(response, names) {
        write_line(&mut text, "response", name, value);
        text.push('\n');
    }
    text.into()
}

/// The fields of tags, where a reason rests on them.
fn of_tags(reason: Option<Reason>, rules: &Rules) -> &[HeaderName] {
    if reason == Some(Reason::TagsUnusable) { &rules.tag_fields } else { &[] }
}

/// The names of a response's fields, where a targeted field replaces two of them (RFC 9213 §2.2).
fn standing_for<'n>(
    names: &'n [HeaderName],
    targeted: Option<&'n HeaderName>,
) -> impl Iterator<Item = &'n HeaderName> {
    names.iter().filter_map(move |name| match targeted {
        Some(_) if *name == header::EXPIRES => None,
        Some(targeted) if *name == header::CACHE_CONTROL => Some(targeted),
        _ => Some(name),
    })
}

/// One line of a head, without secrets and cut to a readable length.
pub fn line(whose: &str, name: &HeaderName, value: &HeaderValue) -> String {
    let mut line = String::new();
    write_line(&mut line, whose, name, value);
    line
}

fn write_line(text: &mut String, whose: &str, name: &HeaderName, value: &HeaderValue) {
    for part in [whose, " ", name.as_str(), ": "] {
        text.push_str(part);
    }
    let start = text.len();
    let octets = value.as_bytes();
    let shown = String::from_utf8_lossy(&octets[..octets.len().min(LOOKED_AT)]);
    match *name {
        header::SET_COOKIE => write_cookie_names(text, &shown, 1),
        header::COOKIE => write_cookie_names(text, &shown, usize::MAX),
        header::AUTHORIZATION => {
            // Without a scheme before it, it is all secret.
            if let Some((scheme, _)) = shown.split_once(' ') {
                text.push_str(scheme);
                text.push(' ');
            }
            text.push('…');
        }
        _ => text.push_str(&shown),
    }
    if let Some((end, _)) = text[start..].char_indices().nth(LONGEST) {
        text.truncate(start + end);
        text.push('…');
    }
}

fn lines<'n>(whose: &str, head: &'n HeaderMap, names: impl Iterator<Item = &'n HeaderName>) -> Vec<String> {
    values(head, names).map(|(name, value)| line(whose, name, value)).collect()
}

fn values<'n>(
    head: &'n HeaderMap,
    names: impl Iterator<Item = &'n HeaderName>,
) -> impl Iterator<Item = (&'n HeaderName, &'n HeaderValue)> {
    names.flat_map(|name| head.get_all(name).iter().map(move |value| (name, value))).take(MOST)
}

/// The names before each `=` in `Set-Cookie: a=1; Path=/` and `Cookie: a=1; b=2`. Of the first `cookies` of them one without `=`
/// is a value without a name (RFC 6265 §5.2), the others are attributes.
fn write_cookie_names(text: &mut String, field: &str, cookies: usize) {
    for (index, pair) in field.split(';').enumerate() {
        if index > 0 {
            text.push_str("; ");
        }
        match pair.split_once('=') {
            Some((name, _)) => {
                text.push_str(name.trim());
                text.push_str("=…");
            }
            None if index < cookies => text.push('…'),
            None => text.push_str(pair.trim()),
        }
    }
}

fn names(reason: Option<Reason>, meta: Option<&Meta>) -> DecidingFields {
    const fn request(request: &'static [HeaderName]) -> DecidingFields {
        DecidingFields { request, response: &[] }
    }
    const fn response(response: &'static [HeaderName]) -> DecidingFields {
        DecidingFields { request: &[], response }
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
            DecidingFields { request: STATED, response: lifetime }
        }
        Reason::RequestNoStore => request(STATED),
        Reason::RequestNoCache => request(&[header::CACHE_CONTROL, header::PRAGMA]),
        Reason::RequestCookie => request(&[header::COOKIE]),
        Reason::OriginPrecondition => request(&[header::IF_MATCH, header::IF_UNMODIFIED_SINCE]),
        Reason::Canary => request(&[header::COOKIE]),
        Reason::RouteFields | Reason::Bypass | Reason::PurgesUnheard => request(&[]),
        Reason::RequestContent => request(&[header::CONTENT_LENGTH, header::TRANSFER_ENCODING]),
        Reason::RequestPart => {
            request(&[header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE])
        }
        Reason::Upgrade => request(&[header::CONNECTION, header::UPGRADE]),
        Reason::Authorization | Reason::NotShared => {
            DecidingFields { request: &[header::AUTHORIZATION], response: STATED }
        }
        Reason::PartialMiss | Reason::RangeAnswer => request(&[header::RANGE, header::IF_RANGE]),
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
        Reason::TagsUnusable => response(&GROUPS),
        Reason::PartialUnusable => {
            response(&[header::CONTENT_RANGE, header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED])
        }
        Reason::TooLarge | Reason::LengthMismatch => response(&[header::CONTENT_LENGTH]),
        Reason::CodingMismatch => response(&[header::CONTENT_ENCODING]),
        Reason::GraphqlErrors => {
            response(&[header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LENGTH])
        }
        Reason::ValidatorMismatch => response(&[header::ETAG, header::LAST_MODIFIED]),
        Reason::Miss | Reason::Method | Reason::NotAFailure | Reason::NoRoom => response(&[]),
    }
}

const STATED: &[HeaderName] = &[header::CACHE_CONTROL];
const EXPIRES: &[HeaderName] = &[header::EXPIRES, header::DATE];
const HEURISTIC: &[HeaderName] = &[header::LAST_MODIFIED, header::DATE];
const ANY_LIFETIME: &[HeaderName] =
    &[header::CACHE_CONTROL, header::EXPIRES, header::LAST_MODIFIED, header::ETAG];
static GROUPS: [HeaderName; 1] = [HeaderName::from_static("cache-groups")];
/// Characters of one value.
const LONGEST: usize = 200;
/// Octets of one value of which that many characters are taken; of a cookie, its names only.
const LOOKED_AT: usize = 16 * LONGEST;
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

    /// Credentials without a scheme, and a cookie without a name, were told whole.
    #[test]
    fn secrets_are_not_told() {
        let request = head(&[("cookie", "session=secret; theme=dark"), ("authorization", "Bearer secret")]);
        assert_eq!(request_lines(Reason::RequestCookie, &request), ["request cookie: session=…; theme=…"]);
        assert_eq!(request_lines(Reason::NotShared, &request), ["request authorization: Bearer …"]);
        let bare = head(&[("cookie", "secret; theme=dark"), ("authorization", "secret")]);
        assert_eq!(request_lines(Reason::RequestCookie, &bare), ["request cookie: …; theme=…"]);
        assert_eq!(request_lines(Reason::NotShared, &bare), ["request authorization: …"]);
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
