//! What all threads share. [`Edge`] lives as long as the process; [`State`] is one generation of settings and what was
//! built for them, swapped whole by a reload.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    cache::{Collapser, Memory},
    clock::Clock,
    compress::Coder,
    limit::Limiters,
    metrics::{Metrics, RouteMetrics},
    record::Sink,
    settings::Settings,
    upstream::{Commands, Upstreams, connect::Dial},
};

/// One edge.
pub struct Edge {
    /// The only clock.
    pub clock: Clock,
    /// The current generation.
    pub state: ArcSwap<State>,
    /// The memory tier.
    pub memory: Arc<Memory>,
    /// Fetches under way.
    pub collapser: Arc<Collapser>,
    /// Codes stored bodies.
    pub coder: Coder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where records end.
    pub sink: Arc<Sink>,
    dial: Arc<dyn Dial>,
    commands: Arc<dyn Commands>,
}

/// One generation of settings.
pub struct State {
    /// As resolved.
    pub settings: Settings,
    /// Connection pools by upstream.
    pub upstreams: Upstreams,
    /// Limiters by limit.
    pub limiters: Limiters,
    /// Metrics by route.
    pub routes: HashMap<Arc<str>, Arc<RouteMetrics>>,
}

impl Edge {
    /// An edge with an empty cache.
    ///
    /// # Errors
    /// When the system gives no thread for the coder.
    pub fn new(
        settings: Settings,
        clock: Clock,
        metrics: Arc<Metrics>,
        sink: Arc<Sink>,
        dial: Arc<dyn Dial>,
        commands: Arc<dyn Commands>,
    ) -> std::io::Result<Arc<Self>> {
        let memory = Arc::new(Memory::new(settings.cache.memory, settings.cache.variants));
        let coder = Coder::start(Arc::clone(&memory))?;
        let state = State {
            upstreams: Upstreams::new(&settings.upstreams, None, &metrics, &dial, &commands),
            limiters: Limiters::new(&settings),
            routes: route_metrics(&settings, &metrics),
            settings,
        };
        Ok(Arc::new(Self {
            clock,
            state: ArcSwap::from_pointee(state),
            memory,
            collapser: Arc::default(),
            coder,
            metrics,
            sink,
            dial,
            commands,
        }))
    }

    /// Takes new settings into use for every request from now on. Requests under way keep theirs.
    pub fn reload(&self, settings: Settings) {
        let old = self.state.load_full();
        self.sink.log.set_format(settings.log.format);
        self.state.store(Arc::new(State {
            upstreams: Upstreams::new(
                &settings.upstreams,
                Some(&old.upstreams),
                &self.metrics,
                &self.dial,
                &self.commands,
            ),
            limiters: old.limiters.for_reload(&settings),
            routes: route_metrics(&settings, &self.metrics),
            settings,
        }));
    }
}

fn route_metrics(settings: &Settings, metrics: &Metrics) -> HashMap<Arc<str>, Arc<RouteMetrics>> {
    settings.routes.iter().map(|route| (Arc::clone(&route.name), metrics.for_route(&route.name))).collect()
}
