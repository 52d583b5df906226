//! Writes what this edge has stored, one after the other.

use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use http::HeaderName;
use redis::RedisResult;

use super::{
    compressing::compress,
    digest,
    live::Live,
    place::{BodyPlace, PIECE},
    queue::{OfferedLater, QueuedWrite},
    scripts,
    state::SharedState,
};
use crate::cache::{
    Key, StoredBody,
    codec::encode_kept,
    tier::{Kept, Offered},
};

/// Writes as long as this edge is one of several. What cannot be written is forgotten, since what is there is older.
pub(super) async fn write_all(shared: &SharedState, mut offered: OfferedLater) {
    while let Some(written) = offered.next().await {
        let live = shared.live.load_full();
        if let Some(live) = &live {
            for key in offered.unforgotten() {
                forget_or_later(&offered, Some(live), key).await;
            }
        }
        match written {
            QueuedWrite::Offer(key, one) => {
                let length = one.body.length();
                let outcome = match &live {
                    Some(live) => offer(shared, live, &key, *one).await.unwrap_or("failed"),
                    None => "failed",
                };
                offered.written(length);
                if outcome == "failed" || outcome == "lost" {
                    offered.forget_later(key);
                }
                shared.metrics.offered(outcome);
            }
            QueuedWrite::Forget(key) => forget_or_later(&offered, live.as_deref(), key).await,
        }
    }
}

async fn forget_or_later(offered: &OfferedLater, live: Option<&Live>, key: Key) {
    let forgotten = match live {
        Some(live) => forget(live, &key).await.is_ok(),
        None => false,
    };
    if !forgotten {
        offered.forget_later(key);
    }
}

async fn forget(live: &Live, key: &Key) -> RedisResult<()> {
    let mut forget = scripts::FORGET.prepare_invoke();
    forget.key(&*live.prefix).arg(digest::resource(key));
    forget.invoke_async::<i64>(&mut live.heads.clone()).await.map(drop)
}

/// Writes the body, then the head: no reader finds a head whose body is not there yet. The outcome is one word.
async fn offer(shared: &SharedState, live: &Live, key: &Key, offered: Offered) -> RedisResult<&'static str> {
    let Offered { kept, body, began } = offered;
    let Some(heard) = shared.positions.at(began) else {
        forget(live, key).await?;
        return Ok("too-long-ago");
    };
    let now = shared.clock.wall();
    let Some(ttl) = time_to_live(&kept, now, shared.settings.max_ttl) else {
        forget(live, key).await?;
        return Ok("too-short");
    };
    // By the key, so that what was stored at once does not expire at once.
    let jitter = u32::from(digest::resource(key).as_bytes()[0] % 16);
    let ttl = u64::try_from((ttl - ttl / 320 * jitter).as_millis()).unwrap_or(u64::MAX).max(1);
    let vary = kept.vary.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(" ");
    let compressed = if shared.settings.compress && kept.codable { compress(&body).await } else { None };
    let octets = compressed.as_ref().map_or(body.length(), |compressed| compressed.len() as u64);
    let inline = octets <= INLINE;
    let place = if inline { BodyPlace::inline(&body) } else { BodyPlace::beside(&body) };
    let (place, body) = match compressed {
        Some(compressed) => (place.compressed(octets), StoredBody::new(&[compressed])),
        None => (place, body),
    };
    if !inline {
        write_pieces(live, &place, &body, ttl).await?;
    }
    let mut write = scripts::WRITE.prepare_invoke();
    write.key(&*live.prefix).arg(&*live.epoch).arg(heard).arg(digest::resource(key)).arg(key.as_str());
    write.arg(&vary).arg(digest::variant(&vary, &kept.variant)).arg(milliseconds(kept.received));
    write.arg(digest::facets_of_response(key, &kept.tags, &kept.head)).arg(encode_kept(key.as_str(), &kept));
    write.arg(place.to_text()).arg(if inline { body.pieces().concat() } else { Vec::new() });
    write.arg(ttl).arg(shared.variants);
    let written: RedisResult<String> = write.invoke_async(&mut live.heads.clone()).await;
    let outcome = match written.as_deref() {
        Ok("written") => return Ok("written"),
        Ok("purged") => "purged",
        Ok("older") => "older",
        Ok(_) => "lost",
        Err(_) => "failed",
    };
    if !inline {
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(place.pieces(&live.prefix));
        // Where this fails they expire.
        drop(unlink.query_async::<i64>(&mut live.bodies.clone()).await);
    }
    Ok(outcome)
}

async fn write_pieces(live: &Live, place: &BodyPlace, body: &StoredBody, ttl: u64) -> RedisResult<()> {
    let mut connection = live.bodies.clone();
    let mut rest = body.read();
    let mut piece = BytesMut::with_capacity(PIECE);
    let mut number = 0;
    loop {
        let next = rest.next_piece();
        let mut octets = next.as_deref().unwrap_or_default();
        while !octets.is_empty() || (next.is_none() && !piece.is_empty()) {
            let (fits, beyond) = octets.split_at(octets.len().min(PIECE - piece.len()));
            piece.extend_from_slice(fits);
            octets = beyond;
            if piece.len() == PIECE || next.is_none() {
                let mut set = redis::cmd("SET");
                set.arg(place.piece(&live.prefix, number)).arg(&piece[..]).arg("PX").arg(ttl);
                set.query_async::<()>(&mut connection).await?;
                number += 1;
                piece.clear();
            }
        }
        if next.is_none() {
            return Ok(());
        }
    }
}

/// How long a response is worth keeping: while it is fresh, and as long after as it may stand in; `None` for what is of no
/// use by now. What can be validated is kept for some time even where it is never fresh.
fn time_to_live(kept: &Kept, now: SystemTime, most: Duration) -> Option<Duration> {
    let fresh = kept.fresh_until.duration_since(now).unwrap_or_default();
    let stale = kept.meta.stale_while_revalidate.max(kept.meta.stale_if_error).unwrap_or_default();
    let validated = if kept.meta.validators.is_empty() { Duration::ZERO } else { VALIDATED };
    let ttl = fresh.saturating_add(stale).max(validated).min(most);
    (ttl >= SHORTEST).then_some(ttl)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Bodies up to so many octets lie in their heads.
const INLINE: u64 = 32 * 1024;
const SHORTEST: Duration = Duration::from_secs(1);
const VALIDATED: Duration = Duration::from_secs(600);
