//! How often somebody may try to sign in or register, counted in the database, so that it holds over all instances.
//!
//! Every attempt counts before it is judged: a thousand at the same moment are a thousand. Of one account, of one client
//! and of the pair; the pair's limit is the strict one, so that a stranger's guesses do not lock the owner out soon.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use crate::{database::Connection, problem::Problem, shop::Shop};

/// Within fifteen minutes.
const OF_A_PAIR: i32 = 10;
const OF_AN_ACCOUNT: i32 = 100;
const OF_A_CLIENT: i32 = 100;

/// In the order of subjects: two attempts at once cannot wait for one another in a circle.
pub(crate) const COUNT: &str = "
    INSERT INTO sign_in_attempts AS known (subject, attempts, ends_at)
    SELECT subject, 1, now() + interval '15 minutes' FROM UNNEST($1::bytea[]) AS subject ORDER BY subject
    ON CONFLICT (subject) DO UPDATE
       SET attempts = CASE WHEN known.ends_at > now() THEN known.attempts + 1 ELSE 1 END,
           ends_at = CASE WHEN known.ends_at > now() THEN known.ends_at ELSE excluded.ends_at END
    RETURNING subject, attempts, ceil(extract(epoch FROM ends_at - now()))::bigint";

/// What is counted, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    digest: Vec<u8>,
    limit: i32,
}

/// The account an address would have, whether there is one or not.
pub(crate) fn account(email: &str) -> Subject {
    Subject { digest: digest(&["account", &email.to_lowercase()]), limit: OF_AN_ACCOUNT }
}

/// Counts an attempt of each subject.
///
/// # Errors
/// 429 when one of them has had its share.
pub(crate) async fn count(connection: &mut Connection, subjects: &[Subject]) -> Result<(), Problem> {
    let digests: Vec<&[u8]> = subjects.iter().map(|subject| subject.digest.as_slice()).collect();
    let query = sqlx::query_as::<_, (Vec<u8>, i32, i64)>(COUNT).bind(digests);
    let counted = connection.all("attempts.count", query).await?;
    let over = counted.into_iter().filter(|(digest, attempts, _)| {
        subjects.iter().any(|subject| subject.digest == *digest && *attempts > subject.limit)
    });
    match over.map(|(_, _, seconds)| seconds).max() {
        None => Ok(()),
        Some(seconds) => Err(Problem::too_many_attempts(Duration::from_secs(seconds.max(1).unsigned_abs()))),
    }
}

/// Forgets what a client has tried with an account: it has just shown that it is theirs.
pub(crate) async fn forgive(connection: &mut Connection, subject: &Subject) -> Result<(), sqlx::Error> {
    let query = sqlx::query("DELETE FROM sign_in_attempts WHERE subject = $1").bind(&subject.digest);
    connection.execute("attempts.forgive", query).await.map(drop)
}

/// Who asks: the peer, or whom a proxy of ours names. An IPv6 customer owns a /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(Option<IpAddr>);

impl Client {
    pub(crate) fn subject(self) -> Subject {
        Subject { digest: digest(&["client", &self.text()]), limit: OF_A_CLIENT }
    }

    pub(crate) fn with_account(self, email: &str) -> Subject {
        Subject { digest: digest(&["pair", &self.text(), &email.to_lowercase()]), limit: OF_A_PAIR }
    }

    fn text(self) -> String {
        match self.0.map(|address| address.to_canonical()) {
            None => String::new(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string()
            }
        }
    }

    fn find(peer: Option<IpAddr>, forwarded: Option<&str>, proxies: &[IpAddr]) -> Self {
        // Without a peer the request was made in this process.
        if peer.is_none_or(|peer| proxies.contains(&peer.to_canonical())) {
            // The last entry is the one our own proxy has written.
            let named = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
            return Self(named.or(peer));
        }
        Self(peer)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client
where
    Shop: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let shop = Shop::from_ref(state);
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
        Ok(Self::find(peer, forwarded.and_then(|value| value.to_str().ok()), &shop.proxies))
    }
}

fn digest(parts: &[&str]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxies_say_who_the_client_is() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let proxies = [address("127.0.0.1")];
        let find = |peer, forwarded| Client::find(Some(address(peer)), forwarded, &proxies).text();
        assert_eq!(find("127.0.0.1", Some("9.9.9.9, 203.0.113.7")), "203.0.113.7");
        assert_eq!(find("::ffff:127.0.0.1", Some("203.0.113.7")), "203.0.113.7");
        assert_eq!(find("127.0.0.1", Some("nonsense")), "127.0.0.1");
        assert_eq!(find("198.51.100.1", Some("203.0.113.7")), "198.51.100.1");
        assert_eq!(find("2001:db8:1:2:3:4:5:6", None), "2001:db8:1:2::");
    }
}
