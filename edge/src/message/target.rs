//! What a request asks for: its target, normalised.

use std::borrow::Cow;

use cache_policy::decode_unreserved;

/// Whether the client's connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant where none is named.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The target of a request, normalised (RFC 9110 §4.2.3).
#[derive(Clone, Debug)]
pub struct Target {
    /// From the connection, never from a header.
    pub scheme: Scheme,
    /// Host in its one spelling: lower case, without port and without a dot at its end; IPv6 literals keep their brackets.
    pub host: Box<str>,
    /// Port, the scheme's default when the request names none.
    pub port: u16,
    /// Path and query, octet for octet as the client sent them; `*` for `OPTIONS *`.
    pub path_and_query: Box<str>,
    /// Where the path ends in `path_and_query`.
    path_length: usize,
}

impl Target {
    /// A target of checked parts; the query may be missing.
    pub fn new(scheme: Scheme, host: &str, port: u16, (path, query): (&str, Option<&str>)) -> Self {
        let length = path.len() + query.map_or(0, |query| query.len() + 1);
        let mut path_and_query = String::with_capacity(length);
        path_and_query.push_str(path);
        if let Some(query) = query {
            path_and_query.push('?');
            path_and_query.push_str(query);
        }
        Self {
            scheme,
            host: one_host(host),
            port,
            path_length: path.len(),
            path_and_query: path_and_query.into_boxed_str(),
        }
    }

    /// Path without query.
    pub fn path(&self) -> &str {
        &self.path_and_query[..self.path_length]
    }

    /// Query, without its `?`; `None` where there is none.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.get(self.path_length + 1..)
    }

    /// The path as routes see it: unreserved octets decoded (RFC 3986 §6.2.2.2) and runs of slashes as one, so that no
    /// other spelling of a path takes another route than the upstream would.
    pub fn route_path(&self) -> Cow<'_, str> {
        let path = self.path();
        if !path.contains('%') && !path.contains("//") {
            return Cow::Borrowed(path);
        }
        let mut plain = String::with_capacity(path.len());
        let mut rest = path;
        while let Some(character) = rest.chars().next() {
            let (decoded, length) = match decode_unreserved(rest) {
                Some(decoded) => (decoded, 3),
                None => (character, character.len_utf8()),
            };
            if decoded != '/' || !plain.ends_with('/') {
                plain.push(decoded);
            }
            rest = &rest[length..];
        }
        Cow::Owned(plain)
    }

    /// `host`, with the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A host's one spelling (RFC 3986 §6.2.2, RFC 4291 §2.2): lower case, unreserved characters decoded, IPv6 in its short
/// form, and without the dot that ends an absolute name in DNS.
fn one_host(host: &str) -> Box<str> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(address) = literal.and_then(|literal| literal.parse::<std::net::Ipv6Addr>().ok()) {
        return format!("[{address}]").into();
    }
    let mut plain = String::with_capacity(host.len());
    let mut rest = host;
    while let Some(character) = rest.chars().next() {
        let (decoded, length) =
            decode_unreserved(rest).map_or((character, character.len_utf8()), |decoded| (decoded, 3));
        plain.push(decoded.to_ascii_lowercase());
        rest = &rest[length..];
    }
    if plain.len() > 1 && plain.ends_with('.') && !plain.ends_with("..") {
        plain.pop();
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `shop.test.` was another host than `shop.test`, with keys of its own.
    #[test]
    fn spellings_of_one_host_become_one() {
        for (written, one) in [
            ("Shop.Test.", "shop.test"),
            ("%53hop%2dA.test", "shop-a.test"),
            ("a%C3%a9.test", "a%c3%a9.test"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            (".", "."),
            ("a..", "a.."),
        ] {
            let target = Target::new(Scheme::Http, written, 80, ("/", None));
            assert_eq!(&*target.host, one, "{written}");
            assert_eq!(&*one_host(one), one, "{written}");
        }
    }
}
