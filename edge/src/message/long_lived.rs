//! Messages that go on for as long as their ends like, and may be silent in between.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// gRPC over HTTP/2: `application/grpc`, with or without the name of a message format.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    match media_type.strip_prefix(b"application/grpc") {
        Some(rest) => rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"),
        None => false,
    }
}

/// Server-sent events.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether a message asks to be sent on as it comes (`Incremental: ?1`, RFC 10036 §3).
pub fn is_incremental(headers: &HeaderMap) -> bool {
    let field = headers.get(INCREMENTAL).map(HeaderValue::as_bytes).unwrap_or_default().trim_ascii();
    // A Boolean of structured fields, perhaps with parameters, which say nothing.
    field.strip_prefix(b"?1").is_some_and(|rest| rest.is_empty() || rest.starts_with(b";"))
}

const INCREMENTAL: HeaderName = HeaderName::from_static("incremental");
