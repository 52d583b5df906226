//! Where misses go: pools of servers, one connection pool a server.
//!
//! [`outbound`] writes the request's head; [`choose`] picks a server by what [`health`] remembers of each; [`pool`] keeps its
//! connections; [`connect`] dials; [`retry`] says what may be tried again elsewhere; [`supervise`] runs the programs that are servers themselves. [`Upstream::send`] is the whole of it for a caller.

pub mod choose;
pub mod connect;
pub mod health;
pub mod idle;
pub mod outbound;
pub mod pool;
pub mod request_body;
pub mod response_body;
pub mod retry;
mod sender;
pub mod supervise;

use std::{
    collections::{BTreeMap, HashMap},
    error::Error as _,
    net::SocketAddr,
    sync::Arc,
};

use cache_policy::Moment;
use http::{HeaderMap, Request};
use parking_lot::Mutex;

pub use request_body::RequestBody;
pub use response_body::{Answer, ResponseBody};

use crate::{
    clock::Clock,
    message::failure::{Failure, Fault},
    observe::metrics::{Metrics, UpstreamMetrics},
    settings::{self, Server},
};
use choose::{Chance, Standing};
use connect::Dial;
use health::{Blame, Health, Repeat, Trial};
use pool::{Endpoint, Pool, Unsent};
use retry::{Again, Budget};

/// Where the ready instances of a command listen, asked anew for each request.
pub trait Commands: Send + Sync + 'static {
    /// Addresses of the ready instances; empty when none is.
    fn ready(&self, command: &str) -> Arc<[SocketAddr]>;
}

/// All upstreams by name. A reload keeps those that have not changed, with their connections; of others what is remembered of
/// the servers that stay.
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
            let old = previous.and_then(|previous| previous.by_name.get(name));
            let kept = old.filter(|old| *old.settings == **settings);
            let upstream = kept.cloned().unwrap_or_else(|| {
                Arc::new(Upstream {
                    settings: Arc::clone(settings),
                    dial: Arc::clone(dial),
                    commands: Arc::clone(commands),
                    pools: Mutex::new(old.map(|old| old.pools_by(settings)).unwrap_or_default()),
                    chance: Chance::default(),
                    budget: Budget::default(),
                    metrics: metrics.for_upstream(name),
                })
            });
            (Arc::clone(name), upstream)
        });
        let by_name = by_name.collect();
        let gone = previous.iter().flat_map(|previous| &previous.by_name);
        for (_, upstream) in gone.filter(|(name, _)| !wanted.contains_key(*name)) {
            upstream.pools.lock().values().for_each(|pool| pool.health().forget());
        }
        Self { by_name }
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
    chance: Chance,
    budget: Budget,
    metrics: Arc<UpstreamMetrics>,
}

impl Upstream {
    /// Sends a request to one of the servers and waits for the response's head.
    ///
    /// A request that was never sent is tried on another server or connection; one that a server may have seen is
    /// repeated only if its method is idempotent and it has no content: on a connection in place of one that had been idle
    /// (RFC 9112 §9.3.1), or on another server within a budget ([`retry`]).
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

    /// What is wrong with its servers now, in words.
    pub fn troubles(&self, now: Moment) -> Vec<String> {
        let pools = self.pools.lock();
        let mut troubles: Vec<_> = pools.values().filter_map(|pool| pool.health().trouble(now)).collect();
        troubles.sort();
        troubles
    }

    async fn try_servers(&self, request: Request<RequestBody>, clock: &Clock) -> Result<Answer, Failure> {
        let servers = self.pools();
        let several = servers.len() > 1;
        if several {
            self.budget.earn(self.settings.retries);
        }
        let again = Again::of(&request);
        let repeat = if several && again.is_some() { Repeat::Safe } else { Repeat::Never };
        let mut tried = vec![false; servers.len()];
        let mut outcome = Err(Failure::NoServer);
        let mut retries = Vec::new();
        let mut next = Some(request);
        while let Some(request) = next {
            let asked = (request.headers(), repeat);
            let Some((index, trial)) = self.choose(&servers, &tried, asked, clock.now()) else { break };
            let server = &servers[index];
            tried[index] = true;
            let began = clock.now();
            let sent = server.send(request, again.as_ref(), self.dial.as_ref(), clock).await;
            self.judge(server, &sent, began, clock.now());
            drop(trial);
            let (failure, unsent) = match sent {
                Ok(answer) if !self.settings.fails(answer.status()) => return Ok(answer),
                Ok(answer) => {
                    outcome = Ok(answer);
                    (None, None)
                }
                Err(Unsent { failure, request }) => (Some(failure), request.map(|request| *request)),
            };
            let may_repeat = failure.as_ref().is_none_or(|failure| failure.fault() == Fault::BadAnswer);
            next = match (unsent, &again) {
                (None, Some(again))
                    if may_repeat && tried.contains(&false) && retries.len() < retry::MOST =>
                {
                    self.budget.spend(self.settings.retries).map(|retrying| {
                        self.metrics.retried();
                        retries.push(retrying);
                        again.request()
                    })
                }
                (unsent, _) => unsent.filter(|_| tried.contains(&false)),
            };
            if let Some(failure) = failure {
                self.tell(server, &failure, next.as_ref());
                // An error that a server answered with is more than no answer.
                outcome = outcome.or(Err(failure));
            }
        }
        if let Err(failure @ Failure::NoServer) = &outcome {
            let (upstream, phase) = (&*self.settings.name, failure.phase());
            tracing::warn!(upstream, phase, "{failure}");
        }
        outcome
    }

    /// The server for a request, and the trial that it is, if the server has to prove itself.
    fn choose(
        &self,
        servers: &[Arc<Pool>],
        tried: &[bool],
        (headers, repeat): (&HeaderMap, Repeat),
        now: Moment,
    ) -> Option<(usize, Option<Trial>)> {
        let state = |(pool, tried): (&Arc<Pool>, &bool)| choose::Candidate {
            tried: *tried,
            ..pool.candidate(headers, repeat, now)
        };
        let mut candidates: Vec<_> = servers.iter().zip(tried).map(state).collect();
        loop {
            let index = choose::choose(&candidates, self.chance.next())?;
            if candidates[index].standing != Standing::Due {
                return Some((index, None));
            }
            if let Some(trial) = servers[index].health().begin_trial(now) {
                return Some((index, Some(trial)));
            }
            // Another request has just begun it.
            candidates[index].standing = Standing::Aside;
        }
    }

    /// Remembers how a server dealt with a request that was sent at `began`.
    fn judge(&self, server: &Pool, sent: &Result<Answer, Unsent>, began: Moment, now: Moment) {
        let (health, rules) = (server.health(), server.rules());
        match sent {
            Ok(answer) if self.settings.fails(answer.status()) => {
                health.failed(Blame::Answer("failing-status"), rules, now);
            }
            Ok(answer) => {
                health.answered(began, rules);
                if answer.status().is_server_error() {
                    health.erred(now);
                }
            }
            Err(Unsent { failure, .. }) => match failure.fault() {
                Fault::NotTheServers => {}
                Fault::Unreachable => health.failed(Blame::Unreachable(failure.detail()), rules, now),
                Fault::BadAnswer => health.failed(Blame::Answer(failure.detail()), rules, now),
            },
        }
    }

    /// Tells the operator of a failure, and of the cause that is not for clients.
    fn tell(&self, server: &Pool, failure: &Failure, next: Option<&Request<RequestBody>>) {
        let (upstream, server) = (&*self.settings.name, &**server.health().server());
        let (phase, reason) = (failure.phase(), failure.detail());
        let cause = failure.source().map(ToString::to_string).unwrap_or_default();
        match next {
            Some(_) => {
                tracing::info!(upstream, server, phase, reason, cause, "{failure}; another server is tried");
            }
            None => tracing::warn!(upstream, server, phase, reason, cause, "{failure}"),
        }
    }

    /// The pools of the present servers.
    fn pools(&self) -> Vec<Arc<Pool>> {
        let endpoints = self.endpoints();
        let mut pools = self.pools.lock();
        endpoints
            .into_iter()
            .map(|endpoint| {
                let pool = pools.entry(endpoint.clone()).or_insert_with(|| {
                    let server = endpoint.to_string().into();
                    let health = Health::new(&self.settings.name, server, &self.metrics);
                    Pool::new(endpoint, &self.settings, health)
                });
                Arc::clone(pool)
            })
            .collect()
    }

    /// The same servers by other settings, without connections, and with what is remembered of each.
    fn pools_by(&self, settings: &Arc<settings::Upstream>) -> HashMap<Endpoint, Arc<Pool>> {
        let pools = self.pools.lock();
        let renewed = pools.iter().map(|(endpoint, pool)| {
            let health = Arc::clone(pool.health());
            (endpoint.clone(), Pool::new(endpoint.clone(), settings, health))
        });
        renewed.collect()
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
            let stays = current.contains(endpoint);
            if !stays {
                pool.health().forget();
            }
            stays
        });
    }
}
