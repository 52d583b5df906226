//! The idle connections to one server, and the one in use by a request until it is given back.

use std::{sync::Arc, time::Duration};

use cache_policy::{Moment, list_elements};
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    health::{Blame, Health, Rules},
    request_body::Progress,
    sender::Sender,
};
use crate::clock::Clock;

/// The idle connections to one server, the one used last at the end. Bounded by the permits of those who gave them back.
#[derive(Default)]
pub struct IdleConnections(Mutex<Vec<Idle>>);

struct Idle {
    sender: Sender,
    /// When it is old enough to be closed.
    until: Moment,
    retires: Moment,
}

impl IdleConnections {
    /// The idle connection used last, if it still looks alive, and when it retires.
    pub fn take(&self, now: Moment) -> Option<(Sender, Moment)> {
        let mut idle = self.0.lock();
        while let Some(candidate) = idle.pop() {
            if !candidate.sender.is_closed() && now < candidate.until {
                return Some((candidate.sender, candidate.retires));
            }
        }
        None
    }

    /// Closes what has been idle for long enough, or is closed already.
    pub fn sweep(&self, now: Moment) {
        self.0.lock().retain(|idle| !idle.sender.is_closed() && now < idle.until);
    }
}

/// A connection in use by one request.
pub struct Connection {
    pub sender: Sender,
    /// How far the request's body has come.
    pub progress: Arc<Progress>,
    /// Its place among the server's connections, or among its tunnels.
    pub permit: OwnedSemaphorePermit,
    /// When it is too old for another request: its server's name may stand for another address by then.
    pub retires: Moment,
}

/// Who is told how a server's answer ends.
#[derive(Clone)]
pub struct Watch {
    pub health: Arc<Health>,
    pub rules: Rules,
}

/// A connection that goes back when the response has been read. Dropped instead, it closes.
pub struct Lease {
    idle: Arc<IdleConnections>,
    connection: Connection,
    /// Nobody, where its head has told enough.
    watch: Option<Watch>,
    /// How long it may then be idle.
    keep_alive: Duration,
    clock: Clock,
}

impl Lease {
    /// A connection that may then be idle for `keep_alive`.
    pub fn new(
        idle: &Arc<IdleConnections>,
        connection: Connection,
        watch: Watch,
        keep_alive: Duration,
        clock: &Clock,
    ) -> Self {
        Self { idle: Arc::clone(idle), connection, watch: Some(watch), keep_alive, clock: clock.clone() }
    }

    /// Moves it to another share of the server's connections.
    pub fn change_place(&mut self, permit: OwnedSemaphorePermit) {
        self.connection.permit = permit;
    }

    /// The response goes on for as long as its reader likes: it need not end to have done its server credit, nor is its
    /// server to blame where nothing happens for long.
    pub fn lasts(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.health.completed(self.clock.now());
        }
    }

    /// The response is a failure, whichever way it ends.
    pub fn has_failed(&mut self) {
        self.watch = None;
    }

    /// The response broke off, for a reason of one word: the connection closes, and the server is to blame.
    pub fn broke_off(self, reason: &'static str) {
        let Some(Watch { health, rules }) = &self.watch else { return };
        tracing::warn!(server = &**health.server(), phase = "body", reason, "an upstream's answer broke off");
        health.failed(Blame::Answer(reason), *rules, self.clock.now());
    }

    /// Keeps it no longer idle than its server announces to.
    pub fn read_keep_alive(&mut self, head: &HeaderMap) {
        if let Some(announced) = announced_idle(head) {
            self.keep_alive = self.keep_alive.min(announced);
        }
    }

    /// The response was read to its end: the connection may serve another request. Without this call it closes; so it
    /// does when the answer came before the request's body had ended, or when it is too old.
    pub fn give_back(self) {
        let now = self.clock.now();
        if let Some(watch) = &self.watch {
            watch.health.completed(now);
        }
        let Connection { sender, progress, retires, permit: _permit } = self.connection;
        if !progress.ended() || now >= retires {
            return;
        }
        let until = retires.min(now + self.keep_alive);
        self.idle.0.lock().push(Idle { sender, until, retires });
    }
}

/// How long a connection may be idle and surely still be open, as the server's `Keep-Alive: timeout=5` says (RFC 2068
/// §19.7.1, still sent by many): a request that may not be sent twice would be lost with a connection that closes just then.
fn announced_idle(headers: &HeaderMap) -> Option<Duration> {
    list_elements(headers, &KEEP_ALIVE).find_map(|parameter| {
        let (name, seconds) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        let announced = Duration::from_secs(seconds);
        name.trim().eq_ignore_ascii_case("timeout").then(|| announced.saturating_sub(CLOSING))
    })
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// How long before a server's announced close a connection is no longer used: what a request may take to arrive.
const CLOSING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(value: &'static str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("keep-alive", http::HeaderValue::from_static(value));
        announced_idle(&headers).map(|idle| idle.as_secs())
    }

    #[test]
    fn a_connection_is_left_a_second_before_its_server_closes_it() {
        assert_eq!(announced("timeout=5"), Some(4));
        assert_eq!(announced("max=100, Timeout=\"30\""), Some(29));
        assert_eq!(announced("timeout=0"), Some(0));
    }

    #[test]
    fn without_a_readable_announcement_the_setting_stands() {
        assert_eq!(announced("max=100"), None);
        assert_eq!(announced("timeout=soon"), None);
        assert_eq!(announced("timeout"), None);
        assert_eq!(announced_idle(&HeaderMap::new()), None);
    }
}
