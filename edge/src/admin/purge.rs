//! `POST /purge`: what is to be served no more.
//!
//! ```json
//! { "urls": ["https://shop.example/a?b"], "tags": ["product-7"], "prefixes": ["https://shop.example/img/"],
//!   "hosts": ["shop.example"], "everything": false, "soft": false, "dry_run": false }
//! ```
//!
//! When it is answered, no look-up that begins finds any of it, nor will what is being fetched now be found later. A tier
//! behind memory that has not acknowledged it makes the answer an error: this edge does not ask that tier for what was to
//! be purged until it has been told again, but the purge would not survive a restart, nor does it bind others that share
//! the tier.

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
    /// All of it.
    pub everything: bool,
    /// Stale instead of gone: validated before it is served again.
    pub soft: bool,
    /// Only say how many it would be.
    pub dry_run: bool,
}

/// Why a purge is not done.
#[derive(Debug, thiserror::Error)]
pub enum NotPurged {
    /// Nothing is named, or a URL is none; said so for the operator.
    #[error("{0}")]
    Unclear(String),
    /// The tier of this name behind memory has not acknowledged it; memory is purged.
    #[error("memory is purged, but tier {0} has not acknowledged it and will be told again: {1}")]
    Unacknowledged(&'static str, #[source] Unacknowledged),
}

/// What a purge came to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Stored responses in memory that matched; of one resource each variant counts.
    pub purged: usize,
    /// As it was asked.
    pub soft: bool,
    /// As it was asked.
    pub dry_run: bool,
}

impl Purge {
    /// Purges, or counts. It looks at every resource stored.
    ///
    /// # Errors
    /// [`NotPurged`]. Dropped, it may have purged memory, and the tiers behind it are told later.
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
            // Under what its route makes of the query, and as it is written: the route may have changed since.
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

/// A URL, read just as a request for it would be.
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
