//! How a value of the settings is told, and how a file writes it.

use std::{fmt, path::Path, time::Duration};

use cache_policy::Ttl;
use http::HeaderValue;

use crate::settings::{
    AllowedOrigins, ByteSize, Certificate, Command, FilesFolder, Hsts, ListenTls, Location, MediaRange,
    PathPattern, PathSubstitution, Redirect, RedirectFrom, RequestCosts, RequestField, ResponseField,
    ResponseFields, Route, RouteAction, Server, ServerProtocol, Sign, StatedAnswer,
};

/// One value in both forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// In a sentence.
    pub(super) told: String,
    /// In a file; `None` where it is there by not being written.
    pub(super) written: Option<String>,
}

impl From<String> for Shown {
    /// A text, quoted in a file.
    fn from(told: String) -> Self {
        let written = Some(quoted(&told));
        Self { told, written }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A key or a name as a file writes it.
pub(super) fn key_of(name: &str) -> String {
    let is_bare = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// `{ a = 1, b = 2 }`
fn table_of<K: AsRef<str>>(entries: impl Iterator<Item = (K, String)>) -> String {
    let entries: Vec<String> =
        entries.map(|(key, value)| format!("{} = {value}", key_of(key.as_ref()))).collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

/// A number, true or false as they are, anything else as a text.
pub(super) fn plain(value: &impl ToString) -> Shown {
    let told = value.to_string();
    let is_bare = told.parse::<i64>().is_ok() || matches!(&*told, "true" | "false");
    if is_bare { Shown { written: Some(told.clone()), told } } else { told.into() }
}

/// A text that may look like a number.
pub(super) fn text(value: &impl ToString) -> Shown {
    value.to_string().into()
}

/// What a file does not hold, for nobody may read it here.
pub(super) fn secret() -> String {
    quoted("<not shown>")
}

pub(super) fn maybe<T, S: Into<Shown>>(value: &Option<T>, show: impl Fn(&T) -> S) -> Shown {
    match value {
        Some(value) => show(value).into(),
        None => none(),
    }
}

pub(super) fn none() -> Shown {
    Shown { told: "none".to_owned(), written: None }
}

pub(super) fn list<T, S: Into<Shown>>(values: &[T], show: impl Fn(&T) -> S) -> Shown {
    let shown: Vec<Shown> = values.iter().map(|value| show(value).into()).collect();
    let told: Vec<&str> = shown.iter().map(|shown| &*shown.told).collect();
    let written: Vec<&str> = shown.iter().filter_map(|shown| shown.written.as_deref()).collect();
    Shown { told: format!("[{}]", told.join(", ")), written: Some(format!("[{}]", written.join(", "))) }
}

/// A list that is not written where it is empty.
pub(super) fn filled<T, S: Into<Shown>>(values: &[T], show: impl Fn(&T) -> S) -> Shown {
    let shown = list(values, show);
    if values.is_empty() { Shown { written: None, ..shown } } else { shown }
}

pub(super) fn words(values: &[String]) -> Shown {
    list(values, |value| Shown { told: format!("{value:?}"), written: Some(quoted(value)) })
}

/// One of a few words: the variants are named as the file writes them, in other letters.
pub(super) fn word(value: &impl fmt::Debug) -> String {
    let mut word = String::new();
    for letter in format!("{value:?}").chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

pub(super) fn percent(share: &u32) -> String {
    format!("{share}%")
}

pub(super) fn size(bytes: &u64) -> String {
    ByteSize(*bytes).to_string()
}

pub(super) fn duration(time: &Duration) -> String {
    const UNITS: [(&str, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let milliseconds = time.as_millis();
    let unit = UNITS.iter().find(|(_, length)| milliseconds > 0 && milliseconds.is_multiple_of(*length));
    let (unit, length) = unit.unwrap_or(&("ms", 1));
    format!("{}{unit}", milliseconds / length)
}

/// In the largest unit that makes it a whole number.
pub(super) fn rate(interval: &Duration) -> String {
    const PERIODS: [(&str, f64); 4] = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let rates = PERIODS.map(|(unit, period)| (unit, period / interval.as_secs_f64()));
    let whole = rates.iter().find(|(_, rate)| *rate >= 0.999 && (rate - rate.round()).abs() < rate * 1e-6);
    let (unit, rate) = whole.unwrap_or(&rates[3]);
    format!("{}/{unit}", rate.round())
}

pub(super) fn path(path: &impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// What requests count for.
pub(super) fn costs(costs: &RequestCosts) -> Shown {
    let methods = costs.by_method.iter().map(|(method, cost)| (method.to_string(), cost.to_string()));
    let statuses =
        costs.by_status.iter().map(|(status, cost)| (status.as_u16().to_string(), cost.to_string()));
    Shown { told: costs.to_string(), written: Some(table_of(methods.chain(statuses))) }
}

/// The first of them, or where they lie.
pub(super) fn certificates(tls: &ListenTls) -> String {
    let domain = tls.domains.first().map(|domain| domain.name.to_string());
    let folder = tls.folder.as_ref().map(path);
    let first = tls.written().next().map(certificate).or(folder).or(domain);
    first.or(tls.on_demand.as_ref().map(path)).unwrap_or_default()
}

pub(super) fn certificate(certificate: &Certificate) -> String {
    certificate.certificate.display().to_string()
}

pub(super) fn server(Server { location, weight, backup }: &Server) -> Shown {
    let url = location_of(location);
    let mut told = url.clone();
    let mut entries = vec![("url", quoted(&url))];
    if weight.get() > 1 {
        told.push_str(&format!(" weight {weight}"));
        entries.push(("weight", weight.to_string()));
    }
    if *backup {
        told.push_str(" backup");
        entries.push(("backup", "true".to_owned()));
    }
    let written = if entries.len() == 1 { quoted(&url) } else { table_of(entries.into_iter()) };
    Shown { told, written: Some(written) }
}

pub(super) fn location_of(location: &Location) -> String {
    let url = |protocol: &ServerProtocol, host: &str, port: u16| {
        let scheme = match protocol {
            ServerProtocol::Http1 => "http",
            ServerProtocol::H2c => "h2c",
            ServerProtocol::Tls => "https",
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{port}")
    };
    match location {
        Location::Network { protocol, host, port } => url(protocol, host, *port),
        Location::EachAddress { protocol, host, port } => format!("dns+{}", url(protocol, host, *port)),
        Location::Unix(file) => format!("unix:{}", file.display()),
        Location::Command(name) => format!("command:{name}"),
        Location::Files(folder) => {
            let FilesFolder { root, mounted_at: _, fallback, immutable } = &**folder;
            let fallback = fallback.as_ref().map(|page| format!(", fallback {page}")).unwrap_or_default();
            let immutable = if immutable.is_empty() {
                String::new()
            } else {
                format!(", immutable {}", list(immutable, text).told)
            };
            format!("{}{fallback}{immutable}", root.display())
        }
    }
}

/// Without arguments: one may be a secret.
pub(super) fn program(command: &Command) -> String {
    command.run.first().cloned().unwrap_or_default()
}

/// A folder of files as a route has it.
pub(super) fn folder(FilesFolder { root, mounted_at: _, fallback, immutable }: &FilesFolder) -> String {
    let fallback = fallback.as_ref().map(|page| ("fallback", quoted(page.trim_start_matches('/'))));
    let immutable = (!immutable.is_empty()).then(|| ("immutable", list(immutable, text).written));
    let immutable = immutable.and_then(|(key, list)| Some((key, list?)));
    table_of([("folder", quoted(&path(root)))].into_iter().chain(fallback).chain(immutable))
}

/// The program, its arguments hidden: one may be a secret.
pub(super) fn run(run: &[String]) -> Shown {
    let hidden = |(place, argument): (usize, &String)| if place == 0 { quoted(argument) } else { secret() };
    let written: Vec<String> = run.iter().enumerate().map(hidden).collect();
    Shown { told: String::new(), written: Some(format!("[{}]", written.join(", "))) }
}

/// Names with values that are hidden.
pub(super) fn hidden<'a>(names: impl Iterator<Item = &'a String>) -> Shown {
    Shown { told: String::new(), written: Some(table_of(names.map(|name| (name, secret())))) }
}

pub(super) fn request_fields<'a>(
    fields: impl Iterator<Item = (&'a http::HeaderName, &'a RequestField, &'static str)>,
) -> Shown {
    let entries = fields.map(|(name, field, word)| match field {
        RequestField::Is(_) => (name, secret()),
        RequestField::Absent | RequestField::Kept => (name, word.to_owned()),
    });
    Shown { told: String::new(), written: Some(table_of(entries)) }
}

pub(super) fn hsts(hsts: &Hsts) -> Shown {
    let subdomains = if hsts.include_subdomains { " includeSubDomains" } else { "" };
    let preload = if hsts.preload { " preload" } else { "" };
    let written = quoted(&format!("{}{subdomains}{preload}", duration(&hsts.max_age)));
    Shown { told: field_value(&hsts.to_field()), written: Some(written) }
}

/// Nothing of it may be missing: whoever adds a field says how it is written in a list.
pub(super) fn pair(Certificate { certificate, key, local_ca: _, ocsp }: &Certificate) -> Shown {
    let said = ocsp.as_ref().map(|file| format!(" and {}", path(file))).unwrap_or_default();
    let files = [("certificate", certificate), ("key", key)];
    let files = files.into_iter().chain(ocsp.as_ref().map(|file| ("ocsp", file)));
    Shown {
        told: format!("{} with {}{said}", path(certificate), path(key)),
        written: Some(table_of(files.map(|(key, file)| (key, quoted(&path(file)))))),
    }
}

pub(super) fn response_fields(fields: &ResponseFields) -> Shown {
    let shown = |field: &ResponseField| match field {
        ResponseField::Is(lines) => list(lines, |line| {
            let line = String::from_utf8_lossy(line.as_bytes());
            Shown { told: format!("{line:?}"), written: Some(quoted(&line)) }
        }),
        ResponseField::Absent => plain(&false),
        ResponseField::Kept => plain(&true),
    };
    let told: Vec<String> =
        fields.each().map(|(name, field)| format!("{name} = {}", shown(field).told)).collect();
    let written = fields.each().filter_map(|(name, field)| Some((name, shown(field).written?)));
    Shown { written: Some(table_of(written)), told: format!("{{ {} }}", told.join(", ")) }
}

/// Fields with what stands in them.
pub(super) fn named_parts<'a, P: fmt::Debug + 'a>(
    fields: impl Iterator<Item = &'a (http::HeaderName, P)> + Clone,
) -> Shown {
    let told: Vec<String> = fields.clone().map(|(name, part)| format!("{name} = {}", word(part))).collect();
    let written = table_of(fields.map(|(name, part)| (name, quoted(&word(part)))));
    Shown { told: format!("[{}]", told.join(", ")), written: Some(written) }
}

/// What stands in one field line, with commas.
pub(super) fn in_line(value: &HeaderValue) -> Shown {
    let told = field_value(value);
    let each: Vec<String> =
        told.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    Shown { written: filled(&each, text).written, told }
}

/// As [`in_line`], of methods: a file has no HEAD, and so the default is there by not being written.
pub(super) fn methods_in_line(value: &HeaderValue) -> Shown {
    let shown = in_line(value);
    if shown.told.contains("HEAD") { Shown { written: None, ..shown } } else { shown }
}

/// The name of what asks for a password.
pub(super) fn realm(challenge: &HeaderValue) -> Shown {
    let told = field_value(challenge);
    let realm = told.split('"').nth(1).unwrap_or_default();
    Shown { written: Some(quoted(realm)), told }
}

pub(super) fn substitution(PathSubstitution { from, to, .. }: &PathSubstitution) -> Shown {
    let entries = [("from", quoted(from)), ("to", quoted(to))];
    Shown { told: format!("{from:?} to {to:?}"), written: Some(table_of(entries.into_iter())) }
}

pub(super) fn origins_of(origins: &AllowedOrigins) -> Shown {
    match origins {
        AllowedOrigins::Any => text(&"*"),
        AllowedOrigins::These(these) => list(these, text),
    }
}

pub(super) fn field_value(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

pub(super) fn redirect(route: &Route) -> Option<Shown> {
    let RouteAction::Redirect(Redirect { to, status, from }) = &route.action else { return None };
    let clear = if *from == RedirectFrom::ClearText { " of clear text" } else { "" };
    let target = if *from == RedirectFrom::ClearText { "https".to_owned() } else { to.to_string() };
    let entries = [("to", quoted(&target)), ("status", status.as_u16().to_string())];
    let written = Some(table_of(entries.into_iter()));
    Some(Shown { told: format!("{} to {to}{clear}", status.as_u16()), written })
}

pub(super) fn respond(route: &Route) -> Option<Shown> {
    let RouteAction::Respond(StatedAnswer { status, content_type, content }) = &route.action else {
        return None;
    };
    let (kind, text) = (String::from_utf8_lossy(content_type.as_bytes()), String::from_utf8_lossy(content));
    let entries =
        [("status", status.as_u16().to_string()), ("body", quoted(&text)), ("content_type", quoted(&kind))];
    let written = Some(table_of(entries.into_iter()));
    Some(Shown { told: format!("{} {kind} {text:?}", status.as_u16()), written })
}

pub(super) fn paths(paths: &[PathPattern]) -> Shown {
    match paths {
        [path] => text(path),
        paths => list(paths, text),
    }
}

pub(super) fn sign(Sign { name, value }: &Sign) -> String {
    match value {
        Some(value) => format!("{name}={value}"),
        None => name.to_string(),
    }
}

/// As [`sign`], of a field.
pub(super) fn field_sign(of: &Sign) -> Shown {
    let Sign { name, value } = of;
    let written = value.as_ref().map_or_else(|| name.to_string(), |value| format!("{name}: {value}"));
    Shown { told: sign(of), written: Some(quoted(&written)) }
}

pub(super) fn media_range(MediaRange { before, after }: &MediaRange) -> String {
    match after {
        Some(after) => format!("{before}*{after}"),
        None => before.to_string(),
    }
}

pub(super) fn ttl(lifetimes: &Ttl) -> Shown {
    if *lifetimes == Ttl::of_answers(lifetimes.longest()) {
        return duration(&lifetimes.longest()).into();
    }
    let each = || lifetimes.each().map(|(status, time)| (status.as_u16().to_string(), duration(&time)));
    let told: Vec<String> = each().map(|(status, time)| format!("{status} = {time}")).collect();
    let written = table_of(each().map(|(status, time)| (status, quoted(&time))));
    Shown { told: format!("{{ {} }}", told.join(", ")), written: Some(written) }
}
