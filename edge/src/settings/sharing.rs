//! Which other sites' scripts may read a route's answers (CORS, in the Fetch standard).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// What a route's answers say to scripts of other origins, in place of whatever the upstream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossOrigin {
    pub origins: AllowedOrigins,
    /// `Access-Control-Allow-Methods`.
    pub methods: HeaderValue,
    pub fields: AllowedFields,
    /// `Access-Control-Expose-Headers`, where scripts may read more than the Fetch standard's own fields.
    pub exposed: Option<HeaderValue>,
    /// Whether browsers send cookies and passwords along, and scripts may read the answers to those.
    pub credentials: bool,
    /// For how long a browser need not ask again.
    pub max_age: Duration,
}

/// Whose scripts may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `"*"`: everyone's.
    Any,
    These(Vec<OriginPattern>),
}

/// Fields that scripts may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedFields {
    /// Whichever they ask for.
    Asked,
    /// `Access-Control-Allow-Headers`.
    These(HeaderValue),
}

/// An origin such as `https://app.example`, or `https://*.example.org` for all hosts below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    /// In lower case, up to the `*` or all of it.
    before: Box<str>,
    /// After the `*`, if there is one: `.example.org`, perhaps with a port.
    below: Option<Box<str>>,
}

impl OriginPattern {
    /// In lower case, and checked.
    pub(super) fn new(text: &str) -> Self {
        match text.split_once('*') {
            Some((before, below)) => Self { before: before.into(), below: Some(below.into()) },
            None => Self { before: text.into(), below: None },
        }
    }

    /// Whether it is that origin, as browsers write one: in lower case, without a default port.
    fn holds(&self, origin: &[u8]) -> bool {
        let Some(below) = &self.below else { return origin == self.before.as_bytes() };
        let host = origin.strip_prefix(self.before.as_bytes());
        let host = host.and_then(|host| host.strip_suffix(below.as_bytes()));
        let of_name = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.');
        host.is_some_and(|host| !host.is_empty() && host[0] != b'.' && host.iter().all(of_name))
    }
}

impl std::fmt::Display for OriginPattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.before)?;
        self.below.iter().try_for_each(|below| write!(formatter, "*{below}"))
    }
}

impl CrossOrigin {
    /// Whether every answer says the same to everyone.
    pub fn is_same_for_all(&self) -> bool {
        self.origins == AllowedOrigins::Any
    }

    /// `Access-Control-Allow-Origin` for a script of this origin, if it may read.
    pub fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            AllowedOrigins::Any => Some(HeaderValue::from_static("*")),
            AllowedOrigins::These(these) => {
                these.iter().any(|pattern| pattern.holds(origin.as_bytes())).then(|| origin.clone())
            }
        }
    }
}

/// What `security = "strict"` has answers say, where they say nothing of it themselves.
pub const STRICT: [(HeaderName, HeaderValue); 3] = [
    // Content is what its type says, and nothing that a browser makes of its octets.
    (http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // No other page may show it within a frame, under which a click may be meant for something else.
    (http::header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    // Other sites learn from where a link came, but no path and no query.
    (http::header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
];

/// Of answers over TLS besides, for a year (RFC 6797); a listener's `hsts` stands in place of it.
pub const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Which fields guard a route's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityFields {
    /// Those of the origin.
    #[default]
    Off,
    /// And [`STRICT`], where it has none.
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_of_these_or_lies_below_one() {
        let holds = |pattern: &str, origin: &str| OriginPattern::new(pattern).holds(origin.as_bytes());
        assert!(holds("https://app.example", "https://app.example"));
        assert!(holds("https://*.example.org", "https://a.b.example.org"));
        assert!(holds("http://*.example.org:3000", "http://dev.example.org:3000"));
        for (pattern, origin) in [
            ("https://app.example", "http://app.example"),
            ("https://app.example", "https://app.example.evil.test"),
            ("https://app.example", "https://app.example:8443"),
            ("https://*.example.org", "https://example.org"),
            ("https://*.example.org", "https://.example.org"),
            ("https://*.example.org", "https://evil.test/.example.org"),
            ("https://*.example.org", "https://evil.test:80.example.org"),
            ("https://*.example.org", "https://evil@a.example.org"),
            ("https://*.example.org", "null"),
        ] {
            assert!(!holds(pattern, origin), "{pattern} {origin}");
        }
    }
}
