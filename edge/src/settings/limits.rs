//! How often requests may come, as routes name it.

use std::{fmt, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use http::{HeaderName, Method, StatusCode};
use ipnet::IpNet;

/// A rate that requests with something in common may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub name: Arc<str>,
    /// Time in which one request is earned back (the inverse of the rate).
    pub interval: Duration,
    /// Requests at once before the rate applies.
    pub burst: NonZeroU32,
    /// Which requests count together.
    pub key: CountedBy,
    /// What a request counts for, where that is not one.
    pub cost: RequestCosts,
    /// Clients that are neither counted nor refused.
    pub except: Vec<IpNet>,
    /// It counts and refuses nobody.
    pub dry_run: bool,
}

impl Limit {
    /// Whether requests of a client are none of its business.
    pub fn spares(&self, client: IpAddr) -> bool {
        !self.except.is_empty() && {
            let client = client.to_canonical();
            self.except.iter().any(|network| network.contains(&client))
        }
    }
}

/// What requests have in common that count together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CountedBy {
    /// Their client.
    #[default]
    Client,
    /// Their path, whoever asks.
    Path,
    /// Both.
    ClientAndPath,
    /// The value of a field; those without it count by their client.
    Header(HeaderName),
    /// That they are under the limit.
    All,
}

impl fmt::Display for CountedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => formatter.write_str("client"),
            Self::Path => formatter.write_str("path"),
            Self::ClientAndPath => formatter.write_str("client path"),
            Self::Header(name) => write!(formatter, "header {name}"),
            Self::All => formatter.write_str("all"),
        }
    }
}

/// What requests count for, where that is not one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestCosts {
    /// Before they are admitted.
    pub by_method: Vec<(Method, NonZeroU32)>,
    /// Once they are answered: what is more than they have counted for is counted then.
    pub by_status: Vec<(StatusCode, NonZeroU32)>,
}

impl RequestCosts {
    /// What a request of a method counts for when it comes.
    pub fn of_method(&self, method: &Method) -> NonZeroU32 {
        let named = self.by_method.iter().find(|(named, _)| named == method);
        named.map_or(NonZeroU32::MIN, |(_, cost)| *cost)
    }

    /// What a request that is answered with a status counts for in all.
    pub fn of_status(&self, status: StatusCode) -> Option<NonZeroU32> {
        self.by_status.iter().find(|(named, _)| *named == status).map(|(_, cost)| *cost)
    }
}

impl fmt::Display for RequestCosts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = self.by_method.iter().map(|(method, cost)| format!("{method} = {cost}"));
        let statuses = self.by_status.iter().map(|(status, cost)| format!("{} = {cost}", status.as_u16()));
        let all: Vec<_> = methods.chain(statuses).collect();
        if all.is_empty() { formatter.write_str("1") } else { write!(formatter, "{{ {} }}", all.join(", ")) }
    }
}
