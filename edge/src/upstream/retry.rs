//! Whether a request that failed at one server is tried at another.
//!
//! What was surely not acted upon may always be. What a server may have seen is sent again only where the method is
//! idempotent or its route says so, its content is held whole, and no answer has begun; and then only within a budget, for when all servers fail,
//! trying each request everywhere would multiply the load that ails them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Request};
use http_body::Body as _;

use super::{
    RequestBody,
    health::Repeat,
    request_body::{AskedContent, HeldContent, Progress, Resend},
    savings::Savings,
};

/// The content of a request that can be sent a second time: none, or content that is held.
pub struct Again {
    repeat: Repeat,
    progress: Arc<Progress>,
    content: Option<Arc<HeldContent>>,
    asked: Option<AskedContent>,
    resend: Resend,
}

impl Again {
    /// That of a request, if it may have to be sent again.
    pub fn of(request: &Request<RequestBody>) -> Option<Self> {
        let idempotent = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        let (resend, content) = (request.body().may_be_resent(), request.body().content());
        let asked = request.body().asked().cloned();
        if content.is_none() && asked.is_none() && !request.body().is_end_stream() {
            return None;
        }
        let repeat = if idempotent || resend == Resend::Any { Repeat::Safe } else { Repeat::Never };
        let progress = request.body().progress();
        Some(Self { repeat, progress, content, asked, resend })
    }

    /// Whether that is safe although a server may have acted upon it: it is idempotent (RFC 9110 §9.2.2), or of a method that
    /// its route names.
    pub fn is_safe(&self) -> bool {
        self.repeat == Repeat::Safe
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.content.is_none() && self.asked.is_none()
    }

    /// The content once more, once the attempt before has let go of it; `None` where it is not held whole.
    pub async fn body(&self) -> Option<RequestBody> {
        let progress = Arc::clone(&self.progress);
        let body = match (&self.content, &self.asked) {
            (Some(content), _) => content.again(progress).await?,
            (None, Some(asked)) => RequestBody::asking_again(asked.clone(), progress),
            (None, None) => RequestBody::again(progress),
        };
        Some(body.resend(self.resend))
    }
}

/// A copy of a request's head.
pub fn copy_of<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

/// How many requests may be sent again: a share of all, saved up to a bound, and always a few at once.
#[derive(Debug)]
pub struct Budget {
    saved: Savings,
    under_way: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: Savings::full(MOST_SAVED), under_way: AtomicUsize::new(0) }
    }
}

impl Budget {
    /// A request begins; `percent` is the share of all that may be sent again.
    pub fn earn(&self, percent: u32) {
        self.saved.earn(percent);
    }

    /// Permission to send a request again; `None` when the budget is spent, or when `percent` is 0.
    pub fn spend(&self, percent: u32) -> Option<Retrying<'_>> {
        if percent == 0 {
            return None;
        }
        let paid = self.saved.spend();
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
/// What is saved while all is well, for the moment when a server of several begins to fail under load.
const MOST_SAVED: u64 = 100;
/// So many at once are permitted however little was saved: a few requests are no storm.
const ALWAYS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::request_id::RequestId, settings::UpstreamSettings, upstream::request_body::Errand};

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
    fn what_a_server_may_have_acted_upon_is_sent_again_if_it_is_idempotent() {
        let settings = UpstreamSettings::new("o", Vec::new());
        let errand = Errand::of_edge(&RequestId::next(), &settings);
        let of = |method: Method| {
            let mut request = Request::new(RequestBody::empty(errand.clone()));
            *request.method_mut() = method;
            Again::of(&request).expect("it has no content").is_safe()
        };
        assert!(of(Method::GET) && of(Method::DELETE));
        assert!(!of(Method::POST) && !of(Method::PATCH));
    }
}
