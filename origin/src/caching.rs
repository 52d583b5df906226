//! What the origin tells caches: the Cache-Control values it uses, entity tags, 304 (RFC 9110 §13.1.2, RFC 9111), and the
//! tags by which an answer is purged (`Surrogate-Key`, a space between any two).

use std::fmt;

use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use headers::HeaderMapExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{numbers::ProductId, problem::Problem};

/// The catalogue: five minutes in a browser, ten in the edge; stale while one request refreshes it, or while we are down.
pub const CATALOGUE: HeaderValue = HeaderValue::from_static(
    "public, max-age=300, s-maxage=600, stale-while-revalidate=60, stale-if-error=86400",
);
/// The stock, which changes with every sale: seconds.
pub const STOCK: HeaderValue = HeaderValue::from_static("public, max-age=5");
/// What a replica has answered while the primary is away, and may not be the newest: seconds, too.
pub const UNCERTAIN: HeaderValue = HeaderValue::from_static("public, max-age=5, stale-if-error=86400");
/// Errors, health, metrics, and whatever depends on who asks: never stored.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// What a change purges: every answer that shows it carries its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag<'a> {
    /// Lists over all categories, and the list of categories: a product that comes, goes or changes is in or near them.
    Catalogue,
    /// Lists of one category, by its slug, and the products in it, which show its name.
    Category(&'a str),
    /// Whatever shows one product by itself.
    Product(ProductId),
    /// Pages with the row of categories, whose names and order an administrator may change.
    Categories,
    /// The number of pieces of the product with this slug. Known to the common memory alone: edges keep it for seconds.
    Stock(&'a str),
    /// What comes with the binary and not out of the database.
    Storefront,
}

impl fmt::Display for Tag<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue => formatter.write_str("catalogue"),
            Self::Category(slug) => write!(formatter, "category-{slug}"),
            Self::Categories => formatter.write_str("categories"),
            Self::Storefront => formatter.write_str("storefront"),
            Self::Product(id) => write!(formatter, "product-{id}"),
            Self::Stock(slug) => write!(formatter, "stock-{slug}"),
        }
    }
}

/// How one answer is kept: for how long, under which entity tag, and until which of its tags is purged.
#[derive(Debug)]
pub struct Keeping<'a> {
    pub control: HeaderValue,
    pub entity: EntityTag,
    pub tags: &'a [Tag<'a>],
}

impl Keeping<'_> {
    fn fields(&self) -> [(HeaderName, HeaderValue); 3] {
        let tags = self.tags.iter().map(Tag::to_string).collect::<Vec<_>>().join(" ");
        let tags = HeaderValue::from_str(&tags).expect("slugs and numbers are printable ASCII");
        [
            (header::ETAG, self.entity.header()),
            (header::CACHE_CONTROL, self.control.clone()),
            (SURROGATE_KEY, tags),
        ]
    }
}

/// A strong entity tag, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// The tag of what follows from `parts` alone: versions in the database and the normalised query. This build is a part
    /// too: another one may write the same rows differently, or link other images.
    pub fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in [env!("CARGO_PKG_VERSION"), storefront::fingerprint()].iter().chain(parts) {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        Self(format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.finalize()[..15])))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("base64url in quotes is printable ASCII")
    }

    fn typed(&self) -> headers::ETag {
        self.0.parse().expect("base64url in quotes is an entity tag")
    }
}

/// The request's `If-None-Match`.
#[derive(Debug)]
pub struct IfNoneMatch(headers::IfNoneMatch);

impl IfNoneMatch {
    /// `None` without the field.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.typed_get().map(Self)
    }

    /// Whether the tag is among those listed, by weak comparison (RFC 9110 §8.8.3.2). `*` counts as no tag here: it matches
    /// whatever exists, and only the full query knows whether anything does.
    pub fn lists(&self, tag: &EntityTag) -> bool {
        !self.any() && !self.0.precondition_passes(&tag.typed())
    }

    fn any(&self) -> bool {
        self.0 == headers::IfNoneMatch::any()
    }
}

/// The request's `If-Match`, without which nothing is changed.
#[derive(Debug)]
pub(crate) struct IfMatch(headers::IfMatch);

impl IfMatch {
    /// # Errors
    /// 428 without the field.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        headers.typed_get().map(Self).ok_or_else(Problem::precondition_required)
    }

    /// Whether the tag is among those listed, by strong comparison: a weak one is no proof (RFC 9110 §13.1.1). `*` lists
    /// every version there is.
    pub(crate) fn lists(&self, tag: &EntityTag) -> bool {
        self.0.precondition_passes(&tag.typed())
    }
}

/// 304 with the fields a cache updates (RFC 9110 §15.4.5).
pub fn not_modified(keeping: &Keeping<'_>) -> Response {
    (StatusCode::NOT_MODIFIED, keeping.fields()).into_response()
}

/// 200 with a page.
pub fn page(keeping: &Keeping<'_>, html: String) -> Response {
    let mut response = (keeping.fields(), html).into_response();
    for (name, value) in storefront::page_fields() {
        response.headers_mut().insert(name, value);
    }
    response
}

/// 200 with the value as JSON, or 304 if the request's condition turns out to be met.
pub fn json(headers: &HeaderMap, keeping: &Keeping<'_>, value: &impl Serialize) -> Result<Response, Problem> {
    Ok(written(headers, keeping, write(value)?))
}

/// The value as JSON.
pub(crate) fn write(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Problem::internal()
    })
}

/// As [`json`], of a body that is written already.
pub(crate) fn written(headers: &HeaderMap, keeping: &Keeping<'_>, body: String) -> Response {
    if IfNoneMatch::of(headers).is_some_and(|condition| condition.any() || condition.lists(&keeping.entity)) {
        return not_modified(keeping);
    }
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (kind, keeping.fields(), body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(line: &str, tag: &EntityTag) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, line.parse().expect("a header value"));
        IfNoneMatch::of(&headers).expect("the field is there").lists(tag)
    }

    #[test]
    fn tags_are_compared_weakly_and_whole() {
        let tag = EntityTag::of(&["1", "list"]);
        assert!(lists(&tag.0, &tag));
        assert!(lists(&format!("\"a,b\", W/{}", tag.0), &tag));
        assert!(!lists("\"a\", \"b\"", &tag));
        assert!(!lists(tag.0.trim_matches('"'), &tag));
        assert!(!lists("*", &tag));
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(EntityTag::of(&["ab", "c"]), EntityTag::of(&["a", "bc"]));
    }
}
