//! The settings of an edge that runs without a file, from the arguments of `edge run --to`.

use std::{
    env, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use crate::settings::{self, AdminAddress, Location, Settings, SettingsError};

/// The settings of an edge that runs without a file, as far as those need them who ask it.
pub(super) fn without_file() -> Result<Settings, SettingsError> {
    let to = vec![WantedServer("http://127.0.0.1:3000".to_owned())];
    let admin = AdminAddress::Network(ADMIN);
    let text = NoFile { to, listen: Vec::new(), domain: Vec::new(), admin, home: home() }.to_string();
    settings::parse(&text, "edge run --to")
}

/// Where the operator's listener of an edge without a file is.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// Where certificates are kept that no file names a place for: the user's, so that every folder has the same authority.
pub(super) fn home() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    data.map_or_else(|| "certs".into(), |data| data.join("gatehouse"))
}

/// What stands in place of a file.
pub(super) struct NoFile {
    pub(super) to: Vec<WantedServer>,
    pub(super) listen: Vec<WantedListener>,
    pub(super) domain: Vec<String>,
    pub(super) admin: AdminAddress,
    pub(super) home: PathBuf,
}

impl NoFile {
    fn listeners(&self) -> Vec<WantedListener> {
        let all = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let listener = |(port, tls)| WantedListener { address: all(port), tls };
        match (self.listen.is_empty(), self.domain.is_empty()) {
            (false, _) => self.listen.clone(),
            (true, true) => [(8080, false), (8443, true)].map(listener).into(),
            (true, false) => [(80, false), (443, true)].map(listener).into(),
        }
    }
}

/// As a file would have it.
impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &dyn fmt::Display| toml::Value::from(text.to_string());
        let file = |name: &str| text(&self.home.join(name).display());
        for WantedListener { address, tls } in self.listeners() {
            writeln!(f, "[[listen]]\naddress = {}", text(&address))?;
            if tls && self.domain.is_empty() {
                let (certificate, key) = (file("localhost.pem"), file("localhost.key"));
                writeln!(f, "tls = {{ certificate = {certificate}, key = {key}, local_ca = true }}")?;
            } else if tls {
                writeln!(f, "domain = {}", toml::Value::from(self.domain.clone()))?;
            }
        }
        writeln!(f, "[acme]\nfolder = {}", file("acme"))?;
        writeln!(f, "[admin]\naddress = {}", text(&self.admin))?;
        let servers: Vec<String> = self.to.iter().map(|server| server.0.clone()).collect();
        writeln!(f, "[upstreams.app]\nservers = {}", toml::Value::from(servers))?;
        writeln!(f, "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"app\"")
    }
}

/// A server as it is written behind `--to`, in the words of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedServer(String);

impl FromStr for WantedServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = match text.strip_prefix(':').unwrap_or(text) {
            port if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => {
                format!("http://127.0.0.1:{port}")
            }
            _ if text.contains("://") || text.starts_with("unix:") => text.trim_end_matches('/').to_owned(),
            _ => format!("http://{text}"),
        };
        if url.starts_with("command:") {
            return Err("a command stands in a file".to_owned());
        }
        url.parse::<Location>().map(|_| Self(url))
    }
}

/// A listener as it is written behind `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedListener {
    address: SocketAddr,
    tls: bool,
}

impl FromStr for WantedListener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let every = rest.strip_prefix(':').unwrap_or(rest).parse().ok();
        let every = every.map(|port: u16| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
        let address = every.or_else(|| rest.parse().ok());
        let help =
            || format!("{text:?} is no address: write \":8080\", \"https://:8443\" or \"127.0.0.1:8080\"");
        let address = address.ok_or_else(help)?;
        let tls = match scheme {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(help()),
            None => matches!(address.port(), 443 | 8443),
        };
        Ok(Self { address, tls })
    }
}

/// The certificate of the authority that such an edge makes.
pub(super) fn authority_without_file() -> PathBuf {
    home().join("ca.pem")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{CacheSettings, Listen};

    fn settings(to: &[&str], listen: &[&str], domain: &[&str]) -> Settings {
        let text = NoFile {
            to: to.iter().map(|to| to.parse().unwrap()).collect(),
            listen: listen.iter().map(|listen| listen.parse().unwrap()).collect(),
            domain: domain.iter().map(ToString::to_string).collect(),
            admin: AdminAddress::Network(ADMIN),
            home: "a \"home\"".into(),
        };
        settings::parse(&text.to_string(), "test").unwrap_or_else(|error| panic!("{error}"))
    }

    fn told(listeners: &[Listen]) -> Vec<String> {
        let told =
            |listen: &Listen| format!("{}{}", listen.address, if listen.tls.is_some() { " tls" } else { "" });
        listeners.iter().map(told).collect()
    }

    #[test]
    fn without_a_file_the_defaults_are_those_of_a_short_one() {
        let settings = settings(&[":3000"], &[], &[]);
        assert_eq!(told(&settings.listeners), ["[::]:8080", "[::]:8443 tls"]);
        let tls = settings.listeners[1].tls.as_ref().unwrap();
        assert!(tls.certificate.as_ref().is_some_and(|certificate| certificate.local_ca
            && certificate.certificate == Path::new("a \"home\"/localhost.pem")));
        assert_eq!(settings.cache, CacheSettings::default());
        assert_eq!(settings.routes[0].rules, cache_policy::Rules::default());
        assert_eq!(settings.admin.unwrap().address.to_string(), "127.0.0.1:9900");
        assert!(without_file().is_ok());
    }

    #[test]
    fn servers_listeners_and_names_are_taken_in_their_short_forms() {
        let server = |text: &str| text.parse::<WantedServer>().map(|server| server.0);
        for (written, read) in [
            (":3000", "http://127.0.0.1:3000"),
            ("3000", "http://127.0.0.1:3000"),
            ("10.0.0.5:80", "http://10.0.0.5:80"),
            ("app.internal", "http://app.internal"),
            ("http://app:80/", "http://app:80"),
            ("https://app", "https://app"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(server(written).as_deref(), Ok(read), "{written}");
        }
        for wrong in ["", ":", ":70000", "command:app", "http://a/path", "unix:run", "ftp://a"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
        let both =
            settings(&[":1", "unix:/a"], &["127.0.0.1:80", "https://:444", ":443", "http://:8443"], &[]);
        assert_eq!(told(&both.listeners), ["127.0.0.1:80", "[::]:444 tls", "[::]:443 tls", "[::]:8443"]);
        assert_eq!(both.upstreams["app"].servers.len(), 2);
        for wrong in ["", "localhost:80", "ftp://:80", ":x"] {
            assert!(wrong.parse::<WantedListener>().is_err(), "{wrong}");
        }
        let named = settings(&[":1"], &[], &["shop.example", "www.shop.example"]);
        assert_eq!(told(&named.listeners), ["[::]:80", "[::]:443 tls"]);
        assert_eq!(named.listeners[1].tls.as_ref().unwrap().domains.len(), 2);
        assert_eq!(named.acme.folder, Path::new("a \"home\"/acme"));
    }
}
