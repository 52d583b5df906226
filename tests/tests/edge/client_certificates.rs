//! Clients that show who they are by certificates.

use std::net::SocketAddr;

use gatehouse_tests::{
    address,
    authority::Authority,
    curl::Curl,
    edge::{Edge, Setup},
    upstream::{Reply, Upstream},
};
use rcgen::DnType;

/// Certificates of a server and two clients, by one authority, and a listener that asks for those of clients.
struct Site {
    authority: Authority,
    address: SocketAddr,
}

impl Site {
    fn new() -> Self {
        let authority = Authority::new("site");
        authority.certify(&["shop.test"], "shop.pem", "shop.key");
        authority.certify_client("ann", &[(DnType::OrganizationName, "Shop"), (DnType::CommonName, "ann")]);
        authority.certify_client("bob", &[(DnType::CommonName, "bob, the first")]);
        Self { authority, address: address::own() }
    }

    fn setup(&self, upstream: &Upstream, clients: &str) -> Setup {
        let path = |file: &str| self.authority.path(file);
        let (certificate, key, ca) = (path("shop.pem"), path("shop.key"), self.authority.file());
        Edge::over(upstream).listener(
            self.address,
            &format!(
                "tls = {{ certificate = {certificate:?}, key = {key:?}, client_certificates = {{ ca = {ca:?}, {clients} }} }}"
            ),
        )
    }

    fn curl(&self, path: &str) -> Curl {
        Curl::tls_to("shop.test", self.address, &self.authority.file(), path)
    }

    fn as_client(&self, name: &str, path: &str) -> Curl {
        let file = |extension: &str| self.authority.path(&format!("{name}.{extension}"));
        self.curl(path).argument("--cert").argument(file("pem")).argument("--key").argument(file("key"))
    }
}

const TOLD: &str =
    "fields = { X-Client = \"subject\", Client-Cert = \"certificate\", X-Print = \"fingerprint\" }";

/// What the upstream is told by the three fields.
fn telling() -> Upstream {
    Upstream::start(|seen| {
        let told = ["x-client", "client-cert", "x-print"].map(|name| seen.header(name).to_owned());
        Reply::ok(told.join("|")).cache_control("no-store")
    })
}

#[test]
fn only_clients_with_a_certificate_of_the_authority_come_in() {
    let (site, upstream) = (Site::new(), telling());
    let edge = site.setup(&upstream, "required = true").start();
    for protocol in ["--http1.1", "--http2"] {
        let answer = site.as_client("ann", "/").argument(protocol).send();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "||"),
            "nothing is told unless it is asked for"
        );
        for version in ["1.2", "1.3"] {
            let refused =
                site.curl("/").argument(protocol).argument("--tls-max").argument(version).start().result();
            assert!(refused.is_err(), "{protocol} {version}: {refused:?}");
        }
    }
    // One of the same name, by somebody else.
    let other = Authority::new("site");
    other.certify_client("ann", &[(DnType::CommonName, "ann")]);
    let impostor = site.curl("/").argument("--cert").argument(other.path("ann.pem"));
    let refused = impostor.argument("--key").argument(other.path("ann.key")).start().result();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(upstream.count(), 2);
    assert_eq!(edge.curl_tls("/").send().status, 200, "other listeners ask for nothing");
}

#[test]
fn upstreams_are_told_who_the_client_is_and_by_nobody_else() {
    let (site, upstream) = (Site::new(), telling());
    let edge = site.setup(&upstream, &format!("required = false, {TOLD}")).start();
    let ann = site.as_client("ann", "/").h2().send().text();
    let [subject, certificate, print] = ann.split('|').collect::<Vec<_>>()[..] else { panic!("{ann}") };
    assert_eq!(subject, "CN=ann,O=Shop");
    assert!(certificate.starts_with(":MII") && certificate.ends_with(':') && print.len() == 64, "{ann}");
    assert_eq!(site.as_client("bob", "/").send().text().split('|').next(), Some("CN=bob\\, the first"));
    let lies = ["X-Client: CN=ann,O=Shop", "Client-Cert: :AAAA:", "X-Print: 0", "X_Client: CN=ann"];
    let lie = |curl: Curl| lies.iter().fold(curl, |curl, line| curl.header(line)).send().text();
    assert_eq!(lie(site.curl("/")), "||", "a client without one");
    assert_eq!(lie(site.as_client("ann", "/")), ann);
    for elsewhere in [edge.curl("/"), edge.curl_tls("/"), edge.curl_h2("/")] {
        assert_eq!(lie(elsewhere), "||", "a listener that asks for none");
    }
}

/// As RFC 9111 §3.5 has it for Authorization: who is told of gets no answer made for another, nor another one theirs.
#[test]
fn what_is_made_for_a_client_reaches_no_other() {
    let upstream = Upstream::start(|seen| {
        let directives = match seen.target.as_str() {
            "/public" => "public, max-age=60",
            _ => "max-age=60",
        };
        let reply = Reply::ok(format!("for {}", seen.header("x-client"))).cache_control(directives);
        if seen.target == "/varies" { reply.header("vary", "X-Client") } else { reply }
    });
    let site = Site::new();
    let edge = site.setup(&upstream, &format!("required = false, {TOLD}")).start();
    let port = format!("Host: shop.test:{}", site.address.port());
    let anonymous = |path: &str| edge.curl_tls(path).header(&port).send();
    for path in ["/plain", "/varies"] {
        for _ in 0..2 {
            assert_eq!(site.as_client("ann", path).send().text(), "for CN=ann,O=Shop", "{path}");
            assert_eq!(site.as_client("bob", path).h2().send().text(), "for CN=bob\\, the first", "{path}");
            assert_eq!(site.curl(path).send().text(), "for ", "{path}");
            assert_eq!(anonymous(path).text(), "for ", "{path}");
        }
    }
    // What was made for nobody is kept for those who are nobody, on whichever listener.
    assert!(anonymous("/plain").is_hit() && site.curl("/plain").send().is_hit());
    let passed = site.as_client("ann", "/plain").send();
    assert!(passed.must("cache-status").contains("authorization"), "{passed:?}");
    // What the origin marks as for everyone is shared.
    let first = site.as_client("ann", "/public").send().text();
    assert_eq!(site.as_client("bob", "/public").send().text(), first);
    assert!(site.curl("/public").send().is_hit());
}

/// A session would stand for a certificate that has ended since.
#[test]
fn every_connection_shows_its_certificate_anew() {
    let (site, upstream) = (Site::new(), telling());
    let _edge = site.setup(&upstream, &format!("required = true, {TOLD}")).start();
    // Two connections, since each is closed after its answer.
    for version in ["1.2", "1.3"] {
        let twice = site
            .as_client("ann", "/")
            .argument("-v")
            .argument("--tls-max")
            .argument(version)
            .header("Connection: close")
            .argument(format!("https://shop.test:{}/", site.address.port()));
        let text = twice.send().text();
        assert_eq!(text.matches("CN=ann,O=Shop").count(), 2, "{text}");
    }
}

#[test]
fn other_authorities_are_in_force_after_a_reload_for_who_is_connected_too() {
    let (site, upstream) = (Site::new(), telling());
    let setup = site.setup(&upstream, &format!("required = true, {TOLD}"));
    let mut edge = setup.start();
    assert_eq!(site.as_client("ann", "/").send().status, 200);
    let server_authority = site.authority.path("server-ca.pem");
    std::fs::copy(site.authority.file(), &server_authority).unwrap();
    let other = Authority::new("other");
    other.certify_client("cid", &[(DnType::CommonName, "cid")]);
    std::fs::copy(other.file(), site.authority.file()).unwrap();
    let told = edge.reload(&setup.text());
    assert!(told.contains("reloaded"), "{told}");
    let ask = |certificate, key| {
        Curl::tls_to("shop.test", site.address, &server_authority, "/")
            .argument("--cert")
            .argument(certificate)
            .argument("--key")
            .argument(key)
    };
    assert!(ask(site.authority.path("ann.pem"), site.authority.path("ann.key")).start().result().is_err());
    assert!(ask(other.path("cid.pem"), other.path("cid.key")).send().text().starts_with("CN=cid|"));
    // A file that is none changes nothing.
    std::fs::write(site.authority.file(), "nothing").unwrap();
    let told = edge.reload(&setup.text());
    assert!(told.contains("reload refused") && told.contains("ca.pem holds no certificate"), "{told}");
    assert_eq!(ask(other.path("cid.pem"), other.path("cid.key")).send().status, 200);
}
