//! Where misses go: pools of servers, one connection pool a server.
//!
//! [`outbound`] writes the request's head; [`choose`] picks a server; [`pool`] keeps its connections; [`connect`] dials;
//! [`supervise`] runs the programs that are servers themselves. [`Upstream::send`] is the whole of it for a caller.

pub mod choose;
pub mod connect;
pub mod idle;
pub mod outbound;
pub mod pool;
pub mod request_body;
pub mod response_body;
pub mod supervise;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use cache_policy::Moment;
use http::Request;
use parking_lot::Mutex;

pub use request_body::RequestBody;
pub use response_body::{Answer, ResponseBody};

use crate::{
    clock::Clock,
    message::failure::Failure,
    observe::metrics::{Metrics, UpstreamMetrics},
    settings::{self, Server},
};
use connect::Dial;
use pool::{Endpoint, Pool};

/// Where the ready instances of a command listen, asked anew for each request.
pub trait Commands: Send + Sync + 'static {
    /// Addresses of the ready instances; empty when none is.
    fn ready(&self, command: &str) -> Arc<[SocketAddr]>;
}

/// All upstreams by name. A reload keeps those that have not changed, with their connections.
pub struct Upstreams {
    by_name: BTreeMap<Arc<str>, Arc<Upstream>>,
}

impl Upstreams {
    /// The upstreams of new settings; those that are equal to one of `previous` are taken over.
    pub fn new(
        wanted: &BTreeMap<Arc<str>, Arc<settings::Upstream>>,
        previous: Option<&Self>,
        metrics: &Metrics,
        dial: &Arc<dyn Dial>,
        commands: &Arc<dyn Commands>,
    ) -> Self {
        let by_name = wanted.iter().map(|(name, settings)| {
            let kept = previous
                .and_then(|previous| previous.by_name.get(name))
                .filter(|old| *old.settings == **settings);
            let upstream = kept.cloned().unwrap_or_else(|| {
                Arc::new(Upstream {
                    settings: Arc::clone(settings),
                    dial: Arc::clone(dial),
                    commands: Arc::clone(commands),
                    pools: Mutex::default(),
                    turn: choose::Turn::default(),
                    metrics: metrics.for_upstream(name),
                })
            });
            (Arc::clone(name), upstream)
        });
        Self { by_name: by_name.collect() }
    }

    /// The upstream of this name; settings have been checked to name only upstreams that exist.
    pub fn get(&self, name: &str) -> &Arc<Upstream> {
        self.by_name.get(name).expect("routes name only upstreams of the same settings")
    }

    /// Closes idle connections that have been kept long enough, and forgets servers that are gone.
    pub fn sweep(&self, now: Moment) {
        for upstream in self.by_name.values() {
            upstream.sweep(now);
        }
    }
}

/// One pool of servers.
pub struct Upstream {
    settings: Arc<settings::Upstream>,
    dial: Arc<dyn Dial>,
    commands: Arc<dyn Commands>,
    pools: Mutex<HashMap<Endpoint, Arc<Pool>>>,
    turn: choose::Turn,
    metrics: Arc<UpstreamMetrics>,
}

impl Upstream {
    /// Sends a request to one of the servers and waits for the response's head.
    ///
    /// A request that was never sent is tried on another server or connection; one that a server may have seen is
    /// repeated only if its method is idempotent, it has no body, and it was sent on a connection that had been idle
    /// (RFC 9112 §9.3.1).
    ///
    /// # Errors
    /// [`Failure`]. Dropping the future closes the connection in use.
    pub async fn send(&self, request: Request<RequestBody>, clock: &Clock) -> Result<Answer, Failure> {
        let sent = clock.now();
        let answer = self.try_servers(request, clock).await;
        match &answer {
            Ok(_) => self.metrics.answered(clock.now().since(sent)),
            Err(failure) => self.metrics.failed(failure.detail()),
        }
        answer
    }

    /// Counts the outcome of a body that broke off, in one word.
    pub fn continued(&self, outcome: &'static str) {
        self.metrics.continued(outcome);
    }

    async fn try_servers(&self, mut request: Request<RequestBody>, clock: &Clock) -> Result<Answer, Failure> {
        let pools = self.pools();
        let mut failure = Failure::NoServer;
        let mut tried = vec![false; pools.len()];
        while let Some(index) = self.choose(&pools, &tried, clock.now()) {
            let pool = &pools[index];
            match pool.send(request, &self.settings, self.dial.as_ref(), clock).await {
                Ok(answer) => {
                    pool.health().succeeded();
                    return Ok(answer);
                }
                Err(pool::Unsent { failure: why, request: back }) => {
                    if why.blames_server() {
                        pool.health().failed(clock.now());
                    }
                    failure = why;
                    match back {
                        Some(back) => request = *back,
                        None => return Err(failure),
                    }
                }
            }
            tried[index] = true;
        }
        Err(failure)
    }

    fn choose(&self, pools: &[Arc<Pool>], tried: &[bool], now: Moment) -> Option<usize> {
        let states: Vec<choose::Candidate> = pools
            .iter()
            .zip(tried)
            .map(|(pool, tried)| choose::Candidate {
                tried: *tried,
                rests: pool.health().rests(now),
                busy: pool.busy(),
            })
            .collect();
        choose::choose(&states, self.turn.next())
    }

    /// The pools of the present servers.
    fn pools(&self) -> Vec<Arc<Pool>> {
        let endpoints = self.endpoints();
        let mut pools = self.pools.lock();
        endpoints
            .into_iter()
            .map(|endpoint| {
                let pool =
                    pools.entry(endpoint.clone()).or_insert_with(|| Pool::new(endpoint, &self.settings));
                Arc::clone(pool)
            })
            .collect()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let mut endpoints = Vec::with_capacity(self.settings.servers.len());
        for server in &self.settings.servers {
            match server {
                Server::Http { host, port } => {
                    endpoints.push(Endpoint { host: Arc::clone(host), port: *port });
                }
                Server::Command(name) => {
                    endpoints.extend(self.commands.ready(name).iter().map(|address| Endpoint {
                        host: address.ip().to_string().into(),
                        port: address.port(),
                    }));
                }
            }
        }
        endpoints
    }

    fn sweep(&self, now: Moment) {
        let current = self.endpoints();
        self.pools.lock().retain(|endpoint, pool| {
            pool.sweep(now);
            current.contains(endpoint)
        });
    }
}
