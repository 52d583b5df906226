//! TLS, and what is spoken over it.

use gatehouse_tests::edge::Edge;

use crate::http1::echo;

#[test]
fn the_edge_says_what_it_speaks_by_alpn() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    assert_eq!(edge.curl_h2("/").send().version, "HTTP/2");
    assert_eq!(edge.curl_tls("/").send().version, "HTTP/1.1");
    assert_eq!(edge.curl_tls("/").argument("--no-alpn").send().version, "HTTP/1.1");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let exact = version.replace("--tlsv", "");
        assert_eq!(
            edge.curl_tls("/").argument(version).argument("--tls-max").argument(exact).send().status,
            200
        );
    }
    let old = edge.curl_tls("/").argument("--tlsv1.0").argument("--tls-max").argument("1.1").fail();
    assert!(old.contains("curl ended with"), "{old}");
}
