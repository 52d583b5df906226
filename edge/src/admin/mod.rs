//! The operator's listener: health and metrics.
//!
//! Owns: the HTTP service on the admin address, apart from the public side in everything: it runs on the main thread,
//! so workers that are busy do not keep it from answering, and it never goes through the pipeline. It must never be
//! reachable for clients: what it tells is the operator's.
//!
//! ```text
//! GET /livez      200 while the process answers at all
//! GET /readyz     200, or 503 with the reasons
//! GET /metrics    OpenMetrics
//! ```

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::{self, Metrics};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For a request's whole head, and for a kept connection to send its next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What connections get to finish their answers at a stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// After an accept that failed for lack of something the system may have again soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the service answers from.
#[derive(Clone)]
pub struct State(Arc<Sources>);

struct Sources {
    metrics: Arc<Metrics>,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

impl State {
    /// `readiness` is asked anew for each `/readyz`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        Self(Arc::new(Sources { metrics, readiness: Box::new(readiness) }))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("metrics", &self.0.metrics).finish_non_exhaustive()
    }
}

/// Whether requests should be sent here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not, each a short sentence; none when ready.
    pub reasons: Vec<String>,
}

/// Serves until `stop`; connections that are answering then get a second to finish. Dropped, it cuts all connections.
pub async fn serve(socket: TcpListener, state: State, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = async { (place.await, socket.accept().await) } => accepted,
        };
        match accepted {
            (place, Ok((stream, _))) => {
                let connection = connection(stream, state.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                warn!(%error, "the admin listener cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(STOP_GRACE, rest).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: State,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        // The body, if any, is left unread: hyper then closes the connection instead of reading it to its end.
        let answer = answer(&state, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an admin connection ended early");
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(state: &State, method: &Method, path: &str) -> Answer {
    let resource = match path {
        "/livez" => alive,
        "/readyz" => ready,
        "/metrics" => all_metrics,
        _ => return problem(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics", &[]),
    };
    // hyper leaves the body of an answer to HEAD out (RFC 9110 §9.3.2).
    if method != Method::GET && method != Method::HEAD {
        let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "this resource can only be read", &[]);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    resource(state)
}

fn alive(_: &State) -> Answer {
    with_body(StatusCode::OK, TEXT, "ok\n")
}

fn ready(state: &State) -> Answer {
    let readiness = (state.0.readiness)();
    if readiness.reasons.is_empty() {
        return with_body(StatusCode::OK, TEXT, "ok\n");
    }
    problem(StatusCode::SERVICE_UNAVAILABLE, "send no requests here now", &readiness.reasons)
}

fn all_metrics(state: &State) -> Answer {
    with_body(StatusCode::OK, metrics::CONTENT_TYPE, state.0.metrics.encode())
}

const TEXT: &str = "text/plain; charset=utf-8";

/// RFC 9457, with the reasons as an extension member.
fn problem(status: StatusCode, detail: &str, reasons: &[String]) -> Answer {
    let mut problem = serde_json::json!({
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    if !reasons.is_empty() {
        problem["reasons"] = reasons.into();
    }
    with_body(status, "application/problem+json", problem.to_string() + "\n")
}

fn with_body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        net::TcpStream,
    };

    use super::*;

    type Reasons = Arc<Mutex<Vec<String>>>;

    fn state() -> (State, Reasons) {
        let reasons = Reasons::default();
        let told = Arc::clone(&reasons);
        let readiness = move || Readiness { reasons: told.lock().unwrap().clone() };
        (State::new(Arc::new(Metrics::new()), readiness), reasons)
    }

    fn open(state: &State) -> DuplexStream {
        let (client, server) = duplex(64 * 1024);
        tokio::spawn(connection(server, state.clone(), CancellationToken::new()));
        client
    }

    async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        let head = format!("{request} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_process_lives_whether_it_is_ready_or_not() {
        let (state, reasons) = state();
        reasons.lock().unwrap().push("draining".to_owned());
        let answer = exchange(open(&state), "GET /livez").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        assert!(answer.contains("cache-control: no-store"), "{answer}");
    }

    #[tokio::test]
    async fn readiness_is_asked_anew_and_says_why_not() {
        let (state, reasons) = state();
        let answer = exchange(open(&state), "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        reasons.lock().unwrap().push("no instance of command origin is ready".to_owned());
        let answer = exchange(open(&state), "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["status"], 503);
        assert_eq!(body["reasons"], serde_json::json!(["no instance of command origin is ready"]));
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let answer = exchange(open(&state().0), "GET /metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains("gatehouse_edge_build_info") && answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_query_does_not_hide_a_resource() {
        assert!(exchange(open(&state().0), "GET /livez?verbose").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn head_has_the_head_of_get() {
        let answer = exchange(open(&state().0), "HEAD /livez").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("content-length: 3"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_404_and_what_cannot_be_done_405() {
        let (state, _) = state();
        let answer = exchange(open(&state), "GET /").await;
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && answer.contains("application/problem+json"),
            "{answer}"
        );
        let answer = exchange(open(&state), "DELETE /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_to_its_end_closes_the_connection() {
        let mut client = open(&state().0);
        client.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_closed() {
        let mut client = open(&state().0);
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    async fn listening() -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        (address, stop.clone(), tokio::spawn(serve(socket, state().0, stop)))
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_next_gets_a_place_that_is_freed() {
        let (address, stop, server) = listening().await;
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"HTTP/1.1 200");
            open.push(stream);
        }
        let next = tokio::spawn(exchange(TcpStream::connect(address).await.unwrap(), "GET /livez"));
        // Ask over a connection that has a place: when its answer is here, the newcomer could have had one too.
        open[0].write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
        open[0].read_exact(&mut [0; 64]).await.unwrap();
        assert!(!next.is_finished());
        open.pop();
        assert!(next.await.unwrap().starts_with("HTTP/1.1 200 "));
        drop(open);
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_ends_the_service_and_its_idle_connections() {
        let (address, stop, server) = listening().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
        idle.read_exact(&mut [0; 12]).await.unwrap();
        stop.cancel();
        server.await.unwrap();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        TcpStream::connect(address).await.unwrap_err();
    }
}
