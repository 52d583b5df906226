//! Whether the answer of a GraphQL service names errors, as it does with status 200, too: such an answer is of the moment that asked.
//!
//! Says no only where it has read all of the answer: one of more than [`MOST_READ`], or in a coding that is not known, may name some.
//! What says of itself that it is something else than JSON is no answer of that kind, and what the origin says of it counts.

use std::fmt;

use http::{HeaderMap, header};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};

use crate::{cache::StoredBody, response::coding::plain_octets};

/// Whether errors may be named in a whole answer.
pub(super) async fn may_be_in(head: &HeaderMap, body: &StoredBody) -> bool {
    let kind = AnswerKind::of(head);
    if kind == AnswerKind::Other {
        return false;
    }
    let octets = if body.length() > MOST_READ {
        None
    } else {
        let coded: Vec<u8> = body.pieces().concat();
        plain_octets(head, &coded, MOST_READ).await
    };
    let Some(octets) = octets else { return true };
    match serde_json::from_slice::<GraphqlAnswer>(&octets) {
        Ok(answer) => answer.errors.is_named,
        Err(_) => kind == AnswerKind::Json,
    }
}

/// What an answer says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerKind {
    Json,
    Unsaid,
    Other,
}

impl AnswerKind {
    fn of(head: &HeaderMap) -> Self {
        let Some(value) = head.get(header::CONTENT_TYPE) else { return Self::Unsaid };
        let text = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let text = text.to_ascii_lowercase();
        let is_json = text == "application/json" || text == "text/json" || text.ends_with("+json");
        if is_json { Self::Json } else { Self::Other }
    }
}

/// The answer to one request (GraphQL, October 2021, §7.1).
#[derive(Deserialize)]
struct GraphqlAnswer {
    #[serde(default)]
    errors: NamedErrors,
}

/// Anything but nothing and an empty list.
#[derive(Default)]
struct NamedErrors {
    is_named: bool,
}

impl<'de> Deserialize<'de> for NamedErrors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ErrorsReader)
    }
}

struct ErrorsReader;

impl<'de> Visitor<'de> for ErrorsReader {
    type Value = NamedErrors;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of errors")
    }

    fn visit_unit<E: Error>(self) -> Result<NamedErrors, E> {
        Ok(NamedErrors { is_named: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NamedErrors, A::Error> {
        let mut is_named = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_named = true;
        }
        Ok(NamedErrors { is_named })
    }
}

/// Of an answer, in octets, also when it is not coded any more.
const MOST_READ: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    async fn may_be(kind: Option<&'static str>, content: &str) -> bool {
        let mut head = HeaderMap::new();
        head.extend(kind.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind))));
        let (one, other) = content.split_at(content.len() / 2);
        let pieces = [one, other].map(|piece| Bytes::copy_from_slice(piece.as_bytes()));
        may_be_in(&head, &StoredBody::new(&pieces)).await
    }

    #[tokio::test]
    async fn errors_are_seen_at_the_top_and_nowhere_else() {
        let json = Some("application/graphql-response+json; charset=utf-8");
        for without in [
            r#"{"data":{"errors":[1]}}"#,
            r#"{"data":{"a":"\"errors\":[1]"},"errors":[],"extensions":{}}"#,
            r#"{"errors":null,"data":{}}"#,
        ] {
            assert!(!may_be(json, without).await, "{without}");
            assert!(!may_be(None, without).await, "{without}");
        }
        for with in [r#"{"errors":[{"message":"m"}],"data":null}"#, r#"{"data":{"a":1},"err\u006frs":[{}]}"#]
        {
            assert!(may_be(json, with).await && may_be(None, with).await, "{with}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_counts_by_what_it_says_that_it_is() {
        let large = format!("{{\"data\":\"{}\"}}", "a".repeat(1 << 20));
        for unreadable in
            ["", "{", "[1]", r#"{"errors":1}"#, r#"{"errors":[],"errors":[1]}"#, r#"{"errors":[]} x"#]
        {
            assert!(may_be(Some("Application/JSON"), unreadable).await, "{unreadable}");
            assert!(!may_be(None, unreadable).await, "{unreadable}");
            assert!(!may_be(Some("text/html"), unreadable).await, "{unreadable}");
        }
        // What has not been read may be anything.
        assert!(may_be(Some("application/json"), &large).await && may_be(None, &large).await);
        assert!(!may_be(Some("text/html"), &large).await);
    }
}
