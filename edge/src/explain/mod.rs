//! Why a request is answered as it is: what [`crate::pipeline`] would decide, in words, without answering.
//!
//! Two ways: by a running edge, over its stored responses; or dry, over a given response head. Both select and decide
//! by the code that real requests go through ([`crate::cache::select`], [`crate::cache::held`], `cache-policy`), and
//! change nothing. An explanation is for the operator alone, and still contains no secret: see
//! [`crate::observe::evidence`].

mod dry;
mod live;
mod remedy;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use cache_policy::{Cookies, Meta, Moment, Parts, Reason, Rules, StaleBan, Supply, targeted_field};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    message::{
        hop_by_hop::strip_nominated,
        target::{Scheme, Target},
    },
    observe::evidence,
    request::{
        as_sent::AsSent,
        client::{self, Client},
        inbound, route,
    },
    response::{coding, fields, stated},
    settings::{
        AddressRules, AllowedOrigins, BesideGet, ByteSize, CountedBy, ForwardAuth, Limit,
        MaintenanceSettings, PathSubstitution, Route, RouteAction, SecurityFields, Settings, Sign,
        UpstreamSettings,
    },
};

pub use dry::dry;
pub use live::live;

/// A request to explain.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Absolute URL.
    pub url: String,
    /// Method; GET when it is left out.
    #[serde(default = "get")]
    pub method: String,
    /// Header lines, as name and value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

fn get() -> String {
    Method::GET.to_string()
}

/// What would become of a request, and why. Fields that do not apply are empty.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Explanation {
    pub key: String,
    /// The route it takes.
    pub route: String,
    /// `hit`, `stale`, `fetch`, `pass`, `stated`, `only-if-cached`; dry: `stored` or `not-stored`.
    pub verdict: String,
    /// The reason's token, as in Cache-Status, logs and metrics.
    pub reason: Option<String>,
    /// The reason in a sentence.
    pub meaning: Option<String>,
    /// The header lines that decided, each marked as the request's or the response's.
    pub lines: Vec<String>,
    /// Cache-Status as the client receives it; for a fetch as far as it is known before the upstream answers.
    pub cache_status: Option<String>,
    /// The stored response that was selected.
    pub stored: Option<StoredAs>,
    /// What makes variants, and the request's values of it, one field a line.
    pub variant: Vec<String>,
    /// The stored variants, by their `Vary`, where none of them matches.
    pub variants: Vec<String>,
    /// Age and lifetime, where a response is stored or would be.
    pub freshness: Option<FreshnessReport>,
    /// The fields that the upstream is sent beside the request itself.
    pub asks: Vec<String>,
    /// The last response that was not stored.
    pub refused: Option<NotStoredReport>,
    /// Further facts that an operator may not expect.
    pub notes: Vec<String>,
    /// The tags it can be purged by.
    pub tags: Vec<String>,
    /// What would have made it a hit, or storable.
    pub remedy: Option<String>,
}

/// How a stored response was found, and which of its octets are stored.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StoredAs {
    /// `variant`, `language`, `part` or `query`.
    pub by: String,
    /// The URL it is stored under, where that is another one.
    pub url: Option<String>,
    pub status: u16,
    /// The header lines by which it was found.
    pub lines: Vec<String>,
    /// The octets stored, where they are not all.
    pub parts: Option<StoredParts>,
}

/// Octets of a response; positions as in Content-Range, the last one included.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StoredParts {
    pub held: Vec<String>,
    /// The length of the whole, where it is known.
    pub length: Option<u64>,
    /// The octets that the request asks for, as far as they are known.
    pub wanted: Vec<String>,
    /// The range that the upstream is asked for to complete the answer.
    pub missing: Option<String>,
}

/// A response that was not stored.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct NotStoredReport {
    /// Seconds since it was received.
    pub ago: u64,
    pub status: u16,
    /// The reason's token.
    pub reason: String,
    /// The reason in a sentence.
    pub meaning: String,
    /// The header lines that decided.
    pub lines: Vec<String>,
}

/// The arithmetic of freshness (RFC 9111 §4.2), in seconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FreshnessReport {
    /// Its age when it arrived.
    pub age_at_arrival: u64,
    /// Its age now.
    pub age: u64,
    /// How long it is fresh.
    pub lifetime: u64,
    /// The statement that gives the lifetime.
    pub lifetime_from: String,
    /// The field of that statement, where it is a targeted one.
    pub targeted: Option<String>,
    /// Whether that is limited by the route's `max_ttl`.
    pub at_max_ttl: bool,
    /// Remaining freshness; negative when it is stale.
    pub left: i64,
    /// How long after that it may be served stale while it is validated.
    pub stale_while_revalidate: Option<Window>,
    /// How long after that it may be served stale in place of an error.
    pub stale_if_error: Option<Window>,
    /// How long after that it may be served stale when no answer comes, where no such window is stated.
    pub stale_on_disconnect: Option<Window>,
    /// Why it may never be served stale, in whatever window.
    pub never_stale: Option<String>,
}

/// A stale window.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Window {
    pub seconds: u64,
    /// Who grants it: `response` or `route`.
    pub of: String,
}

impl Window {
    fn of(response: Option<Duration>, route: Option<Duration>) -> Option<Self> {
        let by = |whose: &str, window: Duration| Self { seconds: window.as_secs(), of: whose.to_owned() };
        response.map(|window| by("response", window)).or(route.map(|window| by("route", window)))
    }
}

/// A question that leads to no decision about the cache.
enum Undecided {
    /// It is wrong, for this reason.
    Unclear(String),
    /// No route takes the request.
    Refused(Box<Explanation>),
    /// The settings state the answer.
    Stated(Box<Explanation>),
}

impl From<String> for Undecided {
    fn from(why: String) -> Self {
        Self::Unclear(why)
    }
}

impl Undecided {
    fn told(self) -> Result<Explanation, String> {
        match self {
            Self::Unclear(why) => Err(why),
            Self::Refused(told) | Self::Stated(told) => Ok(*told),
        }
    }
}

/// Why no route takes a request.
fn no_route(settings: &Settings, target: &Target) -> Explanation {
    let why = |route: &Arc<Route>| {
        let path = target.route_path();
        let what = if !route.hosts.is_empty() && !route.hosts.iter().any(|host| host.holds(&target.host)) {
            "the host"
        } else if !route.paths.iter().any(|pattern| pattern.holds(&path)) {
            "the path"
        } else {
            "the method or a field"
        };
        format!("route {} does not match {what}", route.name)
    };
    let refusal = route::refusal(&settings.routes, target);
    Explanation {
        verdict: "refused".to_owned(),
        reason: Some(refusal.detail().to_owned()),
        meaning: Some(format!("{}: {refusal}.", refusal.status().as_u16())),
        notes: settings.routes.iter().take(MOST_ROUTES_TOLD).map(why).collect(),
        remedy: Some(
            "add a route with this host and path, or path = \"/*\" for whatever no other takes".to_owned(),
        ),
        ..Explanation::default()
    }
}

/// What a route does that asks no upstream.
fn stated_by(route: &Route, reason: &str, what: &str) -> Explanation {
    Explanation {
        route: route.name.to_string(),
        verdict: "stated".to_owned(),
        reason: Some(reason.to_owned()),
        meaning: Some(format!("{what}.")),
        notes: addresses(route)
            .into_iter()
            .chain(limits(route))
            .chain(password(route))
            .chain(front(route))
            .collect(),
        ..Explanation::default()
    }
}

/// Routes that are told why they do not match.
const MOST_ROUTES_TOLD: usize = 32;

/// What a client may ask of this route, where that is limited.
fn limits(route: &Route) -> impl Iterator<Item = String> {
    route.limits.iter().map(|limit| {
        let Limit { name, interval, burst, key, cost, except, dry_run } = &**limit;
        let who = match key {
            CountedBy::Client => "each client may make".to_owned(),
            CountedBy::Path => "for each path all clients together may make".to_owned(),
            CountedBy::ClientAndPath => "for each path each client may make".to_owned(),
            CountedBy::Header(name) => format!("those of one {name} (without it, each client) may make"),
            CountedBy::All => "all clients together may make".to_owned(),
        };
        let mut told = format!("limit {name}: {who} {burst} requests at once, then one every {interval:?}");
        for (method, cost) in &cost.by_method {
            told += &format!("; {method} counts for {cost}");
        }
        for (status, cost) in &cost.by_status {
            told += &format!("; one that is answered with {} counts for {cost}", status.as_u16());
        }
        if !except.is_empty() {
            told.push_str("; clients of `except` are not counted");
        }
        told.push_str(if *dry_run {
            "; it is on trial (dry_run) and refuses nobody"
        } else {
            "; 429 beyond"
        });
        told
    })
}

/// What is asked of clients before anything else.
fn password(route: &Route) -> Option<String> {
    let auth = route.basic_auth.as_ref()?;
    Some(format!(
        "a name and a password of {} are asked for, 401 otherwise; they do not go upstream",
        auth.file.display()
    ))
}

/// What else stands between a request and its answer.
fn front(route: &Route) -> Vec<String> {
    let mut told = Vec::new();
    if !route.also.is_empty() {
        let kinds = route.also.iter().map(|kind| match kind {
            BesideGet::Query => "QUERY",
            BesideGet::Graphql => "POSTs of GraphQL queries",
            BesideGet::Options => "OPTIONS",
        });
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        told.push(format!(
            "{kinds} are read from the cache too, each by its content, which is not asked about here"
        ));
    }
    if let Some(slice) = route.slice {
        told.push(format!(
            "answers are made of slices of {}, each stored by itself (`slice`)",
            ByteSize(slice)
        ));
    }
    if !route.key.is_nothing() {
        let fields = route.key.fields().map(ToString::to_string);
        let cookies = route.key.cookies.iter().map(|name| format!("cookie {name}"));
        let parts = fields.chain(cookies).collect::<Vec<_>>().join(", ");
        told.push(format!("part of the key are {parts}: each value has an answer of its own"));
    }
    if let Some(MaintenanceSettings { file, except, .. }) = route.maintenance.as_deref() {
        let others = if except.is_empty() { "" } else { ", but for the clients in `except`" };
        told.push(format!("503 while {} is there{others}", file.display()));
    }
    if let Some(ForwardAuth { upstream, path, copy }) = route.forward_auth.as_deref() {
        let names = copy.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let copied = match copy.is_empty() {
            true => String::new(),
            false => format!(
                "; {names} of its answer go on with the request, which is to the cache one with credentials"
            ),
        };
        told.push(format!(
            "upstream {} is asked first, for {path}, and lets in by 2xx{copied}",
            upstream.name
        ));
    }
    if let Some(PathSubstitution { from, to, .. }) = route.rewrite.replace.as_deref() {
        told.push(format!(
            "where {from:?} is the path, the upstream sees {to:?}; the cache knows the client's own"
        ));
    }
    if let Some(cors) = &route.cors {
        let whose = match &cors.origins {
            AllowedOrigins::Any => "every origin".to_owned(),
            AllowedOrigins::These(these) => {
                these.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
        };
        told.push(format!(
            "scripts of {whose} may read the answers: `cors` says so, whatever the upstream says"
        ));
    }
    if route.security == SecurityFields::Strict {
        told.push(
            "security = \"strict\": nosniff, no frames, a short Referer, and HSTS over TLS, where an answer says nothing of them"
                .to_owned(),
        );
    }
    told
}

/// Which clients the route is for, where it is not for all.
fn addresses(route: &Route) -> Option<String> {
    let AddressRules { allow, deny } = &route.addresses;
    let list = |networks: &[IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let told = match (allow.is_empty(), deny.is_empty()) {
        (true, true) => return None,
        (false, true) => format!("only clients of {} may ask", list(allow)),
        (true, false) => format!("clients of {} may not ask", list(deny)),
        (false, false) => format!("only clients of {} may ask, and not those of {}", list(allow), list(deny)),
    };
    Some(format!("{told}; 403 otherwise"))
}

/// Who is sent to the route's canary.
fn canary(route: &Route) -> Option<String> {
    let canary = route.canary.as_ref()?;
    let sign = |kind: &str, sign: &Option<Sign>| {
        let Sign { name, value } = sign.as_ref()?;
        let value = value.as_ref().map(|value| format!(" with the value {value:?}")).unwrap_or_default();
        Some(format!("; requests with the {kind} {name}{value} go there past the cache"))
    };
    let signs = [sign("field", &canary.header), sign("cookie", &canary.cookie)];
    let signs: String = signs.into_iter().flatten().collect();
    Some(format!("canary {}: {} % of the clients are sent there{signs}", canary.upstream.name, canary.share))
}

/// A request that is asked about, read as the pipeline reads one.
struct Explained<'a> {
    head: request::Parts,
    target: Target,
    client: Client,
    route: &'a Arc<Route>,
    /// Where the route's misses go.
    upstream: &'a Arc<UpstreamSettings>,
}

impl Explained<'_> {
    fn as_sent(&self) -> AsSent<'_> {
        let Self { head, target, client, route, upstream } = self;
        AsSent { head, target, client, told: &[], route, upstream }
    }
}

/// The operator's own machine asks; it is believed about another client, since no other could ask.
fn read<'a>(settings: &'a Settings, question: &Question) -> Result<Explained<'a>, Undecided> {
    let mut url = question.url.clone();
    // As curl does it: the URL says where to connect, the field for whom the request is.
    let mut hosts = question.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    if let Some((_, host)) = hosts.next() {
        if hosts.next().is_some() {
            return Err("Host is given twice".to_owned().into());
        }
        url = for_host(&url, host).ok_or_else(|| format!("{host:?} is no host"))?;
    }
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("{:?} must begin with http:// or https://", question.url).into()),
    };
    let mut request = Request::new(());
    *request.method_mut() =
        question.method.parse().map_err(|_| format!("{:?} is no method", question.method))?;
    *request.uri_mut() = uri;
    for (name, value) in question.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("{value:?} is no header value"))?;
        request.headers_mut().append(name, value);
    }
    let mut head = request.into_parts().0;
    inbound::join_cookies(&mut head.headers);
    strip_nominated(&mut head.headers);
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut clients = settings.clients.clone();
    clients.trusted_proxies.push(here.into());
    let client = client::identify(Client { address: here, scheme }, &head.headers, &clients);
    let mut target = inbound::read(&head, client.scheme).map_err(|refusal| refusal.to_string())?;
    let found = route::find(&settings.routes, &mut target, &head).map_err(|refusal| refusal.to_string())?;
    if found.is_some_and(|route| route.basic_auth.is_some()) {
        head.headers.remove(header::AUTHORIZATION);
    }
    match found {
        Some(route) => match &route.action {
            RouteAction::Forward(upstream) => Ok(Explained { head, target, client, route, upstream }),
            RouteAction::Redirect(redirect) => {
                let to = stated::location(redirect, &target, &route.paths);
                let what = format!("{}, to {to}", redirect.status.as_u16());
                Err(Undecided::Stated(Box::new(stated_by(route, "redirect", &what))))
            }
            RouteAction::Respond(stated) => {
                let what = format!("{}, as the route's `respond` says", stated.status.as_u16());
                Err(Undecided::Stated(Box::new(stated_by(route, "respond", &what))))
            }
        },
        None => Err(Undecided::Refused(Box::new(no_route(settings, &target)))),
    }
}

/// The URL with another authority.
fn for_host(url: &str, host: &str) -> Option<String> {
    let mut parts = url.parse::<Uri>().ok()?.into_parts();
    parts.authority = Some(host.parse().ok()?);
    Uri::from_parts(parts).ok().map(|uri| uri.to_string())
}

fn words(reason: Option<Reason>, supply: Option<Supply>, rules: &Rules) -> Explanation {
    let remedy = reason.and_then(|reason| remedy::remedy(reason, supply, rules));
    Explanation {
        reason: reason.map(|reason| reason.as_str().to_owned()),
        meaning: reason.map(meaning),
        remedy: remedy.map(str::to_owned),
        ..Explanation::default()
    }
}

/// The reason in a sentence. RFC sections are those of RFC 9111 unless another is named.
fn meaning(reason: Reason) -> String {
    reason.meaning().replace("(§", "(RFC 9111 §")
}

/// A variant's fields and values, readable: see [`cache_policy::variant_key`].
fn variant(fields: &[HeaderName], values: &str) -> Vec<String> {
    let readable = |value: &str| match value {
        "\u{1}" => "(none)".to_owned(),
        value => value.split(',').map(weighted).collect::<Vec<_>>().join(", "),
    };
    fields
        .iter()
        .zip(values.split('\n'))
        .map(|(name, value)| format!("{name}: {}", readable(value)))
        .collect()
}

/// `de` and a weight in thousandths, set off by a control character.
fn weighted(preference: &str) -> String {
    match preference.split_once('\u{2}') {
        Some((value, weight)) => {
            let weight = weight.parse::<u16>().map_or(0.0, |weight| f64::from(weight) / 1000.0);
            format!("{value};q={weight}")
        }
        None => preference.to_owned(),
    }
}

fn freshness(meta: &Meta, head: &HeaderMap, route: &Route, now: Moment) -> FreshnessReport {
    let rules = &route.rules;
    let stated = matches!(meta.lifetime_source.as_str(), "max-age" | "s-maxage");
    let window_of_errors = Window::of(meta.stale_if_error, rules.stale_if_error);
    let stands_in = meta.stale_ban == StaleBan::None && meta.is_to_be_used_again();
    FreshnessReport {
        age_at_arrival: meta.age_at_arrival.as_secs(),
        age: meta.age(now).as_secs(),
        lifetime: meta.lifetime.as_secs(),
        lifetime_from: meta.lifetime_source.as_str().to_owned(),
        targeted: targeted_field(head, &rules.targeted).filter(|_| stated).map(ToString::to_string),
        at_max_ttl: rules.max_ttl == Some(meta.lifetime),
        left: meta.lifetime_left(now),
        stale_while_revalidate: Window::of(meta.stale_while_revalidate, rules.stale_while_revalidate),
        stale_on_disconnect: (window_of_errors.is_none() && stands_in)
            .then(|| Window { seconds: rules.stale_on_disconnect.as_secs(), of: "route".to_owned() }),
        stale_if_error: window_of_errors,
        never_stale: match meta.stale_ban {
            StaleBan::Stated if meta.no_cache => Some("no-cache: every use is validated".to_owned()),
            StaleBan::Stated => Some("must-revalidate or proxy-revalidate forbids it".to_owned()),
            StaleBan::Implied | StaleBan::None => None,
        },
    }
}

/// Further facts in a response's head that an operator may not expect to matter, or to be ignored.
fn notes(status: StatusCode, head: &HeaderMap, route: &Route) -> Vec<String> {
    let rules = &route.rules;
    let mut notes = Vec::new();
    let obeyed = targeted_field(head, &rules.targeted);
    for name in &rules.targeted {
        for value in head.get_all(name).iter().filter(|_| obeyed != Some(name)) {
            let line = evidence::line("response", name, value);
            let why = match obeyed {
                Some(obeyed) => format!("{obeyed} comes first"),
                None => "it is empty or no dictionary of structured fields (RFC 8941), all in lower case"
                    .to_owned(),
            };
            notes.push(format!("{line} is ignored: {why}"));
        }
    }
    if let Some(obeyed) = obeyed
        && head.contains_key(header::CACHE_CONTROL)
    {
        notes.push(format!("{obeyed} stands in place of cache-control and expires here; clients obey those"));
    }
    let no_vary_search = head.get_all("no-vary-search").iter();
    let understood = cache_policy::NoVarySearch::read(head).is_some();
    for value in no_vary_search {
        let line = evidence::line("response", &HeaderName::from_static("no-vary-search"), value);
        notes.push(match understood {
            true => format!("{line}: answers other queries too"),
            false => format!("{line} is ignored: it is broken, or says that every difference matters"),
        });
    }
    if obeyed.is_none() && !cache_policy::is_legible(head) {
        let lines = head.get_all(header::CACHE_CONTROL).iter();
        notes.extend(lines.map(|value| {
            let line = evidence::line("response", &header::CACHE_CONTROL, value);
            format!("{line} cannot be read whole: what it refuses counts, and nothing that it permits (RFC 9111 §5.2)")
        }));
    }
    notes.extend(decoding_note(status, head, route));
    notes.extend(lifetime_note(status, head, rules));
    notes
}

/// What becomes of the origin's gzip for clients that refuse it.
fn decoding_note(status: StatusCode, head: &HeaderMap, route: &Route) -> Option<String> {
    coding::decodable(status, head, None).then(|| {
        let line = evidence::line("response", &header::CONTENT_ENCODING, &head[header::CONTENT_ENCODING]);
        match route.decompress {
            true => format!("{line}: decoded for clients that refuse gzip, and a range of theirs is ignored"),
            false => {
                format!("{line}: also sent to clients that refuse gzip; `decompress = true` would decode it")
            }
        }
    })
}

/// Which of the origin's word and the route's gives the lifetime, where the route has one of its own.
fn lifetime_note(status: StatusCode, head: &HeaderMap, rules: &Rules) -> Option<String> {
    let supply = Supply::of(status, head, rules);
    let forced = rules.ttl.as_ref().and_then(|ttl| ttl.of(status)).map(|ttl| ttl.as_secs());
    match (forced, supply) {
        (_, Supply::Neither) if forced.or(rules.default_ttl.map(|ttl| ttl.as_secs())).is_some() => {
            Some("the route's lifetime makes no difference: the origin wants every use validated".to_owned())
        }
        (Some(forced), Supply::Ttl) => Some(format!(
            "the route's `ttl` of {forced} s is in force, whatever lifetime the origin states for a {}",
            status.as_u16()
        )),
        (None, Supply::Ttl) if rules.default_ttl.is_some() => Some(match takes_default(status, rules) {
            true => "`default_ttl` does not count: the origin states a lifetime of its own; `ttl` would stand in place of it"
                .to_owned(),
            false => format!("`default_ttl` does not count for a {}; `ttl` may name it", status.as_u16()),
        }),
        _ => None,
    }
}

/// Whether `default_ttl` is for this status at all.
fn takes_default(status: StatusCode, rules: &Rules) -> bool {
    Supply::of(status, &HeaderMap::new(), rules) == Supply::DefaultTtl
}

/// What clients are told in place of the origin's Cache-Control.
fn browser_note(status: StatusCode, route: &Route) -> Option<String> {
    let browser = route.browser.as_ref().filter(|_| fields::takes_browsers_lifetime(status))?;
    Some(format!("clients get cache-control: {}", String::from_utf8_lossy(browser.as_bytes())))
}

/// Which rule decides about the cookies of a request; `for_everyone` is what the response says, where there is one.
fn cookie_note(request: &HeaderMap, rules: &Rules, for_everyone: Option<bool>) -> Option<String> {
    if !request.contains_key(header::COOKIE) {
        return None;
    }
    let told = match (rules.cookies, for_everyone) {
        _ if !rules.ignored_cookies.matter_in(request) => {
            "no cookie of this request counts, by `ignore_cookies`, `key` or `bypass`: to the origin go those with a fetch for the cache \
             that are part of the key"
        }
        (Cookies::Bypass, _) => {
            "`cookies = \"bypass\"` or `bypass`: a cookie that is not ignored has the request go past the cache"
        }
        (Cookies::Origin, Some(true)) => {
            "`cookies = \"origin\"`: the response says `public`, `s-maxage` or `immutable`, so that it is for requests with cookies too"
        }
        (Cookies::Origin, Some(false)) => {
            "`cookies = \"origin\"`: the response says none of `public`, `s-maxage` and `immutable`, so that it is not for requests \
             with cookies"
        }
        (Cookies::Origin, None) => {
            "`cookies = \"origin\"`: the answer is stored only if it says `public`, `s-maxage` or `immutable` and sets no cookie"
        }
    };
    Some(told.to_owned())
}

/// Octets as Content-Range writes them.
fn octets(range: &std::ops::Range<u64>) -> String {
    format!("{}-{}", range.start, range.end.saturating_sub(1))
}

fn held(parts: &Parts) -> Vec<String> {
    parts.held().iter().map(octets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_shown_as_a_request_would_write_it() {
        let fields = [http::header::ACCEPT_LANGUAGE, HeaderName::from_static("x-device")];
        let request =
            HeaderMap::from_iter([(http::header::ACCEPT_LANGUAGE, HeaderValue::from_static("de, FR;q=0.5"))]);
        let key = cache_policy::variant_key(&fields, &request);
        assert_eq!(variant(&fields, &key), ["accept-language: de, fr;q=0.5", "x-device: (none)"]);
    }

    fn settings() -> Settings {
        let text = "[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nservers = [\"http://o:80\"]\n\
                    [[routes]]\nname = \"shop\"\nhosts = [\"shop.test\"]\npath = \"/a/*\"\nupstream = \"o\"\n";
        crate::settings::parse(text, "test.toml").unwrap()
    }

    fn question(url: &str, host: Option<&str>) -> Question {
        let headers = host.map(|host| ("Host".to_owned(), host.to_owned())).into_iter().collect();
        Question { url: url.to_owned(), method: get(), headers }
    }

    /// `-H 'Host: …'` was taken and then ignored: the question was answered for the URL's host.
    #[test]
    fn the_host_field_says_for_whom_the_request_is() {
        let settings = settings();
        let Explained { target, route, .. } =
            read(&settings, &question("http://127.0.0.1:8080/a/b", Some("shop.test")))
                .unwrap_or_else(|_| panic!("it is routed"));
        assert_eq!((&*target.host, &*route.name), ("shop.test", "shop"));
        let twice = Question {
            headers: ["a.test", "b.test"].map(|host| ("host".to_owned(), host.to_owned())).into(),
            ..question("http://127.0.0.1/", None)
        };
        assert!(matches!(read(&settings, &twice), Err(Undecided::Unclear(why)) if why.contains("twice")));
    }

    /// It was told as a mistake in the question, without a word on which routes there are.
    #[test]
    fn a_request_without_a_route_is_told_what_becomes_of_it_and_why() {
        let settings = settings();
        let told = |url| match read(&settings, &question(url, None)) {
            Err(Undecided::Refused(told)) => *told,
            _ => panic!("no route takes it"),
        };
        let path = told("http://shop.test/b");
        assert_eq!((path.verdict.as_str(), path.reason.as_deref()), ("refused", Some("no-route")));
        assert!(path.meaning.unwrap().starts_with("404"));
        assert_eq!(path.notes, ["route shop does not match the path"]);
        assert_eq!(told("http://other.test/a/b").notes, ["route shop does not match the host"]);
    }

    #[test]
    fn every_reason_to_fetch_or_not_to_store_has_a_remedy_or_needs_none() {
        let remedy = |reason| remedy::remedy(reason, None, &Rules::default());
        let none: Vec<_> = Reason::ALL.iter().filter(|reason| remedy(**reason).is_none()).collect();
        let needs_none = [
            Reason::PartialMiss,
            Reason::OriginPrecondition,
            Reason::Canary,
            Reason::Upgrade,
            Reason::MaxStale,
            Reason::StaleWhileRevalidate,
            Reason::StaleIfError,
            Reason::StaleOnDisconnect,
            Reason::StaleOnStatus,
            Reason::StaleOnSharedFailure,
            Reason::FreshOnError,
            Reason::TooStale,
            Reason::NoStaleIfError,
            Reason::NotAFailure,
            Reason::StatusForbidsStoring,
            Reason::RangeAnswer,
            Reason::ValidatorMismatch,
            Reason::LengthMismatch,
            Reason::CodingMismatch,
        ];
        assert_eq!(none, needs_none.iter().collect::<Vec<_>>());
    }
}
