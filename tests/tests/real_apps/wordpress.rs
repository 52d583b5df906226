//! WordPress on MariaDB (Debian's packages).

use std::process::Command;

use gatehouse_tests::{
    address, binaries::build_folder, browser::Browser, edge::Edge, process::Process, tool, wait,
};
use serde_json::{Value, json};

use crate::{
    all_is_well, asked, edge_by, nothing_of_a_user_is_shared, page,
    php::{Host, Php},
};

const PASSWORD: &str = "correct horse battery staple";

/// The app with an administrator (ada) and a subscriber (bob).
struct App {
    // In the order in which they end.
    _php: Php,
    _mariadb: Process,
    host: Host,
}

impl App {
    /// Behind an edge that is there already: WordPress keeps the address by which it is asked.
    fn start(here: std::net::SocketAddr, url: &str) -> Self {
        let host = Host::new();
        host.copy("/usr/share/wordpress", "wordpress");
        let mariadb = Self::database(&host);
        host.write("wordpress/wp-config.php", &Self::settings(&host));
        host.write("install.php", INSTALL);
        host.php(&["install.php", url, PASSWORD]);
        let php = host.serve("wordpress", here);
        Self { _php: php, _mariadb: mariadb, host }
    }

    fn database(host: &Host) -> Process {
        let folder = host.path().join("mariadb").display().to_string();
        let mut make = host.command(&["mariadb-install-db", "mysql_install_db"], "mariadb-server");
        make.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        tool::run_command(make.arg(format!("--datadir={folder}")));
        let socket = format!("--socket={}", host.path().join("mariadb.sock").display());
        let mut server = host.command(&["mariadbd", "mysqld"], "mariadb-server");
        server.args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0", &socket]);
        server.arg(format!("--datadir={folder}"));
        server.arg(format!("--pid-file={}", host.path().join("mariadb.pid").display()));
        let server = Process::start("mariadb", &mut server);
        wait::until("MariaDB answers", || {
            let mut client: Command = host.command(&["mariadb", "mysql"], "mariadb-client");
            client.args([
                "--no-defaults",
                "--user=root",
                &socket,
                "--execute=CREATE DATABASE IF NOT EXISTS wordpress",
            ]);
            client.output().ok().filter(|made| made.status.success())
        });
        server
    }

    fn settings(host: &Host) -> String {
        let keys = ["AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE"];
        let keys = keys
            .map(|key| format!("define('{key}_KEY', '{key} key'); define('{key}_SALT', '{key} salt');\n"));
        format!(
            "<?php\ndefine('DB_NAME', 'wordpress'); define('DB_USER', 'root'); define('DB_PASSWORD', '');\n\
             define('DB_HOST', 'localhost:{}');\n$table_prefix = 'wp_';\n{}\
             define('FS_METHOD', 'direct'); define('DISABLE_WP_CRON', true); define('WP_HTTP_BLOCK_EXTERNAL', true);\n\
             define('AUTOMATIC_UPDATER_DISABLED', true);\n\
             if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');\nrequire_once ABSPATH . 'wp-settings.php';\n",
            host.path().join("mariadb.sock").display(),
            keys.concat(),
        )
    }
}

/// What its installer does when its form is sent.
const INSTALL: &str = r#"<?php
[, $url, $password] = $argv;
define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = parse_url($url, PHP_URL_HOST) . ':' . parse_url($url, PHP_URL_PORT);
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['HTTPS'] = 'on';
require __DIR__ . '/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
define('WP_SITEURL', $url);
wp_install('The shop', 'ada', 'ada@example.org', true, '', $password);
update_option('siteurl', $url);
update_option('home', $url);
$bob = wp_create_user('bob', $password, 'bob@example.org');
if (is_wp_error($bob)) { fwrite(STDERR, $bob->get_error_message()); exit(1); }
"#;

fn sign_in(browser: &mut Browser, edge: &Edge, name: &str) {
    browser.open(&page(edge, "/wp-login.php"));
    browser.fill("#user_login", name);
    browser.fill("#user_pass", PASSWORD);
    browser.follow("#wp-submit");
    assert_eq!(browser.text("#wpadminbar .display-name"), name, "{name} is signed in");
}

/// What its editor asks the API for.
fn api(browser: &mut Browser, request: &Value) -> Value {
    browser.wait_until("typeof wp !== 'undefined' && !!wp.apiFetch");
    browser.evaluate(&format!("wp.apiFetch({request})"))
}

#[test]
fn an_editor_publishes_and_uploads_and_visitors_have_it_from_the_cache() {
    let here = address::own();
    let mut edge = edge_by("wordpress", &[("127.0.0.1:8081", &here.to_string())]);
    let app = App::start(here, &page(&edge, ""));
    let front = |edge: &Edge| edge.curl_h2("/").send();
    let first = front(&edge);
    assert!(first.text().contains("The shop"), "{first:#?}");
    assert!(front(&edge).is_hit(), "visitors have pages from the cache");

    let (ada, from) = (&mut Browser::start(), asked(&mut edge).len());
    sign_in(ada, &edge, "ada");
    ada.open(&page(&edge, "/wp-admin/post-new.php"));
    let post = json!({ "title": "A kettle", "content": "<p>It whistles.</p>", "status": "publish" });
    let post = api(ada, &json!({ "path": "/wp/v2/posts", "method": "POST", "data": post }));
    let link = post["link"].as_str().expect("a post has a link").replace(&page(&edge, ""), "");
    assert!(edge.curl_h2(&link).send().text().contains("It whistles."), "{link}");

    let picture = app.host.path().join("kettle.png");
    image::RgbImage::from_pixel(64, 64, image::Rgb([200, 40, 40]))
        .save(&picture)
        .expect("a picture is written");
    ada.open(&page(&edge, "/wp-admin/media-new.php?browser-uploader"));
    ada.choose("#async-upload", &picture);
    ada.follow("#html-upload");
    ada.open(&page(&edge, "/wp-admin/post-new.php"));
    let media = api(ada, &json!({ "path": "/wp/v2/media" }));
    let source = media[0]["source_url"].as_str().expect("it was uploaded").replace(&page(&edge, ""), "");
    assert_eq!(edge.curl_h2(&source).send().must("content-type"), "image/png");
    assert!(edge.curl_h2(&source).send().is_hit(), "{source}");

    ada.open(&page(&edge, "/"));
    assert_eq!(ada.text("#wpadminbar .display-name"), "ada", "what is hers is shown to her");
    assert!(ada.text("body").contains("A kettle"));
    ada.screenshot(&build_folder().join("screenshots/wordpress-ada.png"));
    let personal = ["id=\"wpadminbar\"", "wp-admin/profile.php", "Howdy"];
    nothing_of_a_user_is_shared(&mut edge, from, &["files", "tls", "/wp-admin/load-"], &personal);

    // As plugins that purge Varnish do.
    assert!(!front(&edge).text().contains("A kettle"), "the old page, for ten minutes");
    assert_eq!(edge.curl_h2("/").method("PURGE").send().status, 200);
    assert!(front(&edge).text().contains("A kettle"));

    let bob = &mut Browser::start();
    sign_in(bob, &edge, "bob");
    bob.open(&page(&edge, "/"));
    assert_eq!(bob.text("#wpadminbar .display-name"), "bob");
    ada.follow("#wp-admin-bar-logout a");
    ada.open(&page(&edge, "/"));
    assert_eq!(ada.evaluate("document.querySelector('#wpadminbar') === null"), true, "she is signed out");
    bob.open(&page(&edge, "/"));
    assert_eq!(bob.text("#wpadminbar .display-name"), "bob", "and he is not");
    for browser in [&*ada, &*bob] {
        all_is_well(browser);
    }
}
