//! What is remembered of a stored response for deciding: plain data, compared by instants on a hit.

use crate::date;
use crate::moment::Moment;
use crate::reason::Reason;
use crate::rules::Rules;
use http::header::{DATE, ETAG, HeaderMap, LAST_MODIFIED};
use http::{HeaderValue, StatusCode};
use std::time::{Duration, SystemTime};

/// What is remembered of a stored response for deciding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The stored response's status.
    pub status: StatusCode,
    /// What a later response can be compared with.
    pub validators: Validators,
    /// When the response, or the last one that freshened it, was received.
    pub received_at: Moment,
    /// Its age then (`corrected_initial_age`, RFC 9111 §4.2.3).
    pub age_at_arrival: Duration,
    /// How long it is fresh from the origin's point of view (§4.2.1), after the route's limits.
    pub lifetime: Duration,
    /// Which statement gave the lifetime.
    pub lifetime_source: LifetimeSource,
    /// The first moment at which it is stale. Meaningless before `received_at`: it was stale when it came.
    pub fresh_until: Moment,
    /// Every use has to be validated (`no-cache`, §5.2.2.4).
    pub no_cache: bool,
    /// Never checked with the origin while fresh, not even for a reload (RFC 8246).
    pub immutable: bool,
    /// Marked as shareable although a request carried Authorization (§3.5).
    pub shareable: bool,
    /// Says `public`, `s-maxage` or `immutable`: it answers whoever asks, whatever cookies the request carries.
    pub for_everyone: bool,
    /// What stands against serving it stale, if anything.
    pub stale_ban: StaleBan,
    /// How long past its lifetime it may be served while it is refreshed, as the response states (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long past its lifetime it may be served in place of an error, as the response states (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

/// Which statement gave a response its lifetime (RFC 9111 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `s-maxage` of Cache-Control or a targeted field.
    SharedMaxAge,
    /// `max-age` of Cache-Control or a targeted field.
    MaxAge,
    /// Expires less Date.
    Expires,
    /// The route's `ttl`, in place of what the origin states.
    Ttl,
    /// The route's default.
    Route,
    /// A tenth of the time since Last-Modified (§4.2.2).
    Heuristic,
    /// Nothing: the lifetime is zero.
    None,
    /// A soft purge, which ended it.
    SoftPurge,
}

impl LifetimeSource {
    /// A token for logs and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            LifetimeSource::SharedMaxAge => "s-maxage",
            LifetimeSource::MaxAge => "max-age",
            LifetimeSource::Expires => "expires",
            LifetimeSource::Ttl => "ttl",
            LifetimeSource::Route => "route",
            LifetimeSource::Heuristic => "heuristic",
            LifetimeSource::None => "none",
            LifetimeSource::SoftPurge => "soft-purge",
        }
    }

    /// Whether the origin itself stated the lifetime.
    pub const fn is_explicit(self) -> bool {
        matches!(self, LifetimeSource::SharedMaxAge | LifetimeSource::MaxAge | LifetimeSource::Expires)
    }
}

/// What stands against serving a response stale (RFC 9111 §4.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleBan {
    /// Nothing.
    #[default]
    None,
    /// `s-maxage` implies `proxy-revalidate` (§5.2.2.10), unless a stale window says otherwise.
    Implied,
    /// `must-revalidate`, `proxy-revalidate` or `no-cache`: never.
    Stated,
}

impl Meta {
    /// The age at `now` (RFC 9111 §4.2.3): what the Age field states in whole seconds.
    pub fn age(&self, now: Moment) -> Duration {
        self.age_at_arrival.saturating_add(now.since(self.received_at))
    }

    /// Whether the response is fresh at `now` (§4.2).
    pub fn is_fresh(&self, now: Moment) -> bool {
        now < self.fresh_until && self.age_at_arrival < self.lifetime
    }

    /// Ends the lifetime at `moment`, if it has not ended before: the response is stale from then on, and its stale
    /// windows are counted from then. Its age stays what it is.
    pub fn stale_since(&mut self, moment: Moment) {
        self.fresh_until = self.fresh_until.min(moment);
        let age = self.age(moment);
        if age < self.lifetime {
            self.lifetime = age;
            self.lifetime_source = LifetimeSource::SoftPurge;
        }
    }

    /// How far past its lifetime the response is at `now`; zero while it is fresh.
    pub fn staleness(&self, now: Moment) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Whole seconds of lifetime left at `now`, negative when stale: Cache-Status `ttl` (RFC 9211 §2.4).
    pub fn lifetime_left(&self, now: Moment) -> i64 {
        let age = self.age(now);
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        match self.lifetime.checked_sub(age) {
            Some(left) => seconds(left),
            None => -seconds(age - self.lifetime),
        }
    }

    /// The `stale-while-revalidate` window: the response's own, else the route's. The route's is not for an error to which
    /// nobody gave a lifetime: it would be one of its own.
    pub(crate) fn while_revalidate(&self, rules: &Rules) -> Option<Duration> {
        let given = self.lifetime_source != LifetimeSource::None || !is_error(self.status);
        self.stale_while_revalidate.or(rules.stale_while_revalidate.filter(|_| given))
    }

    /// The window in place of an error for whose sake alone a response may be kept.
    pub(crate) fn worth_keeping_for(&self, rules: &Rules) -> Option<Duration> {
        self.stale_if_error.or(rules.stale_if_error.filter(|_| !is_error(self.status)))
    }

    /// The `stale-if-error` window: the response's own, else the route's.
    pub(crate) fn if_error(&self, rules: &Rules) -> Option<Duration> {
        self.stale_if_error.or(rules.stale_if_error)
    }

    /// Whether somebody has said that it may be used again, be it only for a moment: by a lifetime, or to everyone. What is stored
    /// without that, to be compared with what comes next, may be made for one client.
    pub fn is_to_be_used_again(&self) -> bool {
        self.for_everyone || self.lifetime_source != LifetimeSource::None
    }

    /// What forbids a stale answer inside a window that the response or the route states.
    ///
    /// DEVIATION: `s-maxage` alone does not (RFC 9111 §5.2.2.10 reads as if it did): who writes a stale window beside it
    /// means the window.
    pub(crate) fn bars_window(&self) -> Option<Reason> {
        match self.stale_ban {
            StaleBan::Stated => Some(Reason::MustRevalidate),
            StaleBan::Implied | StaleBan::None => None,
        }
    }

    /// What forbids a stale answer that no window covers.
    pub(crate) fn bars_stale(&self) -> Option<Reason> {
        match self.stale_ban {
            StaleBan::Stated | StaleBan::Implied => Some(Reason::MustRevalidate),
            StaleBan::None => None,
        }
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// What a later response, or a client's condition, can be compared with (RFC 9110 §8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// ETag as received.
    pub etag: Option<HeaderValue>,
    /// Last-Modified as a time; `None` where the field is absent or no date.
    pub last_modified: Option<SystemTime>,
    /// Last-Modified as received: what If-Modified-Since repeats.
    pub last_modified_field: Option<HeaderValue>,
    /// Last-Modified lies at least a second before Date, so that it identifies one representation (§8.8.2.2).
    pub last_modified_is_strong: bool,
}

/// A copy: a received value is a slice of its connection's read buffer and would keep all of that in memory.
fn owned(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).expect("the octets of a valid value are valid")
}

/// What an allocation costs beside its bytes: the allocator's own, and the reference count.
const ALLOCATION: u64 = 48;

impl Validators {
    /// Reads them of a head; `wall` is the time by which years of two digits are read.
    pub fn read(head: &HeaderMap, wall: SystemTime) -> Validators {
        let field = head.get(LAST_MODIFIED);
        let last_modified = date::of_field(field, wall);
        let dated = date::of_field(head.get(DATE), wall);
        let strong = last_modified.zip(dated).is_some_and(|(modified, dated)| {
            dated.duration_since(modified).is_ok_and(|distance| distance >= Duration::from_secs(1))
        });
        Validators {
            etag: head.get(ETAG).map(owned),
            last_modified,
            last_modified_field: last_modified.and(field).map(owned),
            last_modified_is_strong: strong,
        }
    }

    /// Bytes of memory the fields hold.
    pub fn weight(&self) -> u64 {
        let fields = [&self.etag, &self.last_modified_field].into_iter().flatten();
        fields.map(|field| field.len() as u64 + ALLOCATION).sum()
    }

    /// Whether there is nothing to validate with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Last-Modified where it is a strong validator: what If-Range may be compared with (RFC 9110 §13.1.5).
    pub fn strong_last_modified(&self) -> Option<SystemTime> {
        self.last_modified.filter(|_| self.last_modified_is_strong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows and `ttl` were counted from the lifetime that the origin had stated: an hour after the purge a response
    /// of `max-age=3600` was still inside a window of a second.
    #[test]
    fn a_soft_purge_counts_from_the_purge_and_leaves_the_age() {
        let at = |seconds| Moment::from_epoch(Duration::from_secs(seconds));
        let fresh = Meta {
            status: StatusCode::OK,
            validators: Validators::default(),
            received_at: at(100),
            age_at_arrival: Duration::from_secs(10),
            lifetime: Duration::from_secs(3600),
            lifetime_source: LifetimeSource::MaxAge,
            fresh_until: at(3690),
            no_cache: false,
            immutable: false,
            shareable: false,
            for_everyone: false,
            stale_ban: StaleBan::None,
            stale_while_revalidate: None,
            stale_if_error: None,
        };
        let mut purged = fresh.clone();
        purged.stale_since(at(200));
        let now = at(203);
        assert!(!purged.is_fresh(now));
        assert_eq!((purged.lifetime_left(now), purged.staleness(now)), (-3, Duration::from_secs(3)));
        assert_eq!((purged.age(now), purged.lifetime_source), (fresh.age(now), LifetimeSource::SoftPurge));
        let mut again = purged.clone();
        again.stale_since(at(300));
        assert_eq!(again, purged, "what is stale already stays stale since then");
        let mut early = fresh;
        early.stale_since(at(50));
        assert!(!early.is_fresh(at(100)), "a fetch that began before the purge brought it");
    }
}
