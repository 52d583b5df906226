//! What a request asks for: its target, normalised.

use std::borrow::Cow;

use cache_policy::{one_host, one_spelling};

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

    /// The path as routes see it: in the one spelling that keys have too, and runs of slashes as one, so that no other
    /// spelling of a path takes another route than the upstream would.
    pub fn route_path(&self) -> Cow<'_, str> {
        route_path(self.path())
    }

    /// Puts `/` in place of each `%2F` of the path.
    pub fn decode_slashes(&mut self) {
        let path = self.path().replace("%2F", "/").replace("%2f", "/");
        let path_and_query = [&path, &self.path_and_query[self.path_length..]].concat();
        (self.path_length, self.path_and_query) = (path.len(), path_and_query.into());
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

/// A path as routes see it: [`Target::route_path`].
pub fn route_path(path: &str) -> Cow<'_, str> {
    let path = one_spelling(path);
    if !path.as_bytes().windows(2).any(|pair| pair == b"//") {
        return path;
    }
    let mut plain = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !plain.ends_with('/') {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}
