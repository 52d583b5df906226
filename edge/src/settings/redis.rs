//! The Redis that several edges share: where it is, and what it may hold.

use std::{fmt, path::PathBuf, time::Duration};

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    pub url: RedisUrl,
    /// The file whose content is the password, in place of one in the URL.
    pub password_file: Option<PathBuf>,
    /// Who has signed its certificate, where the system does not know them.
    pub ca: Option<PathBuf>,
    /// Servers that are asked who takes writes; the URL has then the name by which they know it in place of a host.
    pub sentinels: Vec<RedisUrl>,
    /// The file whose content seals what is secret, for edges that have the same.
    pub secret_file: Option<PathBuf>,
    /// Edges of one name share what is stored; others on the same Redis do not meet it.
    pub namespace: String,
    /// How long a look-up waits for an answer before the upstream is asked.
    pub look_up_timeout: Duration,
    /// How long an edge waits for what another is fetching, before it fetches it too.
    pub collapse_timeout: Duration,
    /// The largest body, in bytes, that is offered to it.
    pub largest_object: u64,
    /// The longest that it keeps anything.
    pub max_ttl: Duration,
    /// Whether bodies lie there compressed.
    pub compress: bool,
    pub unheard: Unheard,
}

impl RedisSettings {
    /// Every default.
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            password_file: None,
            ca: None,
            sentinels: Vec::new(),
            secret_file: None,
            namespace: "gatehouse".to_owned(),
            look_up_timeout: Duration::from_millis(50),
            collapse_timeout: Duration::from_millis(100),
            largest_object: 4 << 20,
            max_ttl: Duration::from_secs(7 * 86_400),
            compress: false,
            unheard: Unheard::default(),
        }
    }
}

/// What becomes of what is stored while this edge does not hear of the purges of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unheard {
    /// It is validated before each use. What another edge has purged is not served.
    #[default]
    Validate,
    /// It is served as ever. What another edge purges takes effect when this one hears of it.
    Serve,
}

/// `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, with `rediss` over TLS, or `unix:///PATH`. The password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Box<str>);

impl RedisUrl {
    /// A URL that whoever connects can read.
    pub(crate) fn new(text: &str) -> Option<Self> {
        redis::IntoConnectionInfo::into_connection_info(text).ok().map(|_| Self(text.into()))
    }

    /// As written, with the password.
    pub fn to_secret(&self) -> &str {
        &self.0
    }

    /// The host, or the name by which Sentinels know the server.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest);
        let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // An IPv6 address has colons itself.
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        }
    }

    /// Whether it names a password.
    pub fn has_password(&self) -> bool {
        self.credentials().is_some_and(|(_, credentials, _)| credentials.contains(':'))
    }

    fn credentials(&self) -> Option<(&str, &str, &str)> {
        let (scheme, rest) = self.0.split_once("://")?;
        let authority = rest.find('/').unwrap_or(rest.len());
        let at = rest[..authority].rfind('@')?;
        Some((scheme, &rest[..at], &rest[at..]))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.credentials() {
            Some((scheme, credentials, rest)) => {
                let user = credentials.split(':').next().unwrap_or_default();
                write!(formatter, "{scheme}://{user}:***{rest}")
            }
            None => formatter.write_str(&self.0),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (written, shown, has) in [
            ("redis://10.0.0.1:6379/3", "redis://10.0.0.1:6379/3", false),
            ("rediss://edge:hunter2@redis.internal", "rediss://edge:***@redis.internal", true),
            ("redis://:p%40ss@h:1", "redis://:***@h:1", true),
        ] {
            let url = RedisUrl::new(written).unwrap();
            assert!(["10.0.0.1", "redis.internal", "h"].contains(&url.host()), "{}", url.host());
            assert_eq!((url.to_string().as_str(), url.has_password()), (shown, has));
            assert_eq!((format!("{url:?}"), url.to_secret()), (format!("\"{shown}\""), written));
        }
    }
}
