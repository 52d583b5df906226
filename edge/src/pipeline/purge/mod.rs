//! `POST /purge`: removes stored responses, or makes them stale.
//!
//! ```json
//! { "urls": ["https://shop.example/a?b"], "tags": ["product-7"], "prefixes": ["https://shop.example/img/"],
//!   "hosts": ["shop.example"], "everything": false, "soft": false, "dry_run": false }
//! ```
//!
//! Once the answer is sent, no look-up that begins finds a purged response, and no fetch under way stores one. If a
//! tier behind memory has not acknowledged the purge, the answer is an error: this edge does not ask that tier for
//! purged responses until the tier has acknowledged a repeated purge, but the purge would not survive a restart, and
//! does not bind other edges that share the tier. A tier that others share acknowledges when all of them have heard.

pub mod dialect;
pub mod plugin;

use std::sync::Arc;

use cache_policy::{LONGEST_TAG, Moment, NoTag, Tag, one_spelling};
use http::{Method, Request, Uri};
use serde::{Deserialize, Serialize};

use super::invalidate::keys_of;
use crate::{
    cache::{
        Key, Memory,
        purge::{Force, Rule},
        tiers::{self, Unacknowledged},
    },
    message::target::{Scheme, Target},
    request::inbound,
    settings::Route,
};

/// What to purge. A URL stands for all its variants.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeRequest {
    /// Absolute URLs, each one resource.
    pub urls: Vec<String>,
    /// Words of Surrogate-Key or Cache-Tag.
    pub tags: Vec<String>,
    /// Absolute URLs; every resource whose own begins so.
    pub prefixes: Vec<String>,
    /// Host names, on every port and scheme.
    pub hosts: Vec<String>,
    pub everything: bool,
    /// Stale instead of removed: validated before it is served again.
    pub soft: bool,
    /// Count the matches and purge nothing.
    pub dry_run: bool,
}

/// Why a purge is not done.
#[derive(Debug, thiserror::Error)]
pub enum NotPurged {
    /// Nothing is named, or what cannot match anything; the text is for the operator.
    #[error("{0}")]
    Unclear(String),
    /// The tier of this name behind memory has not acknowledged it; memory is purged.
    #[error("memory is purged, but tier {0} has not acknowledged it and will be told again: {1}")]
    Unacknowledged(&'static str, #[source] Unacknowledged),
}

/// The result of a purge.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PurgeAnswer {
    /// Stored responses in memory that matched; each variant counts.
    pub purged: usize,
    pub soft: bool,
    pub dry_run: bool,
}

impl PurgeRequest {
    /// Purges, or counts. Costs what the URLs and tags find; hosts, prefixes and everything walk over all that is
    /// stored.
    ///
    /// # Errors
    /// [`NotPurged`]. If the future is dropped, memory may be purged already; the tiers behind it are then purged
    /// later.
    pub async fn run(
        &self,
        routes: &[Arc<Route>],
        memory: &Arc<Memory>,
        now: Moment,
    ) -> Result<PurgeAnswer, NotPurged> {
        let rules = self.rules(routes).map_err(NotPurged::Unclear)?;
        let force = if self.soft { Force::Soft } else { Force::Hard };
        let done = |purged| PurgeAnswer { purged, soft: self.soft, dry_run: self.dry_run };
        if self.dry_run {
            return Ok(done(memory.count(rules).await));
        }
        let tiers::Purged { memory, tiers } = memory.purge_all_tiers(rules, force, now).await;
        match tiers.into_iter().find_map(|(tier, told)| told.err().map(|why| (tier, why))) {
            Some((tier, why)) => Err(NotPurged::Unacknowledged(tier, why)),
            None => Ok(done(memory)),
        }
    }

    fn rules(&self, routes: &[Arc<Route>]) -> Result<Vec<Rule>, String> {
        let mut rules = Vec::new();
        if self.everything {
            rules.push(Rule::Everything);
        }
        for url in &self.urls {
            let keys = keys_of(routes, &read(url)?);
            rules.extend(keys.iter().map(|key| Rule::Key(key.as_str().into())));
        }
        for prefix in &self.prefixes {
            if cuts_an_octet(prefix) {
                return Err(format!("{prefix:?} ends within a percent-encoded octet: end it before the `%`"));
            }
            let key = Key::new(&read(prefix)?);
            rules.push(Rule::Prefix(key.as_str().into()));
        }
        for host in &self.hosts {
            rules.push(Rule::Host(read_host(host)?));
        }
        for tag in &self.tags {
            rules.push(Rule::Tag(read_tag(tag)?));
        }
        if rules.is_empty() {
            return Err("nothing to purge: name urls, tags, prefixes, hosts, or everything".to_owned());
        }
        Ok(rules)
    }
}

/// The host that an operator names, in its one spelling. What is no host matches nothing, and would be told as "0
/// purged".
fn read_host(host: &str) -> Result<Box<str>, String> {
    let end = if host.starts_with('[') { host.find(']').unwrap_or(0) } else { 0 };
    if host.contains('/') {
        Err(format!("{host:?} is a URL: name its host alone, or put it into prefixes (--prefix)"))
    } else if host.parse::<std::net::Ipv6Addr>().is_ok() {
        Err(format!("{host:?} is written [{host}] as a host"))
    } else if host[end..].contains(':') {
        let (name, _) = host.split_at(end + host[end..].find(':').unwrap_or(0));
        Err(format!(
            "{host:?} has a port: a host is purged on all of its ports, as {name:?}; on one, by prefixes (--prefix) as \
             \"http://{host}/\""
        ))
    } else if host.contains('*') {
        Err(format!("{host:?}: `*` stands for nothing here; name each host"))
    } else {
        read(&format!("http://{host}/")).map(|target| target.host).map_err(|_| format!("{host:?} is no host"))
    }
}

fn read_tag(tag: &str) -> Result<Tag, String> {
    Tag::named(tag).map_err(|why| match why {
        NoTag::Untrimmed => format!("{tag:?} is no tag: write it without white space around it"),
        NoTag::Several => {
            format!("{tag:?} is no tag: white space or the comma ends one; name each by itself")
        }
        NoTag::Control => format!("{tag:?} is no tag: no field holds its control characters"),
        NoTag::Long => {
            format!("a tag of {} octets: what has one longer than {LONGEST_TAG} is not stored", tag.len())
        }
    })
}

/// Whether a text ends in `%` or `%C`.
fn cuts_an_octet(text: &str) -> bool {
    let last = text.rfind('%').map(|place| &text.as_bytes()[place + 1..]);
    last.is_some_and(|digits| digits.len() < 2 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Parses a URL as the target of a request, in whatever spelling.
fn read(url: &str) -> Result<Target, String> {
    let written = url.split('#').next().unwrap_or_default();
    let path =
        written.find("://").and_then(|scheme| Some(scheme + 3 + written[scheme + 3..].find(['/', '?'])?));
    let (authority, path) = written.split_at(path.unwrap_or(written.len()));
    let uri: Uri = format!("{authority}{}", one_spelling(path))
        .parse()
        .map_err(|error: http::uri::InvalidUri| format!("{url:?} is no URL: {error}"))?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("{url:?} must begin with http:// or https://")),
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    inbound::read(&request.into_parts().0, scheme).map_err(|refusal| format!("{url:?}: {refusal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(url: &str) -> Result<Key, String> {
        read(url).map(|inbound| Key::new(&inbound))
    }

    #[test]
    fn urls_are_read_as_requests_for_them_would_be() {
        assert_eq!(key("https://Shop.Example/a?b").unwrap().as_str(), "https://shop.example:443/a?b");
        assert_eq!(key("http://shop:8080").unwrap().as_str(), "http://shop:8080/");
        for wrong in ["/a", "ftp://a/", "https://a/../b", ""] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }

    /// `/caf%c3%a9` left `/caf%C3%A9`, a trailing dot was another host, and `|` in a query no URL at all.
    #[test]
    fn any_spelling_of_a_url_names_the_same_key() {
        for (written, named) in [
            ("https://shop.test/caf%c3%a9", "https://shop.test:443/caf%C3%A9"),
            ("https://shop.test./café#top", "https://shop.test:443/caf%C3%A9"),
            ("https://SHOP.test:443/%7Ea?q=a|b c", "https://shop.test:443/~a?q=a%7Cb%20c"),
            ("http://[::1]:8080?q", "http://[::1]:8080/?q"),
        ] {
            assert_eq!(key(written).unwrap().as_str(), named, "{written}");
        }
    }

    /// Each of these said "0 stored responses purged" and exited with 0.
    #[test]
    fn what_can_match_nothing_is_an_error_that_says_what_to_write() {
        let why = |purge: PurgeRequest| purge.rules(&[]).unwrap_err();
        let host = |name: &str| PurgeRequest { hosts: vec![name.to_owned()], ..PurgeRequest::default() };
        for (name, remedy) in [
            ("shop.test:8080", "http://shop.test:8080/"),
            ("https://x", "name its host alone"),
            ("x/y", "--prefix"),
            ("::1", "[::1]"),
            ("[::1]:80", "\"[::1]\""),
            ("*.shop.test", "name each host"),
            ("a b", "no host"),
            ("", "no host"),
        ] {
            let said = why(host(name));
            assert!(said.contains(remedy), "{name}: {said}");
        }
        let tag = |text: &str| PurgeRequest { tags: vec![text.to_owned()], ..PurgeRequest::default() };
        for text in ["", " shoe", "a b,c", "a\n"] {
            assert!(why(tag(text)).contains("no tag"), "{text}");
        }
        let prefix = PurgeRequest { prefixes: vec!["https://x/caf%C".to_owned()], ..PurgeRequest::default() };
        assert!(why(prefix).contains("before the `%`"));
        let named = [host("SHOP.Test."), host("shop.test")];
        for purge in named {
            assert_eq!(purge.rules(&[]).unwrap(), [Rule::Host("shop.test".into())]);
        }
    }

    #[test]
    fn a_purge_must_name_something() {
        assert!(PurgeRequest::default().rules(&[]).unwrap_err().contains("name urls"));
        let unknown =
            serde_json::from_str::<PurgeRequest>(r#"{"url": "https://a/"}"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `url`, expected one of `urls`"), "{unknown}");
    }
}
