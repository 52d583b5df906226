//! What has been made of a file so far, and how it is written.

use std::collections::BTreeMap;

use super::nginx::NginxDirective;

/// A file that is being translated.
pub(super) struct Translating {
    pub(super) name: String,
    pub(super) left: Vec<(usize, String)>,
    pub(super) upstreams: BTreeMap<String, WantedUpstream>,
    pub(super) listeners: BTreeMap<String, WantedSocket>,
    /// By zone: `10/s`.
    pub(super) limits: BTreeMap<String, WantedLimit>,
}

#[derive(Default)]
pub(super) struct WantedUpstream {
    pub(super) servers: Vec<String>,
    /// Other keys, each as it is written.
    pub(super) keys: BTreeMap<&'static str, String>,
    pub(super) fields: BTreeMap<String, String>,
}

#[derive(Default)]
pub(super) struct WantedSocket {
    pub(super) tls: bool,
    pub(super) certificates: Vec<(String, String)>,
}

#[derive(Default)]
pub(super) struct WantedLimit {
    pub(super) rate: String,
    pub(super) burst: usize,
}

impl Translating {
    pub(super) fn leave(&mut self, directive: &NginxDirective, why: &str) {
        self.left.push((directive.line, format!("{}: {why}", directive.shown())));
    }

    /// An upstream for an address that stands in a `proxy_pass`; its name.
    pub(super) fn upstream_of(&mut self, scheme: &str, address: &str) -> Option<String> {
        if self.upstreams.contains_key(address) {
            return (scheme == "http").then(|| address.to_owned());
        }
        let url = server_url(scheme, address)?;
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let name: String = address.chars().map(plain).collect();
        let name = name.trim_matches('-').chars().take(60).collect::<String>();
        let entry = self.upstreams.entry(name.clone()).or_default();
        let server = text(&url);
        if entry.servers.is_empty() {
            entry.servers.push(server);
        } else if entry.servers != [server] {
            return None;
        }
        Some(name)
    }
}

/// `app:3000`, `unix:/run/app.sock` as a server here.
pub(super) fn server_url(scheme: &str, address: &str) -> Option<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        return (scheme == "http" && path.starts_with('/'))
            .then(|| format!("unix:{}", path.trim_end_matches(':')));
    }
    let url = format!("{scheme}://{address}");
    (!address.contains('$') && url.parse::<crate::settings::Location>().is_ok()).then_some(url)
}

pub(super) fn text(text: &str) -> String {
    // What looks like a variable of the environment is none.
    toml::Value::from(text.replace("${", "$${")).to_string()
}

pub(super) fn key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { name.to_owned() } else { text(name) }
}

/// `{ a = 1 }`, of values as they are written.
pub(super) fn table(entries: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(name, value)| format!("{} = {value}", key(name))).collect();
    format!("{{ {} }}", entries.join(", "))
}

pub(super) const NOT_KNOWN: &str = "no directive that this translates (docs/moving/nginx.md)";

/// What needs no word here: it is so anyway, or is about nginx itself.
pub(super) const NEEDLESS: &[&str] = &[
    "access_log",
    "client_body_buffer_size",
    "client_header_buffer_size",
    "default_type",
    "error_log",
    "etag",
    "gzip_comp_level",
    "gzip_disable",
    "gzip_http_version",
    "gzip_min_length",
    "gzip_proxied",
    "gzip_vary",
    "http2",
    "keepalive_requests",
    "large_client_header_buffers",
    "listen",
    "log_format",
    "log_not_found",
    "open_file_cache",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_cache_background_update",
    "proxy_cache_lock",
    "proxy_cache_path",
    "proxy_http_version",
    "proxy_temp_path",
    "sendfile",
    "server_name",
    "server_names_hash_bucket_size",
    "server_tokens",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_ciphers",
    "ssl_dhparam",
    "ssl_ecdh_curve",
    "ssl_prefer_server_ciphers",
    "ssl_protocols",
    "ssl_session_cache",
    "ssl_session_tickets",
    "ssl_session_timeout",
    "ssl_stapling",
    "ssl_stapling_verify",
    "tcp_nodelay",
    "tcp_nopush",
    "types_hash_max_size",
];
