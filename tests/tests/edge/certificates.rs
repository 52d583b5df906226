//! Several certificates at one listener, chosen by name; and what clients and the operator see of them.

use std::{fs, net::SocketAddr, process::Command};

use gatehouse_tests::{
    address,
    authority::Authority,
    binaries,
    curl::Curl,
    edge::{Edge, Setup},
    upstream::{Reply, Upstream},
    wait,
};

/// An edge with one more listener, whose certificates this authority has made.
fn with_listener(upstream: &Upstream, address: SocketAddr, lines: &str) -> Setup {
    Edge::over(upstream).listener(address, lines)
}

fn upstream() -> Upstream {
    Upstream::start(|seen| Reply::ok(seen.header("host").to_owned()).cache_control("no-store"))
}

/// `shop.test` in `tls`, `api.test` and `*.tenant.test` in tables of their own, and a folder of whatever else.
fn lines(authority: &Authority, more: &str) -> String {
    authority.certify(&["shop.test"], "shop.pem", "shop.key");
    authority.certify(&["api.test", "*.tenant.test"], "api.pem", "api.key");
    authority.certify(&["live.test"], "live/one.crt", "live/one.key");
    authority.certify(&["bot.test", "own.tenant.test"], "live/two/fullchain.pem", "live/two/privkey.pem");
    let path = |file: &str| authority.path(file).display().to_string();
    format!(
        "tls = {{ certificate = {:?}, key = {:?}, folder = {:?}{more} }}\n\
         [[listen.certificates]]\ncertificate = {:?}\nkey = {:?}",
        path("shop.pem"),
        path("shop.key"),
        path("live"),
        path("api.pem"),
        path("api.key"),
    )
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let (upstream, authority, own) = (upstream(), Authority::new("names"), address::own());
    let setup = |more| with_listener(&upstream, own, &lines(&authority, more));
    let mut edge = setup("").start();
    let ask = |name: &str| Curl::tls_to(name, own, &authority.file(), "/");
    let served = ["shop.test", "api.test", "any.tenant.test", "own.tenant.test", "live.test", "bot.test"];
    for name in served {
        assert_eq!(ask(name).send().text(), format!("{name}:{}", own.port()));
        assert_eq!(ask(name).h2().send().status, 200, "{name}");
    }
    // Others are shown the first, which is not theirs.
    for name in ["other.test", "a.b.tenant.test", "tenant.test"] {
        let refused = ask(name).fail();
        assert!(refused.contains("no alternative certificate subject name matches"), "{refused}");
        assert_eq!(ask(name).argument("-k").send().status, 200, "{name}");
    }
    let told = edge.reload(&setup(", unknown_names = \"refuse\"").text());
    assert!(told.contains("reloaded"), "{told}");
    for name in served {
        assert_eq!(ask(name).send().status, 200, "{name}");
    }
    let refused = ask("other.test").argument("-k").fail();
    assert!(refused.contains("alert") || refused.contains("SSL"), "{refused}");
}

/// RFC 9113 §9.1.1, RFC 9110 §15.5.20.
#[test]
fn a_host_that_is_another_certificates_is_misdirected_over_http_2() {
    let (upstream, authority, own) = (upstream(), Authority::new("names"), address::own());
    let edge = with_listener(&upstream, own, &lines(&authority, "")).start();
    let ask = |name: &str, host: &str| {
        Curl::tls_to(name, own, &authority.file(), "/").header(&format!("Host: {host}"))
    };
    let status = |name: &str, host: &str| ask(name, host).h2().send().status;
    assert_eq!(status("shop.test", "shop.test"), 200);
    let misdirected = ask("shop.test", "api.test").h2().send();
    misdirected.assert_problem(421);
    assert!(misdirected.must("cache-status").contains("other-certificate"), "{misdirected:?}");
    // What the certificate is for it may be asked for, be there another for it or not.
    assert_eq!(status("api.test", "any.tenant.test"), 200);
    assert_eq!(status("api.test", "own.tenant.test"), 200);
    assert_eq!(status("bot.test", "any.tenant.test"), 421);
    // No certificate is for it: whoever believed this one has not looked.
    assert_eq!(status("shop.test", "other.test"), 200);
    // A connection of HTTP/1.1 is not shared between hosts; many proxies ask for all of them by one name.
    assert_eq!(ask("shop.test", "api.test").send().status, 200);
    assert_eq!(
        edge.curl_h2("/").header("Host: api.test").send().status,
        200,
        "another listener's certificates"
    );
}

#[test]
fn a_reload_puts_all_certificates_of_a_folder_in_force_or_none() {
    let (upstream, authority, own) = (upstream(), Authority::new("reload"), address::own());
    authority.certify(&["one.test"], "live/one.crt", "live/one.key");
    let folder = authority.path("live");
    let setup =
        with_listener(&upstream, own, &format!("tls = {{ folder = {folder:?} }}")).top("watch = true\n");
    let mut edge = setup.start();
    let ask = |name: &str| Curl::tls_to(name, own, &authority.file(), "/");
    assert_eq!(ask("one.test").send().status, 200);
    // Half a pair, as between two writes: nothing changes, and the log says what is missing.
    authority.certify(&["two.test"], "live/two.crt", "two.key");
    edge.process().wait_for_line("why the folder is refused", |line| {
        (line.contains("two.crt has no key beside it") && line.contains("reload refused")).then_some(())
    });
    assert_eq!(ask("one.test").send().status, 200);
    assert!(ask("two.test").argument("-k").send().status == 200, "the first stands in");
    // Watched, the folder needs no signal.
    fs::rename(authority.path("two.key"), authority.path("live/two.key")).unwrap();
    wait::until("the new certificate is in force", || ask("two.test").start().result().ok());
    assert_eq!(ask("one.test").send().status, 200);
    let until = edge.metrics();
    for file in ["one.crt", "two.crt"] {
        let line = until.lines().find(|line| line.contains("certificate_expires") && line.contains(file));
        assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{file}: {until}");
    }
    fs::remove_file(authority.path("live/one.crt")).unwrap();
    fs::remove_file(authority.path("live/one.key")).unwrap();
    wait::until("what is gone is shown no more", || ask("one.test").start().result().err());
}

#[test]
fn check_lists_what_a_listener_has() {
    let (upstream, authority, own) = (upstream(), Authority::new("check"), address::own());
    let lines = lines(&authority, "");
    authority.certify(&["shop.test"], "live/again.crt", "live/again.key");
    authority.folder().write("edge.toml", &with_listener(&upstream, own, &lines).text());
    let run = |file: &str| {
        let mut check = Command::new(binaries::edge());
        check.args(["check", "--config"]).arg(authority.path(file));
        check
    };
    let output = run("edge.toml").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    for line in
        ["shop.pem: shop.test; until 4096-01-01", "two/fullchain.pem: bot.test, own.tenant.test; until"]
    {
        assert!(
            told.lines().any(|told| told.starts_with(&format!("listener {own}: ")) && told.contains(line)),
            "{told}"
        );
    }
    let warned = String::from_utf8_lossy(&output.stderr);
    let overlap = "live/again.crt: the first is used";
    assert!(warned.contains("shop.test is in ") && warned.contains(overlap), "{warned}");
    assert!(
        output.status.success() && told.lines().last().is_some_and(|line| line.contains(": ok: ")),
        "{told}"
    );
    // And says what is wrong with a folder.
    fs::remove_file(authority.path("live/again.key")).unwrap();
    let output = run("edge.toml").output().unwrap();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("again.crt has no key")
    );
}

#[test]
fn a_listener_may_refuse_tls_1_2() {
    let (upstream, authority, own) = (upstream(), Authority::new("versions"), address::own());
    let setup = |version: &str| {
        with_listener(&upstream, own, &lines(&authority, &format!(", minimum_version = \"{version}\"")))
    };
    let mut edge = setup("1.3").start();
    let ask = |most: &str| {
        Curl::tls_to("shop.test", own, &authority.file(), "/").argument("--tls-max").argument(most)
    };
    assert_eq!(ask("1.3").send().status, 200);
    let refused = ask("1.2").fail();
    assert!(refused.contains("alert") || refused.contains("SSL"), "{refused}");
    let told = edge.reload(&setup("1.2").text());
    assert!(told.contains("reloaded"), "{told}");
    assert_eq!(ask("1.2").send().status, 200);
}
