//! Whether a request that failed at one server is tried at another.
//!
//! What was surely not acted upon may always be. What a server may have seen is sent again only where the method is
//! idempotent, there is no content, and no answer has begun; and then only within a budget, for when all servers fail,
//! trying each request everywhere would multiply the load that ails them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::{Method, Request};
use http_body::Body as _;

use super::RequestBody;

/// A request that may be sent a second time although a server may have seen it: idempotent (RFC 9110 §9.2.2) and without
/// content.
pub struct Again(Request<()>);

impl Again {
    /// A copy of the request, if it may be sent again.
    pub fn of(request: &Request<RequestBody>) -> Option<Self> {
        let idempotent = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        if !idempotent || !request.body().is_end_stream() {
            return None;
        }
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(Self(copy))
    }

    /// The request once more.
    pub fn request(&self) -> Request<RequestBody> {
        self.0.clone().map(|()| RequestBody::empty())
    }
}

/// How many requests may be sent again: a share of all, saved up to a bound, and always a few at once.
#[derive(Debug)]
pub struct Budget {
    /// Hundredths of retries saved.
    saved: AtomicU64,
    under_way: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: AtomicU64::new(MOST_SAVED), under_way: AtomicUsize::new(0) }
    }
}

impl Budget {
    /// A request begins; `percent` is the share of all that may be sent again.
    pub fn earn(&self, percent: u32) {
        // Full, as it mostly is, it costs a load.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
            (saved < MOST_SAVED).then(|| (saved + u64::from(percent)).min(MOST_SAVED))
        });
    }

    /// Permission to send a request again; `None` when the budget is spent, or when `percent` is 0.
    pub fn spend(&self, percent: u32) -> Option<Retrying<'_>> {
        if percent == 0 {
            return None;
        }
        let paid = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(ONE))
            .is_ok();
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let retrying = Retrying(&self.under_way);
        (paid || before < ALWAYS).then_some(retrying)
    }
}

/// A request that is being sent again.
#[derive(Debug)]
pub struct Retrying<'a>(&'a AtomicUsize);

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often one request that a server may have seen is sent again.
pub const MOST: usize = 2;
const ONE: u64 = 100;
/// What is saved while all is well, for the moment when a server of several begins to fail under load.
const MOST_SAVED: u64 = 100 * ONE;
/// So many at once are permitted however little was saved: a few requests are no storm.
const ALWAYS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_sent_again_and_always_three_at_once() {
        let budget = Budget::default();
        let spent: Vec<_> = std::iter::from_fn(|| budget.spend(20)).collect();
        assert_eq!(spent.len(), 100, "what was saved");
        drop(spent);
        let at_once: Vec<_> = std::iter::from_fn(|| budget.spend(20)).collect();
        assert_eq!(at_once.len(), 3);
        for _ in 0..10 {
            budget.earn(20);
        }
        let earned: Vec<_> = std::iter::from_fn(|| budget.spend(20)).collect();
        assert_eq!(earned.len(), 2, "two for ten requests");
    }

    #[test]
    fn without_a_share_nothing_is_sent_again() {
        assert!(Budget::default().spend(0).is_none());
    }

    #[test]
    fn a_request_may_be_sent_again_if_it_is_idempotent_and_empty() {
        let of = |method: Method| {
            let mut request = Request::new(RequestBody::empty());
            *request.method_mut() = method;
            Again::of(&request).is_some()
        };
        assert!(of(Method::GET) && of(Method::DELETE));
        assert!(!of(Method::POST) && !of(Method::PATCH));
    }
}
