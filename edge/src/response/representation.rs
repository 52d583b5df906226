//! From a stored or filling response to the client's answer: preconditions, a range, a coding.
//!
//! Everything here works on a complete response in the form the upstream sent. It adds nothing that depends on the
//! moment or on the verdict; that is [`crate::response::fields`]'s.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    ops::Range,
    sync::Arc,
    time::SystemTime,
};

use cache_policy::{
    Coding, ContentRange, Meta, Precondition, RangeAnswer, Rules, choose_coding, if_none_match, multipart,
    parse_date, precondition, range, unsatisfied_range,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request, response};

use crate::{
    cache::{
        Filling, Key, Stored, StoredBody,
        held::Held,
        recording::Reader,
        stored::{code_head, vary_on_coding},
    },
    message::entity_tag::{Strength, coded_tag, form_of},
    response::{
        body::{Body, Cut, Framed, Octets},
        coding::{self, Coder, OnItsWay, Slot},
        known_length::KnownLength,
    },
};

/// Answers from a stored response.
pub fn stored(
    request: &request::Parts,
    stored: &Arc<Stored>,
    key: &Key,
    rules: &Rules,
    coder: &Coder,
) -> Response<Body> {
    let identity = stored.identity();
    let length = identity.body.length();
    let meta = &stored.meta;
    let wanted = negotiate(request, stored.codable);
    if wanted != Coding::Identity && stored.coded(wanted).is_none() {
        coder.ask(key, stored, wanted);
    }
    let (coding, head, source) = match stored.coded(wanted) {
        Some((coding, computed)) => (coding, computed.head.clone(), BodySource::Whole(&computed.body)),
        None => match fly(wanted, coder) {
            Some(slot) => (wanted, fly_head(&identity.head, wanted), BodySource::Coded(slot)),
            None => (Coding::Identity, identity.head.clone(), BodySource::Whole(&identity.body)),
        },
    };
    let known = KnownLength::Complete(length);
    let form = Form { head: &head, identity: &identity.head, coding, length: known };
    match select(&Asked { request, meta, rules }, &form) {
        Selected::Whole => {
            let body = match source {
                BodySource::Whole(body) => Body::Stored(body.read()),
                BodySource::Coded(slot) => code(Body::Stored(identity.body.read()), coding, Some(slot)),
            };
            whole(request, meta.status, head, body)
        }
        Selected::Part(part) => {
            let body = Body::Stored(identity.body.read_range(part.clone()));
            partial(request, head, body, part, Some(length))
        }
        Selected::Parts(parts) => {
            let octets = |part: &Range<u64>| Octets::Stored(identity.body.read_range(part.clone()));
            let octets = parts.iter().map(octets).collect();
            several(head, length, &parts, octets)
        }
        Selected::Answered(response) => *response,
    }
}

/// Answers with octets of a response of which only parts are stored. `None` where some of them are missing.
pub fn part(request: &request::Parts, stored: &Stored, held: &Held) -> Option<Response<Body>> {
    let head = stored.identity().head.clone();
    let complete = stored.parts()?.complete_length();
    let answer = match held {
        Held::All(wanted) => {
            let body = Body::Stored(stored.read_part(wanted)?);
            partial(request, head, body, wanted.clone(), complete)
        }
        Held::Several(wanted) => {
            let octets = wanted.iter().map(|part| stored.read_part(part).map(Octets::Stored));
            several(head, complete?, wanted, octets.collect::<Option<_>>()?)
        }
        Held::Beyond(length) => not_satisfiable(*length),
        Held::But(_) => return None,
    };
    let modified = stored.meta.validators.last_modified;
    Some(conditional(request, &stored.identity().head, modified).unwrap_or(answer))
}

/// Answers from a response whose body is arriving; what is known of its length comes with the reader.
pub fn filling(
    request: &request::Parts,
    filling: &Filling,
    (reader, length): (Reader, KnownLength),
    rules: &Rules,
    coder: &Coder,
) -> Response<Body> {
    let meta = &filling.facts.meta;
    if filling.partial {
        return conditional(request, &filling.head, meta.validators.last_modified).unwrap_or_else(|| {
            let body = Body::Filling(Box::new(Cut::whole(reader, filling.length)));
            assemble(StatusCode::PARTIAL_CONTENT, filling.head.clone(), body)
        });
    }
    whole_filling(request, filling, (reader, length), rules, coder)
}

fn whole_filling(
    request: &request::Parts,
    filling: &Filling,
    (reader, known): (Reader, KnownLength),
    rules: &Rules,
    coder: &Coder,
) -> Response<Body> {
    let wanted = negotiate(request, filling.facts.codable);
    let slot = fly(wanted, coder);
    let coding = if slot.is_some() { wanted } else { Coding::Identity };
    let mut identity = filling.head.clone();
    if filling.facts.codable {
        vary_on_coding(&mut identity);
    }
    let head = if coding == Coding::Identity { identity.clone() } else { fly_head(&identity, coding) };
    let asked = Asked { request, meta: &filling.facts.meta, rules };
    match select(&asked, &Form { head: &head, identity: &identity, coding, length: known }) {
        Selected::Whole => {
            let body = Body::Filling(Box::new(Cut::whole(reader, filling.length)));
            let body = code(body, coding, slot);
            whole(request, filling.facts.meta.status, head, body)
        }
        Selected::Part(part) => {
            let body = Body::Filling(Box::new(Cut::range(reader, part.clone())));
            partial(request, head, body, part, known.complete())
        }
        Selected::Parts(parts) => match (known.complete(), readers(filling, parts.len())) {
            (Some(length), Some(readers)) => {
                let cut =
                    |(reader, part): (_, &Range<u64>)| Octets::Filling(Cut::range(reader, part.clone()));
                let octets = readers.into_iter().zip(&parts).map(cut).collect();
                several(head, length, &parts, octets)
            }
            // Several parts may be answered with the whole (RFC 9110 §14.2).
            _ => {
                let body = Body::Filling(Box::new(Cut::whole(reader, filling.length)));
                whole(request, filling.facts.meta.status, head, body)
            }
        },
        Selected::Answered(response) => *response,
    }
}

/// One reader for each part, which waits at its own place: parts need not come in the order of the octets.
fn readers(filling: &Filling, parts: usize) -> Option<Vec<Reader>> {
    (0..parts).map(|_| filling.recording.reader()).collect()
}

/// Answers with a response for this client alone, coded if there is a coder.
pub fn passed(
    request: &request::Parts,
    answer: response::Parts,
    body: Body,
    coder: Option<OnItsWay<'_>>,
) -> Response<Body> {
    let status = answer.status;
    let Alone { head, coding, slot } = alone(request, answer, &body, coder);
    assemble(status, head, code(body, coding, slot))
}

/// As [`passed`], for an upstream that was asked without the client's conditions: they are evaluated here, at the time
/// `now`.
pub fn unshared(
    request: &request::Parts,
    answer: response::Parts,
    body: Body,
    coder: Option<OnItsWay<'_>>,
    now: SystemTime,
) -> Response<Body> {
    let status = answer.status;
    let Alone { head, coding, slot } = alone(request, answer, &body, coder);
    if status == StatusCode::OK && answers_not_modified(request, &head, now) {
        return not_modified(head);
    }
    if status == StatusCode::OK
        && coding == Coding::Identity
        && let Some(length) = http_body::Body::size_hint(&body).exact()
    {
        // The whole is all that `bytes=0-` asks for. If-Range with a date is not looked into: then 200 is right as well.
        let asked = range(&request.method, &request.headers, head.get(header::ETAG), None, length);
        if asked == RangeAnswer::Single(0..length) {
            let place = ContentRange { range: 0..length, complete: Some(length) };
            let mut head = head;
            head.insert(header::CONTENT_RANGE, place.to_field());
            return assemble(StatusCode::PARTIAL_CONTENT, head, body);
        }
    }
    assemble(status, head, code(body, coding, slot))
}

/// The form of a response for one client alone.
struct Alone {
    head: HeaderMap,
    coding: Coding,
    slot: Option<Slot>,
}

fn alone(
    request: &request::Parts,
    answer: response::Parts,
    body: &Body,
    coder: Option<OnItsWay<'_>>,
) -> Alone {
    let response::Parts { status, headers: mut head, .. } = answer;
    let length = http_body::Body::size_hint(body).exact();
    let codable = request.method != Method::HEAD
        && coder.is_some_and(|coder| coding::codable(coder.types, status, &head, length));
    let wanted = negotiate(request, codable);
    let slot = coder.and_then(|coder| fly(wanted, coder.coder));
    let coding = if slot.is_some() { wanted } else { Coding::Identity };
    if codable {
        vary_on_coding(&mut head);
    }
    let head = if coding == Coding::Identity { head } else { fly_head(&head, coding) };
    Alone { head, coding, slot }
}

/// The links of a head that a client should load ahead of the page.
pub fn preloads(head: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    head.get_all(header::LINK).iter().filter(|link| {
        let link = link.to_str().unwrap_or_default().to_ascii_lowercase().replace(['"', ' '], "");
        link.contains("rel=preload") || link.contains("rel=preconnect")
    })
}

fn answers_not_modified(request: &request::Parts, head: &HeaderMap, now: SystemTime) -> bool {
    let modified = head.get(header::LAST_MODIFIED).and_then(|value| parse_date(value.as_bytes(), now));
    precondition(&request.method, &request.headers, head.get(header::ETAG), modified)
        == Precondition::NotModified
}

/// The coding this client gets. A range is taken from the identity form: its bytes are the same for everyone.
fn negotiate(request: &request::Parts, codable: bool) -> Coding {
    if !codable || request.headers.contains_key(header::RANGE) {
        return Coding::Identity;
    }
    choose_coding(&request.headers, coding::OFFERED).unwrap_or(Coding::Identity)
}

/// Permission to code a body on the fly, where it is to be coded at all and not too many others are.
fn fly(wanted: Coding, coder: &Coder) -> Option<Slot> {
    if wanted == Coding::Identity { None } else { coder.slot(wanted) }
}

fn code(body: Body, coding: Coding, slot: Option<Slot>) -> Body {
    match slot {
        Some(slot) => match coding::on_the_fly(body, coding, slot) {
            Ok(coded) => Body::Coded(Box::new(coded)),
            Err(body) => body,
        },
        None => body,
    }
}

/// Where the bytes of a stored response come from.
enum BodySource<'a> {
    Whole(&'a StoredBody),
    Coded(Slot),
}

/// The head of a body that will be coded while it is sent.
fn fly_head(identity: &HeaderMap, coding: Coding) -> HeaderMap {
    let mut head = identity.clone();
    head.remove(header::CONTENT_LENGTH);
    code_head(&mut head, coding, Strength::Weak);
    head
}

enum Selected {
    Whole,
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
    Answered(Box<Response<Body>>),
}

/// A request, and what is known of the response that is to answer it.
struct Asked<'a> {
    request: &'a request::Parts,
    meta: &'a Meta,
    rules: &'a Rules,
}

/// The form of a response that was negotiated.
struct Form<'a> {
    head: &'a HeaderMap,
    /// The head of the form that the upstream sent.
    identity: &'a HeaderMap,
    coding: Coding,
    /// The length of the identity form.
    length: KnownLength,
}

/// Evaluates the client's conditions and range (RFC 9110 §13.2.2).
fn select(asked: &Asked<'_>, form: &Form<'_>) -> Selected {
    let &Asked { request, meta, rules } = asked;
    let &Form { head, identity, coding, length } = form;
    if meta.status != StatusCode::OK {
        return Selected::Whole;
    }
    let modified = meta.validators.last_modified;
    if let Some(response) = conditional(request, head, modified.or_else(|| undated(request, identity, rules)))
    {
        return Selected::Answered(Box::new(response));
    }
    if let Some(response) = holds_another_form(request, identity, coding) {
        return Selected::Answered(Box::new(response));
    }
    if coding != Coding::Identity {
        return Selected::Whole;
    }
    let strong = meta.validators.strong_last_modified();
    let answer = |length| range(&request.method, &request.headers, head.get(header::ETAG), strong, length);
    match length {
        KnownLength::Complete(length) => match answer(length) {
            RangeAnswer::Single(part) => Selected::Part(part),
            RangeAnswer::NotSatisfiable => Selected::Answered(Box::new(not_satisfiable(length))),
            RangeAnswer::Several(parts) => Selected::Parts(parts),
            RangeAnswer::Whole => Selected::Whole,
        },
        KnownLength::First(octets) => match answer(u64::MAX) {
            RangeAnswer::Single(part) if part.end <= octets => Selected::Part(part),
            _ => Selected::Whole,
        },
        KnownLength::Unknown => Selected::Whole,
    }
}

/// The answer that the client's conditions alone decide.
fn conditional(
    request: &request::Parts,
    head: &HeaderMap,
    modified: Option<SystemTime>,
) -> Option<Response<Body>> {
    match precondition(&request.method, &request.headers, head.get(header::ETAG), modified) {
        Precondition::NotModified => Some(not_modified(head.clone())),
        Precondition::Failed => Some(without_body(StatusCode::PRECONDITION_FAILED, HeaderMap::new())),
        Precondition::Proceed => None,
    }
}

/// What If-Modified-Since is compared with where there is no Last-Modified: the response's Date (RFC 9111 §4.3.2).
fn undated(request: &request::Parts, head: &HeaderMap, rules: &Rules) -> Option<SystemTime> {
    if !request.headers.contains_key(header::IF_MODIFIED_SINCE) {
        return None;
    }
    if rules.undated_unmodified {
        return Some(SystemTime::UNIX_EPOCH);
    }
    parse_date(head.get(header::DATE)?.as_bytes(), SystemTime::UNIX_EPOCH)
}

/// A client may hold another coding of the same response than the one it would receive now: its tag validates all the
/// same, and the 304 names that form.
fn holds_another_form(
    request: &request::Parts,
    identity: &HeaderMap,
    coding: Coding,
) -> Option<Response<Body>> {
    let etag = identity.get(header::ETAG)?;
    let forms = [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd];
    let place = |held: Coding| forms.iter().position(|form| *form == held);
    let held = if_none_match(&request.headers)
        .filter_map(|tag| form_of(tag, etag))
        .filter(|form| *form != coding)
        .min_by_key(|form| place(*form))?;
    let tag = match held {
        Coding::Identity => etag.clone(),
        form => coded_tag(etag, form, Strength::Strong)?,
    };
    let mut head = identity.clone();
    head.insert(header::ETAG, tag);
    Some(not_modified(head))
}

fn whole(request: &request::Parts, status: StatusCode, head: HeaderMap, body: Body) -> Response<Body> {
    if request.method == Method::HEAD {
        return without_body(status, head);
    }
    assemble(status, head, body)
}

fn partial(
    request: &request::Parts,
    mut head: HeaderMap,
    body: Body,
    part: Range<u64>,
    length: Option<u64>,
) -> Response<Body> {
    drop_digests_of_content(&mut head);
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    head.insert(header::CONTENT_RANGE, ContentRange { range: part, complete: length }.to_field());
    whole(request, StatusCode::PARTIAL_CONTENT, head, body)
}

/// Several parts of a representation of this length, framed; `octets` are theirs.
fn several(mut head: HeaderMap, length: u64, parts: &[Range<u64>], octets: Vec<Octets>) -> Response<Body> {
    // Drawn at random, so that no content can hold it by design.
    let draw = || RandomState::new().build_hasher().finish();
    let boundary = format!("{:016x}{:016x}", draw(), draw());
    let framed = multipart(parts, length, head.get(header::CONTENT_TYPE), &boundary);
    drop_digests_of_content(&mut head);
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(framed.length));
    head.insert(header::CONTENT_TYPE, framed.content_type);
    // Each part has its own Content-Range (RFC 9110 §15.3.7.2).
    head.remove(header::CONTENT_RANGE);
    let preambles = framed.parts.into_iter().map(|part| part.preamble.into());
    let body = Framed::new(preambles.zip(octets).collect(), framed.closing.into());
    assemble(StatusCode::PARTIAL_CONTENT, head, Body::Parts(Box::new(body)))
}

/// 416 for a representation of this length.
fn not_satisfiable(length: u64) -> Response<Body> {
    let mut head = HeaderMap::new();
    head.insert(header::CONTENT_RANGE, unsatisfied_range(length));
    without_body(StatusCode::RANGE_NOT_SATISFIABLE, head)
}

/// RFC 9110 §15.4.5: no metadata of a representation that is not sent.
fn not_modified(mut head: HeaderMap) -> Response<Body> {
    for name in REPRESENTATION {
        head.remove(name);
    }
    drop_digests_of_content(&mut head);
    without_body(StatusCode::NOT_MODIFIED, head)
}

/// Digests of the whole content are not those of other content (RFC 9530 §2); Repr-Digest is the representation's, whichever
/// part of it is sent.
fn drop_digests_of_content(head: &mut HeaderMap) {
    head.remove("content-digest");
    head.remove("content-md5");
}

fn without_body(status: StatusCode, head: HeaderMap) -> Response<Body> {
    assemble(status, head, Body::Empty)
}

fn assemble(status: StatusCode, head: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = head;
    response
}

const REPRESENTATION: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::TRANSFER_ENCODING,
];
