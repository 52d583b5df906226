//! Words of other proxies' settings (nginx, Caddy, HAProxy, Varnish, Apache, Traefik), and what Gatehouse calls them.

/// What to write in place of a key that another proxy knows; `None` for a word that none of them has, or that means something
/// else in each.
pub(super) fn answer(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let found = WORDS.iter().find(|(words, _)| words.split(' ').any(|word| word == key));
    found.map(|(_, answer)| *answer)
}

const WORDS: &[(&str, &str)] = &[
    (
        "proxy_pass reverse_proxy proxypass fastcgi_proxy backend backends use_backend default_backend grpc_pass",
        "Gatehouse calls it an upstream: [upstreams.app] with servers = [\"http://127.0.0.1:3000\"], and upstream = \"app\" in \
         a [[routes]]",
    ),
    (
        "server servers_list",
        "one that is asked stands in `servers` of [upstreams.NAME]; a place where clients come in is a [[listen]]",
    ),
    (
        "server_name servername vhost virtualhost",
        "write hosts = [\"shop.example\"] in a [[routes]]; for https, domain = \"shop.example\" in [[listen]]",
    ),
    (
        "location locations handle handle_path location_match",
        "each is a [[routes]] with path = \"/api/*\" (a path without a star is that path alone)",
    ),
    ("root document_root documentroot file_server", "write files = \"dist\" in a [[routes]]"),
    ("alias", "write files = \"dist\" in a [[routes]], with strip_prefix = \"/static\""),
    (
        "try_files fallbackresource",
        "write files = { folder = \"dist\", fallback = \"index.html\" } in a [[routes]]",
    ),
    ("index directoryindex", "leave it out: the index of a folder is its index.html"),
    ("autoindex", "Gatehouse cannot list folders; leave it out"),
    (
        "ssl_certificate sslcertificatefile crt",
        "write tls = { certificate = \"shop.pem\", key = \"shop.key\" } in [[listen]]",
    ),
    (
        "ssl_certificate_key sslcertificatekeyfile",
        "write tls = { certificate = \"shop.pem\", key = \"shop.key\" } in [[listen]]",
    ),
    (
        "ssl_protocols sslprotocol",
        "write minimum_version = \"1.3\" in `tls` of [[listen]]; it is 1.2 otherwise, and older ones are not spoken",
    ),
    (
        "ssl_ciphers sslciphersuite ssl_prefer_server_ciphers",
        "Gatehouse cannot choose ciphers: those of TLS 1.2 and 1.3 that are good are used; leave it out",
    ),
    (
        "ssl_client_certificate ssl_verify_client",
        "write client_certificates = { ca = \"clients.pem\" } in `tls` of [[listen]]",
    ),
    (
        "auto_https acme_server certresolver",
        "write domain = \"shop.example\" in [[listen]]; the authority stands in [acme]",
    ),
    (
        "on_demand_tls",
        "write on_demand = true in [[listen]], and for which names in [acme.on_demand]: names = [\"*.shop.example\"], ask = \"http://..\"",
    ),
    (
        "proxy_set_header header_up requestheader",
        "write request_fields = { X-Tenant = \"a\" } in [upstreams.NAME]; Host, X-Forwarded-* and X-Request-Id are sent anyway",
    ),
    (
        "add_header header_down headers_more more_set_headers proxy_hide_header",
        "write response_fields = { X-Frame-Options = \"DENY\", X-Powered-By = false } in a [[routes]]",
    ),
    ("expires", "write cache = { browser = \"public, max-age=86400\" } in a [[routes]]"),
    (
        "proxy_cache_valid beresp_ttl",
        "write cache = { ttl = { 200 = \"10m\", 404 = \"1m\" } } in a [[routes]], or default_ttl where the origin's word is to count",
    ),
    (
        "proxy_cache proxy_cache_path cache_path storage malloc",
        "every route has a cache; how large it is, memory = \"256 MiB\" in [cache] says",
    ),
    (
        "proxy_cache_key vcl_hash hash_data",
        "the key is scheme, host, path and query; write query = { drop = [\"utm_*\"] } in a route's cache",
    ),
    (
        "proxy_cache_bypass proxy_no_cache",
        "write cache = { cookies = \"bypass\" } in a [[routes]], or have the origin say no-store",
    ),
    ("proxy_cache_use_stale grace", "write cache = { stale_if_error = \"1d\" } in a [[routes]]"),
    ("proxy_cache_lock", "leave it out: requests for one thing are one request upstream"),
    (
        "proxy_cache_methods proxy_cache_min_uses",
        "Gatehouse cannot do this; leave it out: GET and HEAD are stored, at the first time",
    ),
    (
        "proxy_read_timeout proxy_send_timeout fastcgi_read_timeout",
        "write response_timeout = \"60s\" in [upstreams.NAME], and timeouts = { total = \"60s\" } in a [[routes]]",
    ),
    ("proxy_connect_timeout", "write connect_timeout = \"5s\" in [upstreams.NAME]"),
    (
        "client_max_body_size limitrequestbody request_body max_body",
        "write body = \"10 MiB\" in [bounds], or in `bounds` of a [[routes]]",
    ),
    (
        "client_body_timeout client_header_timeout keepalive_timeout send_timeout",
        "write header, body or idle in [timeouts]",
    ),
    (
        "limit_req limit_req_zone rate_limit ratelimit throttle",
        "write [limits.api] with rate = \"50/s\" and burst = 100, and limit = \"api\" in a [[routes]]",
    ),
    (
        "limit_conn limit_conn_zone maxconn",
        "write connections_per_client in [bounds], or connections in [upstreams.NAME]",
    ),
    (
        "gzip gzip_types gzip_min_length brotli encode compression",
        "leave it out, for it is on; compress and compress_types of a [[routes]] say otherwise",
    ),
    (
        "return respond_with redir redirectmatch http_request",
        "write redirect = { to = \"/new\", status = 301 } or respond = { status = 404 } in a [[routes]]",
    ),
    ("uri rewriterule regsub", "write rewrite = { from = \"^/old/(.*)\", to = \"/new/$1\" } in a [[routes]]"),
    (
        "basicauth auth_basic auth_basic_user_file authuserfile",
        "write basic_auth = { users = \"users.htpasswd\" } in a [[routes]]",
    ),
    (
        "auth_request forwardauth",
        "write forward_auth = { upstream = \"auth\", path = \"/check\" } in a [[routes]]",
    ),
    (
        "error_page errorfile errordocument handle_errors",
        "write error_pages = \"errors\" at the top: a folder with 404.html, 5xx.html, ..",
    ),
    ("real_ip_header set_real_ip_from forwardfor", "write trusted_proxies = [\"10.0.0.0/8\"] in [clients]"),
    (
        "access_log error_log accesslog",
        "the log goes to standard output; how it is written, format of [log] says",
    ),
    (
        "worker_processes nbthread worker_connections nbproc",
        "write threads at the top, and connections in [bounds]",
    ),
    ("http2 protos alpn", "leave it out: HTTP/2 is spoken over TLS"),
    ("http3 quic", "Gatehouse cannot do this; leave it out: HTTP/2 and HTTP/1.1 are spoken"),
    (
        "fastcgi_pass php_fastcgi uwsgi_pass scgi_pass",
        "Gatehouse cannot do this; put a web server with PHP or the app's own HTTP server behind it, as an upstream",
    ),
    (
        "lua_block content_by_lua js_content snippet",
        "Gatehouse cannot run programs in a request; put one behind it as an upstream",
    ),
    (
        "vcl vcl_recv vcl_fetch vcl_backend_response vcl_deliver sub acl",
        "Gatehouse cannot run VCL: what to match stands in [[routes]], what to store in their `cache` (docs/moving/varnish.md)",
    ),
    ("geoip_country geoip2 geoip", "Gatehouse cannot do this; a CDN before it can say it in a field"),
    ("sub_filter substitute", "Gatehouse cannot change what an answer says"),
    ("mirror split_clients", "write canary = { upstream = \"new\", share = \"5%\" } in a [[routes]]"),
    (
        "upstream_hash ip_hash least_conn lb_policy balancer",
        "write balance in [upstreams.NAME]: two-choices, round-robin, \"hash client\", \"sticky NAME\"",
    ),
    (
        "health_check health_uri option_httpchk httpchk probe",
        "write check = { path = \"/healthz\" } in [upstreams.NAME]",
    ),
    ("max_fails fail_timeout", "write failures and put_aside in [upstreams.NAME]"),
    ("frontend bind entrypoints entrypoint", "write [[listen]] with address = \"[::]:8080\""),
    (
        "http events global defaults main services routers middlewares",
        "Gatehouse has no such block: its tables stand at the top of the file",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::file::known_keys;

    #[test]
    fn words_are_answered_once_and_whatever_their_letters() {
        let words: Vec<&str> = WORDS.iter().flat_map(|(words, _)| words.split(' ')).collect();
        assert_eq!(words.len(), words.iter().collect::<BTreeSet<_>>().len(), "{words:?}");
        assert!(
            answer("Proxy_Pass").is_some() && answer("auto-https").is_some() && answer("colour").is_none()
        );
    }

    /// An answer that names a key names one that there is.
    #[test]
    fn what_is_recommended_is_known() {
        let known: BTreeSet<String> = known_keys()
            .iter()
            .flat_map(|key| key.split('.').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        for (words, answer) in WORDS {
            let parts: Vec<&str> = answer.split(' ').collect();
            for pair in parts.windows(2).filter(|pair| pair[1] == "=") {
                let key = pair[0].trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let is_field = key.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit())
                    || key.starts_with("X-");
                assert!(is_field || known.contains(key), "{words}: {key} in {answer:?}");
            }
        }
    }
}
