//! From a stored or filling response to the client's answer: preconditions, a range, a coding.
//!
//! Everything here works on a complete response in the form the upstream sent. It adds nothing that depends on the
//! moment or on the verdict; that is [`crate::response::fields`]'s.

use std::{
    borrow::Cow,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    ops::Range,
    sync::Arc,
    time::SystemTime,
};

use cache_policy::{
    Coding, ContentRange, Meta, Precondition, RangeAnswer, Rules, Validators, choose_coding, if_none_match,
    multipart, parse_date, precondition, range, unsatisfied_range,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request, response};

use crate::{
    cache::{
        Filling, Key, Stored, StoredBody,
        held::Held,
        recording::Reader,
        stored::{code_head, vary_on_coding},
    },
    message::{
        entity_tag::{Form, Strength, coded_tag, form_of},
        head_room::roomy,
        number::number,
    },
    response::{
        body::{Body, Cut, Framed, Octets},
        coding::{self, Coder, OnItsWay, Slot},
        known_length::KnownLength,
    },
    settings::Route,
};

/// Answers from a stored response.
pub fn stored(request: &request::Parts, stored: &Arc<Stored>, key: &Key, on: OnItsWay<'_>) -> Response<Body> {
    let identity = stored.identity();
    let length = identity.body.length();
    let meta = &stored.meta;
    let change = match stored.codable {
        true => Recoding::Code,
        false => decoding(on.route, meta.status, &identity.head, Some(length)),
    };
    // What is coded has its Vary stored with it.
    let sent = match change {
        Recoding::Decode => {
            let mut head = identity.head.clone();
            vary_on_coding(&mut head);
            Cow::Owned(head)
        }
        Recoding::Code | Recoding::Nothing => Cow::Borrowed(&identity.head),
    };
    let wanted = negotiate(request, change);
    let computed = match wanted {
        Form::Made(coding) => {
            let computed = stored.coded(coding);
            if computed.is_none() && coding != Coding::Identity {
                on.coder.ask(key, stored, coding);
            }
            computed
        }
        Form::Sent => None,
    };
    let (form, head, source) = match computed {
        Some((Coding::Identity, _)) => (Form::Sent, sent.as_ref().clone(), BodySource::Whole(&identity.body)),
        Some((coding, computed)) => {
            (Form::Made(coding), computed.head.clone(), BodySource::Whole(&computed.body))
        }
        None => match fly(wanted, on.coder) {
            Some(slot) => (wanted, fly_head(sent.as_ref().clone(), wanted), BodySource::Made(slot)),
            None => (Form::Sent, sent.as_ref().clone(), BodySource::Whole(&identity.body)),
        },
    };
    let known = KnownLength::Complete(length);
    let negotiated = Negotiated { head: &head, identity: &sent, form, length: known };
    let rules = &on.route.rules;
    match select(&Negotiation { request, meta, rules }, &negotiated) {
        Selected::Whole => {
            let body = match source {
                BodySource::Whole(body) => Body::Stored(body.read()),
                BodySource::Made(slot) => make(Body::Stored(identity.body.read()), form, Some(slot)),
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

/// Answers by slices of a representation of this length; `head` is that of one of them, with a strong validator, and `octets` makes
/// the body of some octets of the whole. Several ranges are answered with the whole (RFC 9110 §14.2).
pub fn sliced(
    request: &request::Parts,
    mut head: HeaderMap,
    validators: &Validators,
    complete: u64,
    octets: impl FnOnce(Range<u64>) -> Body,
) -> Response<Body> {
    if let Some(response) = conditional(request, &head, validators.last_modified) {
        return response;
    }
    drop_digests_of_content(&mut head);
    let strong = validators.strong_last_modified();
    match range(&request.method, &request.headers, head.get(header::ETAG), strong, complete) {
        RangeAnswer::Single(part) => {
            let body = octets(part.clone());
            partial(request, head, body, part, Some(complete))
        }
        RangeAnswer::NotSatisfiable => not_satisfiable(complete),
        RangeAnswer::Whole | RangeAnswer::Several(_) => {
            head.remove(header::CONTENT_RANGE);
            head.insert(header::CONTENT_LENGTH, number(complete));
            whole(request, StatusCode::OK, head, octets(0..complete))
        }
    }
}

/// Answers from a response whose body is arriving; what is known of its length comes with the reader.
pub fn filling(
    request: &request::Parts,
    filling: &Filling,
    (reader, length): (Reader, KnownLength),
    on: OnItsWay<'_>,
) -> Response<Body> {
    let meta = &filling.facts.meta;
    if filling.partial {
        return conditional(request, &filling.head, meta.validators.last_modified).unwrap_or_else(|| {
            let body = Body::Filling(Box::new(Cut::whole(reader, filling.length)));
            assemble(StatusCode::PARTIAL_CONTENT, filling.head.clone(), body)
        });
    }
    whole_filling(request, filling, (reader, length), on)
}

fn whole_filling(
    request: &request::Parts,
    filling: &Filling,
    (reader, known): (Reader, KnownLength),
    on: OnItsWay<'_>,
) -> Response<Body> {
    let meta = &filling.facts.meta;
    let change = match filling.facts.codable {
        true => Recoding::Code,
        false => decoding(on.route, meta.status, &filling.head, filling.length),
    };
    let wanted = negotiate(request, change);
    let slot = fly(wanted, on.coder);
    let form = if slot.is_some() { wanted } else { Form::Sent };
    let mut head = roomy(&filling.head);
    if change != Recoding::Nothing {
        vary_on_coding(&mut head);
    }
    let identity = matches!(form, Form::Made(_)).then(|| head.clone());
    let head = fly_head(head, form);
    let identity = identity.as_ref().unwrap_or(&head);
    let asked = Negotiation { request, meta, rules: &on.route.rules };
    match select(&asked, &Negotiated { head: &head, identity, form, length: known }) {
        Selected::Whole => {
            let body = Body::Filling(Box::new(Cut::whole(reader, filling.length)));
            let body = make(body, form, slot);
            whole(request, meta.status, head, body)
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
                whole(request, meta.status, head, body)
            }
        },
        Selected::Answered(response) => *response,
    }
}

/// One reader for each part, which waits at its own place: parts need not come in the order of the octets.
fn readers(filling: &Filling, parts: usize) -> Option<Vec<Reader>> {
    (0..parts).map(|_| filling.recording.reader()).collect()
}

/// Answers with a response for this client alone, coded or decoded where the route does that.
pub fn passed(
    request: &request::Parts,
    answer: response::Parts,
    body: Body,
    on: OnItsWay<'_>,
) -> Response<Body> {
    let status = answer.status;
    let Alone { mut head, form, slot, .. } = alone(request, answer, &body, on);
    if status == StatusCode::NOT_MODIFIED {
        name_form_held(request, &mut head);
    }
    assemble(status, head, make(body, form, slot))
}

/// Upstream, tags of our forms were taken back to the one they were made from: its 304 names that one, and must name the
/// client's (RFC 9110 §15.4.5).
fn name_form_held(request: &request::Parts, head: &mut HeaderMap) {
    let Some(etag) = head.get(header::ETAG) else { return };
    let holds = |form| if_none_match(&request.headers).any(|tag| form_of(tag, etag) == Some(form));
    if !holds(Form::Sent)
        && let Some(tag) = tag_held(request, etag, Form::Sent)
    {
        head.insert(header::ETAG, tag);
        vary_on_coding(head);
    }
}

/// As [`passed`], for an upstream that was asked without the client's conditions: they are evaluated here, at the time
/// `now`.
pub fn unshared(
    request: &request::Parts,
    answer: response::Parts,
    body: Body,
    on: OnItsWay<'_>,
    now: SystemTime,
) -> Response<Body> {
    let status = answer.status;
    let Alone { head, etag, form, slot } = alone(request, answer, &body, on);
    if status == StatusCode::OK && answers_not_modified(request, &head, now) {
        return not_modified(head);
    }
    if status == StatusCode::OK
        && let Some(response) = etag.and_then(|etag| holds_another_form(request, (&etag, &head), form))
    {
        return response;
    }
    if status == StatusCode::OK
        && form == Form::Sent
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
    assemble(status, head, make(body, form, slot))
}

/// The form of a response for one client alone.
struct Alone {
    head: HeaderMap,
    /// The upstream's own tag.
    etag: Option<HeaderValue>,
    form: Form,
    slot: Option<Slot>,
}

fn alone(request: &request::Parts, answer: response::Parts, body: &Body, on: OnItsWay<'_>) -> Alone {
    let response::Parts { status, headers: mut head, .. } = answer;
    let is_head = request.method == Method::HEAD;
    // An answer to HEAD has no body, and still may be that of one.
    let length = http_body::Body::size_hint(body).exact().filter(|_| !is_head);
    let route = on.route;
    let codable = !is_head && route.compress && coding::codable(&route.compress_types, status, &head, length);
    let change = if codable { Recoding::Code } else { decoding(route, status, &head, length) };
    let wanted = negotiate(request, change);
    let slot = if is_head { None } else { fly(wanted, on.coder) };
    let form = if slot.is_some() || is_head { wanted } else { Form::Sent };
    if change != Recoding::Nothing {
        vary_on_coding(&mut head);
    }
    let etag = head.get(header::ETAG).cloned();
    Alone { head: fly_head(head, form), etag, form, slot }
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

/// What the edge does to a response's coding, for those clients who want it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recoding {
    Nothing,
    Code,
    Decode,
}

/// Whether a response is decoded on this route.
fn decoding(route: &Route, status: StatusCode, head: &HeaderMap, length: Option<u64>) -> Recoding {
    match route.decompress && coding::decodable(status, head, length) {
        true => Recoding::Decode,
        false => Recoding::Nothing,
    }
}

/// The form this client gets. A range is taken from the form that the upstream sent, whose bytes are the same for
/// everyone; of gzip it is of no use to a client that refuses gzip, and such a one gets the whole (RFC 9110 §14.2).
fn negotiate(request: &request::Parts, change: Recoding) -> Form {
    match change {
        Recoding::Code if !request.headers.contains_key(header::RANGE) => {
            match choose_coding(&request.headers, coding::OFFERED) {
                None | Some(Coding::Identity) => Form::Sent,
                Some(coding) => Form::Made(coding),
            }
        }
        Recoding::Decode if coding::refuses_gzip(&request.headers) => Form::Made(Coding::Identity),
        _ => Form::Sent,
    }
}

/// Permission to make a form on the fly, where one is to be made at all and not too many others are.
fn fly(wanted: Form, coder: &Coder) -> Option<Slot> {
    match wanted {
        Form::Sent => None,
        Form::Made(coding) => coder.slot(coding),
    }
}

fn make(body: Body, form: Form, slot: Option<Slot>) -> Body {
    match (form, slot) {
        (Form::Made(Coding::Identity), Some(slot)) => Body::Coded(Box::new(coding::decoded(body, slot))),
        (Form::Made(coding), Some(slot)) => match coding::on_the_fly(body, coding, slot) {
            Ok(coded) => Body::Coded(Box::new(coded)),
            Err(body) => body,
        },
        _ => body,
    }
}

/// Where the bytes of a stored response come from.
enum BodySource<'a> {
    Whole(&'a StoredBody),
    Made(Slot),
}

/// The head of a body that will be in this form while it is sent.
fn fly_head(mut head: HeaderMap, form: Form) -> HeaderMap {
    if let Form::Made(coding) = form {
        head.remove(header::CONTENT_LENGTH);
        code_head(&mut head, coding, Strength::Weak);
    }
    head
}

enum Selected {
    Whole,
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
    Answered(Box<Response<Body>>),
}

/// A request, and what is known of the response that is to answer it.
struct Negotiation<'a> {
    request: &'a request::Parts,
    meta: &'a Meta,
    rules: &'a Rules,
}

/// The form of a response that was negotiated.
struct Negotiated<'a> {
    head: &'a HeaderMap,
    /// The head of the form that the upstream sent.
    identity: &'a HeaderMap,
    form: Form,
    /// The length of the form that the upstream sent.
    length: KnownLength,
}

/// Evaluates the client's conditions and range (RFC 9110 §13.2.2).
fn select(asked: &Negotiation<'_>, negotiated: &Negotiated<'_>) -> Selected {
    let &Negotiation { request, meta, rules } = asked;
    let &Negotiated { head, identity, form, length } = negotiated;
    if meta.status != StatusCode::OK {
        return Selected::Whole;
    }
    let modified = meta.validators.last_modified;
    if let Some(response) = conditional(request, head, modified.or_else(|| undated(request, identity, rules)))
    {
        return Selected::Answered(Box::new(response));
    }
    let etag = identity.get(header::ETAG);
    if let Some(response) = etag.and_then(|etag| holds_another_form(request, (etag, identity), form)) {
        return Selected::Answered(Box::new(response));
    }
    if form != Form::Sent {
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

/// A client may hold another form of the same response than the one it would receive now: its tag validates all the same,
/// and the 304 names that form. `etag` is the upstream's own.
fn holds_another_form(
    request: &request::Parts,
    (etag, head): (&HeaderValue, &HeaderMap),
    form: Form,
) -> Option<Response<Body>> {
    let tag = tag_held(request, etag, form)?;
    let mut head = head.clone();
    head.insert(header::ETAG, tag);
    Some(not_modified(head))
}

/// The tag of a form that the client holds, other than this one.
fn tag_held(request: &request::Parts, etag: &HeaderValue, form: Form) -> Option<HeaderValue> {
    let place = |held: &Form| match held {
        Form::Sent => 0,
        Form::Made(coding) => 1 + coding.index(),
    };
    let held = if_none_match(&request.headers)
        .filter_map(|tag| form_of(tag, etag))
        .filter(|held| *held != form)
        .min_by_key(place)?;
    match held {
        Form::Sent => Some(etag.clone()),
        // Decoded bodies are never stored.
        Form::Made(Coding::Identity) => coded_tag(etag, Coding::Identity, Strength::Weak),
        Form::Made(coding) => coded_tag(etag, coding, Strength::Strong),
    }
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
    head.insert(header::CONTENT_LENGTH, number(part.end - part.start));
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
    head.insert(header::CONTENT_LENGTH, number(framed.length));
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
