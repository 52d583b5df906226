//! `edge init`: looks at what is in a folder, and writes a short file of settings for it, with the schema by which editors
//! complete it beside.

mod found;

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;

use super::{outcome::told, schema};
use found::FoundApp;

/// Which folder.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Where the app is, and where edge.toml goes
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// Writes `edge.toml`, where there is none, and the schema that it names, and says what to do next.
pub fn run(InitArguments { folder }: &InitArguments) -> ExitCode {
    told(init(folder))
}

fn init(folder: &Path) -> anyhow::Result<String> {
    let app = FoundApp::in_folder(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let file = folder.join("edge.toml");
    let shown = file.display();
    let mut created = File::create_new(&file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!(
                "{shown} is there already, and stays as it is\n   = help: edge check --config {shown}"
            )
        }
        _ => anyhow::Error::new(error).context(format!("{shown} cannot be written")),
    })?;
    created.write_all(text(&app).as_bytes()).with_context(|| format!("{shown} cannot be written"))?;
    // One that is there is of this program, or of one that was before it: `edge schema` writes it anew.
    let beside = folder.join("edge.schema.json");
    match File::create_new(&beside).and_then(|mut file| writeln!(file, "{}", schema::text())) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("{} cannot be written", beside.display()));
        }
        _ => {}
    }
    let go_there =
        if folder == Path::new(".") { String::new() } else { format!("  cd {}\n", folder.display()) };
    Ok(format!(
        "{shown}: for {}\n\nNext:\n{go_there}{}  edge check     # is it right?\n  edge run       # then open https://localhost:8443\n  \
         edge trust     # once on this machine, so that browsers believe its certificate",
        app.shown(),
        app.before().map(|step| format!("  {step}\n")).unwrap_or_default(),
    ))
}

/// The whole file.
fn text(app: &FoundApp) -> String {
    format!(
        "#:schema ./edge.schema.json\n# For {}. Every setting: `edge check --effective` prints them, docs/settings.md explains them.\n{}\n{}",
        app.shown(),
        HEAD.replace("HOME", written_home()),
        body(app)
    )
}

const HEAD: &str = r#"
[[listen]]
address = "[::]:8080"

[[listen]]
address = "[::]:8443"
tls = { certificate = "HOME/localhost.pem", key = "HOME/localhost.key", local_ca = true }
# On a public machine, with a name: "[::]:80" and "[::]:443" above, and in place of `tls`
#domain = "shop.example"

# Purges, reloads, metrics, `edge explain`; for this machine alone.
[admin]
address = "127.0.0.1:9900"
"#;

/// Where certificates of this machine alone are kept: for all folders the same, so that browsers need to trust one authority, and in
/// none that somebody may serve.
fn written_home() -> &'static str {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    match (is_set("XDG_DATA_HOME"), is_set("HOME")) {
        (true, _) => "${XDG_DATA_HOME}/gatehouse",
        (false, true) => "${HOME}/.local/share/gatehouse",
        (false, false) => "certs",
    }
}

fn body(app: &FoundApp) -> String {
    match app {
        FoundApp::Next => with_port(NEXT, 3000),
        FoundApp::SinglePage { folder } => SINGLE_PAGE.replace("FOLDER", folder),
        FoundApp::Node { port } => with_port(PROXY, *port).replace("EXAMPLE", "[\"node\", \"app.js\"]"),
        FoundApp::Django => with_port(DJANGO, 8000),
        FoundApp::Flask => with_port(PROXY, 5000)
            .replace("EXAMPLE", "[\"venv/bin/gunicorn\", \"--bind\", \"127.0.0.1:{port}\", \"app:app\"]"),
        FoundApp::WordPress => with_port(WORDPRESS, 8081),
        FoundApp::Php => with_port(PHP, 8081),
        FoundApp::Rails => with_port(RAILS, 3000),
        FoundApp::Pages { folder } => PAGES.replace("FOLDER", folder),
        FoundApp::Unknown => with_port(PROXY, 3000).replace("EXAMPLE", "[\"./app\"]"),
    }
}

fn with_port(text: &str, port: u16) -> String {
    text.replace("AT_PORT", &port.to_string())
}

const PROXY: &str = r#"# Where the app listens. The edge can run it too, and then replaces its instances without losing a request. Each listens where PORT
# tells it (in Node process.env.PORT), and not at a port of its own:
#[commands.app]
#run = EXAMPLE
# and here: servers = ["command:app"]
[upstreams.app]
servers = ["http://127.0.0.1:AT_PORT"]

# What the app says in Cache-Control governs.
[[routes]]
name = "app"
path = "/*"
upstream = "app"
"#;

const NEXT: &str = r#"# Where `next start` listens.
[upstreams.next]
servers = ["http://127.0.0.1:AT_PORT"]

# Their names hold a hash.
[[routes]]
name = "assets"
path = "/_next/static/*"
upstream = "next"
cache = { default_ttl = "365d", ignore_cookies = true }

[[routes]]
name = "pages"
path = "/*"
upstream = "next"

[routes.cache]
# Next says a year of a page that is built once, and takes it back inside its own server only: not longer than this here.
max_ttl = "60s"
stale_if_error = "1d"
query = { drop = ["utm_*", "gclid", "fbclid"] }
"#;

const SINGLE_PAGE: &str = r#"# With an API of its own server:
#[upstreams.api]
#servers = ["http://127.0.0.1:3000"]
#
#[[routes]]
#name = "api"
#path = "/api/*"
#upstream = "api"

# What the build has made; paths that are none of its files are the app's own.
[[routes]]
name = "app"
path = "/*"
files = { folder = "FOLDER", fallback = "index.html", immutable = "/assets/*" }
"#;

const DJANGO: &str = r#"# Where gunicorn or `manage.py runserver` listens.
[upstreams.django]
servers = ["http://127.0.0.1:AT_PORT"]

# Ten passwords a minute of each client.
[limits.login]
rate = "10/m"
burst = 10

[[routes]]
name = "login"
path = "/admin/login/"
methods = ["POST"]
upstream = "django"
limit = "login"

# After `manage.py collectstatic` the edge may serve them from STATIC_ROOT: files = "static", strip_prefix = "/static"
[[routes]]
name = "static"
path = "/static/*"
upstream = "django"
cache = { default_ttl = "1h", ignore_cookies = true }

[[routes]]
name = "app"
path = "/*"
upstream = "django"
"#;

const RAILS: &str = r#"# Where puma listens.
[upstreams.rails]
servers = ["http://127.0.0.1:AT_PORT"]

# Their names hold a digest.
[[routes]]
name = "assets"
path = "/assets/*"
upstream = "rails"
cache = { default_ttl = "365d", ignore_cookies = true }

[[routes]]
name = "app"
path = "/*"
upstream = "rails"
"#;

const PHP: &str = r#"# A web server with PHP (nginx and php-fpm, Apache, or for a try php -S 127.0.0.1:AT_PORT): Gatehouse does not speak FastCGI.
[upstreams.php]
servers = ["http://127.0.0.1:AT_PORT"]

# This folder is what the web server serves: what is of the edge is nobody's.
[[routes]]
name = "own"
path = ["/edge.toml", "/edge.schema.json", "/certs/*"]
respond = 404

# What the app says in Cache-Control governs.
[[routes]]
name = "app"
path = "/*"
upstream = "php"
"#;

const WORDPRESS: &str = r#"# A web server with PHP (nginx and php-fpm, or Apache): Gatehouse does not speak FastCGI. PHP has to know of TLS, or WordPress
# redirects for ever. Where the web server does not tell it, wp-config.php does, before the line that requires wp-settings.php:
#   if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') $_SERVER['HTTPS'] = 'on';
[upstreams.wordpress]
servers = ["http://127.0.0.1:AT_PORT"]

[limits.login]
rate = "10/m"
burst = 10

# Plugins that purge Varnish purge here; they run on this machine.
[purge]
allow = ["127.0.0.1", "::1"]

# This folder is what the web server serves: what is of the edge is nobody's.
[[routes]]
name = "own"
path = ["/edge.toml", "/edge.schema.json", "/certs/*"]
respond = 404

# WordPress has one address, and that is with TLS.
[[routes]]
name = "tls"
path = "/*"
redirect = "https"

[[routes]]
name = "login"
path = ["/wp-login.php", "/xmlrpc.php"]
methods = ["POST"]
upstream = "wordpress"
limit = "login"

[[routes]]
name = "admin"
path = ["/wp-admin/*", "/wp-login.php", "/wp-json/*"]
upstream = "wordpress"

[[routes]]
name = "files"
path = ["/wp-content/*", "/wp-includes/*"]
upstream = "wordpress"
cache = { default_ttl = "1d", ignore_cookies = true, browser = "public, max-age=86400" }

# WordPress states no lifetime for its pages: this does. Who has signed in, commented or filled a cart has a cookie that is
# not listed, and goes past the cache.
[[routes]]
name = "pages"
path = "/*"
upstream = "wordpress"

[routes.cache]
default_ttl = "10m"
browser = "no-cache"
stale_while_revalidate = "60s"
stale_if_error = "1d"
ignore_cookies = ["_ga*", "_gid", "_fbp", "wordpress_test_cookie"]
query = { drop = ["utm_*", "gclid", "fbclid"] }
"#;

const PAGES: &str = r#"# Nothing but what is in this folder: what stands beside this file would be public too, keys among it.
[[routes]]
name = "pages"
path = "/*"
files = "FOLDER"
"#;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings;

    /// By name, with what each holds.
    type FilesOfFolder = &'static [(&'static str, &'static str)];

    /// What a folder holds, and what is found there.
    const FOLDERS: &[(&str, FilesOfFolder, &str)] = &[
        (
            "vite",
            &[("package.json", r#"{"devDependencies":{"vite":"7"}}"#), ("index.html", "")],
            "an app of one page",
        ),
        ("react", &[("package.json", r#"{"dependencies":{"react-scripts":"5"}}"#)], "an app of one page"),
        ("next", &[("package.json", r#"{"dependencies":{"next":"16","react":"19"}}"#)], "a Next.js app"),
        (
            "express",
            &[
                ("package.json", r#"{"main":"app.js","dependencies":{"express":"5"}}"#),
                ("app.js", "app.listen(4123)"),
            ],
            "a Node.js server at port 4123",
        ),
        (
            "vite and express",
            &[("package.json", r#"{"dependencies":{"vite":"7","express":"5"}}"#)],
            "a Node.js server",
        ),
        ("broken", &[("package.json", "{")], "a Node.js server at port 3000"),
        ("django", &[("manage.py", ""), ("requirements.txt", "django")], "a Django project"),
        ("flask", &[("requirements.txt", "Flask==3\n")], "a Flask app"),
        ("wordpress", &[("wp-config.php", ""), ("index.php", "")], "WordPress"),
        ("php", &[("index.php", "")], "a PHP app"),
        ("rails", &[("Gemfile", "gem \"rails\"")], "a Rails app"),
        ("pages", &[("public/index.html", "")], "the pages in public"),
        ("pages here", &[("index.html", "")], "the pages in site"),
        ("nothing", &[], "an app at port 3000"),
    ];

    #[test]
    fn what_is_written_for_each_kind_of_app_is_right() {
        for (name, files, shown) in FOLDERS {
            let folder = tempfile::tempdir().unwrap();
            for (file, content) in *files {
                let file = folder.path().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            let told = init(folder.path()).unwrap();
            assert!(told.contains(shown), "{name}: {told}");
            let text = fs::read_to_string(folder.path().join("edge.toml")).unwrap();
            let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
            let schema = fs::read_to_string(folder.path().join(named.expect("editors find it"))).unwrap();
            assert_eq!(schema.trim_end(), schema::text(), "{name}");
            let document = toml::from_str(&text).unwrap();
            assert!(settings::notation().takes(&toml::Value::Table(document)), "{name}");
            // Folders are relative to where the edge is started, and the build has made none yet.
            fs::write(folder.path().join("index.html"), "").unwrap();
            let there = toml::Value::from(folder.path().display().to_string()).to_string();
            let at = ["\"dist\"", "\"build\"", "\"site\"", "\"public\""];
            let text = at.iter().fold(text, |text, folder| text.replace(folder, &there));
            let settings = settings::parse(&text, name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(settings.listeners.len(), 2, "{name}");
            assert_eq!(crate::cli::fmt::laid_out(&text), text, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("edge.toml"), "mine").unwrap();
        let told = init(folder.path()).unwrap_err().to_string();
        assert!(told.contains("is there already"), "{told}");
        assert_eq!(fs::read_to_string(folder.path().join("edge.toml")).unwrap(), "mine");
        assert!(!folder.path().join("edge.schema.json").exists());
        assert!(init(&folder.path().join("none")).is_err());
    }

    /// What is off in them works when it is on.
    #[test]
    fn what_is_off_can_be_turned_on() {
        for app in [FoundApp::Node { port: 1 }, FoundApp::Flask] {
            let text = text(&app).replace("\n#[", "\n[").replace("\n#run", "\nrun");
            let text = text
                .replace("\"http://127.0.0.1:1\"", "\"command:app\"")
                .replace("\"http://127.0.0.1:5000\"", "\"command:app\"");
            let settings = settings::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(settings.commands.len(), 1);
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), "").unwrap();
        let text = text(&FoundApp::SinglePage { folder: folder.path().display().to_string() });
        let text = text.replace("\n#\n", "\n\n").replace("\n#[", "\n[").replace("\n#name", "\nname");
        let text = text
            .replace("\n#path", "\npath")
            .replace("\n#upstream", "\nupstream")
            .replace("\n#servers", "\nservers");
        assert_eq!(settings::parse(&text, "test").unwrap_or_else(|error| panic!("{error}")).routes.len(), 2);
    }
}
