//! A client's request head, validated and parsed; or a refusal.
//!
//! hyper has parsed the bytes; this module refuses heads that are well-formed to a parser and ambiguous to the programs
//! behind us: two framings, two hosts, dot segments. Everything after it may trust [`Target`].

use http::{
    HeaderMap, HeaderValue, Method, Version, header, request,
    uri::{self, Authority},
};

use crate::{
    message::{
        hop_by_hop::is_token,
        target::{Scheme, Target},
    },
    request::{as_sent::overrides_method, refusal::Refusal},
};

/// Reads a request's head.
///
/// # Errors
/// [`Refusal::BadRequest`] (400) for a missing, repeated or contradictory host (RFC 9112 §3.2), for dot segments in the
/// path, and for a GET or HEAD that is to be taken for another method; [`Refusal::NotImplemented`] (501) for CONNECT and for transfer codings other than `chunked`. Of both
/// Transfer-Encoding and Content-Length hyper has dropped the latter, and it closes after the answer (RFC 9112 §6.1).
pub fn read(head: &request::Parts, scheme: Scheme) -> Result<Target, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::NotImplemented("CONNECT is not offered"));
    }
    framing(&head.headers, head.version)?;
    if head.version == Version::HTTP_2 {
        fields_are_plain(&head.headers)?;
    }
    if head.method == Method::TRACE {
        // TRACE would reveal credentials to whoever can make a client send it (RFC 9110 §9.3.8).
        return Err(Refusal::MethodNotAllowed);
    }
    if matches!(head.method, Method::GET | Method::HEAD) && overrides_method(head) {
        // The cache answers these two: it would answer another method than the upstream.
        return Err(Refusal::BadRequest("a GET or HEAD that is to be taken for another method"));
    }
    target_form(head)?;
    let authority = host(head)?;
    let host = authority.host();
    if authority.as_str().contains('@') || !is_host(host) {
        return Err(Refusal::BadRequest("the host is not valid"));
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        // "host:" is the same as "host" (RFC 3986 §3.2.3); anything else behind the host is no port.
        None if matches!(authority.as_str().strip_prefix(host), Some("" | ":")) => scheme.default_port(),
        None => return Err(Refusal::BadRequest("the host's port is not valid")),
    };
    let path = head.uri.path();
    if has_dot_segment(path) {
        // Clients resolve dot segments (RFC 3986 §5.2.4) before they send. One that arrives would match one route here
        // and name another resource behind us.
        return Err(Refusal::BadRequest("the path has dot segments"));
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target::new(scheme, host, port, (path, head.uri.query())))
}

/// Joins several `Cookie` lines into one; HTTP/2 clients send them apart so that they compress better
/// (RFC 9113 §8.2.3). Programs behind us that use CGI would see only one of them.
pub fn join_cookies(headers: &mut HeaderMap) {
    let lines = headers.get_all(header::COOKIE);
    if lines.iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::with_capacity(lines.iter().map(|line| line.len() + 2).sum());
    for line in lines.iter().filter(|line| !line.is_empty()) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(line.as_bytes());
    }
    let joined = HeaderValue::try_from(joined).expect("valid values joined by visible characters are one");
    headers.insert(header::COOKIE, joined);
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    On,
    /// The edge is the last that may answer it.
    End,
}

/// Counts Max-Forwards down, or finds that it is at its end (RFC 9110 §7.6.2). It is for OPTIONS, and for TRACE, which
/// is refused in any case; other methods' field is not looked at, and neither is one that is no number.
pub fn count_forwards(head: &mut request::Parts) -> Forwards {
    if head.method != Method::OPTIONS {
        return Forwards::On;
    }
    let left =
        head.headers.get(header::MAX_FORWARDS).and_then(|left| left.to_str().ok()?.parse::<u64>().ok());
    match left {
        None => Forwards::On,
        Some(0) => Forwards::End,
        Some(left) => {
            head.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            Forwards::On
        }
    }
}

/// Refuses what HTTP/2 does not allow in fields (RFC 9113 §8.2.1) and h2 lets pass. White space around a value is not trimmed
/// there: the upstream would see another value over HTTP/1.1 than the one the edge decides by. hyper trims those of HTTP/1.x,
/// and refuses names that are no tokens.
fn fields_are_plain(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_space = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    for (name, value) in headers {
        if is_space(value.as_bytes().first()) || is_space(value.as_bytes().last()) {
            return Err(Refusal::BadRequest("a field's value begins or ends with white space"));
        }
        if !is_token(name) {
            return Err(Refusal::BadRequest("a field's name is malformed"));
        }
    }
    Ok(())
}

fn framing(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    // hyper has made one of several that agree; h2 leaves them (RFC 9110 §8.6).
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::BadRequest("more than one Content-Length"));
    }
    let Some(coding) = headers.get(header::TRANSFER_ENCODING) else { return Ok(()) };
    if version < Version::HTTP_11 {
        return Err(Refusal::BadRequest("Transfer-Encoding in HTTP/1.0"));
    }
    if headers.get_all(header::TRANSFER_ENCODING).iter().count() > 1
        || !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        return Err(Refusal::NotImplemented("a transfer coding other than chunked"));
    }
    Ok(())
}

fn host(head: &request::Parts) -> Result<Authority, Refusal> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    let field = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host"));
    }
    let field = field
        .map(|value| {
            Authority::try_from(value.as_bytes()).map_err(|_| Refusal::BadRequest("the Host is not valid"))
        })
        .transpose()?;
    match (head.uri.authority(), field) {
        // HTTP/2's :authority: Host must not say anything else (RFC 9113 §8.3.1). In HTTP/1.1 an absolute target makes
        // Host irrelevant (RFC 9112 §3.2.2).
        (Some(target), Some(field)) if head.version == Version::HTTP_2 && !same_host(target, &field) => {
            Err(Refusal::BadRequest("Host and :authority disagree"))
        }
        (Some(target), _) => Ok(target.clone()),
        (None, Some(field)) => Ok(field),
        (None, None) if head.version < Version::HTTP_11 => Ok(Authority::from_static("localhost")),
        (None, None) => Err(Refusal::BadRequest("no Host")),
    }
}

fn same_host(one: &Authority, other: &Authority) -> bool {
    let ports_agree = match (one.port_u16(), other.port_u16()) {
        (Some(one), Some(other)) => one == other,
        // A side that names no port means the scheme's default, which the other side may spell out.
        (Some(port), None) | (None, Some(port)) => matches!(port, 80 | 443),
        (None, None) => true,
    };
    ports_agree && one.host().eq_ignore_ascii_case(other.host())
}

/// Whether a text is a host (RFC 9110 §4.1, RFC 3986 §3.2.2): the parser lets more pass than may stand in one.
fn is_host(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return literal.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let mut rest = text.as_bytes();
    while let [octet, after @ ..] = rest {
        rest = match octet {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                _ => return false,
            },
            b'-' | b'.' | b'_' | b'~' => after,
            // sub-delims
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => after,
            octet if octet.is_ascii_alphanumeric() => after,
            _ => return false,
        };
    }
    !text.is_empty()
}

/// Refuses forms of the target that belong to other methods (RFC 9112 §3.2.3, §3.2.4).
fn target_form(head: &request::Parts) -> Result<(), Refusal> {
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Refusal::BadRequest("the target * is for OPTIONS"));
    }
    if head.uri.authority().is_some() && head.uri.scheme().is_none() {
        return Err(Refusal::BadRequest("the target is neither a path nor a whole URI"));
    }
    // Only http and https name what is served here (RFC 9110 §7.4, §4.2.2).
    let is_ours = |scheme: &uri::Scheme| *scheme == uri::Scheme::HTTP || *scheme == uri::Scheme::HTTPS;
    if head.uri.scheme().is_some_and(|scheme| !is_ours(scheme)) {
        return Err(Refusal::BadRequest("the target's scheme is neither http nor https"));
    }
    Ok(())
}

/// Whether a path has a segment `.` or `..`, however it is percent-encoded.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains('.') && !path.contains('%') {
        return false;
    }
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    // "..;x" is ".." to servers that know path parameters.
    path.split(['/', '\\']).any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn request(build: impl FnOnce(request::Builder) -> request::Builder) -> request::Parts {
        build(Request::builder()).body(()).unwrap().into_parts().0
    }

    #[test]
    fn host_is_lower_cased_and_the_default_port_is_implied() {
        let parts = request(|r| r.uri("/a?b=1").header("host", "Shop.Example:443"));
        let inbound = read(&parts, Scheme::Https).unwrap();
        assert_eq!(
            (&*inbound.host, inbound.port, inbound.authority().as_str()),
            ("shop.example", 443, "shop.example")
        );
        assert_eq!((inbound.path(), &*inbound.path_and_query), ("/a", "/a?b=1"));
    }

    /// Apps behind CGI, WSGI or PHP saw only one of the lines, so that nobody could sign in over HTTP/2.
    #[test]
    fn cookies_that_came_apart_go_on_as_one_line() {
        let mut parts =
            request(|r| r.header("cookie", "a=1").header("cookie", "").header("cookie", "b=2; c=3"));
        join_cookies(&mut parts.headers);
        assert_eq!(parts.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn transfer_codings_other_than_chunked_are_refused() {
        let parts = request(|r| r.uri("/").header("host", "a").header("transfer-encoding", "gzip, chunked"));
        assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::NotImplemented(_))));
    }

    /// `/caf%c3%a9`, `/café` and `/a|b` took other routes than `/caf%C3%A9` and `/a%7Cb`, whose keys they have.
    #[test]
    fn routes_see_one_spelling_of_a_path() {
        for (path, routed) in [
            ("/%61pi/x", "/api/x"),
            ("//api///x", "/api/x"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%zz", "/%zz"),
            ("/a%2fb", "/a%2Fb"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/a|b", "/a%7Cb"),
            ("/%61pi/%", "/api/%"),
        ] {
            let parts = request(|r| r.uri(path).header("host", "a"));
            assert_eq!(read(&parts, Scheme::Http).unwrap().route_path(), routed, "{path}");
        }
    }

    #[test]
    fn an_absolute_target_makes_host_irrelevant_in_http_1() {
        let parts = request(|r| r.uri("http://a:80/").header("host", "b"));
        assert_eq!(&*read(&parts, Scheme::Http).unwrap().host, "a");
        let parts = request(|r| r.uri("http://a/").version(Version::HTTP_2).header("host", "b"));
        assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn targets_of_other_methods_are_refused() {
        for target in ["*", "a"] {
            let parts = request(|r| r.uri(target).header("host", "a"));
            assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::BadRequest(_))), "{target}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for target in ["gopher://a/", "ftp://a/x"] {
            let parts = request(|r| r.uri(target).header("host", "a"));
            assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::BadRequest(_))), "{target}");
        }
    }

    #[test]
    fn max_forwards_is_counted_down_for_options_alone() {
        for (method, field, expected, after) in [
            ("OPTIONS", "2", Forwards::On, "1"),
            ("OPTIONS", "0", Forwards::End, "0"),
            ("OPTIONS", "x", Forwards::On, "x"),
            ("GET", "0", Forwards::On, "0"),
        ] {
            let mut parts = request(|r| r.method(method).header("max-forwards", field));
            assert_eq!(count_forwards(&mut parts), expected, "{method} {field}");
            assert_eq!(parts.headers["max-forwards"], after);
        }
    }

    #[test]
    fn contradictory_or_repeated_hosts_are_refused() {
        let parts = request(|r| r.uri("/").header("host", "a").header("host", "a"));
        assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::BadRequest(_))));
        let parts = request(|r| r.uri("/"));
        assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn bad_hosts_and_ports_are_refused() {
        for host in [
            "[::1]x", "[::1]1", "a:b", "user@a", "", "a b", "a:99999", "a\"b", "a<b", "a|b", "a%zz", "a%4",
            "[::g]", "[", "a[b]", "a{b}", "a\\b", "a^b", "a`b",
        ] {
            let parts = request(|r| r.uri("/").header("host", host));
            assert!(matches!(read(&parts, Scheme::Http), Err(Refusal::BadRequest(_))), "{host}");
        }
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for path in [
            "/a/..%2Fb",
            "/a/..;x/b",
            "/a%5c..%5Cb",
            "/a/../b",
            "/./a",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a\\..\\b",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in ["/a/..b", "/a.b/c", "/.well-known/x", "/%20", "/a/..."] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_has_one_host_and_a_path_that_climbs_nowhere(
            target in "(/|http://[a-c.:@]{0,6}|\\*)?[/a.%2eEfF5cC;\\\\?]{0,16}",
            hosts in proptest::collection::vec("[A-Za-c.:0-9\\[\\]@% ]{0,12}", 0..3),
            lines in proptest::collection::vec(("transfer-encoding|content-length|connection", "[ -~]{0,12}"), 0..3),
            http2 in any::<bool>(),
        ) {
            let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            let mut built = Request::builder().uri(&target).version(version);
            for host in &hosts {
                built = built.header("host", host);
            }
            for (name, value) in &lines {
                built = built.header(name, value);
            }
            let Ok(built) = built.body(()) else { return Ok(()) };
            let Ok(inbound) = read(&built.into_parts().0, Scheme::Https) else { return Ok(()) };
            prop_assert!(!inbound.host.is_empty() && !inbound.host.contains(['/', '@', ' ']));
            prop_assert_eq!(&*inbound.host, inbound.host.to_ascii_lowercase());
            let path = inbound.route_path();
            prop_assert!(path.starts_with('/') || path == "*", "{}", path);
            prop_assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{}", path);
        }
    }
}
