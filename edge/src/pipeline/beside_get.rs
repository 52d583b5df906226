//! Requests that are read from the cache beside GET and HEAD: their content is received first, for it is part of the key.

use std::sync::Arc;

use super::{Answer, ClientSide, Exchange, LookUp, tunnel::Upgrade};
use crate::{
    message::{content::Content, interim::Interim},
    observe::record::Record,
    request::{beside_get, graphql, refusal::Refusal, route},
    settings::BesideGet,
    upstream::request_body::AskedContent,
};

impl Exchange<'_> {
    /// As what the request may be read from the cache, as far as it is known before its content.
    pub(super) fn is_read_beside_get(
        &self,
        content: &Content,
        upgrade: Option<&Upgrade>,
    ) -> Option<BesideGet> {
        let kind = beside_get::of(self.head, &self.route.also)?;
        let comes_first = content.is_here() || self.is_received_first(content, upgrade);
        (self.goes_past().is_none() && upgrade.is_none() && comes_first).then_some(kind)
    }
}

/// Answers a request that may be read by its content; one that asks for a change after all is passed on as any other.
pub(super) async fn answer(
    exchange: Exchange<'_>,
    content: Content,
    kind: BesideGet,
    record: &mut Record,
    interim: Option<&Interim>,
) -> Result<Answer, Refusal> {
    let content = match content.is_here() {
        true => content,
        false => exchange.receive(content).await?,
    };
    let (octets, room) = match content.into_octets() {
        Ok(received) => received,
        Err(content) => return look_up(exchange, content, record, interim).await,
    };
    if kind == BesideGet::Graphql && !graphql::only_asks(&octets) {
        let content = Content::of_octets(octets, room);
        return look_up(exchange, content, record, interim).await;
    }
    let get = beside_get::as_get(exchange.head, kind);
    let key = exchange.key.with_part(&beside_get::key_part(exchange.head, &octets));
    let asked = AskedContent { method: exchange.head.method.clone(), octets, room: room.map(Arc::new) };
    let mut facts = route::facts(&get, exchange.route);
    if !exchange.told.is_empty() {
        facts = facts.with_credentials();
    }
    let exchange = Exchange { head: &get, key, facts, asked: Some(&asked), ..exchange };
    look_up(exchange, Content::none(), record, interim).await
}

/// Looks up, and goes upstream where the cache has no answer.
async fn look_up(
    exchange: Exchange<'_>,
    content: Content,
    record: &mut Record,
    interim: Option<&Interim>,
) -> Result<Answer, Refusal> {
    match exchange.look_up()? {
        LookUp::Answered(answer) => Ok(exchange.limited(answer)),
        looked => exchange.proceed(looked, ClientSide { content, upgrade: None }, record, interim).await,
    }
}
