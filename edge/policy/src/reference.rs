//! References to resources of one's own origin (RFC 3986 §5, RFC 6454).

use crate::spelling::one_spelling_of_octets;

/// A resource as a client named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceName<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as in the request.
    pub authority: &'a str,
    /// Path and query, beginning with `/`.
    pub path_and_query: &'a str,
}

impl ResourceName<'_> {
    /// Resolves a reference against this resource. Its path and query, where it leads to the same origin, in their one
    /// spelling ([`crate::one_spelling`]).
    pub fn same_origin(&self, reference: &[u8]) -> Option<String> {
        let reference = reference.trim_ascii().split(|&octet| octet == b'#').next().unwrap_or_default();
        if reference.iter().any(|octet| octet.is_ascii_control() || *octet == b'\\') {
            return None;
        }
        // Before dot segments are removed: `%2e%2e` is one.
        let reference = &*one_spelling_of_octets(reference);
        let (path, query) = split_query(self.relative(reference)?);
        let (base_path, _) = split_query(self.path_and_query);
        let merged = match path {
            "" if query.is_some() => one_spelling_of_octets(base_path.as_bytes()),
            "" => return Some(one_spelling_of_octets(self.path_and_query.as_bytes())),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => {
                let base_path = one_spelling_of_octets(base_path.as_bytes());
                let folder = base_path.rfind('/').map_or("/", |slash| &base_path[..=slash]);
                format!("{folder}{relative}")
            }
        };
        let path = without_dot_segments(&merged);
        Some(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
    }

    /// Takes scheme and authority off a reference; `None` where they are not this resource's.
    fn relative<'a>(&self, reference: &'a str) -> Option<&'a str> {
        let scheme_end = reference.find([':', '/', '?']).filter(|&at| reference.as_bytes()[at] == b':');
        let rest = match scheme_end {
            Some(end) if reference[..end].eq_ignore_ascii_case(self.scheme) => {
                Some(&reference[end + 1..]).filter(|rest| rest.starts_with("//"))?
            }
            Some(_) => return None,
            None => reference,
        };
        let Some(named) = rest.strip_prefix("//") else {
            return Some(rest);
        };
        let end = named.find(['/', '?']).unwrap_or(named.len());
        let (authority, rest) = named.split_at(end);
        let same = self.host_and_port(authority) == self.host_and_port(self.authority);
        // An absolute URI without a path means the root (RFC 9110 §4.2.3).
        same.then_some(if rest.is_empty() { "/" } else { rest })
    }

    /// Host in lower case and port, with the scheme's default made explicit.
    fn host_and_port(&self, authority: &str) -> (String, String) {
        let default = if self.scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
            _ => (authority, ""),
        };
        let port = if port.is_empty() { default } else { port };
        (host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(), port.to_owned())
    }
}

fn split_query(path_and_query: &str) -> (&str, Option<&str>) {
    match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    }
}

/// RFC 3986 §5.2.4, for a path that begins with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: ResourceName<'_> =
        ResourceName { scheme: "http", authority: "a.test:80", path_and_query: "/b/c/d?q" };

    #[test]
    fn references_resolve_as_rfc_3986_says() {
        for (reference, resolved) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d?q"),
            ("", "/b/c/d?q"),
            (".", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../../../g", "/g"),
            ("/./g/../h", "/h"),
            ("//A.test", "/"),
            ("HTTP://a.test/x?y=/../z", "/x?y=/../z"),
            ("g:h/../i", ""),
            // A reference in another spelling named a resource that nothing is stored for.
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("x y", "/b/c/x%20y"),
            ("/a/%2e%2E/%62", "/b"),
            ("//a.test.:80/x", "/x"),
        ] {
            let found = BASE.same_origin(reference.as_bytes());
            assert_eq!(found.as_deref().unwrap_or(""), resolved, "{reference}");
        }
    }

    proptest! {
        #[test]
        fn what_resolves_is_an_absolute_path(reference in "([a-z:/?#.@%\\\\]|\\PC){0,30}") {
            if let Some(found) = BASE.same_origin(reference.as_bytes()) {
                prop_assert!(found.starts_with('/'), "{}", found);
                let path = split_query(&found).0;
                prop_assert!(!path.split('/').any(|segment| segment == ".."), "{}", found);
            }
        }
    }
}
