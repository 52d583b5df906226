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
//! does not bind other edges that share the tier.

use std::sync::Arc;

use cache_policy::{Moment, Tag};
use http::{Method, Request, Uri};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{
        Key, Memory,
        purge::{Force, Rule},
        tiers::{self, Unacknowledged},
    },
    message::target::{Scheme, Target},
    request::{inbound, route},
    settings::Route,
};

/// What to purge. A URL stands for all its variants.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Purge {
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
    /// Nothing is named, or a URL is invalid; the text is for the operator.
    #[error("{0}")]
    Unclear(String),
    /// The tier of this name behind memory has not acknowledged it; memory is purged.
    #[error("memory is purged, but tier {0} has not acknowledged it and will be told again: {1}")]
    Unacknowledged(&'static str, #[source] Unacknowledged),
}

/// The result of a purge.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Stored responses in memory that matched; each variant counts.
    pub purged: usize,
    pub soft: bool,
    pub dry_run: bool,
}

impl Purge {
    /// Purges, or counts. Reads every stored resource.
    ///
    /// # Errors
    /// [`NotPurged`]. If the future is dropped, memory may be purged already; the tiers behind it are then purged
    /// later.
    pub async fn run(
        &self,
        routes: &[Arc<Route>],
        memory: &Memory,
        now: Moment,
    ) -> Result<Purged, NotPurged> {
        let rules = self.rules(routes).map_err(NotPurged::Unclear)?;
        let force = if self.soft { Force::Soft } else { Force::Hard };
        let done = |purged| Purged { purged, soft: self.soft, dry_run: self.dry_run };
        if self.dry_run {
            return Ok(done(memory.count(&rules)));
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
            let inbound = read(url)?;
            let named = Key::new(&inbound);
            // Both the key under the route's query rules and the URL as written: the rules may have changed since it
            // was stored.
            if let Some(route) = route::find(routes, &inbound) {
                let key = Key::on_route(&inbound, &route.query);
                if key != named {
                    rules.push(Rule::Key(key.as_str().into()));
                }
            }
            rules.push(Rule::Key(named.as_str().into()));
        }
        for prefix in &self.prefixes {
            let key = Key::new(&read(prefix)?);
            rules.push(Rule::Prefix(key.as_str().into()));
        }
        rules.extend(self.hosts.iter().map(|host| Rule::Host(host.to_ascii_lowercase().into())));
        rules.extend(self.tags.iter().map(|tag| Rule::Tag(Tag::Key(tag.as_str().into()))));
        if rules.is_empty() {
            return Err("nothing to purge: name urls, tags, prefixes, hosts, or everything".to_owned());
        }
        Ok(rules)
    }
}

/// Parses a URL exactly as the target of a request.
fn read(url: &str) -> Result<Target, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
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

    #[test]
    fn a_purge_must_name_something() {
        assert!(Purge::default().rules(&[]).unwrap_err().contains("name urls"));
        let unknown = serde_json::from_str::<Purge>(r#"{"url": "https://a/"}"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `url`, expected one of `urls`"), "{unknown}");
    }
}
