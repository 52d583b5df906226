//! Traces: what one request does, told to an OpenTelemetry collector by OTLP (protobuf over HTTP).
//!
//! ```text
//!   record ─ span of the request ─┬─ span of a query        ended, sampled ─▶ queue ─▶ Exporter ─ POST ─▶ collector
//!   outbox ─ span of a delivery ──┴─ span of a purge                          full: counted, gone
//! ```
//! Promises: whether a request is traced is decided where its trace began (`traceparent`), and by the sample ratio where
//! there is no such place; a collector that is away, slow or wrong costs memory up to a bound and spans, never time. Without a
//! collector no span is made. Names and attributes follow the semantic conventions for HTTP servers and databases, and hold
//! no parameter of a statement, no query string and no header but the name of the host.

use std::{borrow::Cow, str::FromStr as _, time::Duration};

use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
        TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    transform::{
        common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::TelemetryResourceDetector,
    trace::{RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanLimits, SpanProcessor},
};
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use crate::{
    batches::gather,
    outgoing::{self, PostError},
    settings::{HttpAddress, TelemetrySettings},
};

/// Ended spans in memory at most, about a kilobyte each.
const QUEUE: usize = 4_096;
const BATCH: usize = 512;
/// How often a batch is sent before it is given up, and how long the first pause is; each is twice the one before.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// When the origin stops, batches are begun for as long as this; the one under way and the last may each take a POST longer.
const FLUSH: Duration = Duration::from_secs(1);
/// Bytes of a path that a span shows.
const LONGEST_PATH: usize = 256;

/// Where spans begin. The default makes none.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<SdkTracer>);

impl Tracer {
    /// A tracer and what sends its spans to the collector of the settings; without one, neither does anything. `lost` counts
    /// spans that the collector has not taken.
    pub fn new(settings: &TelemetrySettings, lost: Counter) -> (Self, Option<Exporter>) {
        let Some(collector) = settings.collector.clone() else { return (Self::default(), None) };
        let (spans, ended) = mpsc::channel(QUEUE);
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_service_name("gatehouse-origin")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("process.pid", i64::from(std::process::id())),
            ])
            .build();
        let exporter = Exporter {
            spans: ended,
            collector,
            resource: (&resource).into(),
            lost: lost.clone(),
            failures: 0,
        };
        // Everything that the library would otherwise take from the environment is set here: the settings file decides.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio))))
            .with_id_generator(RandomIdGenerator::default())
            .with_span_limits(SpanLimits::default())
            .with_resource(resource)
            .with_span_processor(Queue { spans, lost })
            .build();
        (Self(Some(provider.tracer("origin"))), Some(exporter))
    }

    /// The span of a request, under the one it names. `method` is one of those HTTP knows, `route` the pattern that matched.
    pub(crate) fn request(
        &self,
        request: &Request,
        method: Option<&'static str>,
        route: Option<&str>,
        parent: Option<&SpanContext>,
    ) -> Option<Span> {
        let tracer = self.0.as_ref()?;
        let name = match (method, route) {
            (method, Some(route)) => format!("{} {route}", method.unwrap_or("HTTP")),
            (method, None) => method.unwrap_or("HTTP").to_owned(),
        };
        let path = request.uri().path();
        let path = &path[..path.floor_char_boundary(LONGEST_PATH)];
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.unwrap_or("_OTHER")),
            KeyValue::new("url.path", path.to_owned()),
            KeyValue::new("url.scheme", "http"),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        if let Some(host) = host as Option<Authority> {
            attributes.push(KeyValue::new("server.address", host.host().to_owned()));
            attributes.extend(host.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
        }
        let span = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        Some(Span::start(tracer, span, parent))
    }

    /// The span of work that no request waits for, with links to those that caused it.
    pub(crate) fn work(
        &self,
        name: &'static str,
        causes: impl IntoIterator<Item = SpanContext>,
    ) -> Option<Span> {
        let tracer = self.0.as_ref()?;
        let links = causes.into_iter().map(Link::with_context).collect();
        let span = tracer.span_builder(name).with_kind(SpanKind::Internal).with_links(links);
        Some(Span::start(tracer, span, None))
    }
}

/// A span under way. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Span {
    span: opentelemetry_sdk::trace::Span,
    tracer: SdkTracer,
}

impl Span {
    fn start(tracer: &SdkTracer, span: SpanBuilder, parent: Option<&SpanContext>) -> Self {
        let context = parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent.clone()));
        Self { span: span.start_with_context(tracer, &context), tracer: tracer.clone() }
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.span.span_context().trace_id()
    }

    /// What other spans begin under; `None` when this one is not sampled, and so none of them would be.
    pub(crate) fn parent(&self) -> Option<Parent> {
        let context = self.span.span_context();
        context.is_sampled().then(|| Parent { tracer: self.tracer.clone(), context: context.clone() })
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            self.failed(status.as_str().to_owned());
        }
    }

    /// Notes that it has failed, and of what: a word from a small set.
    pub(crate) fn failed(&mut self, kind: impl Into<Cow<'static, str>>) {
        self.span.set_attribute(KeyValue::new("error.type", kind.into()));
        self.span.set_status(Status::error(""));
    }
}

/// A sampled span, for those under it.
#[derive(Debug, Clone)]
pub(crate) struct Parent {
    tracer: SdkTracer,
    context: SpanContext,
}

impl Parent {
    /// The span of a named query.
    pub(crate) fn query(&self, name: &'static str) -> Span {
        let attributes =
            vec![KeyValue::new("db.system.name", "postgresql"), KeyValue::new("db.query.summary", name)];
        self.child(name, attributes)
    }

    /// The span of a call to `host`.
    pub(crate) fn call(&self, name: &'static str, host: &HttpAddress) -> Span {
        let attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("server.address", host.authority().to_owned()),
        ];
        self.child(name, attributes)
    }

    fn child(&self, name: &'static str, attributes: Vec<KeyValue>) -> Span {
        let span = self.tracer.span_builder(name).with_kind(SpanKind::Client).with_attributes(attributes);
        Span::start(&self.tracer, span, Some(&self.context))
    }

    /// The same as `traceparent` carries it.
    pub(crate) fn header(&self) -> String {
        format!("00-{}-{}-01", self.context.trace_id(), self.context.span_id())
    }
}

/// The span a request belongs to, by `traceparent` and `tracestate` (W3C Trace Context §3.2, §3.3). A `traceparent` that is not
/// as it should be is none.
pub(crate) fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let states = headers.get_all("tracestate").iter().filter_map(|line| line.to_str().ok());
    parse(parent, &states.collect::<Vec<_>>().join(","))
}

pub(crate) fn parse(traceparent: &str, state: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    // Only version 00 is known to end here.
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !known || !hex(trace, 32) || !hex(parent, 16) || !hex(flags, 2) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = TraceState::from_str(state).unwrap_or_default();
    let (trace, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    Some(SpanContext::new(trace, parent, flags, true, state)).filter(SpanContext::is_valid)
}

/// Takes spans that have ended out of the request's way.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    lost: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.lost.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    collector: HttpAddress,
    resource: ResourceAttributesWithSchema,
    lost: Counter,
    /// In a row.
    failures: u32,
}

impl Exporter {
    /// Sends until `stop` says so, and then what is left, for as long as `FLUSH` and two POSTs.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        while gather(&mut self.spans, &mut batch, BATCH, &mut stop).await {
            self.export(std::mem::take(&mut batch), &mut stop).await;
        }
        self.spans.close();
        let deadline = Instant::now() + FLUSH;
        while Instant::now() < deadline && self.spans.recv_many(&mut batch, BATCH).await > 0 {
            self.export(std::mem::take(&mut batch), &mut stop).await;
        }
        self.lost.inc_by(self.spans.len() as u64);
    }

    /// Once the origin is to stop, a batch is sent once and not again.
    async fn export(&mut self, spans: Vec<SpanData>, stop: &mut watch::Receiver<bool>) {
        let count = spans.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))];
        let mut attempt = 1;
        let error = loop {
            match outgoing::post(&self.collector, "/v1/traces", &kind, body.clone()).await {
                Ok(answer) => {
                    self.failures = 0;
                    // The collector may have taken a part only, and then says how many it has refused.
                    let refused = ExportTraceServiceResponse::decode(answer)
                        .ok()
                        .and_then(|answer| u64::try_from(answer.partial_success?.rejected_spans).ok());
                    self.lost.inc_by(refused.unwrap_or(0).min(count));
                    return;
                }
                Err(error) if attempt == ATTEMPTS || *stop.borrow() || !may_pass(&error) => break error,
                Err(_) => {}
            }
            let _ = timeout(FIRST_PAUSE * (1 << (attempt - 1)), stop.changed()).await;
            attempt += 1;
        };
        self.lost.inc_by(count);
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            let (collector, failures) = (self.collector.as_str(), self.failures);
            tracing::warn!(%error, collector, failures, "spans could not be delivered and are lost");
        }
    }
}

/// Whether sending the same again may succeed (OTLP, "Failures": these statuses and whatever is no status).
fn may_pass(error: &PostError) -> bool {
    !matches!(error, PostError::Refused(status) if ![429, 502, 503, 504].contains(&status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_taken_as_it_should_be_or_not_at_all() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (field, taken) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), Some(true)),
            (format!("00-{trace}-00f067aa0ba902b7-02"), Some(false)),
            (format!("cc-{trace}-00f067aa0ba902b7-01-later"), Some(true)),
            (format!("00-{trace}-00f067aa0ba902b7-01-later"), None),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), None),
            (format!("00-{trace}-0000000000000000-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{trace}"), None),
            (String::new(), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", field.parse().expect("a header value"));
            headers.append("tracestate", HeaderValue::from_static("one=1"));
            headers.append("tracestate", HeaderValue::from_static("two=2"));
            let parent = parent(&headers);
            assert_eq!(parent.as_ref().map(SpanContext::is_sampled), taken, "{field}");
            if let Some(parent) = parent {
                assert_eq!((parent.trace_id().to_string().as_str(), parent.is_remote()), (trace, true));
                assert_eq!(parent.trace_state().header(), "one=1,two=2");
            }
        }
    }

    #[test]
    fn a_full_queue_loses_spans_and_counts_them() {
        let settings =
            TelemetrySettings { collector: Some(HttpAddress::example()), ..TelemetrySettings::default() };
        let lost = Counter::default();
        let (tracer, exporter) = Tracer::new(&settings, lost.clone());
        for _ in 0..QUEUE + 3 {
            drop(tracer.work("outbox.deliver", None));
        }
        assert_eq!((lost.get(), exporter.expect("there is a collector").spans.len()), (3, QUEUE));
    }

    #[test]
    fn without_a_collector_there_is_no_span() {
        let (tracer, exporter) = Tracer::new(&TelemetrySettings::default(), Counter::default());
        assert!(exporter.is_none() && tracer.work("outbox.deliver", None).is_none());
    }

    #[test]
    fn whoever_began_the_trace_decides_and_otherwise_the_ratio_does() {
        let collector = Some(HttpAddress::example());
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (sample_ratio, flags, sampled) in
            [(0.0, "01", true), (1.0, "00", false), (0.0, "", false), (1.0, "", true)]
        {
            let settings = TelemetrySettings { collector: collector.clone(), sample_ratio };
            let (tracer, _exporter) = Tracer::new(&settings, Counter::default());
            let parent = parse(&format!("00-{trace}-00f067aa0ba902b7-{flags}"), "");
            let request = Request::new(axum::body::Body::empty());
            let span = tracer.request(&request, Some("GET"), None, parent.as_ref()).expect("a span");
            assert_eq!(span.parent().is_some(), sampled, "{sample_ratio} {flags}");
            assert_eq!(span.trace_id().to_string() == trace, parent.is_some());
        }
    }
}
