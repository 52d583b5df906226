//! The recipes of the book: each is a file that the edge accepts, and does what its page says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gatehouse_tests::{
    binaries::{self, repository},
    edge::Edge,
    folder::Folder,
    recipe,
    upstream::{Reply, Upstream},
};
use rcgen::{CertificateParams, KeyPair};

/// What the recipes' paths name, in a folder of a test's own.
pub(crate) fn place() -> Folder {
    let folder = Folder::new();
    let names = ["shop.example", "*.shop.example", "localhost"].map(str::to_owned);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    folder.write("certs/shop.pem", &certificate.pem());
    folder.write("certs/shop.key", &key.serialize_pem());
    folder.write("dist/index.html", "<!doctype html><title>site</title>");
    folder.write("dist/404.html", "<!doctype html><title>not there</title>");
    folder.write("dist/assets/app.1a2b.js", "1");
    folder.write("public/static/app.css", "a{}");
    folder.write("admin-token", "0123456789abcdef0123456789abcdef");
    folder.write("purge-token", "0123456789abcdef0123456789abcdef");
    folder.write(".env", "SHOP=1\n");
    folder
}

pub(crate) fn recipes() -> Vec<PathBuf> {
    let folders = fs::read_dir(repository().join("docs/recipes")).unwrap().map(|entry| entry.unwrap().path());
    let mut recipes: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    recipes.sort();
    recipes
}

#[test]
fn every_recipe_is_a_page_and_a_file_that_the_edge_accepts() {
    let folder = place();
    // The app of a recipe that starts one need not be more than there.
    let program = folder.path().join("venv/bin/gunicorn");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    let recipes = recipes();
    assert!(recipes.len() > 10, "{recipes:?}");
    for recipe in recipes {
        let page = fs::read_to_string(recipe.join("README.md")).unwrap();
        assert!(page.contains("{{#include edge.toml}}"), "{}/README.md shows no edge.toml", recipe.display());
        let said = checked(&folder, &recipe.join("edge.toml"));
        assert!(said.contains(": ok: "), "{said}");
    }
}

/// What `edge check` says of a file, without the warning about this machine's own limit.
fn checked(folder: &Folder, file: &Path) -> String {
    let output = Command::new(binaries::edge())
        .args(["check", "--config"])
        .arg(file)
        .current_dir(folder.path())
        .output()
        .expect("the program is built");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("what edge says is text");
    assert!(output.status.success(), "{said}");
    said
}

/// Where a test listens in place of a recipe.
const CLEAR: &str = "address = \"127.0.0.1:0\"";

#[test]
fn the_static_site_has_long_lives_for_assets_and_a_page_of_its_own_for_what_is_not_there() {
    let folder = place();
    let admin = format!("[admin]\n{CLEAR}\n\n[[routes]]\nname = \"tls\"");
    let instead = [
        ("address = \"[::]:8080\"", CLEAR),
        ("address = \"[::]:8443\"", CLEAR),
        ("[[routes]]\nname = \"tls\"", &admin),
    ];
    folder.write("edge.toml", &recipe::settings("static-site", &instead));
    let edge = Edge::start_in(folder);
    let to_tls = edge.get("/a?b");
    assert_eq!(to_tls.status, 308);
    assert!(to_tls.must("location").starts_with("https://"), "{to_tls:#?}");
    let page = edge.curl_h2("/").send();
    assert_eq!((page.status, page.must("cache-control")), (200, "public, no-cache"), "{page:#?}");
    assert_eq!(page.must("x-content-type-options"), "nosniff");
    let asset = edge.curl_h2("/assets/app.1a2b.js").send();
    assert_eq!(asset.must("cache-control"), "public, max-age=31536000, immutable", "{asset:#?}");
    let missing = edge.curl_h2("/nothing").send();
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("not there"), "{missing:#?}");
}

#[test]
fn the_app_of_one_page_answers_for_its_own_paths_and_not_for_files() {
    let upstream = Upstream::start(|seen| Reply::ok(format!("api {}", seen.target)));
    let server = format!("http://{}", upstream.address());
    let folder = place();
    let instead = [
        ("address = \"[::]:80\"", CLEAR),
        ("address = \"[::]:443\"", CLEAR),
        ("address = \"127.0.0.1:9900\"", CLEAR),
        ("\"certs/shop.pem\", key = \"certs/shop.key\"", LOCAL),
        ("http://127.0.0.1:3000", &server),
        ("check = { path = \"/healthz\" }\n", ""),
    ];
    folder.write("edge.toml", &recipe::settings("spa-and-api", &instead));
    let edge = Edge::start_in(folder);
    let page = |path: &str| edge.curl_h2(path).send();
    assert!(page("/orders/7").text().contains("site"));
    assert_eq!(page("/logo.pgn").status, 404);
    assert_eq!(page("/api/users").text(), "api /api/users");
    let sign_in = || edge.curl_h2("/api/login").post("POST", "x").send().status;
    let statuses: Vec<u16> = (0..8).map(|_| sign_in()).collect();
    assert_eq!(statuses[..5], [200; 5], "{statuses:?}");
    assert_eq!(statuses[5..], [429; 3], "{statuses:?}");
}

/// In place of a certificate of the shop: one that the edge makes.
const LOCAL: &str = "\"certs/localhost.pem\", key = \"certs/localhost.key\", local_ca = true";

#[test]
fn visitors_of_wordpress_are_hits_and_who_has_signed_in_is_none() {
    let upstream = Upstream::start(|seen| Reply::ok(format!("page {}", seen.earlier + 1)));
    let server = format!("http://{}", upstream.address());
    let folder = place();
    let instead = [
        ("address = \"[::]:80\"", CLEAR),
        ("address = \"[::]:443\"", CLEAR),
        ("address = \"127.0.0.1:9900\"", CLEAR),
        ("\"certs/shop.pem\", key = \"certs/shop.key\"", LOCAL),
        ("http://127.0.0.1:8081", &server),
    ];
    folder.write("edge.toml", &recipe::settings("wordpress", &instead));
    let edge = Edge::start_in(folder);
    let page = |path: &str, cookie: &str| edge.curl_h2(path).header(&format!("Cookie: {cookie}")).send();
    assert_eq!(edge.curl_h2("/about/").send().text(), "page 1");
    let visitor = page("/about/?utm_source=x", "_ga_123=1; _gid=2");
    assert!(visitor.is_hit() && visitor.must("cache-control") == "no-cache", "{visitor:#?}");
    let author = page("/about/", "wordpress_logged_in_1a=x");
    assert!(!author.is_hit() && author.text() == "page 2", "{author:#?}");
    assert!(edge.curl_h2("/about/").send().text() == "page 1", "what the author saw is nobody else's");
    let purged =
        edge.curl("/about/").method("PURGE").header(&format!("Host: localhost:{}", edge.tls().port())).send();
    assert_eq!(purged.status, 200, "{purged:#?}");
    assert!(
        !edge.curl_h2("/about/").send().is_hit(),
        "a plugin that asks in clear text purges what is stored for TLS"
    );
    assert!(!edge.curl_h2("/wp-admin/").send().is_hit());
    assert!(!edge.curl_h2("/wp-admin/").send().is_hit());
}

#[test]
fn a_canary_is_for_who_asks_and_for_nobody_else() {
    let [old, new] = ["old", "new"]
        .map(|what| Upstream::start(move |_| Reply::ok(what).cache_control("public, max-age=60")));
    let [old, new] = [&old, &new].map(|upstream| format!("http://{}", upstream.address()));
    let folder = place();
    let listeners = format!("[[listen]]\n{CLEAR}\n\n[[listen]]\n{CLEAR}");
    let instead = [
        ("[[listen]]\naddress = \"[::]:443\"", listeners.as_str()),
        ("address = \"127.0.0.1:9900\"", CLEAR),
        ("\"certs/shop.pem\", key = \"certs/shop.key\"", LOCAL),
        ("\"http://10.0.0.5:3000\", \"http://10.0.0.6:3000\"", &format!("{old:?}")),
        ("http://10.0.0.7:3000", &new),
        ("check = { path = \"/healthz\" }\n", ""),
        ("share = \"5%\"", "share = \"0%\""),
    ];
    folder.write("edge.toml", &recipe::settings("canary", &instead));
    let edge = Edge::start_in(folder);
    let asks = |line: &str| edge.curl_h2("/").header(line).send().text();
    assert_eq!(asks("X-Canary: yes"), "new");
    assert_eq!(asks("X-Other: yes"), "old");
    assert_eq!(asks("Cookie: canary=yes"), "new");
    assert_eq!(asks("X-Canary: no"), "old");
}
