//! The edge's purge call: `POST /purge` with `{"tags": [...], "soft": false}` on its admin address, answered 200.

use std::collections::BTreeSet;

use http::{HeaderValue, header};
use serde::Serialize;

use crate::{
    exchange::{self, ExchangeError},
    settings::{HttpAddress, Secret},
};

/// An edge that keeps our answers.
#[derive(Debug, Clone)]
pub struct Edge {
    address: HttpAddress,
    token: Option<Secret>,
}

#[derive(Serialize)]
struct Purge<'a> {
    tags: &'a BTreeSet<String>,
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

    /// Purges the tags; `Ok` is the edge's word that nothing with one of them will be served again.
    ///
    /// # Errors
    /// See [`ExchangeError`]. It may have happened all the same: purging again does no harm.
    pub async fn purge(&self, tags: &BTreeSet<String>) -> Result<(), ExchangeError> {
        let body = serde_json::to_vec(&Purge { tags, soft: false })
            .expect("a list of strings and a boolean are JSON");
        let mut fields = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .expect("settings take tokens of visible ASCII only");
            value.set_sensitive(true);
            fields.push((header::AUTHORIZATION, value));
        }
        exchange::post(&self.address, "/purge", &fields, body.into()).await.map(drop)
    }
}
