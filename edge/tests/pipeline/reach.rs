//! How servers are reached: over HTTP/2, over TLS, and what of a name is tried.

use std::{
    fs, io,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edge::{
    message::byte_stream::ByteStream,
    settings::{self, Settings},
    upstream::{
        address::Address,
        connect::{Dial, Dialling, NamesFound},
    },
};
use futures_util::future::join_all;
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use scripted_upstream::{Gate, Reply, Scripted, Seen, saying};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

use crate::front::{CACHED, Front, PASSED, front_by, pass, settle, start};

/// A server that speaks HTTP/2, in clear text or over TLS as ALPN says.
struct Server {
    scripted: Scripted,
    streams: u32,
    tls: Option<TlsAcceptor>,
    /// In place of `tls` from now on.
    changed: Mutex<Option<TlsAcceptor>>,
    /// It speaks HTTP/1.1 in clear text.
    http1: bool,
    /// Connections to refuse first.
    refusals: AtomicUsize,
    dialled: Mutex<Vec<Address>>,
    addresses: Mutex<Option<Arc<[IpAddr]>>>,
}

impl Server {
    fn new(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            scripted: Scripted::new(script),
            streams: 100,
            tls: None,
            changed: Mutex::default(),
            http1: false,
            refusals: AtomicUsize::new(0),
            dialled: Mutex::default(),
            addresses: Mutex::default(),
        }
    }

    fn front(self: &Arc<Self>, servers: &str, more: &str) -> Front {
        front_by(settings_of(servers, more), Vec::new(), start(), Arc::clone(self) as Arc<dyn Dial>)
    }

    fn dialled(&self) -> usize {
        self.dialled.lock().unwrap().len()
    }

    fn stands_for(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        *self.addresses.lock().unwrap() = Some(addresses);
    }
}

fn settings_of(servers: &str, more: &str) -> Settings {
    let text = format!(
        "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nservers = {servers}\n{more}"
    );
    settings::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

impl Dial for Server {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
        self.dialled.lock().unwrap().push(address.clone());
        let refused =
            self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let changed = self.changed.lock().unwrap().clone();
        match (changed.as_ref().or(self.tls.as_ref()), refused) {
            (_, Ok(_)) => {
                return Box::pin(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Err(io::ErrorKind::ConnectionRefused.into())
                });
            }
            (None, _) if self.http1 => drop(tokio::spawn(self.scripted.serve(far))),
            (None, _) => drop(tokio::spawn(self.scripted.serve_http2(far, self.streams))),
            (Some(acceptor), _) => {
                drop(tokio::spawn(shaken(acceptor.clone(), far, self.scripted.clone(), self.streams)));
            }
        }
        Box::pin(async { Ok(Box::new(near) as Box<dyn ByteStream>) })
    }

    fn addresses(&self, _: &Arc<str>) -> Option<Arc<[IpAddr]>> {
        self.addresses.lock().unwrap().clone()
    }

    fn look_up<'a>(&'a self, _: &'a Arc<str>) -> NamesFound<'a> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

async fn shaken(acceptor: TlsAcceptor, far: DuplexStream, scripted: Scripted, streams: u32) {
    let Ok(stream) = acceptor.accept(far).await else { return };
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => scripted.serve_http2(stream, streams).await,
        _ => scripted.serve(stream).await,
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_share_one_http2_connection() {
    let server = Arc::new(Server::new(saying(&[("cache-control", "no-store")], "x")));
    let front = server.front(r#"["h2c://app:80"]"#, PASSED);
    let asked = join_all((0..50).map(|_| front.ask("/"))).await;
    assert!(asked.into_iter().all(|got| got.unwrap().text() == "x"));
    assert_eq!((server.dialled(), server.scripted.count()), (1, 50));
}

#[tokio::test(start_paused = true)]
async fn a_request_over_http2_is_what_it_would_be_over_http1() {
    let server = Arc::new(Server::new(|seen: &Seen| {
        Reply::ok(format!("{} {}", seen.method, String::from_utf8_lossy(&seen.body)))
            .then_trailer("grpc-status", "0")
    }));
    let front = server.front(r#"["h2c://app:80"]"#, PASSED);
    let request = Request::post("/a?b=c")
        .header("host", "shop.example:8443")
        .header("te", "trailers")
        .header("expect", "100-continue");
    let got = front.send_body(request, "content").await;
    assert_eq!((got.status, got.text()), (200, "POST content"));
    assert_eq!(got.field("via"), "2 gatehouse");
    let seen = server.scripted.only();
    assert_eq!((&*seen.target, seen.header("te")), ("http://shop.example:8443/a?b=c", "trailers"));
    for gone in ["host", "connection", "transfer-encoding", "expect"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_a_server_allows_on_a_connection_get_another() {
    let gate = Gate::closed();
    let held = gate.clone();
    let server = Server { streams: 4, ..Server::new(move |_: &Seen| Reply::ok("x").after(&held)) };
    let server = Arc::new(server);
    let front = server.front(r#"["h2c://app:80"]"#, PASSED);
    let put = || {
        let front = front.clone();
        tokio::spawn(async move { front.send(Request::put("/")).await })
    };
    let first = put();
    settle().await;
    let more: Vec<_> = (0..9).map(|_| put()).collect();
    settle().await;
    assert_eq!((server.dialled(), server.scripted.count()), (3, 10));
    gate.open();
    for asked in more.into_iter().chain([first]) {
        assert_eq!(asked.await.unwrap().text(), "x");
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_takes_no_more_requests_when_it_is_old() {
    let server = Arc::new(Server::new(saying(&[("cache-control", "no-store")], "x")));
    let front = server.front(r#"["h2c://app:80"]"#, PASSED);
    front.get("/").await;
    pass(59).await;
    front.get("/").await;
    assert_eq!(server.dialled(), 1);
    pass(2).await;
    front.get("/").await;
    assert_eq!(server.dialled(), 2);
}

/// One after the other would have waited for as many seconds as there were requests.
#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_dial_share_its_failure() {
    let server = Server { refusals: AtomicUsize::new(100), ..Server::new(saying(&[], "x")) };
    let server = Arc::new(server);
    let front = server.front(r#"["h2c://app:80"]"#, PASSED);
    let began = tokio::time::Instant::now();
    let asked = join_all((0..20).map(|_| front.ask("/"))).await;
    assert!(asked.into_iter().all(|got| got.unwrap().status == 502));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(server.dialled() <= 3, "{}", server.dialled());
}

/// The upload of another request fills the connection: its own stream has a window of its own.
#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_does_not_stop_the_others_on_its_connection() {
    let server = Arc::new(Server::new(|seen: &Seen| match seen.target.ends_with("/large") {
        true => Reply::streamed().then_repeated("0123456789abcdef".repeat(64), 1024),
        false => Reply::ok("x"),
    }));
    let front = server.front(r#"["h2c://app:80"]"#, PASSED);
    let unread = front.begin(Request::get("/large")).await;
    settle().await;
    assert_eq!(front.get("/").await.text(), "x");
    assert_eq!(server.dialled(), 1);
    drop(unread);
}

/// Each was cut after `idle_timeout` as stalled, and put its server aside.
#[tokio::test(start_paused = true)]
async fn a_stream_of_calls_may_be_silent_for_long() {
    let gate = Gate::closed();
    let held = gate.clone();
    let server = Arc::new(Server::new(move |_: &Seen| {
        Reply::streamed().header("content-type", "application/grpc").then("m").then_wait(&held)
    }));
    let front = server.front(r#"["h2c://a", "h2c://b"]"#, PASSED);
    let watches: Vec<_> = (0..16)
        .map(|_| {
            let front = front.clone();
            tokio::spawn(async move {
                let request = Request::post("/watch").header("content-type", "application/grpc");
                front.send(request).await
            })
        })
        .collect();
    for _ in 0..300 {
        pass(1).await;
    }
    gate.open();
    for watch in watches {
        assert_eq!(watch.await.unwrap().text(), "m");
    }
    let up = front.metric_lines("gatehouse_edge_upstream_server_up{");
    assert!(up.iter().all(|line| line.ends_with(" 1")), "{up:?}");
}

/// A client that began fifty requests and left at once made the server close the connection, with the requests of others.
#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_at_once_end_nobody_elses() {
    let gate = Gate::closed();
    let held = gate.clone();
    let server = Arc::new(Server::new(move |_: &Seen| Reply::ok("x").after(&held)));
    let front = server.front(r#"["h2c://a"]"#, PASSED);
    let post = |target: &'static str| {
        let front = front.clone();
        tokio::spawn(async move { front.send(Request::post(target)).await.status })
    };
    let others: Vec<_> = (0..10).map(|_| post("/other")).collect();
    settle().await;
    for _ in 0..6 {
        let attack: Vec<_> = (0..50).map(|_| post("/attack")).collect();
        for _ in 0..9 {
            tokio::task::yield_now().await;
        }
        attack.iter().for_each(tokio::task::JoinHandle::abort);
        pass(1).await;
    }
    gate.open();
    for other in others {
        assert_eq!(other.await.unwrap(), 200);
    }
}

/// A folder with an authority's certificate, a server's for `app.internal`, and a client's.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for (name, of) in [
            ("server", "app.internal"),
            ("client", "edge.internal"),
            ("other", "other.internal"),
            ("itself", "app.internal"),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![of.to_owned()]).unwrap();
            if name == "itself" {
                // As `openssl req -x509` makes them.
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            let certificate = params.self_signed(&key).unwrap();
            fs::write(files.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(files.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn acceptor(&self, protocols: &[&str], asks_for_client: ClientProof) -> TlsAcceptor {
        self.acceptor_with("server", protocols, asks_for_client)
    }

    fn acceptor_with(&self, server: &str, protocols: &[&str], asks_for_client: ClientProof) -> TlsAcceptor {
        let certificate = |name: &str| CertificateDer::from_pem_file(self.path(name)).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{server}.key"))).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match asks_for_client {
            ClientProof::None => builder.with_no_client_auth(),
            ClientProof::Wanted => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate("client.pem")).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(vec![certificate(&format!("{server}.pem"))], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }

    fn tls(&self, more: &str) -> String {
        format!("tls = {{ {more} }}\n{PASSED}").replace("DIR", &self.0.path().display().to_string())
    }
}

#[derive(Clone, Copy)]
enum ClientProof {
    None,
    Wanted,
}

fn over_tls(files: &Files, protocols: &[&str], proof: ClientProof) -> Arc<Server> {
    let script = saying(&[("cache-control", "no-store")], "x");
    Arc::new(Server { tls: Some(files.acceptor(protocols, proof)), ..Server::new(script) })
}

#[tokio::test]
async fn a_server_over_tls_chooses_between_both_versions_of_http() {
    let files = Files::new();
    for (protocols, version) in [(&["h2", "http/1.1"][..], "2"), (&["http/1.1"], "1.1"), (&[], "1.1")] {
        let server = over_tls(&files, protocols, ClientProof::None);
        let front = server.front(r#"["https://app.internal"]"#, &files.tls("ca = \"DIR/server.pem\""));
        for _ in 0..3 {
            let got = front.get("/").await;
            assert_eq!(
                (got.status, got.field("via")),
                (200, &*format!("{version} gatehouse")),
                "{protocols:?}"
            );
        }
        assert_eq!(server.dialled(), 1, "{protocols:?}");
    }
}

/// What clients are told says nothing of certificates.
#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_no_request() {
    let files = Files::new();
    let cases = [
        (r#"["https://app.internal"]"#, "ca = \"DIR/other.pem\"", 502),
        (r#"["https://another.internal"]"#, "ca = \"DIR/server.pem\"", 502),
        (r#"["https://10.0.0.5"]"#, "ca = \"DIR/server.pem\"", 502),
        (r#"["https://10.0.0.5"]"#, "ca = \"DIR/server.pem\", server_name = \"app.internal\"", 200),
        (r#"["https://another.internal"]"#, "verify = false", 200),
    ];
    for (servers, tls, status) in cases {
        let server = over_tls(&files, &["h2"], ClientProof::None);
        let front = server.front(servers, &files.tls(tls));
        let got = front.get("/").await;
        assert_eq!(got.status, status, "{servers} {tls}");
        if status == 502 {
            assert_eq!(server.scripted.count(), 0);
            assert!(got.field("cache-status").contains("upstream-tls"), "{}", got.field("cache-status"));
            assert!(!got.text().contains("ertificate"), "{}", got.text());
        }
    }
}

/// What `openssl req -x509` makes is an authority, and was believed by no rule, although the operator had named it.
#[tokio::test]
async fn a_certificate_that_the_operator_names_is_believed_under_its_name() {
    let files = Files::new();
    for (host, ca, status) in
        [("app.internal", "itself", 200), ("other.internal", "itself", 502), ("app.internal", "other", 502)]
    {
        let acceptor = files.acceptor_with("itself", &["h2"], ClientProof::None);
        let server = Arc::new(Server { tls: Some(acceptor), ..Server::new(saying(&[], "x")) });
        let front =
            server.front(&format!("[\"https://{host}\"]"), &files.tls(&format!("ca = \"DIR/{ca}.pem\"")));
        assert_eq!(front.get("/").await.status, status, "{host} {ca}");
    }
}

#[tokio::test]
async fn the_edge_shows_who_it_is() {
    let files = Files::new();
    let shown = "ca = \"DIR/server.pem\", certificate = \"DIR/client.pem\", key = \"DIR/client.key\"";
    for (tls, status) in [(shown, 200), ("ca = \"DIR/server.pem\"", 502)] {
        let server = over_tls(&files, &["http/1.1"], ClientProof::Wanted);
        let front = server.front(r#"["https://app.internal"]"#, &files.tls(tls));
        assert_eq!(front.get("/").await.status, status, "{tls}");
    }
}

/// It was spoken to in clear text: the request went to whoever answered there, credentials and all.
#[tokio::test]
async fn each_address_of_a_name_is_reached_by_tls_where_that_is_written() {
    let files = Files::new();
    let servers = r#"["dns+https://app.internal"]"#;
    let clear = Arc::new(Server { http1: true, ..Server::new(saying(&[], "x")) });
    let safe = over_tls(&files, &["h2"], ClientProof::None);
    for (server, status) in [(&clear, 502), (&safe, 200)] {
        server.stands_for(&["10.0.0.1"]);
        let front = server.front(servers, &files.tls("ca = \"DIR/server.pem\""));
        let got = front.get_with("/", &[("authorization", "secret")]).await;
        assert_eq!(got.status, status);
    }
    assert_eq!((clear.scripted.count(), safe.scripted.count()), (0, 1));
}

/// A server that had spoken HTTP/1.1 once was offered nothing else for ever.
#[tokio::test]
async fn a_server_may_change_the_version_that_it_speaks() {
    let files = Files::new();
    let acceptors =
        [&["http/1.1"][..], &["h2"]].map(|protocols| files.acceptor(protocols, ClientProof::None));
    let script = saying(&[("cache-control", "no-store"), ("connection", "close")], "x");
    let server = Arc::new(Server { tls: Some(acceptors[0].clone()), ..Server::new(script) });
    let front = server.front(r#"["https://app.internal"]"#, &files.tls("ca = \"DIR/server.pem\""));
    assert_eq!(front.get("/").await.field("via"), "1.1 gatehouse");
    *server.changed.lock().unwrap() = Some(acceptors[1].clone());
    let versions = [front.get("/").await, front.get("/").await].map(|got| got.field("via").to_owned());
    assert_eq!(versions, ["2 gatehouse", "2 gatehouse"]);
}

/// One WebSocket request put every server aside that speaks HTTP/2 alone.
#[tokio::test]
async fn a_tunnel_that_a_server_does_not_offer_says_nothing_about_the_server() {
    let files = Files::new();
    let server = over_tls(&files, &["h2"], ClientProof::None);
    let servers = r#"["https://app.internal", "https://app.internal:444"]"#;
    let front = server.front(servers, &files.tls("ca = \"DIR/server.pem\""));
    let request = Request::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(front.begin(request).await.status(), 502);
    let up = front.metric_lines("gatehouse_edge_upstream_server_up{");
    assert!(up.len() == 2 && up.iter().all(|line| line.ends_with(" 1")), "{up:?}");
    assert_eq!(front.get("/").await.status, 200);
}

#[tokio::test]
async fn a_tunnel_through_a_server_that_prefers_http2_is_asked_for_by_http1() {
    let files = Files::new();
    let server = Server {
        tls: Some(files.acceptor(&["h2", "http/1.1"], ClientProof::None)),
        ..Server::new(|seen: &Seen| match seen.headers.contains_key("upgrade") {
            true => Reply::echo_upgrade(),
            false => Reply::ok("x"),
        })
    };
    let server = Arc::new(server);
    let front = server.front(r#"["https://app.internal"]"#, &files.tls("ca = \"DIR/server.pem\""));
    assert_eq!(front.get("/").await.field("via"), "2 gatehouse");
    let request = Request::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(front.begin(request).await.status(), 101);
    assert_eq!(front.get("/").await.field("via"), "2 gatehouse", "it is remembered what the server prefers");
    assert_eq!(server.dialled(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_address_of_a_name_is_a_server_and_comes_and_goes_with_it() {
    let server = Arc::new(Server::new(saying(&[("cache-control", "no-store")], "x")));
    server.stands_for(&["10.0.0.1", "10.0.0.2"]);
    let front = server.front(r#"["dns+h2c://app.internal:80"]"#, PASSED);
    for _ in 0..40 {
        assert_eq!(front.get("/").await.text(), "x");
    }
    let dialled = || {
        let mut dialled: Vec<String> =
            server.dialled.lock().unwrap().iter().map(ToString::to_string).collect();
        dialled.sort_unstable();
        dialled
    };
    assert_eq!(dialled(), ["10.0.0.1:80", "10.0.0.2:80"]);
    let shown = || front.metric_lines("gatehouse_edge_upstream_server_up{").len();
    assert_eq!(shown(), 2);
    server.stands_for(&["10.0.0.3"]);
    front.get("/").await;
    assert_eq!(dialled(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(shown(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_found_is_a_502_that_names_the_phase() {
    let server = Arc::new(Server::new(saying(&[], "x")));
    let front = server.front(r#"["dns+h2c://app.internal:80"]"#, CACHED);
    let got = front.get("/").await;
    assert_eq!(got.status, 502);
    assert!(got.field("cache-status").contains("upstream-unresolved"), "{}", got.field("cache-status"));
}

/// Refuses the first request of each of some connections, or goes away at it, having acted upon none; the others are answered with
/// their content.
struct Refusing {
    refusals: AtomicUsize,
    goes_away: bool,
    acted: AtomicUsize,
}

impl Refusing {
    fn refuses(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        if self.goes_away && self.refuses() {
            return go_away(stream).await;
        }
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            match self.refuses() {
                true => respond.send_reset(h2::Reason::REFUSED_STREAM),
                false => {
                    self.acted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        let mut content = request.into_body();
                        let mut got = Vec::new();
                        while let Some(Ok(piece)) = content.data().await {
                            let _ = content.flow_control().release_capacity(piece.len());
                            got.extend_from_slice(&piece);
                        }
                        let answer =
                            http::Response::builder().header("cache-control", "no-store").body(()).unwrap();
                        let mut body = respond.send_response(answer, false).unwrap();
                        body.send_data(got.into(), true).unwrap();
                    });
                }
            }
        }
    }
}

/// Says that no request has been acted upon when the first one has come (RFC 9113 §6.8), and closes once the other side does.
async fn go_away(mut stream: DuplexStream) {
    const PREFACE: usize = 24;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    stream.write_all(&SETTINGS).await.unwrap();
    stream.read_exact(&mut [0; PREFACE]).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == HEADERS {
            stream.write_all(&GOAWAY).await.unwrap();
        }
    }
}

struct Refuses(Arc<Refusing>);

impl Dial for Refuses {
    fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
        let (near, far) = tokio::io::duplex(256 * 1024);
        drop(tokio::spawn(Arc::clone(&self.0).serve(far)));
        Box::pin(async { Ok(Box::new(near) as Box<dyn ByteStream>) })
    }
}

/// Each was a 502, also where the server only went away in good order.
#[tokio::test(start_paused = true)]
async fn what_a_server_says_it_has_not_acted_upon_is_sent_once_more() {
    for goes_away in [false, true] {
        for (method, content) in [("GET", 0), ("POST", 0), ("POST", 20_000)] {
            let refusing =
                Arc::new(Refusing { refusals: AtomicUsize::new(1), goes_away, acted: AtomicUsize::new(0) });
            let dial = Arc::new(Refuses(Arc::clone(&refusing)));
            let settings = settings_of(r#"["h2c://a"]"#, PASSED);
            let front = front_by(settings, Vec::new(), start(), dial as Arc<dyn Dial>);
            let content: &'static str = "x".repeat(content).leak();
            let request = Request::builder().method(method).uri("/").header("host", "shop.example");
            let got = front.send_body(request, content).await;
            assert_eq!((got.status, got.text()), (200, content), "{method}, going away: {goes_away}");
            assert_eq!(refusing.acted.load(Ordering::Relaxed), 1);
        }
    }
}
