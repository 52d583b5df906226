//! What has been read of answers over HTTP/2 and not been sent: a budget of each connection, and one of the edge.
//!
//! ```text
//!   body ---(room in the budget)---> waits for window ---(window)---> h2's queue ---(socket)---> sent
//!            '--------------- counted: the connection's share, what is beyond LEAST the edge's too --'
//! ```
//!
//! What there is no room for stays in the cache or with its upstream. Small answers are read although their client gives
//! no window, so that their upstream is free for others: half of the budget is for that, and half for what moves.
//!
//! Where the edge's budget is used up, or the client's part of it by its other connections, each connection still has `LEAST`:
//! clients that read go on, and those that do not cannot keep others from it. So nobody waits for another connection.

use std::{
    mem,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use crate::message::client_budget::ClientBudget;

/// One connection's part.
#[derive(Debug)]
pub struct SendBudget {
    edge: Arc<ClientBudget>,
    client: Option<u128>,
    now: Mutex<HeldUnsent>,
}

#[derive(Debug, Default)]
struct HeldUnsent {
    bytes: usize,
    /// Those of them that wait for window.
    ahead: usize,
    /// Bytes sent since the beginning.
    sent: u64,
    waiting: Vec<Waker>,
}

impl SendBudget {
    /// A connection's, of which nothing is used.
    pub fn new(edge: &Arc<ClientBudget>, client: Option<u128>) -> Arc<Self> {
        Arc::new(Self { edge: Arc::clone(edge), client, now: Mutex::default() })
    }

    /// Whether a stream may read a piece of its answer. Where it may not, it is woken when that is worth asking again.
    pub fn has_room(&self, reading: Reading, context: &Context<'_>) -> bool {
        let mut now = self.now.lock();
        // Apart from each other: what waits for window may do so for long.
        let held = match reading {
            Reading::ToSend => now.bytes - now.ahead,
            Reading::Ahead => now.ahead,
        };
        // So much each has: nothing that all share is looked at.
        let room = held < LEAST / 2 || held < self.allowed();
        let known = |waker: &Waker| waker.will_wake(context.waker());
        let mut too_many = Vec::new();
        if !room && !now.waiting.iter().any(known) {
            if now.waiting.len() == MOST_WAITING {
                too_many = mem::take(&mut now.waiting);
            }
            now.waiting.push(context.waker().clone());
        }
        drop(now);
        // Most of so many are of streams that have been reset.
        too_many.into_iter().for_each(Waker::wake);
        room
    }

    /// Bytes sent since the beginning.
    pub fn sent(&self) -> u64 {
        self.now.lock().sent
    }

    /// Of either kind.
    fn allowed(&self) -> usize {
        if self.edge.has_room(self.client) { MOST / 2 } else { LEAST / 2 }
    }

    fn take(&self, bytes: usize) {
        let mut now = self.now.lock();
        let before = now.bytes;
        now.bytes += bytes;
        now.ahead += bytes;
        let beyond = beyond_least(now.bytes) - beyond_least(before);
        drop(now);
        if beyond > 0 {
            self.edge.charge(self.client, beyond);
        }
    }

    /// So many bytes no longer wait for window.
    fn goes(&self, bytes: usize) {
        self.now.lock().ahead -= bytes;
    }

    fn give_back(&self, bytes: usize, ahead: bool) {
        let mut now = self.now.lock();
        let before = now.bytes;
        now.bytes -= bytes;
        if ahead {
            now.ahead -= bytes;
        } else {
            now.sent += bytes as u64;
        }
        let beyond = beyond_least(before) - beyond_least(now.bytes);
        // Not each time: those who wait would all be asked for the room of one piece.
        let left = if ahead { now.ahead } else { now.bytes - now.ahead };
        let waiting = if now.waiting.is_empty() || left > self.allowed() / 2 {
            Vec::new()
        } else {
            mem::take(&mut now.waiting)
        };
        drop(now);
        if beyond > 0 {
            self.edge.give_back(self.client, beyond);
        }
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What the edge's budget counts of a connection: most never have so much, and touch nothing that all share.
fn beyond_least(bytes: usize) -> u64 {
    bytes.saturating_sub(LEAST) as u64
}

/// Why a piece is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It may be sent at once.
    ToSend,
    /// Its client gives no window for it.
    Ahead,
}

/// Octets of an answer on their way to the socket. Dropped, they are sent, or nobody wants them.
#[derive(Debug, Default)]
pub struct UnsentOctets {
    octets: Bytes,
    share: Option<SendShare>,
}

#[derive(Debug)]
struct SendShare {
    budget: Arc<SendBudget>,
    bytes: usize,
    /// Whether they wait for window.
    ahead: bool,
}

impl UnsentOctets {
    /// A piece that has been read, and waits for window.
    pub fn new(octets: Bytes, budget: &Arc<SendBudget>) -> Self {
        let bytes = octets.len();
        budget.take(bytes);
        let share = SendShare { budget: Arc::clone(budget), bytes, ahead: true };
        Self { octets, share: Some(share) }
    }

    pub fn len(&self) -> usize {
        self.octets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The first octets, for which there is window; the others wait on.
    #[must_use]
    pub fn go(&mut self, count: usize) -> Self {
        let octets = self.octets.split_to(count);
        let share = self.share.as_mut().map(|share| {
            share.budget.goes(count);
            share.bytes -= count;
            SendShare { budget: Arc::clone(&share.budget), bytes: count, ahead: false }
        });
        Self { octets, share }
    }
}

impl Drop for SendShare {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes, self.ahead);
        }
    }
}

impl Buf for UnsentOctets {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
    }
}

/// Bytes that a connection may have waiting: half for the socket, half for window.
const MOST: usize = 1 << 20;
/// And where the edge's budget, or the client's part of it, is used up.
const LEAST: usize = 128 << 10;
/// More have not waited since anybody was woken.
const MOST_WAITING: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::task::{ArcWake, waker};

    use super::*;

    const PIECE: usize = 64 << 10;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn piece() -> Bytes {
        Bytes::from_static(&[0; PIECE])
    }

    /// Reads pieces until there is no more room.
    fn fill(budget: &Arc<SendBudget>, reading: Reading, context: &Context<'_>) -> Vec<UnsentOctets> {
        let mut held = Vec::new();
        while budget.has_room(reading, context) {
            let mut read = UnsentOctets::new(piece(), budget);
            if reading == Reading::ToSend {
                read = read.go(PIECE);
            }
            held.push(read);
        }
        held
    }

    #[test]
    fn a_connection_has_its_budget_and_whoever_waits_is_woken_when_half_of_it_is_free() {
        let woken = Arc::<Woken>::default();
        let waker = waker(Arc::clone(&woken));
        let context = Context::from_waker(&waker);
        let edge = ClientBudget::new(u64::MAX);
        let budget = SendBudget::new(&edge, None);
        let mut held = fill(&budget, Reading::ToSend, &context);
        assert_eq!(held.len() * PIECE, MOST / 2);
        assert_eq!(edge.held(), (MOST / 2 - LEAST) as u64);
        held.truncate(held.len() / 2 + 1);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        held.pop();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        drop(held);
        assert_eq!((edge.held(), budget.sent()), (0, MOST as u64 / 2));
    }

    #[test]
    fn what_waits_for_window_leaves_room_for_what_moves() {
        let context = Context::from_waker(Waker::noop());
        let budget = SendBudget::new(&ClientBudget::new(u64::MAX), Some(1));
        let starved = fill(&budget, Reading::Ahead, &context);
        assert_eq!(starved.len() * PIECE, MOST / 2);
        assert_eq!(fill(&budget, Reading::ToSend, &context).len() * PIECE, MOST / 2);
        drop(starved);
        assert_eq!(budget.sent(), MOST as u64 / 2, "what was given up has not been sent");
    }

    #[test]
    fn where_the_edge_has_no_room_each_connection_still_has_a_little() {
        let context = Context::from_waker(Waker::noop());
        let edge = ClientBudget::new((MOST / 2 - LEAST) as u64);
        let first = SendBudget::new(&edge, None);
        let held = fill(&first, Reading::ToSend, &context);
        for _ in 0..3 {
            let other = SendBudget::new(&edge, None);
            let held = fill(&other, Reading::ToSend, &context);
            assert_eq!(held.len() * PIECE, LEAST / 2);
            assert_eq!(fill(&other, Reading::Ahead, &context).len() * PIECE, LEAST / 2);
        }
        drop(held);
        assert_eq!(edge.held(), 0);
    }

    #[test]
    fn a_client_of_many_connections_leaves_the_edges_budget_to_others() {
        let context = Context::from_waker(Waker::noop());
        let edge = ClientBudget::new(8 * (MOST / 2 - LEAST) as u64);
        let room = |client| {
            let connection = SendBudget::new(&edge, Some(client));
            (fill(&connection, Reading::ToSend, &context), client)
        };
        let held = [room(1), room(1), room(1), room(2)];
        let bytes = held.each_ref().map(|(pieces, _)| pieces.len() * PIECE);
        assert_eq!(bytes, [MOST / 2, LEAST / 2, LEAST / 2, MOST / 2]);
        drop(held);
        assert_eq!(edge.held(), 0);
    }
}
