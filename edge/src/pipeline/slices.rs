//! Answers by slices: octets of one size, each looked up, fetched, shared and stored as a request of its own would be.
//!
//! ```text
//!   a whole is stored, or no slices of it are had ------------------------------> as any other request
//!   the slice of the first octet --- it comes ---> its length and validator make the head; the others are asked for as
//!        |                                         the client reads
//!        |---- the whole comes in its place -----> that is the answer, and is stored as a whole
//!        |---- 416, or the upstream fails -------> that is the answer
//!        '---- anything else --------------------> as any other request, and for a while no slices are asked for
//! ```
//!
//! Must never put slices of two representations into one answer: each that follows has the strong validator and the length of
//! the first. A stored one that has not is dropped and asked for anew; where the upstream's own has not, the answer breaks off,
//! what is stored of the representation is withdrawn, and the next request begins anew.

use std::{ops::Range, sync::Arc};

use cache_policy::{Moment, Reason, Validators};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Answer, ClientSide, Exchange, LookUp, tunnel::Upgrade};
use crate::{
    cache::{
        Key,
        markers::{MARKER, Marker, Whose},
        slices::{self, SliceOf, Slices},
    },
    message::{
        body_error::BodyError, client_shares::ClientShares, content::Content, interim::Interim,
        request_id::RequestId, target::Target,
    },
    observe::{
        record::{Record, RequestPlaces},
        verdict::Verdict,
    },
    request::{canary::RouteSide, client::Client, refusal::Refusal, route},
    response::{
        body::Body,
        representation,
        sliced::{ComingSlice, SliceSource, Sliced},
    },
    settings::Route,
    state::{Edge, State},
    upstream::{Upstream, introduction::Ends},
};

/// What a request for a slice is part of.
pub(super) struct SoughtSlice<'a> {
    pub(super) octets: Range<u64>,
    /// The key of the whole.
    pub(super) whole: &'a Key,
    /// The client's own head: what comes in place of a slice is answered by it.
    pub(super) head: &'a request::Parts,
}

impl Exchange<'_> {
    /// By which slices the request is answered, as far as it tells.
    pub(super) fn slices(
        &self,
        content: &Content,
        upgrade: Option<&Upgrade>,
    ) -> Option<(Slices, Range<u64>)> {
        let slices = Slices::of(self.route.slice?);
        let first = slices.first(self.head)?;
        let is_plain = content.is_end_stream() && upgrade.is_none() && self.goes_past().is_none();
        is_plain.then_some((slices, first))
    }

    /// Whether it is to be answered as on any other route: a whole is stored, or is known not to be.
    fn is_answered_whole(looked: &LookUp) -> bool {
        match looked {
            LookUp::Fetch(wanted) => wanted.stored.as_ref().is_some_and(|stored| stored.parts().is_none()),
            // A part is stored, and what lacks of the whole is too much at once.
            LookUp::Pass(Reason::TooLarge) => false,
            LookUp::Answered(_) | LookUp::Pass(_) => true,
        }
    }
}

/// Answers by slices, where there are any.
pub(super) async fn answer(
    exchange: Exchange<'_>,
    state: &Arc<State>,
    (slices, first): (Slices, Range<u64>),
    record: &mut Record,
    interim: Option<&Interim>,
) -> Result<Answer, Refusal> {
    let looked = exchange.look_up()?;
    if let LookUp::Answered(answer) = looked {
        return Ok(exchange.limited(answer));
    }
    if Exchange::is_answered_whole(&looked) {
        return exchange.proceed(looked, ClientSide::nothing(), record, interim).await;
    }
    let transfer = Arc::new(Transfer::of(&exchange, state, slices));
    let question = transfer.question(first.clone());
    let asked = Exchange { patience: exchange.patience, ..transfer.exchange(&question, exchange.arrived) };
    let began = exchange.edge.clock.now();
    transfer.forget_withdrawn(&asked);
    let came = match asked.look_up()? {
        LookUp::Answered(answer) => answer,
        // Only what is stored answers a HEAD: the upstream is asked for a head then, and not for octets.
        LookUp::Fetch(_) if exchange.head.method == Method::HEAD => {
            return exchange.proceed(looked, ClientSide::nothing(), record, interim).await;
        }
        LookUp::Pass(_) => return exchange.proceed(looked, ClientSide::nothing(), record, interim).await,
        // What is stored is had all the same.
        LookUp::Fetch(_) if transfer.is_left(began) => {
            return exchange.proceed(looked, ClientSide::nothing(), record, interim).await;
        }
        wanted @ LookUp::Fetch(_) => match asked.take_places() {
            Ok(places) => {
                record.occupies(places);
                transfer.has_places();
                asked.go_upstream(wanted, ClientSide::nothing(), interim).await?
            }
            Err(refusal @ (Refusal::RouteBusy | Refusal::ClientBusy)) => asked.stale_or(refusal)?,
            Err(refusal) => return Err(refusal),
        },
    };
    let answer = match transfer.came(came, &first) {
        Came::Slice(answer, of) if is_for_all(&answer) => transfer.answer(exchange.head, (answer, of), first),
        Came::Whole(answer) => {
            // Behind the end a range may be ignored: of others than the first, whoever asks tells nothing to the rest.
            if first.start == 0 {
                transfer.leave(exchange.edge.clock.now());
                transfer.withdraw_for_all(began);
            }
            answer
        }
        Came::Failure(answer) => answer,
        // The client's own range lies behind the end, unless a condition says that it does not count.
        Came::Other(answer)
            if answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE
                && first.start > 0
                && !exchange.head.headers.contains_key(header::IF_RANGE) =>
        {
            answer
        }
        Came::Slice(answer, _) | Came::Other(answer) => {
            let (verdict, status) = (answer.status.verdict, answer.response.status());
            // What comes of it concerns nobody any more.
            drop(answer);
            let is_inside = first.start == 0 || status == StatusCode::PARTIAL_CONTENT;
            // A refusal is of who has asked, and of how.
            let is_refusal = !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE;
            if verdict != Verdict::Pass && is_inside && !is_refusal {
                transfer.leave(exchange.edge.clock.now());
            }
            if first.start == 0 && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
                transfer.withdraw_for_all(began);
            }
            let looked = exchange.look_up()?;
            if let LookUp::Answered(answer) = looked {
                return Ok(exchange.limited(answer));
            }
            let has_places = transfer.places.lock().is_some();
            return match has_places {
                true => exchange.go_upstream(looked, ClientSide::nothing(), interim).await,
                false => exchange.proceed(looked, ClientSide::nothing(), record, interim).await,
            };
        }
    };
    Ok(exchange.limited(answer))
}

/// What has come where a slice was asked for.
enum Came {
    /// The slice.
    Slice(Answer, SliceOf),
    /// The whole in its place, as an answer to the client's own head.
    Whole(Answer),
    /// The upstream has failed, or is overloaded.
    Failure(Answer),
    /// Anything else.
    Other(Answer),
}

/// A request for one slice.
struct SliceQuestion {
    octets: Range<u64>,
    head: request::Parts,
    key: Key,
}

/// All that asking for slices takes, for as long as the client reads. One snapshot of the settings serves it.
struct Transfer {
    edge: Arc<Edge>,
    state: Arc<State>,
    upstream: Arc<Upstream>,
    route: Arc<Route>,
    side: RouteSide,
    head: request::Parts,
    id: RequestId,
    target: Target,
    client: Client,
    ends: Ends,
    told: Vec<(HeaderName, HeaderValue)>,
    route_places: Option<Arc<Semaphore>>,
    client_places: Option<Arc<ClientShares>>,
    slices: Slices,
    /// The key of the whole, and of all its slices.
    whole: Key,
    all: Key,
    whose: Whose,
    /// Taken once the request needs its upstream, and kept to its end.
    places: Mutex<Option<RequestPlaces>>,
}

impl Transfer {
    fn of(exchange: &Exchange<'_>, state: &Arc<State>, slices: Slices) -> Self {
        Self {
            edge: Arc::clone(exchange.edge),
            state: Arc::clone(state),
            upstream: Arc::clone(exchange.upstream),
            route: Arc::clone(exchange.route),
            side: exchange.side,
            head: exchange.head.clone(),
            id: exchange.id.clone(),
            target: exchange.target.clone(),
            client: exchange.client,
            ends: exchange.ends,
            told: exchange.told.to_vec(),
            route_places: exchange.places.cloned(),
            client_places: exchange.client_places.cloned(),
            slices,
            whole: exchange.key.clone(),
            all: slices::key_of_all(&exchange.key),
            whose: Whose::of(&exchange.facts),
            places: Mutex::default(),
        }
    }

    fn question(&self, octets: Range<u64>) -> SliceQuestion {
        let (head, key) = (slices::head_of(&self.head, &octets), slices::key_of(&self.whole, &octets));
        SliceQuestion { octets, head, key }
    }

    fn exchange<'t>(&'t self, question: &'t SliceQuestion, arrived: Moment) -> Exchange<'t> {
        let mut facts = route::facts(&question.head, &self.route);
        if !self.told.is_empty() {
            facts = facts.with_credentials();
        }
        Exchange {
            edge: &self.edge,
            settings: &self.state.settings,
            upstream: &self.upstream,
            head: &question.head,
            id: &self.id,
            facts,
            key: question.key.clone(),
            target: self.target.clone(),
            client: self.client,
            ends: self.ends,
            told: &self.told,
            route: &self.route,
            side: self.side,
            asked: None,
            part: Some(SoughtSlice { octets: question.octets.clone(), whole: &self.whole, head: &self.head }),
            limited: None,
            places: self.route_places.as_ref(),
            client_places: self.client_places.as_ref(),
            // A proxy that says how long it waits for the head waits no more when other slices are asked for.
            patience: None,
            within: None,
            arrived,
            relay: None,
            under_way: Mutex::default(),
        }
    }

    /// The request's record has its places.
    fn has_places(&self) {
        self.places.lock().get_or_insert_default();
    }

    /// Takes the request's places, unless it has them.
    fn take_places(&self, asked: &Exchange<'_>) -> Result<(), Refusal> {
        let mut places = self.places.lock();
        if places.is_none() {
            *places = Some(asked.take_places()?);
        }
        Ok(())
    }

    /// Drops what is stored of a slice, where slices that came then have been withdrawn.
    fn forget_withdrawn(&self, asked: &Exchange<'_>) {
        let memory = &self.edge.memory;
        self.forget_stored(asked, |received| memory.is_withdrawn(&self.all, received));
    }

    fn forget_stored(&self, asked: &Exchange<'_>, is_wrong: impl Fn(Moment) -> bool) {
        let memory = &self.edge.memory;
        let resource = memory.look_up(&asked.key);
        let stored = resource.as_ref().and_then(|resource| {
            resource.select(&asked.as_sent()).or_else(|| resource.select_part(&asked.as_sent()))
        });
        if let Some(stored) = stored.filter(|stored| is_wrong(stored.meta.received_at)) {
            memory.remove(&asked.key, stored);
        }
    }

    /// Slices of it that had come before are of what it is no more.
    fn withdraw(&self, before: Moment) {
        self.edge.memory.withdraw(&self.all, before, |_| false);
    }

    /// So says an answer of which nobody knows whether others would have got it; if it was for somebody, it tells nothing.
    fn withdraw_for_all(&self, before: Moment) {
        if self.whose == Whose::Anyone {
            self.withdraw(before);
        }
    }

    /// Whether slices of it could recently not be had.
    fn is_left(&self, now: Moment) -> bool {
        self.edge.memory.marker(&self.all, self.whose, now).is_some()
    }

    /// For a while no slices of it are asked for.
    fn leave(&self, now: Moment) {
        let marker = Marker { until: now + MARKER, reason: Reason::PartialUnusable };
        self.edge.memory.mark(&self.all, self.whose, marker);
    }

    fn came(&self, answer: Answer, slice: &Range<u64>) -> Came {
        let (status, how) = (answer.response.status(), &answer.status);
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Came::Failure(answer);
        }
        if how.verdict != Verdict::Pass && how.forward_status == Some(StatusCode::OK) {
            return Came::Whole(answer);
        }
        let head = answer.response.headers();
        let of = slices::is_of(head, slice, &self.validators(head));
        match of.filter(|_| status == StatusCode::PARTIAL_CONTENT) {
            Some(of) => Came::Slice(answer, of),
            None => Came::Other(answer),
        }
    }

    fn validators(&self, head: &HeaderMap) -> Validators {
        Validators::read(head, self.edge.clock.wall())
    }

    /// The answer that begins with a slice, or has its head.
    fn answer(
        self: Arc<Self>,
        head: &request::Parts,
        (answer, of): (Answer, SliceOf),
        slice: Range<u64>,
    ) -> Answer {
        let Answer { response, .. } = answer;
        let (parts, body) = response.into_parts();
        let (validators, slices, complete) = (self.validators(&parts.headers), self.slices, of.complete);
        let octets = |wanted| {
            let source = Box::new(Following { transfer: self, of });
            let sliced = Sliced::new(source, slices, wanted).beginning_with(&slice, body);
            Body::Sliced(Box::new(sliced))
        };
        let response = representation::sliced(head, parts.headers, &validators, complete, octets);
        Answer { response, ..answer }
    }

    /// Brings a slice of the same representation.
    async fn bring(self: Arc<Self>, octets: Range<u64>, of: SliceOf) -> Result<Body, BodyError> {
        let question = self.question(octets);
        let began = self.edge.clock.now();
        self.forget_withdrawn(&self.exchange(&question, began));
        let came = match self.ask(&question).await? {
            Came::Slice(answer, other) if other != of && is_from_store(&answer) => {
                // It came before the slice with which this answer began, or that one did: the upstream tells.
                drop(answer);
                self.forget_stored(&self.exchange(&question, began), |_| true);
                self.ask(&question).await?
            }
            came => came,
        };
        match came {
            Came::Slice(answer, other) if other == of => Ok(answer.response.into_body()),
            Came::Failure(answer) | Came::Other(answer) if !tells_of_change(&answer) => {
                let status = answer.response.status().as_u16();
                tracing::info!(key = self.whole.as_str(), octets = ?question.octets, status, "a slice did not come");
                Err(BodyError::NoSlice)
            }
            came => {
                let now = self.edge.clock.now();
                let is_known_to_all = match &came {
                    Came::Slice(answer, _) => is_for_all(answer),
                    _ => self.whose == Whose::Anyone,
                };
                // Servers may disagree about what it is. One of them can send all of it, also to those whose answers tell nothing to
                // others.
                if !is_known_to_all || self.edge.memory.is_withdrawn(&self.all, now.minus(2 * MARKER)) {
                    self.leave(now);
                }
                if is_known_to_all {
                    self.withdraw(began);
                }
                tracing::info!(key = self.whole.as_str(), octets = ?question.octets, "it has changed between two slices");
                Err(BodyError::Changed)
            }
        }
    }

    async fn ask(&self, question: &SliceQuestion) -> Result<Came, BodyError> {
        let asked = self.exchange(question, self.edge.clock.now());
        let answered = match asked.look_up() {
            Ok(LookUp::Answered(answer)) => Ok(answer),
            Ok(wanted) => match self.take_places(&asked) {
                Ok(()) => asked.go_upstream(wanted, ClientSide::nothing(), None).await,
                Err(refusal) => asked.stale_or(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        match answered {
            Ok(answer) => Ok(self.came(answer, &question.octets)),
            Err(refusal) => {
                tracing::info!(key = self.whole.as_str(), octets = ?question.octets, %refusal, "a slice did not come");
                Err(BodyError::NoSlice)
            }
        }
    }
}

/// Whether the upstream has not been asked about it.
fn is_from_store(answer: &Answer) -> bool {
    matches!(answer.status.verdict, Verdict::Hit | Verdict::Stale)
}

/// Whether a slice is stored, or is not only because there is no room for it now.
fn is_for_all(answer: &Answer) -> bool {
    let how = &answer.status;
    match how.verdict {
        Verdict::Pass => false,
        Verdict::Miss => how.stored || how.reason == Some(Reason::NoRoom),
        _ => true,
    }
}

/// Whether an answer in place of a slice that lies inside what others are of says that there is no such slice any more. A failure,
/// or a refusal to let this client have it, does not.
fn tells_of_change(answer: &Answer) -> bool {
    answer.status.verdict != Verdict::Pass
        && matches!(
            answer.response.status(),
            StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_FOUND
                | StatusCode::GONE
                | StatusCode::RANGE_NOT_SATISFIABLE
        )
}

/// The slices that follow one of a representation.
struct Following {
    transfer: Arc<Transfer>,
    of: SliceOf,
}

impl SliceSource<Body> for Following {
    /// Others may wait for the same slice: it comes also while this client reads nothing, or something else on its connection.
    fn ask(&self, slice: Range<u64>) -> ComingSlice<Body> {
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&self.transfer).bring(slice, self.of.clone()));
        Box::pin(
            async move { task.join_next().await.and_then(Result::ok).unwrap_or(Err(BodyError::NoSlice)) },
        )
    }
}
