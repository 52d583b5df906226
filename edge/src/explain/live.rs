//! Explanations by a running edge, from its stored responses.

use cache_policy::{Decision, Moment, Reason, variant_key};
use http::{HeaderName, HeaderValue, Method, header};

use super::{
    Explained, Explanation, NotStoredReport, Question, StoredAs, StoredParts, browser_note, cookie_note,
    freshness, held, meaning, notes, octets, read, variant, words,
};
use crate::{
    cache::{
        Key, Memory, Resource, Stored,
        held::Held,
        markers::Whose,
        select::{Candidate, Selection},
        slices::{self, Slices},
    },
    fetch::want::{self, Want},
    observe::{evidence, verdict::Verdict},
    request::{canary, refusal::Refusal, route},
    response::fields::Handling,
    settings::{Route, Settings},
};

/// Explains a request to a running edge.
///
/// # Errors
/// What is wrong with the question, for the operator.
pub fn live(
    settings: &Settings,
    memory: &Memory,
    now: Moment,
    question: &Question,
) -> Result<Explanation, String> {
    let mut asked = match read(settings, question) {
        Ok(asked) => asked,
        Err(undecided) => return undecided.told(),
    };
    let (key, sliced) = by_slices(&mut asked, memory, now);
    let Explained { head, route, .. } = &asked;
    let rules = &route.rules;
    let facts = route::facts(head, route);
    let confirmed = memory.standing().confirmed(now);
    let selection = Selection { sent: asked.as_sent(), facts: &facts, key: &key, now, confirmed };
    let resource = memory.look_up(&key);
    let resource = resource.as_deref();
    let candidate = selection.find(memory, resource);
    let candidate = candidate.as_ref();
    let marker = memory.marker(&key, Whose::of(&facts), now);
    let wanted = match candidate {
        Some(Candidate::Part(_, held)) => want::want(head, Some(held), &facts, rules),
        Some(_) => Want::Whole,
        None => want::want(head, None, &facts, rules),
    };
    let largest = settings.cache.largest_object;
    let marker = marker.filter(|marker| want::concerns(marker, &wanted, head, largest));
    let side = canary::side(route.canary.as_ref(), &head.headers, &asked.client);
    let decision = match route::past_the_cache(side, route, &head.headers) {
        Some(reason) => Decision::Pass(reason),
        None => selection.decide(resource, candidate),
    };
    let (verdict, status, reason) = match decision {
        Decision::Serve { stale: None } => ("hit", Some(Verdict::Hit), None),
        Decision::Serve { stale } => ("stale", Some(Verdict::Stale), stale),
        Decision::ServeAndRefresh { reason } => ("stale", Some(Verdict::Stale), Some(reason)),
        Decision::Fetch(_) if want::is_too_large(&wanted, largest) => {
            ("pass", Some(Verdict::Pass), Some(Reason::TooLarge))
        }
        Decision::Fetch(plan) => match selection.bypass_reason(marker) {
            Some(reason) => ("pass", Some(Verdict::Pass), Some(reason)),
            None => ("fetch", Some(Verdict::Miss), Some(plan.reason)),
        },
        Decision::Pass(reason) => ("pass", Some(Verdict::Pass), Some(reason)),
        Decision::OnlyIfCached => ("only-if-cached", Some(Verdict::Refused), None),
    };
    let stored = candidate.map(Candidate::stored);
    let from_store = matches!(verdict, "hit" | "stale");
    // When the last response was not stored, the reason for the next one is unknown before it comes.
    let refused = memory.not_stored().of(&key).filter(|_| stored.is_none());
    let refused = refused.filter(|refused| facts.is_concerned_by(refused.reason));
    let known = status.filter(|verdict| *verdict != Verdict::Miss || refused.is_none());
    let cache_status = known.map(|verdict| {
        let ttl = stored.filter(|_| from_store).map(|stored| stored.meta.lifetime_left(now));
        let detail = (verdict == Verdict::Refused).then(|| Refusal::OnlyIfCached.detail());
        let value = Handling { ttl, detail, ..Handling::new(verdict, reason) }.value();
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    });
    let mut told = Explanation {
        key: key.as_str().to_owned(),
        route: route.name.to_string(),
        verdict: verdict.to_owned(),
        lines: lines(reason, &selection, resource, stored, route),
        cache_status,
        stored: candidate.map(|candidate| stored_as(candidate, &selection)),
        variant: stored.map(|stored| variant(&stored.vary, &stored.variant)).unwrap_or_default(),
        variants: if stored.is_none() { variants(resource) } else { Vec::new() },
        freshness: stored.map(|stored| freshness(&stored.meta, &stored.identity().head, route, now)),
        asks: if verdict == "fetch" { asks(candidate, &selection) } else { Vec::new() },
        notes: stored
            .map(|stored| notes(stored.meta.status, &stored.identity().head, route))
            .unwrap_or_default(),
        tags: stored
            .map(|stored| stored.tags.iter().map(|tag| tag.as_str().to_owned()).collect())
            .unwrap_or_default(),
        ..words(reason, None, rules)
    };
    told.notes.extend(stored.and_then(|stored| browser_note(stored.meta.status, route)));
    told.notes.extend(cookie_note(&head.headers, rules, stored.map(|stored| stored.meta.for_everyone)));
    if verdict == "only-if-cached" {
        told.reason = Some(Refusal::OnlyIfCached.detail().to_owned());
        told.meaning =
            Some("504: the client wants a stored response or none (RFC 9111 §5.2.1.7).".to_owned());
        let asked = head.headers.get_all(header::CACHE_CONTROL).iter();
        told.lines = asked.map(|value| evidence::line("request", &header::CACHE_CONTROL, value)).collect();
    }
    told.notes.extend(sliced);
    told.notes.extend(super::addresses(route));
    told.notes.extend(super::limits(route));
    told.notes.extend(super::password(route));
    told.notes.extend(super::front(route));
    told.notes.extend(super::canary(route));
    if let Some(marker) = marker {
        let left = marker.until.since(now).as_secs();
        told.notes.push(format!(
            "the last answer was for its own client: requests do not wait for one another for {left} s"
        ));
    }
    if let Some(refused) = refused {
        let remedy = super::remedy::remedy(refused.reason, Some(refused.supply), rules);
        told.remedy = remedy.map(str::to_owned).or(told.remedy);
        told.refused = Some(NotStoredReport {
            ago: now.since(refused.at).as_secs(),
            status: refused.status.as_u16(),
            reason: refused.reason.as_str().to_owned(),
            meaning: meaning(refused.reason),
            lines: refused.lines.lines().map(ToOwned::to_owned).collect(),
        });
    }
    Ok(told)
}

/// The key under which the answer is looked up; where slices answer, what is asked about from here on is the first of them.
fn by_slices(asked: &mut Explained<'_>, memory: &Memory, now: Moment) -> (Key, Option<String>) {
    let key = Key::of_request(&asked.as_sent());
    let Some(slices) = asked.route.slice.map(Slices::of) else { return (key, None) };
    let Some(first) = slices.first(&asked.head) else {
        let why =
            "several ranges, other methods than GET and HEAD, and only-if-cached are not answered by slices";
        return (key, Some(why.to_owned()));
    };
    let facts = route::facts(&asked.head, asked.route);
    let whole = memory.look_up(&key);
    if whole.is_some_and(|resource| resource.variants().iter().any(|stored| stored.parts().is_none())) {
        return (key, Some("a whole is stored, and answers in place of slices".to_owned()));
    }
    let left = memory.marker(&slices::key_of_all(&key), Whose::of(&facts), now);
    if let Some(left) = left.map(|marker| marker.until.since(now).as_secs()) {
        let why = format!(
            "the upstream's last answer to a range was no slice (a part with a strong validator, in no coding): none are \
             asked for, for {left} s"
        );
        return (key, Some(why));
    }
    let told = format!(
        "answered by slices: this is about octets {} of it, which are asked for and stored by themselves, as are the others",
        octets(&first)
    );
    asked.head = slices::head_of(&asked.head, &first);
    (slices::key_of(&key, &first), Some(told))
}

/// The header lines that decided: of the request, of its stored response, or of those stored for other requests.
fn lines(
    reason: Option<Reason>,
    selection: &Selection<'_>,
    resource: Option<&Resource>,
    stored: Option<&std::sync::Arc<Stored>>,
    route: &Route,
) -> Vec<String> {
    let head = selection.sent.head;
    let request = &head.headers;
    let mut lines = reason.map(|reason| evidence::request_lines(reason, request)).unwrap_or_default();
    if reason == Some(Reason::Method) {
        lines.push(format!("request method {}", head.method));
    }
    if reason == Some(Reason::VaryMiss)
        && let Some(newest) = resource.and_then(|resource| resource.variants().first())
    {
        let names = newest.vary.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        lines.push(format!("response vary: {names}"));
        let values = variant(&newest.vary, &variant_key(&newest.vary, &selection.sent));
        lines.extend(values.into_iter().map(|value| format!("request {value}")));
    }
    if let Some(stored) = stored {
        let head = &stored.identity().head;
        lines.extend(evidence::response_lines(reason, head, Some(&stored.meta), &route.rules));
    }
    lines
}

fn stored_as(candidate: &Candidate<'_>, selection: &Selection<'_>) -> StoredAs {
    let stored = candidate.stored();
    let (request, response) = (&selection.sent.head.headers, &stored.identity().head);
    let line = |whose, name: &HeaderName, value: Option<&HeaderValue>| {
        value.map(|value| evidence::line(whose, name, value))
    };
    let of_request = |name: HeaderName| line("request", &name, request.get(&name));
    let of_response = |name: HeaderName| line("response", &name, response.get(&name));
    let (by, url, lines) = match candidate {
        Candidate::Variant(_) => ("variant", None, vec![]),
        Candidate::Language(_) => {
            let lines = vec![of_request(header::ACCEPT_LANGUAGE), of_response(header::CONTENT_LANGUAGE)];
            ("language", None, lines)
        }
        Candidate::Part(..) => ("part", None, vec![of_request(header::RANGE), of_request(header::IF_RANGE)]),
        Candidate::Query(key, _) => {
            let lines = vec![of_response(HeaderName::from_static("no-vary-search"))];
            ("query", Some(key.as_str().to_owned()), lines)
        }
    };
    let parts = match candidate {
        Candidate::Part(part, wanted) => part.parts().map(|parts| {
            let (wanted, missing) = match wanted {
                Held::All(wanted) => (vec![octets(wanted)], None),
                Held::Several(wanted) => (wanted.iter().map(octets).collect(), None),
                Held::Beyond(_) => (vec![], None),
                Held::But(rest) => (vec![octets(&rest.wanted)], Some(octets(&rest.range))),
            };
            StoredParts { held: held(parts), length: parts.complete_length(), wanted, missing }
        }),
        _ => None,
    };
    let lines = lines.into_iter().flatten().collect();
    StoredAs { by: by.to_owned(), url, status: stored.meta.status.as_u16(), lines, parts }
}

/// What is stored under the key, each by the requests it answers.
fn variants(resource: Option<&Resource>) -> Vec<String> {
    resource
        .map(Resource::variants)
        .unwrap_or_default()
        .iter()
        .map(|stored| {
            let mut told = variant(&stored.vary, &stored.variant).join("; ");
            if told.is_empty() {
                told.push_str("every request");
            }
            if let Some(parts) = stored.parts() {
                told.push_str(&format!(" (octets {})", held(parts).join(", ")));
            }
            told
        })
        .collect()
}

/// The fields that the cache adds to the request it forwards.
fn asks(candidate: Option<&Candidate<'_>>, selection: &Selection<'_>) -> Vec<String> {
    let head = selection.sent.head;
    let want = |held| want::want(head, held, selection.facts, selection.rules());
    let (want, validate) = candidate.map_or_else(
        || (want(None), None),
        |candidate| match candidate {
            Candidate::Part(_, held) => (want(Some(held)), Some(candidate.stored())),
            candidate => (Want::Whole, Some(candidate.stored())),
        },
    );
    let target = format!("{} {}", Method::GET, selection.key.path_and_query());
    let fields = want::fields(&want, head, validate);
    std::iter::once(target)
        .chain(
            fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))),
        )
        .collect()
}
