//! Spans as a collector gets them, and requests when there is none to get them.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, span::SpanKind},
};
use origin::{
    activity_log::ActivityLog,
    common_memory::CommonMemory,
    database::Database,
    observe::Metrics,
    passwords::Passwords,
    replicas::Reads,
    server,
    settings::{Settings, TelemetrySettings},
    shop::Shop,
    traces::Tracer,
    workers::{Shared, Workers},
};
use prost::Message as _;
use serde_json::json as value;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    PATIENCE,
    edge_double::EdgeDouble,
    requests::{Customer, get, metric, send},
    test_server::{TestServer, searches},
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes what is exported, and says that it has refused so many spans of each request.
struct Collector {
    address: String,
    requests: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    server: JoinHandle<()>,
}

type Requests = mpsc::UnboundedSender<ExportTraceServiceRequest>;

impl Collector {
    async fn start(refused: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, requests) = mpsc::unbounded_channel();
        let router = Router::new().route("/v1/traces", post(collect)).with_state((sender, refused));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, requests, server }
    }

    /// All spans, once nobody exports any more.
    async fn spans(mut self) -> Vec<Span> {
        self.server.abort();
        let _ = self.server.await;
        let mut spans = Vec::new();
        while let Some(request) = self.requests.recv().await {
            for resource in request.resource_spans {
                let service = attribute(&resource.resource.expect("a resource").attributes, "service.name");
                assert_eq!(service, "gatehouse-origin");
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

async fn collect(
    State((requests, refused)): State<(Requests, i64)>,
    headers: HeaderMap,
    body: Bytes,
) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let _ = requests.send(ExportTraceServiceRequest::decode(body).expect("protobuf"));
    let partial_success = ExportTracePartialSuccess { rejected_spans: refused, ..Default::default() };
    ExportTraceServiceResponse { partial_success: Some(partial_success) }.encode_to_vec()
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|it| it.value.clone());
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A shop that is traced, and its workers.
fn shop(server: &TestServer, collector: &str, edges: &[&EdgeDouble]) -> (Router, Workers) {
    let telemetry: TelemetrySettings =
        serde_json::from_value(value!({ "collector": collector })).expect("settings");
    let edges: Vec<String> = edges.iter().map(|edge| format!("http://{}", edge.address)).collect();
    let purge = serde_json::from_value(value!({ "edges": edges, "token": "secret" })).expect("settings");
    let settings = Settings { telemetry, purge, ..Settings::default() };
    let metrics = Arc::new(Metrics::new(settings.database.slow_query));
    let (tracer, exporter) = Tracer::new(&settings.telemetry, metrics.spans_lost());
    let database = Database::new(server.options.clone(), &settings.database, Arc::clone(&metrics));
    let (activity, writer) = ActivityLog::new(Arc::clone(&metrics));
    let reads = Reads::new(database.clone(), Vec::new(), Duration::from_secs(1), None);
    let shared = Shared {
        memory: CommonMemory::default(),
        activity: writer,
        reads: reads.clone(),
        metrics: Arc::clone(&metrics),
        tracer: tracer.clone(),
        exporter,
    };
    let workers = Workers::start(server.options.clone(), &settings, shared);
    let (passwords, proxies) = (Passwords::new(Arc::clone(&metrics)), Arc::default());
    let searches = searches();
    let shop = Shop {
        memory: CommonMemory::default(),
        database,
        reads,
        metrics,
        tracer,
        activity,
        passwords,
        searches,
        site: "https://shop.test".into(),
        proxies,
    };
    (server::router(shop.clone(), Duration::from_secs(10)).merge(server::admin_router(shop)), workers)
}

fn traced(flags: &str) -> Request<Body> {
    let request = Request::get(format!("{KETTLE}?"))
        .header("host", "shop.example:8443")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"));
    request.body(Body::empty()).expect("a valid request")
}

#[tokio::test]
async fn a_collector_gets_a_request_and_its_query_under_the_parents_trace() {
    let server = TestServer::start(12).await;
    let collector = Collector::start(0).await;
    let (router, workers) = shop(&server, &collector.address, &[]);
    assert_eq!(send(&router, traced("00")).await.status, StatusCode::OK, "not sampled");
    assert_eq!(send(&router, traced("01")).await.status, StatusCode::OK);
    workers.stop().await;
    assert_eq!(metric(&router, "origin_spans_lost_total").await, 0.0);
    let spans = collector.spans().await;
    assert_eq!(spans.len(), 2, "{spans:?}");
    let find =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{spans:?}"));
    let request = find("GET /api/products/{slug}");
    let query = find("products.show");
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!((&query.trace_id, &query.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!((request.kind(), query.kind()), (SpanKind::Server, SpanKind::Client));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", KETTLE),
        ("url.scheme", "http"),
        ("http.route", "/api/products/{slug}"),
        ("http.response.status_code", "200"),
        ("server.address", "shop.example"),
        ("server.port", "8443"),
    ] {
        assert_eq!(attribute(&request.attributes, key), value, "{key}");
    }
    assert_eq!(attribute(&query.attributes, "db.system.name"), "postgresql");
    assert_eq!(attribute(&query.attributes, "db.query.summary"), "products.show");
    assert!(!format!("{query:?}").contains("kettle"), "no parameter of a query is told");
    assert!(request.start_time_unix_nano <= query.start_time_unix_nano);
    assert!(query.end_time_unix_nano <= request.end_time_unix_nano);
}

#[tokio::test]
async fn a_delivery_is_linked_to_the_request_that_caused_it() {
    let server = TestServer::start(12).await;
    let collector = Collector::start(0).await;
    let mut edge = EdgeDouble::start().await;
    let (router, workers) = shop(&server, &collector.address, &[&edge]);
    let administrator = Customer::administrator(&server, &router).await;
    let change = value!({ "price_cents": 1 });
    let changed = administrator.send(http::Method::PATCH, KETTLE, &[("if-match", "*")], &change).await;
    assert_eq!(changed.status, StatusCode::OK);
    edge.purged().await;
    workers.stop().await;
    let spans = collector.spans().await;
    let find =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{spans:?}"));
    let cause = find("PATCH /api/products/{slug}");
    // What a start tells by itself is caused by no request.
    let delivery = spans.iter().find(|span| span.name == "outbox.deliver" && span.links.len() == 1);
    let delivery = delivery.unwrap_or_else(|| panic!("{spans:?}"));
    let purge = spans.iter().find(|span| span.parent_span_id == delivery.span_id);
    let purge = purge.unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!(purge.name, "edge.purge");
    assert_eq!((&delivery.links[0].trace_id, &delivery.links[0].span_id), (&cause.trace_id, &cause.span_id));
    assert_eq!((&purge.trace_id, &purge.parent_span_id), (&delivery.trace_id, &delivery.span_id));
    assert_eq!(attribute(&purge.attributes, "server.address"), edge.address.to_string());
}

#[tokio::test]
async fn without_its_collector_the_shop_goes_on_and_counts_what_is_lost() {
    let server = TestServer::start(12).await;
    // A port that is bound and not listening: nobody else can take it, and it refuses connections.
    let nobody = TcpSocket::new_v4().expect("a socket");
    nobody.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = format!("http://{}", nobody.local_addr().expect("an address"));
    let (router, workers) = shop(&server, &address, &[]);
    for _ in 0..5 {
        assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK);
    }
    tokio::time::timeout(PATIENCE, workers.stop()).await.expect("the flush has a bound");
    assert_eq!(metric(&router, "origin_spans_lost_total").await, 10.0, "five requests of one query");
}

#[tokio::test]
async fn what_a_collector_refuses_is_counted() {
    let server = TestServer::start(12).await;
    let collector = Collector::start(1).await;
    let (router, workers) = shop(&server, &collector.address, &[]);
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK);
    workers.stop().await;
    assert_eq!(metric(&router, "origin_spans_lost_total").await, 1.0);
    assert_eq!(collector.spans().await.len(), 2);
}
