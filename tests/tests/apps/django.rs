//! Django's admin (PyPI), over HTTP/2.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use gatehouse_tests::{
    address,
    binaries::{build_folder, repository},
    browser::Browser,
    edge::{Edge, Setup},
    folder::Folder,
    process::Process,
    python, recipe, tool,
};

const PASSWORD: &str = "correct horse battery staple";

fn source() -> PathBuf {
    repository().join("tests/apps/django")
}

fn installed(program: &str) -> PathBuf {
    python::environment("django", &source().join("requirements.txt")).join("bin").join(program)
}

/// What the app finds in its environment.
fn variables(folder: &Path) -> [(&'static str, String); 6] {
    let source = source().display().to_string();
    let [database, files] =
        ["shop.sqlite3", "public/static"].map(|name| folder.join(name).display().to_string());
    [
        ("PYTHONPATH", source),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("DJANGO_SETTINGS_MODULE", "shop.settings".to_owned()),
        ("SHOP_DATABASE", database),
        ("SHOP_STATIC", files),
    ]
}

fn django(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(installed("python"));
    command.args(["-m", "django"]).args(arguments).current_dir(source()).envs(variables(folder));
    command.env("DJANGO_SUPERUSER_PASSWORD", PASSWORD);
    command
}

/// Two users.
fn fill(folder: &Path) {
    tool::run_command(&mut django(folder, &["migrate", "--verbosity", "0"]));
    for name in ["ada", "bob"] {
        let email = format!("{name}@example.org");
        let user = ["createsuperuser", "--noinput", "--username", name, "--email", &email];
        tool::run_command(&mut django(folder, &user));
    }
}

/// The app, with its two users, and where it listens.
struct App {
    _process: Process,
    _folder: Folder,
    address: SocketAddr,
}

impl App {
    fn start() -> Self {
        let folder = Folder::new();
        fill(folder.path());
        let address = address::own();
        let mut process = Process::start(
            "django",
            &mut django(folder.path(), &["runserver", "--noreload", "--insecure", &address.to_string()]),
        );
        process.wait_for_line("that it listens", |line| {
            line.contains("Starting development server").then_some(())
        });
        Self { _process: process, _folder: folder, address }
    }
}

/// One after the other, each sees only their own. A browser sends its two cookies in two HTTP/2 fields (RFC 9113 §8.2.3): the app
/// saw one of them, and nobody could sign in.
fn two_users_sign_in_and_out(edge: &Edge, name_of_pictures: &str) {
    let page = |path: &str| format!("https://localhost:{}{path}", edge.tls().port());
    let browser = &mut Browser::start();
    for (name, other) in [("ada", "bob"), ("bob", "ada")] {
        browser.open(&page("/admin/"));
        browser.fill("#id_username", name);
        browser.fill("#id_password", PASSWORD);
        browser.follow("input[type=submit]");
        assert_eq!(browser.text("#content h1"), "Site administration", "{name} is signed in");
        let greeting = browser.text("#user-tools");
        assert!(greeting.to_lowercase().contains(name), "{greeting}");
        browser.open(&page("/admin/auth/user/"));
        assert!(!browser.text("#user-tools").to_lowercase().contains(other));
        browser.screenshot(&build_folder().join(format!("screenshots/{name_of_pictures}-{name}.png")));
        browser.follow("#logout-form button");
        assert_eq!(browser.text("#content h1"), "Logged out");
        browser.open(&page("/admin/"));
        assert_eq!(browser.evaluate("document.querySelector('#id_username') !== null"), true, "signed out");
    }
    let pages = browser.loaded().into_iter().filter(|response| response.kind == "Document");
    for page in pages {
        assert!(page.protocol == "h2" && page.status < 400, "{page:?}");
    }
    // The app has no icon of its own.
    let complaints = browser.complaints().into_iter().filter(|told| !told.contains("/favicon.ico"));
    assert_eq!(complaints.collect::<Vec<_>>(), [] as [String; 0]);
}

#[test]
fn two_users_sign_in_one_after_the_other_and_see_only_their_own() {
    let app = App::start();
    let edge =
        Setup::over_address(app.address).route("path = \"/*\"\ncache = { default_ttl = \"10m\" }").start();
    two_users_sign_in_and_out(&edge, "django");
}

/// The edge starts gunicorn, and serves by itself what `collectstatic` has put together.
#[test]
fn the_recipe_of_the_book_runs_the_app_with_its_files() {
    let folder = Folder::new();
    fill(folder.path());
    tool::run_command(&mut django(folder.path(), &["collectstatic", "--noinput", "--verbosity", "0"]));
    let lines = variables(folder.path()).map(|(name, value)| format!("{name}={value}\n"));
    folder.write(".env", &lines.concat());
    let gunicorn = installed("gunicorn").display().to_string();
    let settings = recipe::settings(
        "python",
        &[
            ("address = \"[::]:80\"", "address = \"127.0.0.1:0\""),
            ("address = \"[::]:443\"", "address = \"127.0.0.1:0\""),
            ("127.0.0.1:9900", "127.0.0.1:0"),
            (
                "\"certs/shop.pem\", key = \"certs/shop.key\"",
                "\"certs/localhost.pem\", key = \"certs/localhost.key\", local_ca = true",
            ),
            ("venv/bin/gunicorn", &gunicorn),
        ],
    );
    folder.write("edge.toml", &settings);
    let edge = Edge::start_in(folder);
    two_users_sign_in_and_out(&edge, "django-recipe");
    let style = edge.curl_h2("/static/admin/css/base.css").send();
    assert_eq!((style.status, style.must("cache-control")), (200, "public, no-cache"), "{style:#?}");
    let sign_in = edge.curl_h2("/admin/login/").send();
    assert!(!sign_in.is_hit() && sign_in.must("cache-control").contains("private"), "{sign_in:#?}");
}
