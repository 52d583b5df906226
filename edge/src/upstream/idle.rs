//! The connections to one server that wait for requests, and the one in use by a request until it is given back.

use std::{sync::Arc, thread, time::Duration};

use cache_policy::{Moment, list_elements};
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;

use super::{
    health::{Blame, Health, PutAsideRules},
    http1::SwitchedStream,
    places::FairPlace,
    request_body::{Errand, Progress},
    sender::{Http2Connection, Sender},
};
use crate::{clock::Clock, message::body_error::BodyError};

/// The connections to one server that may take another request: idle ones of HTTP/1.1, the one used last at the end, and those
/// of HTTP/2, which many share. Bounded by the places of those who made them.
#[derive(Default)]
pub struct IdleConnections {
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Arc<Http2Connection>>>,
}

struct Idle {
    sender: Sender,
    /// When it is old enough to be closed.
    until: Moment,
    retires: Moment,
}

impl Idle {
    fn is_usable(&mut self, now: Moment) -> bool {
        let Sender::Http1(connection) = &mut self.sender else { return false };
        now < self.until && connection.is_ready()
    }
}

impl IdleConnections {
    /// The idle HTTP/1.1 connection used last, if it still looks alive, and when it retires. This thread's own come first, for
    /// each answer on another's costs two threads a wake-up; another's becomes this one's.
    pub fn take(&self, now: Moment) -> Option<(Sender, Moment)> {
        let here = thread::current().id();
        loop {
            let mut candidate = {
                let mut idle = self.http1.lock();
                let is_own =
                    |candidate: &Idle| matches!(&candidate.sender, Sender::Http1(own) if own.home() == here);
                let own = idle.iter().rposition(is_own);
                let last = own.or_else(|| idle.len().checked_sub(1))?;
                idle.remove(last)
            };
            let Sender::Http1(connection) = &mut candidate.sender else { continue };
            if now < candidate.until && connection.is_ready() && connection.settle(here).is_ok() {
                return Some((candidate.sender, candidate.retires));
            }
        }
    }

    /// A place on an HTTP/2 connection with fewer than `most` requests, and when it retires.
    pub fn share(&self, most: usize, now: Moment) -> Option<(Sender, Moment)> {
        let connections = self.http2.lock();
        let stream = connections.iter().find_map(|connection| connection.stream(most, now))?;
        let retires = stream.retires();
        Some((Sender::Http2(stream), retires))
    }

    /// Lets others share an HTTP/2 connection.
    pub fn add(&self, connection: &Arc<Http2Connection>, now: Moment) {
        let mut connections = self.http2.lock();
        connections.retain(|connection| !connection.is_spent(now));
        connections.push(Arc::clone(connection));
    }

    /// Closes what has been idle for long enough, or is closed already.
    pub fn sweep(&self, now: Moment) {
        self.http1.lock().retain_mut(|idle| idle.is_usable(now));
        // Its streams hold a spent one for as long as they need it.
        self.http2.lock().retain(|connection| !connection.is_spent(now));
    }
}

/// A connection in use by one request.
pub struct UpstreamConnection {
    pub sender: Sender,
    /// How far the request's body has come.
    pub progress: Arc<Progress>,
    /// Its place among the server's connections, or among its tunnels.
    pub place: FairPlace,
    /// When it is too old for another request: its server's name may stand for another address by then.
    pub retires: Moment,
}

/// Who is told how a server's answer ends.
#[derive(Clone)]
pub struct Watch {
    pub health: Arc<Health>,
    pub rules: PutAsideRules,
}

/// A connection that goes back when the response has been read. Dropped instead, it closes.
pub struct Lease {
    idle: Arc<IdleConnections>,
    connection: UpstreamConnection,
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
        connection: UpstreamConnection,
        watch: Watch,
        keep_alive: Duration,
        clock: &Clock,
    ) -> Self {
        Self { idle: Arc::clone(idle), connection, watch: Some(watch), keep_alive, clock: clock.clone() }
    }

    /// Whose request it carries.
    pub fn errand(&self) -> &Errand {
        self.connection.progress.errand()
    }

    /// Moves it to another share of the server's connections.
    pub fn change_place(&mut self, place: FairPlace) {
        self.connection.place = place;
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
        if self.connection.progress.broke().is_some() {
            // It is the client that did not go on.
            return;
        }
        let Some(Watch { health, rules }) = &self.watch else { return };
        let request_id = self.connection.progress.errand().request_id();
        let server = &**health.server();
        tracing::warn!(server, phase = "body", reason, request_id, "an upstream's answer broke off");
        health.broke_off(reason);
        health.failed(Blame::Answer(reason), *rules, self.clock.now());
    }

    /// The connection.
    pub fn sender(&self) -> &Sender {
        &self.connection.sender
    }

    /// The connection, to be read.
    pub fn sender_mut(&mut self) -> &mut Sender {
        &mut self.connection.sender
    }

    /// The connection's stream, after 101 (Switching Protocols).
    pub fn into_switched(self) -> Option<SwitchedStream> {
        let UpstreamConnection { sender, place, .. } = self.connection;
        match sender {
            Sender::Http1(connection) => Some(SwitchedStream::new(connection.into_stream(), place)),
            Sender::Http2(_) => None,
        }
    }

    /// Why the client's own content broke, if it did.
    pub fn client_broke(&self) -> Option<BodyError> {
        self.connection.progress.broke().cloned()
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
        let UpstreamConnection { mut sender, progress, retires, place: _place } = self.connection;
        if !progress.ended() {
            // What is left of the content might wait for ever in the connection's own queue, before those of others.
            return sender.retire();
        }
        let Sender::Http1(connection) = &mut sender else { return };
        // What the server said behind its answer, or says before it is asked, answers nobody.
        if now >= retires || !connection.is_ready() {
            return;
        }
        connection.rest();
        let until = retires.min(now + self.keep_alive);
        self.idle.http1.lock().push(Idle { sender, until, retires });
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
