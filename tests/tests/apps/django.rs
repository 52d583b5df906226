//! Django's admin (PyPI), over HTTP/2.

use std::{net::SocketAddr, process::Command};

use gatehouse_tests::{
    address,
    binaries::{build_folder, repository},
    browser::Browser,
    edge::Setup,
    folder::Folder,
    process::Process,
    python, tool,
};

const PASSWORD: &str = "correct horse battery staple";

/// The app, with its two users, and where it listens.
struct App {
    _process: Process,
    _folder: Folder,
    address: SocketAddr,
}

impl App {
    fn start() -> Self {
        let source = repository().join("tests/apps/django");
        let python = python::environment("django", &source.join("requirements.txt")).join("bin/python");
        let folder = Folder::new();
        let django = |arguments: &[&str]| {
            let mut command = Command::new(&python);
            command.args(["-m", "django"]).args(arguments).current_dir(&source);
            command
                .env("PYTHONPATH", &source)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("PYTHONUNBUFFERED", "1");
            command.env("DJANGO_SETTINGS_MODULE", "shop.settings");
            command.env("SHOP_DATABASE", folder.path().join("shop.sqlite3"));
            command.env("DJANGO_SUPERUSER_PASSWORD", PASSWORD);
            command
        };
        tool::run_command(&mut django(&["migrate", "--verbosity", "0"]));
        for name in ["ada", "bob"] {
            let email = format!("{name}@example.org");
            let user = ["createsuperuser", "--noinput", "--username", name, "--email", &email];
            tool::run_command(&mut django(&user));
        }
        let address = address::own();
        let mut process = Process::start(
            "django",
            &mut django(&["runserver", "--noreload", "--insecure", &address.to_string()]),
        );
        process.wait_for_line("that it listens", |line| {
            line.contains("Starting development server").then_some(())
        });
        Self { _process: process, _folder: folder, address }
    }
}

/// A browser sends its two cookies in two HTTP/2 fields (RFC 9113 §8.2.3). The app saw one of them, and nobody could sign in.
#[test]
fn two_users_sign_in_one_after_the_other_and_see_only_their_own() {
    let app = App::start();
    let edge =
        Setup::over_address(app.address).route("path = \"/*\"\ncache = { default_ttl = \"10m\" }").start();
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
        browser.screenshot(&build_folder().join(format!("screenshots/django-{name}.png")));
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
