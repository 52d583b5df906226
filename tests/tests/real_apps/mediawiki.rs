//! MediaWiki on SQLite (Debian's package).

use gatehouse_tests::{address, binaries::build_folder, browser::Browser, edge::Edge, wait};

use crate::{all_is_well, asked, edge_by, nothing_of_a_user_is_shared, page, php::Host};

const PASSWORD: &str = "correct horse battery staple";

/// What the recipe's page says of the app's own settings.
const SETTINGS: &str = "\
$wgUseCdn = true;
$wgEnableUploads = true;
";

/// It purges in clear text: over TLS it would ask for a tunnel.
fn purges_at(edge: &Edge) -> String {
    let (clear, inside) = (edge.clear(), page(edge, "").replace("https", "http"));
    format!("$wgCdnServers = ['{clear}'];\n$wgInternalServer = '{inside}';\n")
}

/// Installed as its own script does it, with an administrator (Ada) and a user (Bob).
fn install(host: &Host, edge: &Edge) {
    host.copy("/usr/share/mediawiki", "wiki");
    let folder = host.path().display();
    let (database, configuration) = (format!("{folder}/data"), format!("{folder}/wiki"));
    // The package's own link to /etc.
    let _ = std::fs::remove_file(host.path().join("wiki/LocalSettings.php"));
    host.php(&[
        "wiki/maintenance/install.php",
        "--dbtype=sqlite",
        &format!("--dbpath={database}"),
        &format!("--confpath={configuration}"),
        "--scriptpath=",
        &format!("--server={}", page(edge, "")),
        &format!("--pass={PASSWORD}"),
        "The wiki",
        "Ada",
    ]);
    let file = host.path().join("wiki/LocalSettings.php");
    let text = std::fs::read_to_string(&file).expect("it was installed");
    host.write(
        "wiki/LocalSettings.php",
        &format!("{text}\n{SETTINGS}{}$wgUploadDirectory = '{folder}/wiki/images';\n", purges_at(edge)),
    );
    host.php(&["wiki/maintenance/createAndPromote.php", "Bob", PASSWORD]);
}

fn sign_in(browser: &mut Browser, edge: &Edge, name: &str) {
    browser.open(&page(edge, "/index.php?title=Special:UserLogin"));
    browser.fill("#wpName1", name);
    browser.fill("#wpPassword1", PASSWORD);
    browser.follow("#wpLoginAttempt");
    assert_eq!(browser.text("#pt-userpage"), name, "{name} is signed in");
}

#[test]
fn an_author_writes_and_uploads_and_readers_have_it_from_the_cache() {
    let here = address::own();
    let mut edge = edge_by("wordpress", &[("127.0.0.1:8081", &here.to_string())]);
    let host = Host::new();
    install(&host, &edge);
    let _php = host.serve("wiki", here);
    let read = |edge: &Edge, title: &str| edge.curl_h2(&format!("/index.php?title={title}")).send();

    let (ada, from) = (&mut Browser::start(), asked(&mut edge).len());
    sign_in(ada, &edge, "Ada");
    ada.open(&page(&edge, "/index.php?title=Kettle&action=edit"));
    ada.fill("#wpTextbox1", "It whistles.");
    ada.follow("#wpSave");
    assert!(ada.text("#mw-content-text").contains("It whistles."));

    let picture = host.path().join("kettle.png");
    image::RgbImage::from_pixel(64, 64, image::Rgb([200, 40, 40]))
        .save(&picture)
        .expect("a picture is written");
    ada.open(&page(&edge, "/index.php?title=Special:Upload"));
    ada.choose("#wpUploadFile", &picture);
    ada.follow("input[name=wpUpload]");
    let source =
        ada.evaluate("document.querySelector('#file img, .fullImageLink img')?.getAttribute('src') ?? ''");
    let source = source.as_str().unwrap_or_default().replace(&page(&edge, ""), "");
    assert_eq!(edge.curl_h2(&source).send().must("content-type"), "image/png", "{source}");

    ada.open(&page(&edge, "/index.php?title=Kettle"));
    assert_eq!(ada.text("#pt-userpage"), "Ada", "what is hers is shown to her");
    ada.screenshot(&build_folder().join("screenshots/mediawiki-ada.png"));
    nothing_of_a_user_is_shared(
        &mut edge,
        from,
        &["files", "tls", "/load.php"],
        &["pt-userpage", "pt-logout"],
    );

    assert!(read(&edge, "Kettle").text().contains("It whistles."));
    assert!(read(&edge, "Kettle").is_hit(), "readers have pages from the cache");

    ada.open(&page(&edge, "/index.php?title=Kettle&action=edit"));
    ada.fill("#wpTextbox1", "It sings.");
    ada.follow("#wpSave");
    let sings = || read(&edge, "Kettle").text().contains("It sings.").then_some(());
    wait::until("what is saved is purged by the wiki itself", sings);

    let bob = &mut Browser::start();
    sign_in(bob, &edge, "Bob");
    bob.open(&page(&edge, "/index.php?title=Kettle"));
    assert_eq!(bob.text("#pt-userpage"), "Bob");
    ada.open(&page(&edge, "/index.php?title=Special:UserLogout"));
    ada.follow("#mw-content-text button[type=submit]");
    ada.open(&page(&edge, "/index.php?title=Kettle"));
    assert_eq!(ada.text("#pt-userpage"), "", "she is signed out");
    bob.open(&page(&edge, "/index.php?title=Kettle"));
    assert_eq!(bob.text("#pt-userpage"), "Bob", "and he is not");
    for browser in [&*ada, &*bob] {
        all_is_well(browser);
    }
}
