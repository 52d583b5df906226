//! Which server takes writes, by the word of the Sentinels that watch it. They are asked before each connection, and again and
//! again while there is one: a server that has lost its place, and does not know it yet, is left at once.

use std::{future::pending, time::Duration};

use redis::{AsyncConnectionConfig, Client};
use tokio::time::sleep;

use crate::{
    cache::tier::TierError,
    settings::{RedisSettings, RedisUrl},
};

/// Host and port.
pub(super) type ServerAddress = (String, u16);

/// Where the server is that takes writes, by the first Sentinel that knows; `None` where there are no Sentinels.
pub(super) async fn who_takes_writes(settings: &RedisSettings) -> Result<Option<ServerAddress>, TierError> {
    if settings.sentinels.is_empty() {
        return Ok(None);
    }
    let name = settings.url.host();
    let mut told = Vec::new();
    for sentinel in &settings.sentinels {
        match ask(sentinel, name).await {
            Ok(Some(address)) => return Ok(Some(address)),
            Ok(None) => {
                told.push(format!("{sentinel} does not know {name:?}: write in `url` the name that it has"));
            }
            Err(error) => told.push(format!("{sentinel}: {error}")),
        }
    }
    Err(format!("no Sentinel says who takes writes ({})", told.join("; ")).into())
}

/// Returns when the Sentinels name another server than this one.
pub(super) async fn until_another(settings: &RedisSettings, address: Option<&ServerAddress>) -> TierError {
    let Some(address) = address else { return pending().await };
    loop {
        sleep(ASKED_EACH).await;
        // While no Sentinel can be asked, the server that answers will do.
        if let Ok(Some((host, port))) = who_takes_writes(settings).await
            && (&host, port) != (&address.0, address.1)
        {
            return format!("another server takes writes by now: {host}:{port}").into();
        }
    }
}

async fn ask(sentinel: &RedisUrl, name: &str) -> Result<Option<ServerAddress>, TierError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LONGEST))
        .set_response_timeout(Some(LONGEST));
    let client = Client::open(sentinel.to_secret())?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(name);
    Ok(ask.query_async(&mut connection).await?)
}

/// Of each Sentinel.
const LONGEST: Duration = Duration::from_millis(500);
const ASKED_EACH: Duration = Duration::from_secs(1);
