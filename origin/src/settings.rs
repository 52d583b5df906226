//! What the operator can set: `config/origin.toml`, then the environment (`DATABASE_URL`, `PORT`), resolved into values
//! that are within their bounds. A mistake is told with file, line, column and a caret.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

/// Everything the origin is told from outside. `Default` is what an empty file gives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where to listen; `PORT` in the environment replaces the port. Port 0: any free one.
    pub listen: SocketAddr,
    /// Where to listen for the operator's programs; `ADMIN_PORT` replaces the port.
    pub admin: SocketAddr,
    /// Folder of the private PostgreSQL, relative to the working directory.
    pub data: PathBuf,
    /// After this long without an answer, a request is answered 503. Below the edge's own deadline.
    #[serde(deserialize_with = "duration")]
    pub request_deadline: Duration,
    /// How long requests under way may take to end after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
    /// Connections of clients at once; more wait in the system's queue.
    pub connections: NonZeroU32,
    /// From the first byte of a request's head to its last.
    #[serde(deserialize_with = "duration")]
    pub head_timeout: Duration,
    /// A connection without a request is closed after this long.
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// Peers that may name the client they ask for in `X-Forwarded-For`.
    pub proxies: Vec<IpAddr>,
    /// Products that an empty private database is filled with; 0: none. Never applies to a database of yours.
    pub seed_when_empty: u32,
    pub database: DatabaseSettings,
    pub redis: RedisSettings,
    pub search: SearchSettings,
    pub mail: MailSettings,
    /// Whom to tell what has changed.
    pub purge: PurgeSettings,
    pub activity: ActivitySettings,
    pub telemetry: TelemetrySettings,
}

/// The table `[redis]`: what all instances remember of what was read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/number`, `rediss://…` over TLS; `REDIS_URL` replaces it; `None`: nothing is remembered.
    pub url: Option<RedisUrl>,
    /// PEM of the authorities that may have signed the certificate of a `rediss://` server; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Instances of one name remember together.
    #[serde(deserialize_with = "namespace")]
    pub namespace: String,
    /// How long a request waits for an answer before it asks the database.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// How long a request waits for another that is making the same list, before it makes it too.
    #[serde(deserialize_with = "duration")]
    pub collapse_timeout: Duration,
    /// How long it is remembered who has signed in; ten minutes at most.
    #[serde(deserialize_with = "ten_minutes")]
    pub sessions: Duration,
    /// How long a list counts as new; it is kept for twice as long.
    #[serde(deserialize_with = "duration")]
    pub lists: Duration,
    /// How long a number of pieces counts as new; it is kept for twice as long.
    #[serde(deserialize_with = "duration")]
    pub stock: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            ca: None,
            namespace: "shop".to_owned(),
            timeout: Duration::from_millis(50),
            collapse_timeout: Duration::from_millis(300),
            sessions: Duration::from_secs(60),
            lists: Duration::from_secs(5 * 60),
            stock: Duration::from_secs(1),
        }
    }
}

/// The table `[search]`: what one client's searches may cost.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// Searches a second of one client, in the long run.
    pub rate: NonZeroU32,
    /// And so many at once.
    pub burst: NonZeroU32,
    /// Searches that may be in the database at the same time, of all clients.
    pub connections: NonZeroU32,
    /// One that has no answer by then is given up, and answered 503.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for SearchSettings {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        Self {
            rate: number(5),
            burst: number(20),
            connections: number(4),
            timeout: Duration::from_millis(500),
        }
    }
}

/// The table `[mail]`: how customers are written to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailSettings {
    /// `smtps://user:password@host`, or `smtp://…?tls=required`; `SMTP_URL` replaces it; `None`: into the folder.
    pub smtp: Option<Secret>,
    /// Where mails go without a server, below `data` unless it is absolute.
    pub folder: PathBuf,
    /// Whom they are from.
    pub from: Sender,
    /// Where customers find the shop: scheme, host and port.
    pub site: String,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self {
            smtp: None,
            folder: PathBuf::from("mail"),
            from: "Gatehouse Goods <shop@localhost>".to_owned().try_into().expect("it is an address"),
            site: "https://localhost:8443".to_owned(),
        }
    }
}

/// An address that mails are from, with a name or without.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Sender(pub(crate) lettre::message::Mailbox);

impl TryFrom<String> for Sender {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is no address to send from: write one such as \"Shop <shop@example.org>\"")
        })
    }
}

/// The table `[purge]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeSettings {
    /// Admin addresses of every edge that keeps our answers.
    pub edges: Vec<HttpAddress>,
    /// They share what they store: the first that acknowledges a purge has told all.
    pub one_for_all: bool,
    /// Sent to them as a bearer token; `PURGE_TOKEN` replaces it.
    pub token: Option<Secret>,
}

/// The table `[activity]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivitySettings {
    /// Whole months that are kept before the current one.
    pub retention_months: u32,
}

impl Default for ActivitySettings {
    fn default() -> Self {
        Self { retention_months: 13 }
    }
}

/// The table `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Takes traces by OTLP over HTTP; `None`: there are none.
    pub collector: Option<HttpAddress>,
    /// Of requests whose trace begins here, the share that is traced, 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sample_ratio: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { collector: None, sample_ratio: 1.0 }
    }
}

/// The table `[database]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host/database`, or a list of servers of which one takes writes at a time; `DATABASE_URL`
    /// replaces it; empty: a private PostgreSQL.
    #[serde(deserialize_with = "one_or_several")]
    pub url: Vec<DatabaseUrl>,
    /// Streaming replicas of it, to read from.
    pub replicas: Vec<DatabaseUrl>,
    /// A replica that is further behind is left out; below a minute.
    #[serde(deserialize_with = "duration")]
    pub max_replica_lag: Duration,
    /// Signs the cookie by which a client reads its own writes; the same in all instances. `COOKIE_KEY` replaces it.
    pub cookie_key: Option<Secret>,
    /// Connections at most, 1 to 50.
    #[serde(deserialize_with = "connections")]
    pub max_connections: u32,
    /// Requests that may wait for a connection; one more is answered 503 at once.
    pub max_waiting: u32,
    /// An unused connection is closed after this long.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// A request waits this long for a connection, making one included; then it is answered 503.
    #[serde(deserialize_with = "duration")]
    pub acquire_timeout: Duration,
    /// The server gives up a statement after this long.
    #[serde(deserialize_with = "duration")]
    pub statement_timeout: Duration,
    /// A query that takes this long is logged, by name.
    #[serde(deserialize_with = "duration")]
    pub slow_query: Duration,
    /// Whether `serve` applies pending migrations to a database of yours. A private one is always migrated.
    pub migrate_on_start: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9001)),
            data: PathBuf::from("data"),
            request_deadline: Duration::from_secs(10),
            drain: Duration::from_secs(15),
            connections: NonZeroU32::new(1_024).expect("not zero"),
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            proxies: vec![IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()],
            seed_when_empty: 600,
            database: DatabaseSettings::default(),
            redis: RedisSettings::default(),
            search: SearchSettings::default(),
            mail: MailSettings::default(),
            purge: PurgeSettings::default(),
            activity: ActivitySettings::default(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: Vec::new(),
            replicas: Vec::new(),
            max_replica_lag: Duration::from_secs(1),
            cookie_key: None,
            max_connections: 20,
            max_waiting: 200,
            idle_timeout: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            slow_query: Duration::from_millis(50),
            migrate_on_start: false,
        }
    }
}

impl Settings {
    /// # Errors
    /// The file cannot be read, or says something that makes no sense; the message is meant to be shown as it is.
    pub fn read(file: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(file)
            .map_err(|source| SettingsError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, SettingsError> {
        toml::from_str(text).map_err(|error| SettingsError::Wrong(explain(file, text, &error)))
    }

    /// Lets `DATABASE_URL`, `PORT`, `ADMIN_PORT`, `COOKIE_KEY`, `PURGE_TOKEN`, `SMTP_URL` and `REDIS_URL` replace what the file says; `variable` looks one up.
    ///
    /// # Errors
    /// One of them is set and cannot be used.
    pub fn override_from(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let wrong = |name: &str, why: &str| SettingsError::Wrong(format!("{name}: {why}"));
        if let Some(urls) = set("DATABASE_URL") {
            let urls = urls.split_whitespace().map(|url| url.to_owned().try_into());
            self.database.url = urls.collect::<Result<_, _>>().map_err(|why| wrong("DATABASE_URL", why))?;
        }
        if let Some(url) = set("REDIS_URL") {
            self.redis.url = Some(url.try_into().map_err(|why| wrong("REDIS_URL", why))?);
        }
        for (name, secret) in [
            ("COOKIE_KEY", &mut self.database.cookie_key),
            ("PURGE_TOKEN", &mut self.purge.token),
            ("SMTP_URL", &mut self.mail.smtp),
        ] {
            if let Some(text) = set(name) {
                *secret = Some(text.try_into().map_err(|why| wrong(name, why))?);
            }
        }
        for (name, address) in [("PORT", &mut self.listen), ("ADMIN_PORT", &mut self.admin)] {
            if let Some(port) = set(name) {
                let why = format!("`{port}` is no port: write a number from 0 to 65535");
                address.set_port(port.parse().map_err(|_| wrong(name, &why))?);
            }
        }
        Ok(self)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    /// A value cannot be used; the whole message.
    #[error("{0}")]
    Wrong(String),
}

/// Texts that are never printed: whether a text is one, and what to write instead of what is not.
macro_rules! secrets {
    ($($(#[$about:meta])* $name:ident: $is_one:expr, $instead:literal;)+) => {$(
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn reveal(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, &'static str> {
                let is_one: fn(&str) -> bool = $is_one;
                if is_one(&text) { Ok(Self(text)) } else { Err($instead) }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )+};
}

secrets! {
    /// The address of a database, password and all.
    DatabaseUrl: |url| url.starts_with("postgres://") || url.starts_with("postgresql://"),
        "write a URL such as postgres://user:password@host/database";
    /// The address of a Redis, password and all. It is opened when it is used; here it is only read.
    RedisUrl: |url| is_visible(url) && redis::Client::open(url).is_ok(),
        "write a URL such as redis://user:password@host:6379/0";
    /// A token.
    Secret: is_visible, "a token is made of visible ASCII characters";
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where an edge takes purges, or a collector traces: `http://HOST:PORT`. In clear text, so on a network of ours.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpAddress(String);

impl HttpAddress {
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self("http://127.0.0.1:4318".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        self.0.trim_start_matches("http://")
    }
}

impl TryFrom<String> for HttpAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let uri = text.parse::<http::Uri>().ok().filter(|uri| {
            uri.scheme() == Some(&http::uri::Scheme::HTTP) && uri.path() == "/" && uri.port_u16().is_some()
        });
        if uri.is_some() && !text.ends_with('/') {
            Ok(Self(text))
        } else {
            Err(format!(
                "`{text}` is no address of a host and a port: write one such as \"http://127.0.0.1:9900\""
            ))
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!("`{text}` is no duration: write one such as \"250ms\", \"30s\" or \"5m\""))
    })
}

/// From a millisecond to a day.
fn parse_duration(text: &str) -> Option<Duration> {
    let within = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
    humantime::parse_duration(text).ok().filter(|duration| within.contains(duration))
}

fn ten_minutes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration <= Duration::from_secs(600) {
        Ok(duration)
    } else {
        Err(de::Error::custom("for too long: write ten minutes (\"10m\") or less"))
    }
}

fn namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(de::Error::custom(format!("`{name}`: write up to 64 letters, digits, `-` and `_`")))
    }
}

/// A URL, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DatabaseUrl>, D::Error> {
    struct Urls;

    impl<'de> de::Visitor<'de> for Urls {
        type Value = Vec<DatabaseUrl>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a URL such as postgres://user:password@host/database, or a list of them")
        }

        fn visit_str<E: de::Error>(self, url: &str) -> Result<Self::Value, E> {
            url.to_owned().try_into().map(|url| vec![url]).map_err(E::custom)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, urls: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(urls))
        }
    }

    deserializer.deserialize_any(Urls)
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err(de::Error::custom(format!("{number} is no share: write a number from 0.0 to 1.0")))
    }
}

fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if (1..=50).contains(&number) {
        Ok(number)
    } else {
        Err(de::Error::custom(format!("{number} connections: write a number from 1 to 50")))
    }
}

/// `FILE:LINE:COLUMN: what`, the line, and a caret under the spot.
fn explain(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else {
        return format!("{}: {}", file.display(), error.message());
    };
    let before = &text[..span.start];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = text[start..span.start].chars().count() + 1;
    let shown = text[start..].lines().next().unwrap_or_default();
    let length = text[span.start..span.end].lines().next().unwrap_or_default().chars().count().max(1);
    let margin = " ".repeat(line.to_string().len());
    format!(
        "{}:{line}:{column}: {}\n{margin} |\n{line} | {shown}\n{margin} | {}{}",
        file.display(),
        error.message(),
        " ".repeat(column - 1),
        "^".repeat(length)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../config/origin.toml");

    fn parse(text: &str) -> Result<Settings, SettingsError> {
        Settings::parse(Path::new("origin.toml"), text)
    }

    #[test]
    fn the_example_shows_every_setting_with_its_default() {
        // What is commented out is an example too: without the marks the file must still be valid.
        let shown = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        let settings = parse(&shown).expect("the example is valid");
        assert_eq!(settings.database.url.len(), 1);
        let as_delivered = parse(EXAMPLE).expect("the example is valid as it is");
        // The one thing an example knows that a default cannot: where the edge is.
        assert_eq!(as_delivered.purge.edges.len(), 1);
        assert_eq!(Settings { purge: PurgeSettings::default(), ..as_delivered }, Settings::default());
        for name in [
            "listen",
            "admin",
            "data",
            "request_deadline",
            "drain",
            "proxies",
            "seed_when_empty",
            "url",
            "replicas",
            "max_replica_lag",
            "cookie_key",
            "max_connections",
            "max_waiting",
            "idle_timeout",
            "acquire_timeout",
            "statement_timeout",
            "slow_query",
            "migrate_on_start",
            "edges",
            "one_for_all",
            "namespace",
            "collapse_timeout",
            "sessions",
            "lists",
            "stock",
            "token",
            "retention_months",
            "rate",
            "burst",
            "timeout",
            "smtp",
            "folder",
            "from",
            "site",
            "connections",
            "head_timeout",
            "keep_alive",
            "collector",
            "sample_ratio",
        ] {
            assert!(
                shown.lines().any(|line| line.starts_with(&format!("{name} = "))),
                "{name} is not in the example"
            );
        }
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let error = parse("[database]\nmax_connections = 51\n").expect_err("51 is too many").to_string();
        assert_eq!(
            error,
            "origin.toml:2:19: 51 connections: write a number from 1 to 50\n  |\n2 | max_connections = 51\n  |                   ^^"
        );
        let error = parse("[redis]\nurl = \"http://cache\"\n").expect_err("another kind").to_string();
        assert!(error.starts_with("origin.toml:2:7: write a URL such as redis://"), "{error}");
        let error = parse("databse = 1\n").expect_err("a misspelt key").to_string();
        assert!(error.starts_with("origin.toml:1:1: unknown field `databse`, expected one of"), "{error}");
    }

    #[test]
    fn a_database_is_one_server_or_several() {
        let urls =
            |value: &str| parse(&format!("[database]\nurl = {value}\n")).map(|it| it.database.url.len());
        assert_eq!(urls("\"postgres://db/shop\"").expect("one"), 1);
        assert_eq!(urls("[\"postgres://a/shop\", \"postgresql://b/shop\"]").expect("two"), 2);
        let error =
            urls("[\"postgres://a/shop\", \"mysql://b/shop\"]").expect_err("another kind").to_string();
        assert!(error.starts_with("origin.toml:2:7: write a URL such as postgres://"), "{error}");
        let error = urls("5").expect_err("a number").to_string();
        assert!(error.contains("expected a URL such as postgres://"), "{error}");
    }

    #[test]
    fn edges_are_hosts_with_ports() {
        assert!(parse("[purge]\nedges = [\"http://10.0.0.7:9900\", \"http://[::1]:9900\"]\n").is_ok());
        for wrong in [
            "127.0.0.1:9900",
            "https://edge:9900",
            "http://edge",
            "http://edge:9900/purge",
            "http://edge:9900/",
        ] {
            let error = parse(&format!("[purge]\nedges = [\"{wrong}\"]\n")).expect_err(wrong).to_string();
            assert!(error.contains("is no address of a host and a port"), "{error}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_bounds() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("30 s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("1h 30m"), Some(Duration::from_secs(90 * 60)));
        for wrong in ["30", "0s", "s", "-1s", "25h", "2days", "1us", "99999999999999999999s", ""] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_environment_replaces_url_and_port() {
        let environment = |name: &str| match name {
            "PORT" => Some("4321".to_owned()),
            "ADMIN_PORT" => Some("4322".to_owned()),
            "DATABASE_URL" => {
                Some("postgres://shop:secret@db/shop postgres://shop:secret@other/shop".to_owned())
            }
            "COOKIE_KEY" => Some("secret".to_owned()),
            "PURGE_TOKEN" => Some("secret".to_owned()),
            "SMTP_URL" => Some("smtps://shop:secret@mail".to_owned()),
            _ => None,
        };
        let settings = Settings::default().override_from(environment).expect("both are valid");
        assert_eq!((settings.listen.port(), settings.admin.port()), (4321, 4322));
        assert_eq!(settings.database.url.len(), 2);
        assert!(!format!("{settings:?}").contains("secret"));
        assert!(Settings::default().override_from(|_| Some("many".to_owned())).is_err());
    }
}
