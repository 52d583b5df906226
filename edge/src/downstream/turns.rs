//! Turns of HTTP/2 connections: how long one keeps its thread where it has more to do.
//!
//! One that has not come to its end in a turn queues for the next, and few of the queue are called at once. So whatever else the
//! thread has to do waits for some turns, and not for all that a hundred clients have asked for at once.
//!
//! ```text
//!   has more to do -> queues -- called, as others of the queue have had their turns --> begins its next turn
//! ```
//!
//! Each thread has a queue of its own; a connection never leaves its thread.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use cache_policy::Moment;
use tokio_util::sync::ReusableBoxFuture;

use crate::clock::Clock;

/// Some tens of hits.
const LENGTH: Duration = Duration::from_micros(250);
/// Requests that begin in a turn and are not answered at once: each has work done elsewhere, which the thread's other tasks wait
/// behind.
const MOST_BEGUN: usize = 8;
/// How many times requests go on in a turn: read a piece of an answer, and send it.
const MOST_STEPS: usize = 16;
/// As many of the queue are called and have not begun.
const CALLED_AT_ONCE: usize = 2;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
    /// How many times requests may go on in the turn that the thread is in, and whether one was kept from it.
    static STEPS: Cell<(usize, bool)> = const { Cell::new((0, false)) };
}

/// Connections that have more to do, in the order of their tickets.
#[derive(Default)]
struct Queue {
    /// The first ticket that is not called yet.
    next: u64,
    /// Whom to wake; nobody where the connection has gone.
    waiting: VecDeque<Option<Waker>>,
    /// Who has been called and has not begun.
    called: usize,
}

impl Queue {
    fn call(&mut self) {
        while self.called < CALLED_AT_ONCE
            && let Some(waker) = self.waiting.pop_front()
        {
            self.next += 1;
            if let Some(waker) = waker {
                self.called += 1;
                waker.wake();
            }
        }
    }

    /// Where in the queue a ticket is, unless it has been called.
    fn place(&mut self, ticket: u64) -> Option<&mut Option<Waker>> {
        let ahead = ticket.checked_sub(self.next)?;
        self.waiting.get_mut(usize::try_from(ahead).ok()?)
    }
}

/// A place in the queue. Whoever gives it up lets the next be called.
pub(super) struct Ticket(u64);

impl Ticket {
    /// Queues, and is woken when it is called.
    pub(super) fn draw(context: &Context<'_>) -> Self {
        QUEUE.with_borrow_mut(|queue| {
            let ticket = queue.next + queue.waiting.len() as u64;
            queue.waiting.push_back(Some(context.waker().clone()));
            queue.call();
            Self(ticket)
        })
    }

    pub(super) fn is_called(&self, context: &Context<'_>) -> bool {
        QUEUE.with_borrow_mut(|queue| match queue.place(self.0) {
            Some(place) => {
                *place = Some(context.waker().clone());
                false
            }
            None => true,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        QUEUE.with_borrow_mut(|queue| {
            match queue.place(self.0) {
                Some(place) => *place = None,
                None => queue.called -= 1,
            }
            queue.call();
        });
    }
}

/// One turn.
pub(super) struct Turn {
    /// `None` before there was any reason to ask.
    until: Option<Moment>,
    begun: usize,
}

impl Turn {
    pub(super) fn begin() -> Self {
        STEPS.set((MOST_STEPS, false));
        Self { until: None, begun: 0 }
    }

    /// A request has begun that was not answered at once.
    pub(super) fn begun(&mut self) {
        self.begun += 1;
    }

    /// Asked before another request begins.
    pub(super) fn is_over(&mut self, clock: &Clock) -> bool {
        let now = clock.now();
        now >= *self.until.get_or_insert(now + LENGTH) || self.begun >= MOST_BEGUN
    }
}

/// Whether a request waits for the next turn of its connection.
pub(super) fn one_waits() -> bool {
    STEPS.get().1
}

/// A request that was not answered at once. It goes on as its connection's turn permits, or in the next.
pub(super) struct UnderWay(ReusableBoxFuture<'static, ()>);

impl UnderWay {
    pub(super) fn new(request: ReusableBoxFuture<'static, ()>) -> Self {
        Self(request)
    }
}

impl Future for UnderWay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match STEPS.get().0.checked_sub(1) {
            Some(left) => {
                STEPS.set((left, false));
                self.0.poll(context)
            }
            None => {
                STEPS.set((0, true));
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_on_in_the_next_turn() {
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = || {
            let mut request = UnderWay::new(ReusableBoxFuture::new(std::future::ready(())));
            Pin::new(&mut request).poll(&mut context).is_ready()
        };
        for _ in 0..2 {
            let _turn = Turn::begin();
            assert_eq!((0..20).filter(|_| poll()).count(), MOST_STEPS);
            assert!(one_waits());
        }
        let _turn = Turn::begin();
        assert!(poll() && !one_waits());
    }

    #[test]
    fn few_are_called_at_once_and_who_has_gone_is_passed_over() {
        let context = Context::from_waker(Waker::noop());
        let mut tickets: Vec<_> = (0..6).map(|_| Ticket::draw(&context)).map(Some).collect();
        let called = |tickets: &[Option<Ticket>]| -> Vec<usize> {
            let is_called =
                |ticket: &Option<Ticket>| ticket.as_ref().is_some_and(|it| it.is_called(&context));
            tickets.iter().enumerate().filter(|(_, ticket)| is_called(ticket)).map(|(at, _)| at).collect()
        };
        assert_eq!(called(&tickets), [0, 1]);
        tickets[3] = None;
        tickets[0] = None;
        assert_eq!(called(&tickets), [1, 2]);
        tickets[1] = None;
        assert_eq!(called(&tickets), [2, 4], "3 has gone");
        tickets.clear();
        assert_eq!(called(&[Some(Ticket::draw(&context))]), [0], "and nobody is left");
        QUEUE.with_borrow(|queue| assert!(queue.called == 0 && queue.waiting.is_empty()));
    }
}
