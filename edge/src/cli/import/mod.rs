//! `edge import nginx.conf`: an exact part of nginx's settings as those of the edge, and line by line what is not among it.

mod made;
mod nginx;
mod routes;
mod translation;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::outcome::ended;
use crate::observe::say;
use translation::Translation;

/// Which file.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// A whole nginx.conf, or a file of sites-enabled. What it includes is not read
    file: PathBuf,
}

/// Prints the file of settings, and on standard error what is not in it. Exit code 3 where there is such.
pub fn run(ImportArguments { file }: &ImportArguments) -> ExitCode {
    ended(import(file), |translation| {
        say::result(translation.settings.trim_end());
        translation.left.iter().for_each(say::complaint);
        if translation.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) }
    })
}

fn import(file: &PathBuf) -> anyhow::Result<Translation> {
    let shown = file.display();
    let length = fs::metadata(file).with_context(|| format!("{shown} cannot be read"))?.len();
    anyhow::ensure!(length <= LONGEST, "{shown} has more than {LONGEST} bytes");
    let text = fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))?;
    let directives = nginx::read(&text).map_err(|why| anyhow::anyhow!("{shown}: {why}"))?;
    Ok(translation::translate(&shown.to_string(), &directives))
}

/// In bytes.
const LONGEST: u64 = 4 << 20;
/// Settings were written, and something was left out.
const INCOMPLETE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Settings};

    /// The settings, the text of them, and what is left out.
    fn of(text: &str) -> (Settings, String, Vec<String>) {
        let Translation { settings, left } =
            translation::translate("nginx.conf", &nginx::read(text).unwrap());
        // Folders and pages have to be there.
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/index.html"), "").unwrap();
        let there = settings.replace("/var/www", &folder.path().display().to_string());
        let read = settings::parse(&there, "imported").unwrap_or_else(|error| panic!("{error}\n{settings}"));
        (read, settings, left)
    }

    fn paths(settings: &Settings) -> Vec<String> {
        settings
            .routes
            .iter()
            .map(|route| route.paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn an_app_behind_tls_is_taken_whole() {
        let (settings, text, left) = of(r#"
            user www-data; worker_processes auto;
            events { worker_connections 768; }
            http {
                include /etc/nginx/mime.types;
                sendfile on; gzip on;
                limit_req_zone $binary_remote_addr zone=login:10m rate=5r/m;
                upstream app { server 127.0.0.1:3000 weight=3; server 127.0.0.1:3001; server 127.0.0.1:3002 backup; keepalive 16; }
                server { listen 80; listen [::]:80; server_name shop.example www.shop.example; return 301 https://$host$request_uri; }
                server {
                    listen 443 ssl http2; server_name shop.example www.shop.example;
                    ssl_certificate /etc/ssl/shop.pem; ssl_certificate_key /etc/ssl/shop.key; ssl_protocols TLSv1.2 TLSv1.3;
                    client_max_body_size 20m;
                    add_header X-Frame-Options DENY always;
                    location / {
                        proxy_pass http://app;
                        proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Tenant shop;
                        proxy_read_timeout 90s; proxy_http_version 1.1; proxy_set_header Connection "";
                    }
                    location = /login { limit_req zone=login burst=4 nodelay; proxy_pass http://app; }
                    location /static/ { root /var/www; expires 30d; }
                    location /api/v1/ { proxy_pass http://app/v1/; proxy_cache_valid 200 10m; proxy_cache shop; }
                }
            }
        "#);
        assert_eq!(left, [""; 0], "{text}");
        assert_eq!(paths(&settings), ["/*", "/login", "/static/*", "/api/v1/*", "/*"]);
        let listeners: Vec<String> =
            settings.listeners.iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(listeners, ["[::]:443", "[::]:80"]);
        assert!(settings.listeners[0].tls.is_some() && settings.listeners[1].tls.is_none());
        let app = &settings.upstreams["app"];
        assert_eq!((app.servers.len(), app.servers[0].weight.get(), app.servers[2].backup), (3, 3, true));
        assert_eq!((app.response_timeout.as_secs(), app.balance.to_string()), (90, "round-robin".to_owned()));
        assert_eq!(settings.limits["login"].burst.get(), 5);
        let [_, login, files, api, _] = &settings.routes[..] else { panic!("{text}") };
        assert_eq!((login.limits.len(), login.bounds.body), (1, 20 << 20));
        assert_eq!(api.rules.default_ttl.map(|ttl| ttl.as_secs()), Some(600));
        assert!(
            text.contains("strip_prefix = \"/api/v1\"\n") && text.contains("add_prefix = \"/v1\"\n"),
            "{text}"
        );
        assert_eq!(files.browser.as_ref().unwrap(), "max-age=2592000");
    }

    #[test]
    fn an_app_of_one_page_is_taken_whole() {
        let (settings, text, left) = of(r#"server {
            listen 8080 default_server; root /var/www/src; index index.html;
            location / { try_files $uri $uri/ /index.html; }
            location /assets/ { expires max; add_header Cache-Control "public, immutable"; }
            location /healthz { return 200 "ok"; }
            location /old { return 301 /new; }
            location = /app { return 308 https://other.example$request_uri; }
            gzip_types text/css application/javascript;
        }"#);
        let told = "nginx.conf:5: not taken: location /healthz: /healthz and /healthz/.. are taken; nginx takes /healthzx too";
        assert_eq!((left.len(), left[0].as_str()), (2, told), "{left:#?}");
        assert_eq!(
            paths(&settings),
            ["/app", "/assets/*", "/healthz /healthz/*", "/old /old/*", "/*"],
            "{text}"
        );
        assert!(
            text.contains("fallback = \"index.html\"")
                && text.contains("browser = \"max-age=315360000, public, immutable\""),
            "{text}"
        );
        assert!(text.contains("https://other.example{path}{query}"), "{text}");
    }

    #[test]
    fn what_is_not_taken_is_told_with_its_line_and_opens_nothing() {
        let (settings, text, left) = of(r"server {
            listen 80; server_name a.test;
            location / { proxy_pass http://127.0.0.1:1; }
            location ~ \.php$ { fastcgi_pass unix:/run/php.sock; }
            location /admin/ { proxy_pass http://127.0.0.1:1; auth_request /check; }
            location /office/ { proxy_pass http://127.0.0.1:1; allow 10.0.0.0/8; deny all; }
            location /part/ { proxy_pass http://127.0.0.1:1; deny 10.0.0.1; allow 10.0.0.0/8; deny all; }
            location /v/ { proxy_pass http://$backend; }
            rewrite ^/a /b;
        }");
        assert_eq!(paths(&settings), ["/office/*", "/*"], "{text}");
        let lines: Vec<&str> = left.iter().filter_map(|line| line.split(':').nth(1)).collect();
        assert_eq!(lines, ["4", "5", "5", "7", "7", "7", "8", "8", "9"], "{left:#?}");
        assert_eq!(settings.routes[0].addresses.allow.len(), 1);
    }

    #[test]
    fn servers_of_one_name_at_two_ports_are_told_apart_by_nobody_here() {
        let server = |port: u16| {
            format!("server {{ listen {port}; location / {{ proxy_pass http://127.0.0.1:{port}; }} }}")
        };
        let (settings, _, left) = of(&format!("{}{}", server(81), server(82)));
        assert_eq!((settings.routes.len(), left.len()), (1, 1), "{left:?}");
    }
}
