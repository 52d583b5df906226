//! State shared by all threads. [`Edge`] lives as long as the process; [`State`] is one generation of settings and
//! everything built for them, swapped whole by a reload.

use std::sync::Arc;

use arc_swap::ArcSwap;
use cache_policy::Moment;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Collapser, Memory, Tiers},
    clock::Clock,
    observe::{
        metrics::{Metrics, RouteMetrics},
        record::Sink,
    },
    request::limit::{Limiter, Limiters},
    response::coding::Coder,
    settings::{Route, Settings},
    upstream::{Commands, Upstream, Upstreams, connect::Dial},
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
    dial: Arc<dyn Dial>,
    commands: Arc<dyn Commands>,
}

/// One generation of settings.
pub struct State {
    pub settings: Settings,
    pub upstreams: Upstreams,
    pub limiters: Limiters,
    /// The routes in the file's order, each with what a request on it needs.
    pub routes: Vec<RouteState>,
}

/// A route with its upstream, limiter and counts, looked up once.
pub struct RouteState {
    pub route: Arc<Route>,
    pub upstream: Arc<Upstream>,
    pub limiter: Option<Arc<Limiter>>,
    pub metrics: Arc<RouteMetrics>,
}

impl AsRef<Route> for RouteState {
    fn as_ref(&self) -> &Route {
        &self.route
    }
}

impl State {
    fn new(settings: Settings, upstreams: Upstreams, limiters: Limiters, metrics: &Metrics) -> Self {
        let route_state = |route: &Arc<Route>| RouteState {
            route: Arc::clone(route),
            upstream: Arc::clone(upstreams.get(&route.upstream.name)),
            limiter: route.limit.as_ref().and_then(|limit| limiters.get(limit)).cloned(),
            metrics: metrics.for_route(&route.name),
        };
        let routes = settings.routes.iter().map(route_state).collect();
        Self { settings, upstreams, limiters, routes }
    }

    /// What is wrong now with the servers behind the route of this name, in words.
    pub fn troubles(&self, route: &str, now: Moment) -> Vec<String> {
        let of = self.routes.iter().find(|state| *state.route.name == *route);
        of.map(|state| state.upstream.troubles(now)).unwrap_or_default()
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
        dial: Arc<dyn Dial>,
        commands: Arc<dyn Commands>,
    ) -> std::io::Result<Arc<Self>> {
        let (clock, metrics) = (sink.clock.clone(), Arc::clone(&sink.metrics));
        let (budget, variants) = (settings.cache.memory, settings.cache.variants);
        let memory = Arc::new(Memory::new(budget, variants, Arc::new(tiers)));
        let coder = Coder::start(Arc::clone(&memory))?;
        let upstreams = Upstreams::new(&settings.upstreams, None, &metrics, &dial, &commands);
        let limiters = Limiters::new(&settings);
        let state = State::new(settings, upstreams, limiters, &metrics);
        Ok(Arc::new(Self {
            clock,
            state: ArcSwap::from_pointee(state),
            memory,
            collapser: Arc::default(),
            coder,
            metrics,
            sink,
            drain: CancellationToken::new(),
            dial,
            commands,
        }))
    }

    /// Applies new settings to every request from now on. Requests under way keep theirs.
    pub fn reload(&self, settings: Settings) {
        let old = self.state.load_full();
        self.sink.log.set_format(settings.log.format);
        let (previous, metrics) = (Some(&old.upstreams), &self.metrics);
        let upstreams = Upstreams::new(&settings.upstreams, previous, metrics, &self.dial, &self.commands);
        let limiters = old.limiters.for_reload(&settings);
        self.state.store(Arc::new(State::new(settings, upstreams, limiters, metrics)));
    }
}
