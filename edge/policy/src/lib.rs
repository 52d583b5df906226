//! RFC 9111 as pure functions: what may be stored, what may be served, and why.
//!
//! Everything here is a function of (facts, what is stored, rules, now). The crate has no I/O, no clock and no runtime;
//! whatever a peer sends yields a value, never a panic. A request meets it in this order: [`RequestFacts::read`],
//! [`variant_key`], [`decide`]; a response in this: [`admit`] or [`freshen`], with [`stale_on_error`] for those that do
//! not come; an answer in this: [`precondition`], [`range()`], [`choose_coding`].
//!
//! # Departures from the standards
//!
//! Each is marked `DEVIATION:` where it is made.
//! - A response that is not marked as shareable (`public`, `s-maxage`, `must-revalidate`) does not answer a request with
//!   Authorization, even if it was stored for one without: stricter than RFC 9111 §3.5 (`decide.rs`).
//! - `s-maxage` implies `proxy-revalidate` (§5.2.2.10), but does not forbid a stale window that the same response or
//!   the route states in so many words (`meta.rs`).
//! - By default, Set-Cookie keeps a response out of the cache, and a request with Cookie is answered from the cache, and its
//!   answer stored, only where that says `public`, `s-maxage` or `immutable`; the RFC lets everything be cached.
//!   [`SetCookie::Store`] with [`IgnoredCookies::All`] is the RFC's letter (`rules.rs`).
//! - [`Rules::ttl`] gives a lifetime in place of the one that the origin states, where a route says so (`rules.rs`).
//! - [`ClientDirectives::IgnoreAll`] ignores a request's `no-store` too, where a route says so (`rules.rs`).
//! - [`Ranges::Fitted`] and [`Rules::undated_unmodified`] believe an origin more than the standards do, where a route says so
//!   (`rules.rs`).
//! - Whoever waited for another's request gets the stale response, if nothing forbids that, when that one was answered 429 or
//!   5xx: §4.2.4 would have the upstream asked again (`decide.rs`).
//! - [`prefers_language`] chooses a variant by Content-Language, where a route asks for it (`language.rs`).

#![warn(missing_docs)]

mod admit;
mod cache_status;
mod canonical;
mod coding;
mod date;
mod decide;
mod directives;
mod freshen;
mod freshness;
mod head;
mod invalidate;
mod language;
mod meta;
mod moment;
mod multipart;
mod partial;
mod precondition;
mod query;
mod range;
mod reason;
mod reference;
mod request;
mod rules;
mod scan;
mod spelling;
mod status;
mod tags;
mod targeted;
mod vary;

pub use admit::{Admitted, admit};
pub use cache_status::{CacheStatus, Forward, Outcome};
pub use coding::{Coding, Codings, choose_coding, for_each_weighted};
pub use date::{format as format_date, parse as parse_date};
pub use decide::{
    Decision, Plan, UpstreamError, bars_sharing, decide, displaces, may_combine_requests, may_replace,
    may_share, stale_on_error, validate_first,
};
pub use directives::{forbids_transforming, is_legible, list_elements};
pub use freshen::{Newer, conditional_fields, freshen, freshen_by_head};
pub use freshness::Supply;
pub use invalidate::{invalidated_targets, invalidates, stands_for_get};
pub use language::prefers_language;
pub use meta::{LifetimeSource, Meta, StaleBan, Validators};
pub use moment::{Arrival, Moment};
pub use multipart::{Multipart, Part, multipart};
pub use partial::{
    ContentRange, MOST_PARTS, PartAnswer, Parts, admit_instead_of_part, admit_part, asks_for_one_part,
    combined_head, if_range_field, may_combine, stated_length, unsatisfied_range,
};
pub use precondition::{MOST_LISTED, Precondition, if_none_match, precondition};
pub use query::{NoVarySearch, QueryRules, normalise_query};
pub use range::{MOST_RANGES, RangeAnswer, range};
pub use reason::Reason;
pub use reference::ResourceName;
pub use request::RequestFacts;
pub use rules::{ClientDirectives, Cookies, IgnoredCookies, Ranges, Rules, SetCookie, Ttl, covers};
pub use spelling::{one_host, one_spelling};
pub use tags::{LONGEST_TAG, MOST_TAGS, NoTag, TAG_FIELDS, Tag, invalidated_groups, tags, text_of_field};
pub use targeted::targeted_field;
pub use vary::{FieldLines, LARGEST_VARY, SentFields, Vary, variant_key};
