//! What in a file of settings is no fault, and hardly meant: what nothing uses, what everyone could reach, what matches less
//! than it seems to.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    AdminAddress, Location, PathPattern, Route, Settings, UpstreamSettings, Verification,
    error::{Fault, Span},
    file::{Named, WrittenFile, WrittenRoute},
};

/// Where the names and values stand that may give doubts.
pub(super) struct WrittenPlaces {
    limits: BTreeMap<String, Span>,
    commands: BTreeMap<String, Span>,
    upstreams: BTreeMap<String, Span>,
    /// The `response_timeout` of each upstream that writes one.
    response_timeouts: BTreeMap<String, Span>,
    /// The `verify` of each upstream that writes one.
    verifies: BTreeMap<String, Span>,
    admin: Option<Span>,
    /// The `first_byte` of each route, in the file's order.
    first_bytes: Vec<Option<Span>>,
    /// The path of each route, in the file's order.
    paths: Vec<Option<Span>>,
}

impl WrittenPlaces {
    pub(super) fn of(file: &WrittenFile) -> Self {
        fn places<T>(tables: &Named<T>) -> BTreeMap<String, Span> {
            tables.keys().map(|name| (name.get_ref().clone(), name.span())).collect()
        }
        let admin = file.admin.as_ref().and_then(|admin| admin.value.address.as_ref());
        let path = |route: &super::value::Table<WrittenRoute>| {
            route.value.path.as_ref().map(|path| path.span.clone())
        };
        Self {
            limits: places(&file.limits),
            commands: places(&file.commands),
            upstreams: places(&file.upstreams),
            response_timeouts: file
                .upstreams
                .iter()
                .filter_map(|(name, table)| {
                    let written = table.value.response_timeout.as_ref()?;
                    Some((name.get_ref().clone(), written.span.clone()))
                })
                .collect(),
            verifies: file
                .upstreams
                .iter()
                .filter_map(|(name, table)| {
                    let written = table.value.tls.as_ref()?.value.verify.as_ref()?;
                    Some((name.get_ref().clone(), written.span.clone()))
                })
                .collect(),
            admin: admin.map(|address| address.span.clone()),
            first_bytes: file
                .routes
                .iter()
                .map(|route| Some(route.value.timeouts.as_ref()?.value.first_byte.as_ref()?.span.clone()))
                .collect(),
            paths: file.routes.iter().map(path).collect(),
        }
    }
}

/// What an operator should look at again, in settings without a fault.
pub(super) fn doubts(settings: &Settings, names: &WrittenPlaces) -> Vec<Fault> {
    let mut doubts = Vec::new();
    let mut unused = |kind: &str, names: &BTreeMap<String, Span>, used: &dyn Fn(&str) -> bool, help: &str| {
        for (name, span) in names.iter().filter(|(name, _)| !used(name)) {
            doubts.push(doubt(span, &format!("{kind} {name:?} is never used"), help));
        }
    };
    let limited = |name: &str| {
        let mut limits = settings.routes.iter().flat_map(|route| &route.limits);
        limits.any(|limit| *limit.name == *name)
    };
    unused(
        "limit",
        &names.limits,
        &limited,
        "name it in a route: limit = .., or take it out: it limits nobody",
    );
    let routed = |name: &str| {
        let is = |upstream: &UpstreamSettings| *upstream.name == *name;
        let canary = |route: &Route| route.canary.as_ref().is_some_and(|canary| is(&canary.upstream));
        settings
            .routes
            .iter()
            .any(|route| route.action.upstream().is_some_and(|upstream| is(upstream)) || canary(route))
    };
    unused("upstream", &names.upstreams, &routed, "name it in a route: upstream = .., or take it out");
    let serves = |name: &str| {
        let mut servers = settings.upstreams.values().flat_map(|upstream| &upstream.servers);
        servers.any(|server| matches!(&server.location, Location::Command(command) if **command == *name))
    };
    let help = "it is started all the same; an upstream sends requests to it with servers = [\"command:..\"]";
    unused("command", &names.commands, &serves, help);
    if let (Some(admin), Some(span)) = (&settings.admin, &names.admin)
        && let AdminAddress::Network(address) = admin.address
        && !stays_inside(address.ip())
    {
        let message = format!("the admin address {address} may be reached from other machines");
        let help = "whoever reaches it may read metrics and more: write \"127.0.0.1:9900\" or \"unix:..\", or let nobody \
                    but the operator through";
        doubts.push(doubt(span, &message, help));
    }
    let total = settings.timeouts.total;
    for (name, span) in &names.response_timeouts {
        let patient = |upstream: &UpstreamSettings| {
            let leads_here =
                |route: &&Arc<Route>| route.action.upstream().is_some_and(|it| it.name == upstream.name);
            let mut routes = settings.routes.iter().filter(leads_here);
            routes.any(|route| route.times.total >= upstream.response_timeout)
        };
        if settings
            .upstreams
            .get(&**name)
            .is_some_and(|upstream| upstream.response_timeout > total && !patient(upstream))
        {
            let message = format!("no request without content waits so long: timeouts.total is {total:.0?}");
            doubts.push(doubt(span, &message, "raise total in [timeouts], or write no more than it here"));
        }
    }
    for (route, span) in settings.routes.iter().zip(&names.first_bytes) {
        let total = route.times.total;
        if let Some(span) = span.as_ref().filter(|_| route.times.first_byte > total) {
            let message =
                format!("no request without content waits so long: total of this route is {total:.0?}");
            doubts.push(doubt(
                span,
                &message,
                "write a total beside it that is as long, or no more than it here",
            ));
        }
    }
    for (name, span) in &names.verifies {
        let off = |upstream: &Arc<UpstreamSettings>| upstream.tls.verification == Verification::Off;
        if settings.upstreams.get(&**name).is_some_and(off) {
            let message = "whoever answers at the address of a server is believed to be it";
            doubts.push(doubt(span, message, "take it out, and name the server's authority: ca = \"..\""));
        }
    }
    for (route, span) in settings.routes.iter().zip(&names.paths) {
        let below = |other: &PathPattern| matches!(other, PathPattern::Prefix(prefix) if **prefix == *"/");
        let alone = !settings.routes.iter().any(|other| other.paths.iter().any(below));
        if let ([PathPattern::Exact(path)], Some(span)) = (&route.paths[..], span)
            && &**path == "/"
            && alone
        {
            let message = "this matches the one path / and nothing below it";
            doubts.push(doubt(span, message, "write \"/*\" for every path"));
        }
    }
    doubts
}

/// Whether only this machine can reach it.
fn stays_inside(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn doubt(span: &Span, message: &str, help: &str) -> Fault {
    Fault { span: span.clone(), message: format!("warning: {message}"), help: Some(help.to_owned()) }
}
