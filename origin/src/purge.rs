//! The edge's purge call: `POST /purge` with `{"tags": [...], "everything": false, "soft": false}` on its admin address,
//! answered 200.

use std::collections::BTreeSet;

use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use crate::{
    outgoing::{self, PostError},
    settings::{HttpAddress, Secret},
};

/// An edge that keeps our answers.
#[derive(Debug, Clone)]
pub struct Edge {
    address: HttpAddress,
    token: Option<Secret>,
}

/// What an edge is to serve no more, or to ask for anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outdated {
    tags: BTreeSet<String>,
    /// Stale from now on, and not gone: it may stand in while it is fetched anew, or while that fails.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    stale: BTreeSet<String>,
    everything: bool,
    /// Digests of the tokens of sessions that have ended, which are no edge's business.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    sessions: BTreeSet<String>,
}

/// More would take longer to name, keep and look for than to fetch everything again.
const MOST_TAGS: usize = 1_000;

impl Outdated {
    /// What carries one of these tags.
    pub fn tagged(tags: impl IntoIterator<Item = String>) -> Self {
        let mut outdated = Self::default();
        outdated.tags.extend(tags);
        outdated.bounded()
    }

    /// What carries one of these tags is to be asked for anew.
    pub fn stale(tags: impl IntoIterator<Item = String>) -> Self {
        Self { stale: tags.into_iter().collect(), ..Self::default() }.bounded()
    }

    /// This and that; more tags than an edge should be asked for become everything.
    pub fn add(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.tags.extend(other.tags.iter().cloned());
        self.stale.extend(other.stale.iter().cloned());
        self.sessions.extend(other.sessions.iter().cloned());
        *self = std::mem::take(self).bounded();
    }

    /// Every tag, of what is gone and of what is stale.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().chain(&self.stale).map(String::as_str)
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &str> {
        self.sessions.iter().map(String::as_str)
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether it is nothing to an edge.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.tags.is_empty() && self.stale.is_empty()
    }

    fn bounded(mut self) -> Self {
        // What is gone need not be stale too.
        self.stale.retain(|tag| !self.tags.contains(tag));
        self.everything |= self.tags.len() + self.stale.len() > MOST_TAGS;
        if self.everything {
            self.tags.clear();
            self.stale.clear();
        }
        self
    }
}

#[derive(Serialize)]
struct Purge<'a> {
    tags: &'a BTreeSet<String>,
    everything: bool,
    soft: bool,
}

impl Edge {
    /// The edge with this admin address; `token` is sent as `Authorization: Bearer`.
    pub fn new(address: HttpAddress, token: Option<Secret>) -> Self {
        Self { address, token }
    }

    /// Where it takes purges.
    pub(crate) fn address(&self) -> &HttpAddress {
        &self.address
    }

    /// What it is called in the outbox and in logs.
    pub fn name(&self) -> &str {
        self.address.as_str()
    }

    /// Purges; `Ok` is the edge's word that nothing of it will be served again.
    ///
    /// # Errors
    /// See [`PostError`]. It may have happened all the same: purging again does no harm.
    pub async fn purge(&self, outdated: &Outdated) -> Result<(), PostError> {
        let Outdated { tags, stale, everything, .. } = outdated;
        if *everything || !tags.is_empty() {
            self.post(&Purge { tags, everything: *everything, soft: false }).await?;
        }
        if !stale.is_empty() {
            self.post(&Purge { tags: stale, everything: false, soft: true }).await?;
        }
        Ok(())
    }

    async fn post(&self, purge: &Purge<'_>) -> Result<(), PostError> {
        let body = serde_json::to_vec(purge).expect("a list of strings and booleans are JSON");
        let mut fields = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .expect("settings take tokens of visible ASCII only");
            value.set_sensitive(true);
            fields.push((header::AUTHORIZATION, value));
        }
        outgoing::post(&self.address, "/purge", &fields, body.into()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_tags_are_everything() {
        let tags = |range: std::ops::Range<usize>| range.map(|number| format!("product-{number}"));
        let mut outdated = Outdated::tagged(tags(0..600));
        outdated.add(&Outdated::tagged(tags(300..1_000)));
        assert_eq!((outdated.tags.len(), outdated.everything), (1_000, false));
        outdated.add(&Outdated::tagged(tags(1_000..1_001)));
        assert_eq!((outdated.tags.len(), outdated.everything), (0, true));
        outdated.add(&Outdated::tagged(tags(0..1)));
        assert_eq!((outdated.tags.len(), outdated.everything), (0, true));
        assert!(!outdated.is_empty() && Outdated::default().is_empty());
    }

    #[test]
    fn what_is_gone_is_not_told_to_be_stale() {
        let tag = |name: &str| [name.to_owned()];
        let mut outdated = Outdated::stale(tag("product-1"));
        outdated.add(&Outdated::stale(tag("product-2")));
        outdated.add(&Outdated::tagged(tag("product-1")));
        assert_eq!((outdated.tags, outdated.stale), (tag("product-1").into(), tag("product-2").into()));
    }

    #[test]
    fn rows_of_an_earlier_release_are_read() {
        let outdated: Outdated =
            serde_json::from_str("{\"tags\":[\"a\"],\"everything\":false}").expect("a row");
        assert_eq!(outdated, Outdated::tagged(["a".to_owned()]));
    }
}
