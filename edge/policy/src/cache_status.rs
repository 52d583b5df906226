//! Cache-Status (RFC 9211): what this cache did with a request.

use crate::reason::Reason;
use http::{HeaderValue, StatusCode};
use std::cell::RefCell;
use std::fmt::Write;

/// One cache's member of Cache-Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// The cache's name: a token.
    pub cache: &'a str,
    /// What became of the request.
    pub outcome: Outcome,
    /// Seconds of lifetime left, negative when stale.
    pub ttl: Option<i64>,
    /// Why: a [`Reason`]'s token, or another word of the cache's own.
    pub detail: Option<&'a str>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered from the cache.
    Hit,
    /// Forwarded.
    Forwarded {
        /// Why.
        why: Forward,
        /// What the upstream answered, where it did and it is not what the client gets.
        status: Option<StatusCode>,
        /// The answer was stored.
        stored: bool,
        /// The request shared another's upstream request.
        collapsed: bool,
    },
    /// Neither: the cache answered by itself (a 504 to `only-if-cached`, a 429).
    Neither,
}

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache was configured not to handle it.
    Bypass,
    /// The method requires it.
    Method,
    /// Nothing is stored under the key.
    UriMiss,
    /// No stored response matches in the fields of Vary.
    VaryMiss,
    /// The request's directives do not let a stored response answer.
    Request,
    /// The stored response is stale.
    Stale,
    /// The stored response is a part that does not suffice.
    Partial,
}

impl Forward {
    /// The parameter's token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
            Forward::Partial => "partial",
        }
    }

    /// The category of a reason to forward.
    pub const fn of(reason: Reason) -> Forward {
        match reason {
            Reason::Miss => Forward::UriMiss,
            Reason::VaryMiss => Forward::VaryMiss,
            Reason::PartialMiss => Forward::Partial,
            Reason::Method => Forward::Method,
            Reason::RequestNoCache
            | Reason::RequestMaxAge
            | Reason::RequestMinFresh
            | Reason::RequestNoStore => Forward::Request,
            Reason::Stale | Reason::NoCache | Reason::MustRevalidate | Reason::PurgesUnheard => {
                Forward::Stale
            }
            _ => Forward::Bypass,
        }
    }
}

impl CacheStatus<'_> {
    /// The field's member. To an upstream's own Cache-Status it is added as a further line (RFC 9211 §2).
    pub fn to_field(&self) -> HeaderValue {
        FIELD.with_borrow_mut(|field| {
            field.clear();
            self.write(field);
            HeaderValue::from_str(field).unwrap_or_else(|_| HeaderValue::from_static("cache"))
        })
    }

    fn write(&self, field: &mut String) {
        field.push_str(self.cache);
        match self.outcome {
            Outcome::Hit => field.push_str("; hit"),
            Outcome::Neither => {}
            Outcome::Forwarded { why, status, stored, collapsed } => {
                field.push_str("; fwd=");
                field.push_str(why.as_str());
                if let Some(status) = status {
                    parameter(field, "fwd-status", status.as_u16());
                }
                field.push_str(if stored { "; stored" } else { "" });
                field.push_str(if collapsed { "; collapsed" } else { "" });
            }
        }
        if let Some(ttl) = self.ttl {
            parameter(field, "ttl", ttl);
        }
        if let Some(detail) = self.detail {
            parameter(field, "detail", detail);
        }
    }
}

thread_local! {
    /// Where a field is put together, so that its value is one allocation of its size.
    static FIELD: RefCell<String> = const { RefCell::new(String::new()) };
}

fn parameter(field: &mut String, name: &str, value: impl std::fmt::Display) {
    write!(field, "; {name}={value}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use sfv::{List, ListEntry, Parser};

    const PLAIN: CacheStatus<'_> =
        CacheStatus { cache: "edge", outcome: Outcome::Hit, ttl: None, detail: None };

    fn written(status: &CacheStatus<'_>) -> String {
        status.to_field().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_hit_and_a_miss() {
        assert_eq!(written(&CacheStatus { ttl: Some(30), ..PLAIN }), "edge; hit; ttl=30");
        let outcome = Outcome::Forwarded {
            why: Forward::UriMiss,
            status: Some(StatusCode::OK),
            stored: true,
            collapsed: true,
        };
        let status = CacheStatus { outcome, detail: Some(Reason::Miss.as_str()), ..PLAIN };
        assert_eq!(written(&status), "edge; fwd=uri-miss; fwd-status=200; stored; collapsed; detail=miss");
    }

    #[test]
    fn every_reason_makes_a_valid_structured_field() {
        for &reason in Reason::ALL {
            let outcome = Outcome::Forwarded {
                why: Forward::of(reason),
                status: None,
                stored: false,
                collapsed: false,
            };
            let status = CacheStatus { outcome, ttl: Some(-1), detail: Some(reason.as_str()), ..PLAIN };
            let list: List = Parser::new(&written(&status)).parse().unwrap();
            let ListEntry::Item(item) = &list[0] else { panic!("an inner list") };
            let detail = item.params.get("detail").unwrap().as_token().unwrap();
            assert_eq!(detail.as_str(), reason.as_str());
        }
    }
}
