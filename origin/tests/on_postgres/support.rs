//! A server and a database for one test, the router on it, and the `origin` binary as a process.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, request};
use http_body_util::BodyExt as _;
use origin::{
    activity_log::ActivityLog,
    database::{self, Database},
    observe::Metrics,
    passwords::Passwords,
    replicas::Reads,
    seed, server,
    settings::DatabaseSettings,
    shop::Shop,
    traces::Tracer,
};
use private_postgres::PrivatePostgres;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};
use tower::ServiceExt as _;

/// The binary under test.
pub(crate) const ORIGIN: &str = env!("CARGO_BIN_EXE_origin");
/// Far above anything that happens: a test that hangs should say where.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that other users may pass through, whatever the umask.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder's mode");
    folder
}

/// A private server with a migrated database; stopped and removed when dropped.
pub(crate) struct TestServer {
    pub(crate) private: Option<PrivatePostgres>,
    pub(crate) options: PgConnectOptions,
    _folder: TempDir,
}

impl TestServer {
    pub(crate) async fn start(products: u32) -> Self {
        // What the origin would have logged is what explains a failure; a second test in this process has it already.
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("warn").try_init();
        let folder = folder();
        let data = folder.path().to_owned();
        let private = tokio::task::spawn_blocking(move || PrivatePostgres::start(&data, Path::new(ORIGIN)))
            .await
            .expect("no panic")
            .unwrap_or_else(|error| panic!("{error}"));
        let options = private.connect_options();
        let server = Self { private: Some(private), options, _folder: folder };
        let mut connection = server.connect().await;
        database::migrate(&mut connection).await.expect("the migrations apply");
        seed::seed(&mut connection, products).await.expect("the demo catalogue");
        server
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        database::connect(&self.options).await.expect("the server takes connections")
    }

    pub(crate) fn router(&self) -> Router {
        self.router_with(&DatabaseSettings::default())
    }

    pub(crate) fn router_with(&self, settings: &DatabaseSettings) -> Router {
        let metrics = Arc::new(Metrics::new(settings.slow_query));
        let database = Database::new(self.options.clone(), settings, Arc::clone(&metrics));
        // Nobody writes them down: they wait in their queue.
        let (activity, _writer) = ActivityLog::new(Arc::clone(&metrics));
        let reads = Reads::new(database.clone(), Vec::new(), Duration::from_secs(1), None);
        let (passwords, proxies) = (Passwords::new(Arc::clone(&metrics)), Arc::default());
        let shop = Shop { database, reads, metrics, tracer: Tracer::default(), activity, passwords, proxies };
        server::router(shop, Duration::from_secs(10))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(private) = self.private.take() {
            let elsewhere = private.folder().to_owned();
            drop(private);
            // Where the temporary folder could not be reached by PostgreSQL's user.
            let _ = fs::remove_dir_all(elsewhere);
        }
    }
}

/// An answer, read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("a router does not fail");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

pub(crate) async fn get(router: &Router, uri: &str) -> Answer {
    send(router, Request::get(uri).body(Body::empty()).expect("a valid request")).await
}

pub(crate) async fn get_if_none_match(router: &Router, uri: &str, tag: &str) -> Answer {
    send(router, Request::get(uri).header("if-none-match", tag).body(Body::empty()).expect("a valid request"))
        .await
}

/// A request with a body of JSON.
pub(crate) fn json(method: Method, uri: &str, body: &Value) -> request::Builder {
    let mut request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    request.extensions_mut().expect("a valid request").insert(body.clone());
    request
}

/// Sends what [`json`] has begun.
pub(crate) async fn send_json(router: &Router, request: request::Builder) -> Answer {
    let mut request = request.body(Body::empty()).expect("a valid request");
    if let Some(body) = request.extensions_mut().remove::<Value>() {
        *request.body_mut() = Body::from(body.to_string());
    }
    send(router, request).await
}

/// Somebody with an account and a session, as a browser that runs the storefront.
pub(crate) struct Customer {
    pub(crate) router: Router,
    pub(crate) cookie: String,
    pub(crate) id: i64,
}

impl Customer {
    pub(crate) async fn register(router: &Router, email: &str) -> Self {
        let body = serde_json::json!({ "email": email, "password": "correct horse" });
        let answer = send_json(router, json(Method::POST, "/api/users", &body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let id = answer.json()["user"]["id"].as_i64().expect("an id");
        Self { router: router.clone(), cookie: cookie(&answer), id }
    }

    /// One that may change the catalogue.
    pub(crate) async fn administrator(server: &TestServer, router: &Router) -> Self {
        let customer = Self::register(router, "admin@example.org").await;
        let mut connection = server.connect().await;
        assert!(origin::users::promote(&mut connection, "Admin@example.org").await.expect("promoted"));
        customer
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        send(
            &self.router,
            Request::get(uri).header("cookie", &self.cookie).body(Body::empty()).expect("a valid request"),
        )
        .await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &str,
        fields: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut request = json(method, uri, body);
        request = request.header("cookie", &self.cookie).header("x-requested-with", "tests");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        send_json(&self.router, request).await
    }
}

/// The session cookie an answer sets, as a request sends it.
pub(crate) fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().expect("a cookie").to_owned()
}

/// The value of a metric without labels; 0 before its first.
pub(crate) async fn metric(router: &Router, name: &str) -> f64 {
    let text = String::from_utf8(get(router, "/metrics").await.body).expect("metrics are text");
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0.0, |value| value.parse().expect("a number"))
}

/// A running `origin serve`; killed when dropped, and its server with it.
pub(crate) struct Origin {
    pub(crate) child: Child,
    pub(crate) address: String,
    data: PathBuf,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Origin {
    pub(crate) fn command(data: &Path) -> Command {
        let mut command = Command::new(ORIGIN);
        command.env("PORT", "0").env_remove("DATABASE_URL").arg("--data").arg(data);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts it and waits for the line that names its address.
    pub(crate) async fn serve(data: &Path) -> Self {
        let mut child =
            Self::command(data).arg("serve").stderr(Stdio::inherit()).spawn().expect("origin starts");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let line = tokio::time::timeout(PATIENCE, output.next_line())
            .await
            .expect("origin says where it listens in time");
        let line = line.expect("UTF-8").expect("origin listens before its output ends");
        let address =
            line.strip_prefix("origin: listening on http://").expect("the line names an address").to_owned();
        Self { child, address, data: data.to_owned(), _output: output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().expect("not waited for yet").try_into().expect("process ids are small")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("not zero");
        kill_process(pid, signal).expect("origin is there");
    }

    /// The status of a GET, over a connection of its own.
    pub(crate) async fn status(&self, path: &str) -> u16 {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await?;
            Ok::<_, std::io::Error>(response)
        };
        let response =
            tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time").expect("an answer");
        response.split(' ').nth(1).expect("a status line").parse().expect("a status")
    }

    /// Asks until the answer is 200: each attempt waits for a connection to the database by itself.
    pub(crate) async fn recovers(&self) {
        let attempts = async { while self.status("/api/products").await != 200 {} };
        tokio::time::timeout(PATIENCE, attempts).await.expect("origin recovers in time");
    }
}

impl Drop for Origin {
    /// The folder is removed next: its server must have written its last.
    fn drop(&mut self) {
        let Some(pid) = self.child.id() else { return };
        let owned = owner_and_server(&self.data).filter(|(owner, _)| u32::try_from(*owner) == Ok(pid));
        let _ = self.child.start_kill();
        if let Some((_, server)) = owned {
            wait_until_gone(server);
        }
    }
}

/// Resolves when the process has ended.
pub(crate) async fn gone(pid: i32) {
    tokio::task::spawn_blocking(move || wait_until_gone(pid)).await.expect("the process ends in time");
}

fn wait_until_gone(pid: i32) {
    // No such process: it has ended already.
    let Ok(handle) = pidfd_open(Pid::from_raw(pid).expect("not zero"), PidfdFlags::empty()) else { return };
    let patience = Timespec::try_from(PATIENCE).expect("a minute");
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience));
    assert_eq!(ended, Ok(1), "process {pid} has not ended");
}

/// The origin that has started the private server, and the server itself.
pub(crate) fn owner_and_server(data: &Path) -> Option<(i32, i32)> {
    let server = postmaster(data)?;
    let stat = fs::read_to_string(format!("/proc/{server}/stat")).ok()?;
    // `pid (name) state parent …`
    Some((stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?, server))
}

/// The process id of the private server of a data folder, from PostgreSQL's own file.
pub(crate) fn postmaster(data: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster(data).join("postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok()
}

pub(crate) fn cluster(data: &Path) -> PathBuf {
    data.join("postgres/cluster")
}
