//! A steady load: so many requests a second whatever becomes of those before them, bounded in number, every answer checked.
//!
//! Clients that wait for slow answers before they ask again hide how slow those are; here each request has its time, and its
//! latency counts from then. Each is another (`/0`, `/1`, ..) unless a plan says otherwise, so that an answer to somebody else is
//! seen; some are POST. Connections are kept and used in turn; where all are busy, another is opened.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::{
    faulty::{Asked, answer},
    wait,
};

/// What load to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to ask.
    pub address: SocketAddr,
    /// The names of the servers whose answers are right.
    pub servers: Vec<&'static str>,
    /// Requests a second.
    pub per_second: u32,
    /// How many in all.
    pub count: usize,
    /// Connections to begin with.
    pub connections: usize,
    /// Of so many requests one is a POST. 0: none.
    pub post_every: usize,
    /// Of so many requests one comes on a connection of its own, as a newcomer's. 0: none.
    pub newcomer_every: usize,
    /// Whether a GET is asked again that a kept connection was closed upon, as browsers do (RFC 9112 §9.3.1): a server may close
    /// what is idle at any moment.
    pub repeats: bool,
    /// What each request is for.
    pub target: fn(usize) -> String,
    /// The client's address.
    pub from: IpAddr,
}

impl Plan {
    /// So many requests a second of these servers, so many in all, all GETs and each for something else, over one connection.
    #[must_use]
    pub fn new(address: SocketAddr, servers: Vec<&'static str>, per_second: u32, count: usize) -> Self {
        Self {
            address,
            servers,
            per_second,
            count,
            connections: 1,
            post_every: 0,
            newcomer_every: 0,
            repeats: false,
            target: |number| format!("/{number}"),
            from: Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// A load that is being made by a thread of its own.
#[derive(Debug)]
pub struct Steady {
    due: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Outcome>>,
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request.
    pub asked: Asked,
    /// From the moment at which it was due to the end of its answer.
    pub latency: Duration,
    /// What came.
    pub verdict: Verdict,
}

/// What came in answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The right answer, whole.
    Right,
    /// A whole answer, but to another request, or nobody's.
    Wrong(String),
    /// None, an error, or part of one.
    Failed(String),
}

impl Steady {
    /// Starts it.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let due = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&due);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(make(&Arc::new(plan), &counted))
        });
        Self { due, thread }
    }

    /// Waits until so many requests have been due.
    ///
    /// # Panics
    /// When the load never makes so many.
    #[track_caller]
    pub fn reaches(&self, count: usize) {
        wait::until(&format!("{count} requests were sent"), || (self.due() >= count).then_some(()));
    }

    /// How many requests have been due.
    #[must_use]
    pub fn due(&self) -> usize {
        self.due.load(Ordering::Relaxed)
    }

    /// Waits for its end: what became of each request, in their order.
    ///
    /// # Panics
    /// When its thread did.
    #[must_use]
    pub fn finish(self) -> Vec<Outcome> {
        self.thread.join().expect("the load's thread does not panic")
    }
}

type Connection = http1::SendRequest<Full<Bytes>>;

/// How long a client has patience with one request.
const PATIENCE: Duration = Duration::from_secs(15);

async fn make(plan: &Arc<Plan>, due: &AtomicUsize) -> Vec<Outcome> {
    let idle = Arc::new(Mutex::new(VecDeque::new()));
    for _ in 0..plan.connections {
        // Where nobody listens yet, the requests will say so.
        let Ok(connection) = connect(plan).await else { break };
        lock(&idle).push_back(connection);
    }
    let mut requests = JoinSet::new();
    let start = wait::now();
    for number in 0..plan.count {
        let at = start + Duration::from_secs(number as u64) / plan.per_second;
        sleep_until(at.into()).await;
        due.store(number + 1, Ordering::Relaxed);
        let (plan, idle) = (Arc::clone(plan), Arc::clone(&idle));
        requests.spawn(async move {
            let asked = request(&plan, number);
            let kept = if is_nth(number, plan.newcomer_every) { None } else { Some(&*idle) };
            let verdict = match timeout(PATIENCE, ask(&plan, kept, &asked)).await {
                Ok(verdict) => verdict,
                Err(_) => Verdict::Failed("no end of it in time".to_owned()),
            };
            (number, Outcome { asked, latency: since(at), verdict })
        });
    }
    let mut outcomes = requests.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn since(at: Instant) -> Duration {
    wait::now().saturating_duration_since(at)
}

fn request(plan: &Plan, number: usize) -> Asked {
    let is_post = is_nth(number, plan.post_every);
    let (method, content) =
        if is_post { ("POST", format!("order {number}")) } else { ("GET", String::new()) };
    Asked { method: method.to_owned(), target: (plan.target)(number), content }
}

/// Whether this one is the one of so many. 0: none is.
fn is_nth(number: usize, every: usize) -> bool {
    every > 0 && number % every == every - 1
}

/// Asks on one of the kept connections, or on a new one, which is kept where there is a place for it.
async fn ask(plan: &Plan, kept: Option<&Mutex<VecDeque<Connection>>>, asked: &Asked) -> Verdict {
    let mut may_repeat = plan.repeats && asked.method == "GET";
    loop {
        let known = kept.and_then(take);
        let repeats = may_repeat && known.is_some();
        let mut connection = match known {
            Some(connection) => connection,
            None => match connect(plan).await {
                Ok(connection) => connection,
                Err(error) => return Verdict::Failed(error),
            },
        };
        let mut request = Request::new(Full::from(asked.content.clone()));
        *request.method_mut() = asked.method.parse().expect("the load asks by known methods");
        *request.uri_mut() = asked.target.parse().expect("the load asks for plain paths");
        request.headers_mut().insert(header::HOST, "shop.test".parse().expect("a plain host"));
        let response = match connection.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                // It had been closed before the request was written: nothing has happened.
                Some(_) => continue,
                None if repeats => {
                    may_repeat = false;
                    continue;
                }
                None => return Verdict::Failed(described(error.error())),
            },
        };
        let status = response.status();
        let verdict = match response.into_body().collect().await {
            Err(error) => return Verdict::Failed(described(&error)),
            Ok(_) if status != StatusCode::OK => Verdict::Failed(status.as_str().to_owned()),
            Ok(body) => judge(plan, asked, &body.to_bytes()),
        };
        if let Some(kept) = kept {
            lock(kept).push_back(connection);
        }
        return verdict;
    }
}

/// Whether this is what one of the servers answers to this request.
fn judge(plan: &Plan, asked: &Asked, body: &[u8]) -> Verdict {
    if plan.servers.iter().any(|server| answer(server, asked).as_bytes() == body) {
        return Verdict::Right;
    }
    let begin = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    Verdict::Wrong(format!("{} bytes, {begin:?}", body.len()))
}

/// A kept connection that is not known to be closed.
fn take(idle: &Mutex<VecDeque<Connection>>) -> Option<Connection> {
    let mut idle = lock(idle);
    // One that still ends its last answer is not taken; it is not asked about again before its turn.
    for _ in 0..idle.len() {
        let connection = idle.pop_front()?;
        if connection.is_ready() {
            return Some(connection);
        }
        if !connection.is_closed() {
            idle.push_back(connection);
        }
    }
    None
}

async fn connect(plan: &Plan) -> Result<Connection, String> {
    let stream = connect_from(plan.from, plan.address).await.map_err(|error| error.to_string())?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| described(&error))?;
    // Ends with its sender, which goes with the load's runtime at the latest; its errors reach the sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// A connection from one address of this machine to another.
pub(crate) async fn connect_from(from: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(address).await
}

/// An error with what caused it.
fn described(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
