//! How many connections the system's limit on open files permits, so that the operator and upstreams still get theirs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::{Bounds, Settings};

/// A connection needs a file descriptor: raises the limit as far as the system permits.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays at {:?}", limit.current);
    }
}

/// The limit once it is raised; `None` for none.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// How many of `bounds.connections` may be taken within a limit on open files.
pub fn connections_within(settings: &Settings, limit: Option<u64>) -> usize {
    let wanted = settings.bounds.connections;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let left = limit.saturating_sub(reserve(settings, limit));
    wanted.min(left.max(1))
}

/// What the operator is told where that is fewer than the settings ask for; where they say nothing, fewer than half.
pub fn shortage(settings: &Settings, limit: Option<u64>) -> Option<String> {
    let (wanted, taken) = (settings.bounds.connections, connections_within(settings, limit));
    let bears = if wanted == Bounds::default().connections { wanted / 2 } else { wanted };
    let limit = limit.filter(|_| taken < bears)?;
    let enough = wanted + reserve(settings, usize::MAX);
    Some(format!(
        "the limit on open files, {limit}, leaves room for {taken} of the {wanted} connections of bounds.connections: \
         raise it to {enough} (LimitNOFILE, ulimit -n), or write bounds.connections = {taken}"
    ))
}

/// Descriptors for all but clients' connections. Upstreams get no more than half of what there is.
fn reserve(settings: &Settings, limit: usize) -> usize {
    let each_listener = 2 * settings.threads;
    let upstreams = settings.upstreams.values().map(|upstream| {
        upstream.servers.len().saturating_mul(upstream.connections.saturating_add(upstream.tunnels))
    });
    let upstreams = upstreams.fold(0, usize::saturating_add);
    (OWN + settings.listeners.len() * each_listener).saturating_add(upstreams.min(limit / 2))
}

/// The operator's connections, and what the edge itself keeps open: runtimes, logs, commands' pipes.
const OWN: usize = 64 + 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn settings(connections: usize) -> Settings {
        let text = format!(
            "threads = 2\nlisten = [{{ address = \"[::]:8080\" }}]\nbounds = {{ connections = {connections} }}\n\
             routes = [{{ name = \"all\", path = \"/*\", upstream = \"a\" }}]\n\
             upstreams = {{ a = {{ servers = [\"http://a\"], connections = 100, tunnels = 100 }} }}"
        );
        parse(&text, "test").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_the_limit_does_not_permit_is_not_taken_and_told() {
        let untold = settings(20_000);
        assert!(shortage(&untold, Some(20_331)).is_none() && shortage(&untold, Some(1024)).is_some());
        let settings = settings(20_001);
        for (limit, taken) in
            [(None, 20_001), (Some(20_333), 20_001), (Some(20_332), 20_000), (Some(1024), 692)]
        {
            assert_eq!(connections_within(&settings, limit), taken, "{limit:?}");
            assert_eq!(shortage(&settings, limit).is_some(), taken < 20_001, "{limit:?}");
        }
        // Upstreams have half of what there is.
        assert_eq!(connections_within(&settings, Some(300)), 300 - 132 - 150);
        assert_eq!(connections_within(&settings, Some(10)), 1);
        let told = shortage(&settings, Some(1024)).unwrap();
        assert!(told.contains("692 of the 20001") && told.contains("raise it to 20333"), "{told}");
    }
}
