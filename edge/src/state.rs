//! State shared by all threads. [`Edge`] lives as long as the process; [`State`] is one generation of settings and
//! everything built for them, swapped whole by a reload.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use cache_policy::Moment;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Collapser, Memory, Tiers},
    clock::Clock,
    message::{
        byte_budget::ByteBudget, challenges::Challenges, client_budget::ClientBudget,
        client_shares::ClientShares,
    },
    observe::{
        metrics::{Metrics, RouteMetrics},
        record::Sink,
    },
    request::{
        basic_auth::Gatekeeper,
        limit::{Limiter, Limiters},
        maintenance::Closure,
    },
    response::coding::Coder,
    settings::{Route, Settings},
    upstream::{Commands, Reach, Upstream, Upstreams, connect::Dial, tls::TlsByUpstream},
};

pub struct Edge {
    pub clock: Clock,
    pub state: ArcSwap<State>,
    pub memory: Arc<Memory>,
    pub collapser: Arc<Collapser>,
    pub coder: Coder,
    pub metrics: Arc<Metrics>,
    /// The log and metrics where records end.
    pub sink: Arc<Sink>,
    /// Cancelled when the edge stops: finish what is under way, begin nothing.
    pub drain: CancellationToken,
    /// The connections of each client, but for trusted proxies.
    pub connections_by_client: Arc<ClientShares>,
    /// The requests of each client that need an upstream.
    pub requests_by_client: Arc<ClientShares>,
    /// What waits for clients over HTTP/2.
    pub unsent: Arc<ClientBudget>,
    /// Contents of requests that are received before they are sent on, or held to be sent again.
    pub held_content: Arc<ByteBudget>,
    /// What certificate authorities find here, where certificates are had from them.
    pub challenges: OnceLock<Arc<Challenges>>,
    dial: Arc<dyn Dial>,
    commands: Arc<dyn Commands>,
}

/// By what an edge reaches its servers: how it dials, the programs that it runs, and TLS as read for the settings.
pub struct Servers {
    pub dial: Arc<dyn Dial>,
    pub commands: Arc<dyn Commands>,
    pub tls: TlsByUpstream,
}

/// One generation of settings.
pub struct State {
    pub settings: Settings,
    pub upstreams: Upstreams,
    pub limiters: Limiters,
    /// What may close routes, each for as many as it is for.
    pub closures: Vec<Arc<Closure>>,
    /// The routes in the file's order, each with what a request on it needs.
    pub routes: Vec<RouteState>,
}

/// A route with its upstream, limiters and counts, looked up once.
pub struct RouteState {
    pub route: Arc<Route>,
    /// Where its misses go, if it forwards.
    pub upstream: Option<Arc<Upstream>>,
    /// Where something new is tried.
    pub canary: Option<Arc<Upstream>>,
    /// Each of them has to admit a request.
    pub limiters: Vec<Arc<Limiter>>,
    /// Who lets those in who may come, where not everyone may.
    pub gatekeeper: Option<Arc<Gatekeeper>>,
    /// Who admits its requests, where somebody does.
    pub admits: Option<Arc<Upstream>>,
    /// What may close it for a while.
    pub closure: Option<Arc<Closure>>,
    pub metrics: Arc<RouteMetrics>,
    /// Places for requests that need the upstream, where they have a bound.
    pub places: Option<Arc<Semaphore>>,
    /// Those of each client.
    pub client_places: Option<Arc<ClientShares>>,
}

impl AsRef<Route> for RouteState {
    fn as_ref(&self) -> &Route {
        &self.route
    }
}

impl State {
    /// Requests that have places by `old` keep them, where a route's bound stays as it is.
    fn new(
        settings: Settings,
        upstreams: Upstreams,
        limiters: Limiters,
        metrics: &Metrics,
        old: Option<&Self>,
    ) -> Self {
        let places = |route: &Arc<Route>| {
            let bound = route.bounds.requests?;
            let same = |known: &&RouteState| {
                known.route.name == route.name && known.route.bounds.requests == Some(bound)
            };
            let known = old.and_then(|old| old.routes.iter().find(same)?.places.clone());
            Some(known.unwrap_or_else(|| Arc::new(Semaphore::new(bound))))
        };
        let client_places = |route: &Arc<Route>| {
            let bound = route.bounds.requests_per_client?;
            let same = |known: &&RouteState| known.route.name == route.name;
            let known = old.and_then(|old| old.routes.iter().find(same)?.client_places.clone());
            if let Some(known) = &known {
                known.resize(bound);
            }
            Some(known.unwrap_or_else(|| ClientShares::new(bound)))
        };
        // Who has shown a right password need not do so again after a reload that leaves the users as they are.
        let gatekeeper = |route: &Arc<Route>| {
            let wanted = route.basic_auth.as_ref()?;
            let mut known =
                old.into_iter().flat_map(|old| &old.routes).filter_map(|on| on.gatekeeper.as_ref());
            let same = known.find(|keeper| keeper.settings() == wanted).cloned();
            Some(same.unwrap_or_else(|| Arc::new(Gatekeeper::new(wanted))))
        };
        let mut closures: Vec<Arc<Closure>> = Vec::new();
        let mut closure = |route: &Arc<Route>| {
            let wanted = route.maintenance.as_ref()?;
            let known = closures.iter().chain(old.into_iter().flat_map(|old| &old.closures));
            let same = known.into_iter().find(|closure| closure.settings() == wanted).cloned();
            let closure = same.unwrap_or_else(|| Closure::new(wanted));
            if !closures.iter().any(|known| Arc::ptr_eq(known, &closure)) {
                closures.push(Arc::clone(&closure));
            }
            Some(closure)
        };
        let route_state = |route: &Arc<Route>| RouteState {
            closure: closure(route),
            admits: route.forward_auth.as_ref().map(|auth| Arc::clone(upstreams.get(&auth.upstream.name))),
            gatekeeper: gatekeeper(route),
            places: places(route),
            client_places: client_places(route),
            route: Arc::clone(route),
            upstream: route.action.upstream().map(|upstream| Arc::clone(upstreams.get(&upstream.name))),
            canary: route.canary.as_ref().map(|canary| Arc::clone(upstreams.get(&canary.upstream.name))),
            limiters: route.limits.iter().filter_map(|limit| limiters.get(limit)).cloned().collect(),
            metrics: metrics.for_route(&route.name),
        };
        let routes = settings.routes.iter().map(route_state).collect();
        Self { settings, upstreams, limiters, closures, routes }
    }

    /// What is wrong now with the servers behind the route of this name, in words.
    pub fn troubles(&self, route: &str, now: Moment) -> Vec<String> {
        let of = self.routes.iter().find(|state| *state.route.name == *route);
        let upstreams = of.into_iter().flat_map(|state| [state.upstream.as_ref(), state.canary.as_ref()]);
        upstreams.flatten().flat_map(|upstream| upstream.troubles(now)).collect()
    }
}

impl Edge {
    /// An edge with an empty memory tier in front of these tiers. Its clock and its metrics are the sink's.
    ///
    /// # Errors
    /// When the system gives no thread for the coder.
    pub fn new(
        settings: Settings,
        tiers: Tiers,
        sink: Arc<Sink>,
        servers: Servers,
    ) -> std::io::Result<Arc<Self>> {
        let Servers { dial, commands, tls } = servers;
        let (clock, metrics) = (sink.clock.clone(), Arc::clone(&sink.metrics));
        let (budget, variants) = (settings.cache.memory, settings.cache.variants);
        let memory = Arc::new(Memory::new(budget, variants, Arc::new(tiers)));
        memory.attach_tiers();
        let coder = Coder::start(Arc::clone(&memory))?;
        let upstreams = {
            let (dial, commands, clock) = (Arc::clone(&dial), Arc::clone(&commands), clock.clone());
            let reach = Reach { dial, commands, tls, clock };
            Upstreams::new(&settings.upstreams, None, &metrics, &reach)
        };
        let limiters = Limiters::new(&settings);
        let connections_by_client = ClientShares::new(settings.bounds.connections_per_client);
        let requests_by_client = ClientShares::new(settings.bounds.requests_per_client());
        let unsent = ClientBudget::new(settings.bounds.unsent);
        let held_content = ByteBudget::new(settings.bounds.held_content);
        let state = State::new(settings, upstreams, limiters, &metrics, None);
        Ok(Arc::new(Self {
            clock,
            state: ArcSwap::from_pointee(state),
            memory,
            collapser: Arc::default(),
            coder,
            metrics,
            sink,
            drain: CancellationToken::new(),
            connections_by_client,
            requests_by_client,
            unsent,
            held_content,
            challenges: OnceLock::new(),
            dial,
            commands,
        }))
    }

    /// Applies new settings, and TLS as read for them, to every request from now on. Requests under way keep theirs.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn reload(&self, settings: Settings, tls: TlsByUpstream) {
        let old = self.state.load_full();
        self.memory.resize(settings.cache.memory, settings.cache.variants);
        self.sink.log.set_format(&settings.log);
        self.connections_by_client.resize(settings.bounds.connections_per_client);
        self.requests_by_client.resize(settings.bounds.requests_per_client());
        self.unsent.resize(settings.bounds.unsent);
        self.held_content.resize(settings.bounds.held_content);
        let (previous, metrics) = (Some(&old.upstreams), &self.metrics);
        let (dial, commands) = (Arc::clone(&self.dial), Arc::clone(&self.commands));
        let reach = Reach { dial, commands, tls, clock: self.clock.clone() };
        let upstreams = Upstreams::new(&settings.upstreams, previous, metrics, &reach);
        let limiters = old.limiters.for_reload(&settings);
        let state = State::new(settings, upstreams, limiters, metrics, Some(&old));
        self.state.store(Arc::new(state));
    }
}
