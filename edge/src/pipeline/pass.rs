//! Upstream, for this client alone.
//!
//! ```text
//! send --- 101 ----------------------------> the two connections become a tunnel
//!    |---- an unsafe method succeeded -----> what it made untrue is forgotten; the answer may be kept for a later GET
//!    |---- HEAD ---------------------------> the stored GET response is updated from it
//!    '---- anything else ------------------> streamed to the client
//! ```

use std::{sync::Arc, time::Duration};

use cache_policy::{Arrival, Newer, Reason, admit, invalidates, stands_for_get};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, response};
use http_body::Body as _;

use super::{
    Answer, ClientSide, Exchange,
    invalidate::{self, Changed},
    tunnel::{self, Upgrade},
};
use crate::{
    cache::{Lead, purge::Generation},
    fetch::{self, Keep, freshen::Freshening},
    message::{
        content::{Content, ContinueGate, expects_continue},
        failure::Failure,
        hop_by_hop::strip_hop_by_hop,
        long_lived::{is_grpc, is_incremental},
    },
    observe::verdict::Verdict,
    request::{
        as_sent::{Audience, overrides_method},
        refusal::Refusal,
        route,
    },
    response::{
        body::{Body, Cut},
        fields::Handling,
        representation,
    },
    settings::ResendRules,
    upstream::{
        self, RequestBody, ResponseBody, outbound,
        request_body::{self, ContentBounds, Resend},
    },
};

impl Exchange<'_> {
    /// Sends the request upstream for this client alone; nothing is stored.
    pub(super) async fn pass(&self, client: ClientSide, reason: Reason) -> Result<Answer, Refusal> {
        let ClientSide { content, upgrade } = client;
        let waits = !content.is_end_stream() && expects_continue(&self.head.headers);
        let gate = waits.then(ContinueGate::default);
        let bounds = self.content_bounds();
        let is_repeatable = content.is_end_stream();
        let ResendRules { content: held, methods } = &self.route.resend;
        let resend = if methods.contains(&self.head.method) { Resend::Any } else { Resend::Idempotent };
        let content = match self.asked {
            Some(asked) => RequestBody::asking(asked.clone(), self.errand()),
            None => RequestBody::new(content, bounds, gate.clone(), self.errand()),
        };
        // A server of HTTP/2 may say that it has not acted upon a request, also when it goes away in good order.
        let speaks_http2 = self.upstream.settings().may_speak_http2();
        let held = if speaks_http2 { (*held).max(HELD_FOR_HTTP2) } else { *held };
        let content = match self.asked {
            Some(_) => content,
            None => content.held(held, &self.edge.held_content).resend(resend),
        };
        let mut request = self.passed_on(content, gate, upgrade.as_ref());
        if self.is_about_stored(reason) {
            // What is stored is of the identity form, where the edge codes, and of nobody's ignored cookies: only an answer
            // to the same question tells anything about it.
            for name in [header::ACCEPT_ENCODING, header::COOKIE] {
                if !self.as_sent().is_asked_with(&name) {
                    request.headers_mut().remove(name);
                }
            }
            if let Some(cookies) = self.as_sent().keyed_cookies() {
                request.headers_mut().insert(header::COOKIE, cookies);
            }
        }

        let began = self.edge.memory.generation();
        let mut requested_at = self.edge.clock.now();
        let mut answer = self.upstream.send(request, self.affinity(), &self.edge.clock).await?;
        if matches!(self.head.method, Method::GET | Method::HEAD)
            && fetch::is_unasked(answer.status(), &self.head.headers)
        {
            if !is_repeatable {
                // Its content has gone.
                return Err(Refusal::Upstream(Failure::NotModifiedUnasked));
            }
            requested_at = self.edge.clock.now();
            // Boxed: hardly any request needs the room for it.
            answer = Box::pin(self.ask_again()).await?;
        }
        let received_at = self.edge.clock.now();
        let arrival = Arrival { requested_at, received_at, wall: self.edge.clock.wall_at(received_at) };

        let mut status =
            Handling { forward_status: Some(answer.status()), ..Handling::new(Verdict::Pass, Some(reason)) };
        // An overridden method is whatever the upstream takes it for, perhaps an unsafe one.
        let method = if overrides_method(self.head) { &Method::POST } else { &self.head.method };
        let lead = if invalidates(method, answer.status()) {
            self.invalidate(&answer, began, arrival).await
        } else {
            None
        };
        let (via, upstream) = (Some(answer.version()), Some(received_at.since(requested_at)));
        let response = if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.filter(|upgrade| upgrade.is_agreed_to(answer.headers()));
            self.switch(answer, upgrade.ok_or(Failure::Unasked)?)
        } else {
            let cookie = self.sticky_cookie(&answer);
            let (mut parts, body) = answer.into_parts();
            strip_hop_by_hop(&mut parts.headers);
            if self.is_about_stored(reason) && parts.status == StatusCode::OK {
                self.freshen_by_head(&parts, began, arrival);
            }
            let body = match lead {
                Some(lead) => self.keep(&parts, body, lead, arrival),
                None => Err(body),
            };
            status.stored = body.is_ok();
            let body = body.unwrap_or_else(|body| Body::Upstream(Box::new(body)));
            let cacheable = self.route.browser.is_some()
                && reason != Reason::RequestContent
                && self.is_cacheable(&parts, arrival);
            let mut response = representation::passed(self.head, parts, body, self.on_its_way());
            if cacheable {
                self.tell_browsers(&mut response, 0);
            }
            response.headers_mut().extend(cookie);
            response
        };
        Ok(Answer { response, status, via, upstream })
    }

    /// Whether the request has its content received before it takes a place anywhere. One that waits for 100 (Continue) goes on
    /// at once, for its upstream may refuse it (RFC 9110 §10.1.1), and so does one that asks for it (RFC 10036).
    pub(super) fn is_received_first(&self, content: &Content, upgrade: Option<&Upgrade>) -> bool {
        let declared = content.size_hint().exact().filter(|_| !content.is_end_stream());
        declared.is_some_and(|length| length <= self.route.receive_first)
            && upgrade.is_none()
            && !expects_continue(&self.head.headers)
            && !self.is_call()
            && !is_incremental(&self.head.headers)
    }

    /// The content, once it is here.
    pub(super) async fn receive(&self, content: Content) -> Result<Content, Refusal> {
        let received = request_body::receive(content, self.content_bounds(), self.edge.held_content.share());
        let refused = |error| Refusal::Upstream(Failure::RequestBody(error));
        match self.route.times.whole {
            None => received.await.map_err(refused),
            Some(within) => match tokio::time::timeout(within, received).await {
                Ok(received) => received.map_err(refused),
                Err(_) => Err(Refusal::Deadline { within, phase: "send" }),
            },
        }
    }

    /// Whether it is a remote procedure call, which may be silent for as long as a tunnel. Only HTTP/2 carries those: else
    /// anybody could say so.
    fn is_call(&self) -> bool {
        is_grpc(&self.head.headers) && self.upstream.settings().may_speak_http2()
    }

    fn content_bounds(&self) -> ContentBounds {
        let (most, timeouts) = (self.route.bounds.body, &self.settings.timeouts);
        if self.is_call() {
            return ContentBounds { most, pause: timeouts.tunnel, rate: 0, whole: Duration::MAX };
        }
        let (pause, rate) = (self.route.times.upload_pause, self.settings.bounds.body_rate);
        ContentBounds { most, pause, rate, whole: timeouts.upload }
    }

    /// Asks once more, where the answer was a 304 that the client cannot use.
    async fn ask_again(&self) -> Result<upstream::UpstreamResponse, Refusal> {
        let content = match self.asked {
            Some(asked) => RequestBody::asking(asked.clone(), self.errand()),
            None => RequestBody::empty(self.errand()),
        };
        let request = self.passed_on(content, None, None);
        let answer = self.upstream.send(request, self.affinity(), &self.edge.clock).await?;
        match fetch::is_unasked(answer.status(), &self.head.headers) {
            true => Err(Refusal::Upstream(Failure::NotModifiedUnasked)),
            false => Ok(answer),
        }
    }

    /// Whether the answer may update the stored GET response: to a HEAD that passes for no other reason.
    fn is_about_stored(&self, reason: Reason) -> bool {
        self.head.method == Method::HEAD && reason == Reason::Method
    }

    fn passed_on(
        &self,
        content: RequestBody,
        gate: Option<ContinueGate>,
        upgrade: Option<&Upgrade>,
    ) -> Request<RequestBody> {
        *self.under_way.lock() = Some(content.progress());
        let mut request = outbound::passed_on(&self.as_sent(), content);
        if let Some(asked) = self.asked {
            *request.method_mut() = asked.method.clone();
        }
        let headers = request.headers_mut();
        if gate.is_some() {
            headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        if let Some(upgrade) = upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade.protocol.clone());
        }
        let relay = self.relay.clone();
        if relay.is_some() || gate.is_some() {
            // The upstream's interim responses go to this client, and its 100 (Continue) to the request's body.
            request.body().progress().on_interim(move |status, headers| {
                if status == StatusCode::CONTINUE {
                    gate.iter().for_each(ContinueGate::open);
                } else if let Some(relay) = &relay {
                    relay.pass(status, headers);
                }
            });
        }
        request
    }

    /// Invalidates stored responses after an unsafe request, and returns once every tier has been purged. Returns the
    /// lead under which the answer itself may be stored, where nothing but this answer purged meanwhile.
    async fn invalidate(
        &self,
        answer: &upstream::UpstreamResponse,
        began: Generation,
        arrival: Arrival,
    ) -> Option<Lead> {
        let memory = &self.edge.memory;
        let (before, purged) = (memory.generation(), memory.outdated(began, &self.key));
        let changed = Changed {
            target: &self.target,
            routes: &self.settings.routes,
            answer: answer.headers(),
            at: arrival.received_at,
        };
        let telling = Box::pin(invalidate::invalidate(memory, changed)).await;
        let lead = self.edge.collapser.lead_alone(&self.key, arrival.received_at, memory);
        // Boxed: usually there is no tier to purge.
        Box::pin(telling.finish()).await;
        Some(lead).filter(|lead| !purged && lead.generation().is_next_after(before))
    }

    /// Updates the stored GET response from the answer to a HEAD (RFC 9111 §4.3.5).
    fn freshen_by_head(&self, answer: &response::Parts, began: Generation, arrival: Arrival) {
        let memory = &self.edge.memory;
        let resource = memory.look_up(&self.key);
        let stored = resource.as_ref().and_then(|resource| resource.select(&self.as_sent()));
        if let Some(stored) = stored {
            let (request, rules) = (&self.facts, &self.route.rules);
            let answer = Newer { request, head: &answer.headers, arrival, rules };
            let fields = self.as_sent().fields(Audience::Cache);
            let asked = Freshening { fields: &fields, route: self.route, began };
            invalidate::freshen_by_head(memory, &self.key, stored, &answer, &asked);
        }
    }

    /// The body of an answer to an unsafe request, stored while it is sent where it answers a later GET
    /// (RFC 9110 §9.3.3).
    ///
    /// # Errors
    /// The body, where it is not stored.
    #[expect(clippy::result_large_err, reason = "the error is the body itself, to be sent on unstored")]
    fn keep(
        &self,
        answer: &response::Parts,
        body: ResponseBody,
        lead: Lead,
        arrival: Arrival,
    ) -> Result<Body, ResponseBody> {
        let authority = self.target.authority();
        let target = invalidate::resource(&self.target, &authority);
        let ignored_cookies =
            self.head.headers.contains_key(header::COOKIE) && !self.as_sent().is_asked_with(&header::COOKIE);
        let of_get = route::find_plain(&self.settings.routes, &mut self.target.clone()).ok().flatten();
        let on_route_of_get = of_get.is_some_and(|route| Arc::ptr_eq(route, self.route));
        if overrides_method(self.head) || ignored_cookies || !on_route_of_get {
            // The upstream has answered another method, or has seen cookies that no GET for the cache brings it; or a GET goes
            // elsewhere.
            return Err(body);
        }
        let facts = stands_for_get(&self.head.method, &self.facts, &target, answer.status, &answer.headers);
        let Some(facts) = facts else { return Err(body) };
        let keep = Keep {
            key: self.key.clone(),
            lead,
            fields: self.as_sent().fields(Audience::Client),
            facts,
            route: Arc::clone(self.route),
            arrival,
            largest: self.settings.cache.largest_object,
        };
        let (reader, length) = fetch::keep(self.edge, keep, answer, body)?;
        Ok(Body::Filling(Box::new(Cut::whole(reader, length))))
    }

    /// Whether a response might be stored by what it says, to a GET, or lacks only a lifetime.
    fn is_cacheable(&self, answer: &response::Parts, arrival: Arrival) -> bool {
        // A part and a 304 speak of a whole.
        let status = match answer.status {
            StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => StatusCode::OK,
            status => status,
        };
        let judged = || admit(&self.facts.as_get(), status, &answer.headers, arrival, &self.route.rules);
        self.facts.reads() && matches!(judged(), Ok(_) | Err(Reason::NoFreshness))
    }

    /// Joins the client's connection with the upstream's; from here on the tunnel owns them.
    fn switch(&self, answer: upstream::UpstreamResponse, upgrade: Upgrade) -> Response<Body> {
        let mut switching = Response::new(Body::Empty);
        *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switching.headers_mut() = answer.headers().clone();
        let (timeouts, spoken) = (&self.settings.timeouts, upgrade.spoken());
        let (downstream, upstream) = (upgrade.downstream, answer.into_body().switched());
        let (silence, drain) = (timeouts.tunnel, timeouts.drain);
        let bounds = tunnel::TunnelBounds { silence, drain, stop: self.edge.drain.clone() };
        match upstream {
            Some(upstream) => tunnel::join(downstream, upstream, spoken, bounds),
            None => tracing::debug!("an upgrade was not completed"),
        }
        switching
    }
}

/// Octets of a request's content that are held, where its server may speak HTTP/2: most forms and calls are no longer.
const HELD_FOR_HTTP2: u64 = 64 * 1024;
