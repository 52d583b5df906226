//! The way to Redis: three connections, each shared by all who speak at once. Heads and scripts go by one, bodies by another,
//! so that no head waits behind a body; the third waits for the log.
//!
//! Before anything is asked by a connection, the server says who it is. Another process than the one of the epoch begins a new
//! one: a replica that took over, or a server that was restarted, may have lost purges that were acknowledged.

use std::{fs, path::Path, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisResult, TlsCertificates,
    aio::MultiplexedConnection,
};

use super::{
    digest,
    lease::WAIT,
    scripts,
    sentinel::{self, ServerAddress},
};
use crate::{cache::tier::TierError, settings::RedisSettings};

/// Three connections to a server that has said who it is.
pub(super) struct Connections {
    pub(super) heads: MultiplexedConnection,
    pub(super) bodies: MultiplexedConnection,
    pub(super) log: MultiplexedConnection,
    pub(super) prefix: Box<str>,
    /// Where the Sentinels have led, if there are any.
    pub(super) address: Option<ServerAddress>,
    run: String,
}

impl Connections {
    /// Connects, and makes sure that the server will do.
    pub(super) async fn open(settings: &RedisSettings) -> Result<Self, TierError> {
        let (client, address) = client(settings).await?;
        let config = |response| {
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(response))
        };
        let (short, long) = (config(RESPONSE), config(RESPONSE + WAIT));
        let mut heads = client.get_multiplexed_async_connection_with_config(&short).await?;
        let bodies = client.get_multiplexed_async_connection_with_config(&short).await?;
        let log = client.get_multiplexed_async_connection_with_config(&long).await?;
        let told: String = redis::cmd("INFO").query_async(&mut heads).await.map_err(|error| {
            format!("{error}: the edge asks INFO, which its user must be allowed (+info)")
        })?;
        let run = fit(&told)?.to_owned();
        let prefix = format!("gatehouse:{}", settings.namespace).into();
        Ok(Self { heads, bodies, log, prefix, address, run })
    }

    /// Joins the epoch of this server, or begins one. `known` is the epoch that this edge knows, and how far it has heard.
    pub(super) async fn join(&mut self, known: (&str, u64)) -> RedisResult<(String, u64)> {
        let mut join = scripts::JOIN.prepare_invoke();
        join.key(&*self.prefix).arg(&self.run).arg(digest::random()).arg(known.0).arg(known.1);
        join.invoke_async(&mut self.heads).await
    }
}

/// The run id of a server that will do, by what it says of itself.
fn fit(told: &str) -> Result<&str, TierError> {
    let said = |name: &str| {
        let value = |line: &'_ str| line.strip_prefix(name)?.strip_prefix(':').map(str::len);
        told.lines().find_map(|line| value(line).map(|length| line[line.len() - length..].trim()))
    };
    let version = said("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST) {
        return Err(format!("it is version {version:?}: Redis {OLDEST} or Valkey is needed").into());
    }
    if said("cluster_enabled") == Some("1") {
        return Err("it is a cluster, which is not supported: name a server that stands alone".into());
    }
    if said("role").is_some_and(|role| role != "master") {
        return Err("it is a replica: name the server that takes writes".into());
    }
    if let Some(policy) = said("maxmemory_policy").filter(|policy| policy.starts_with("allkeys")) {
        tracing::warn!(
            "redis: maxmemory-policy {policy} may evict what purges rest on, and all that is stored counts for nothing then: \
             set maxmemory-policy volatile-lfu"
        );
    }
    said("run_id").ok_or_else(|| "it does not say its run_id".into())
}

async fn client(settings: &RedisSettings) -> Result<(Client, Option<ServerAddress>), TierError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| format!("cannot read {}: {error}; correct the path", path.display()))
    };
    let mut info = settings.url.to_secret().into_connection_info()?;
    if let Some(file) = &settings.password_file {
        let password = String::from_utf8(read(file)?)?;
        let with_password = info.redis_settings().clone().set_password(password.trim());
        info = info.set_redis_settings(with_password);
    }
    let address = sentinel::who_takes_writes(settings).await?;
    if let Some((host, port)) = &address {
        let there = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.clone(), *port),
        };
        info = info.set_addr(there);
    }
    let client = match &settings.ca {
        Some(file) => {
            let root_cert = Some(read(file)?);
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
        }
        None => Client::open(info)?,
    };
    Ok((client, address))
}

const OLDEST: u32 = 7;
const CONNECT: Duration = Duration::from_secs(1);
const RESPONSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_server_that_will_not_do_is_told_with_a_remedy() {
        assert_eq!(fit(GOOD).unwrap(), "abc");
        for (from, to, remedy) in [
            ("7.0.15", "6.2.1", "Redis 7"),
            ("cluster_enabled:0", "cluster_enabled:1", "stands alone"),
            ("role:master", "role:slave", "takes writes"),
            ("run_id:abc", "x:y", "run_id"),
        ] {
            let said = fit(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(said.contains(remedy), "{said}");
        }
    }
}
