//! Look-ups: one round trip for what varies on nothing, a second for what does, and one for a body that lies beside its head.
//! What no edge has, one of them fetches, and the others look again for a moment.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cache_policy::variant_key;
use http::{HeaderMap, HeaderName};
use redis::{FromRedisValue as _, Value, aio::MultiplexedConnection};
use tokio::time::{sleep, timeout};

use super::{
    compressing::decompress,
    digest,
    live::Live,
    place::{BodyPlace, checksum},
    scripts,
    state::SharedState,
};
use crate::cache::{
    Key, StoredBody,
    codec::decode_kept,
    tier::{Found, LateAnswer, TierError},
};

/// What is stored for this request, and was not purged.
pub(super) async fn look_up(
    shared: &SharedState,
    live: &Live,
    key: &Key,
    request: &HeaderMap,
) -> Result<Option<Found>, TierError> {
    let question = LookUpQuestion { shared, live, resource: digest::resource(key), key };
    let mut variant = Vec::new();
    let mut waits = 0;
    let answer = loop {
        let answer = question.ask(&variant).await?;
        let [word, rest @ ..] = &answer[..] else { return Ok(None) };
        match (text(word)?.as_str(), rest) {
            ("varies", [vary]) => {
                let vary = text(vary)?;
                let names: Result<Vec<_>, _> =
                    vary.split(' ').map(|name| HeaderName::from_bytes(name.as_bytes())).collect();
                variant = digest::variant(&vary, &variant_key(&names?, request));
            }
            // It takes that edge too long, or is not kept.
            ("wait", _) if LOOK_AGAIN * waits >= shared.settings.collapse_timeout => return Ok(None),
            ("wait", _) => {
                waits += 1;
                sleep(LOOK_AGAIN).await;
            }
            _ => break answer,
        }
    };
    let [word, stale_since, record, place, inline] = &answer[..] else { return Ok(None) };
    if text(word)? != "found" {
        return Ok(None);
    }
    let (of, mut kept) = decode_kept(&Vec::<u8>::from_redis_value_ref(record)?)?;
    if *of != *key.as_str() {
        return Ok(None);
    }
    if let Ok(since) = text(stale_since)?.parse::<u64>() {
        kept.fresh_until = kept.fresh_until.min(SystemTime::UNIX_EPOCH + Duration::from_millis(since));
    }
    let place = BodyPlace::read(&text(place)?).ok_or("the place of a body cannot be read")?;
    let length = place.length;
    let inline: Option<Vec<u8>> = Option::from_redis_value_ref(inline)?;
    let connection = live.bodies.clone();
    let prefix = live.prefix.clone();
    let body = Box::pin(async move {
        let pieces = match inline {
            Some(inline) => vec![Bytes::from(inline)],
            None => pieces(connection, &prefix, &place).await?,
        };
        let pieces = match place.compressed {
            Some(_) => decompress(&pieces, place.length).await?,
            None => pieces,
        };
        if place.checksum != checksum(&pieces) {
            return Err("a body is damaged".into());
        }
        Ok(StoredBody::new(&pieces))
    });
    Ok(Some(Found { kept, length, body }))
}

struct LookUpQuestion<'a> {
    shared: &'a SharedState,
    live: &'a Live,
    resource: String,
    key: &'a Key,
}

impl LookUpQuestion<'_> {
    async fn ask(&self, variant: &[u8]) -> Result<Vec<Value>, TierError> {
        let Self { shared, live, resource, key } = self;
        let collapse = u64::try_from(shared.settings.collapse_timeout.as_millis()).unwrap_or(u64::MAX);
        let mut look_up = scripts::LOOK_UP.prepare_invoke();
        look_up.key(&*live.prefix).arg(0).arg(resource).arg(key.as_str()).arg(variant);
        look_up.arg(&*shared.edge).arg(collapse.max(1));
        let mut heads = live.heads.clone();
        match timeout(shared.settings.look_up_timeout, look_up.invoke_async(&mut heads)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LateAnswer.into()),
        }
    }
}

/// The pieces that lie beside a head. One that is missing has expired, or was taken away with its head.
async fn pieces(
    mut connection: MultiplexedConnection,
    prefix: &str,
    place: &BodyPlace,
) -> Result<Vec<Bytes>, TierError> {
    let mut pieces = Vec::new();
    for first in (0..place.count).step_by(PIECES_AT_ONCE) {
        let mut get = redis::cmd("MGET");
        for number in first..place.count.min(first + PIECES_AT_ONCE) {
            get.arg(place.piece(prefix, number));
        }
        let found: Vec<Option<Vec<u8>>> = get.query_async(&mut connection).await?;
        for piece in found {
            pieces.push(Bytes::from(piece.ok_or("a piece of a body is gone")?));
        }
    }
    Ok(pieces)
}

fn text(value: &Value) -> Result<String, TierError> {
    Ok(String::from_redis_value_ref(value)?)
}

/// How soon an edge looks again for what another fetches.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A megabyte.
const PIECES_AT_ONCE: usize = 4;
