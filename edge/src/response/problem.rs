//! The edge's own words: a refusal as a response, problem+json for programs (RFC 9457) and a page for people.

use std::sync::LazyLock;

use bytes::Bytes;
use cache_policy::for_each_weighted;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request};

use super::{
    body::Body,
    fields::{RATE_LIMIT, RATE_LIMIT_POLICY},
};
use crate::{
    message::request_id::RequestId,
    request::refusal::Refusal,
    settings::{ErrorPages, PagePart, PageTemplate},
};

/// The one place that turns a refusal into a response: a page for those who would rather have HTML than JSON, else
/// problem+json (RFC 9457). Never stored by anyone.
pub fn refusal(
    refusal: &Refusal,
    head: &request::Parts,
    id: &RequestId,
    pages: &ErrorPages,
) -> Response<Body> {
    let status = refusal.status();
    let (kind, content) = match prefers_html(&head.headers) {
        true => ("text/html; charset=utf-8", page(refusal, id, pages)),
        false => ("application/problem+json", document(refusal, id)),
    };
    let body = Bytes::from(content);
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(seconds) = refusal.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Refusal::MethodNotAllowed = refusal {
        headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    }
    if let Refusal::Unauthorized(challenge) = refusal {
        headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
    if let Refusal::TooManyRequests(limited) = refusal {
        headers.insert(RATE_LIMIT_POLICY, limited.policy.clone());
        headers.insert(RATE_LIMIT, limited.state.clone());
    }
    if refusal.closes() && head.version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if head.method != Method::HEAD {
        *response.body_mut() = Body::Whole(body);
    }
    response
}

fn document(refusal: &Refusal, id: &RequestId) -> String {
    let status = refusal.status();
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": title(status),
        "status": status.as_u16(),
        "detail": refusal.to_string(),
        "code": refusal.detail(),
        "request_id": id.to_string(),
    });
    if let Some(phase) = refusal.phase() {
        problem["phase"] = phase.into();
    }
    format!("{problem}\n")
}

fn page(refusal: &Refusal, id: &RequestId, pages: &ErrorPages) -> String {
    static PLAIN: LazyLock<PageTemplate> = LazyLock::new(|| PageTemplate::new(include_str!("error.html")));
    let status = refusal.status();
    let mut page = String::new();
    let own = match refusal {
        Refusal::Maintenance { page, .. } => page.as_deref(),
        _ => None,
    };
    for part in own.or_else(|| pages.of(status)).unwrap_or(&PLAIN).parts() {
        match part {
            PagePart::Text(text) => page.push_str(text),
            PagePart::Status => page.push_str(status.as_str()),
            PagePart::Title => page.push_str(title(status)),
            PagePart::Detail => escape(&capitalised(&refusal.to_string()), &mut page),
            PagePart::RequestId => escape(&id.to_string(), &mut page),
        }
    }
    page
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// A sentence, as people begin one.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Text within HTML, in an attribute too.
fn escape(text: &str, page: &mut String) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            _ => page.push(character),
        }
    }
}

/// Whether the client names HTML among what it accepts (RFC 9110 §12.5.1), and does not rank it below JSON. Browsers do when
/// they open a page, and not when a script asks.
fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (0, 0);
    for_each_weighted(headers, &header::ACCEPT, |range, weight| {
        let kind = range.split(|octet| *octet == b';').next().unwrap_or(range).trim_ascii();
        let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
        if is("text/html") || is("application/xhtml+xml") {
            html = weight.max(html);
        } else if is("application/problem+json") || is("application/json") {
            json = weight.max(json);
        }
    });
    html > 0 && html >= json
}

/// The methods that the edge forwards, as far as it knows them by name.
pub const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_pages_and_programs_get_json() {
        let prefers = |accept: &[&str]| {
            let lines = accept.iter().map(|line| (header::ACCEPT, HeaderValue::from_str(line).unwrap()));
            prefers_html(&lines.collect())
        };
        for browser in [
            &["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"][..],
            &["application/json;q=0.5, text/html"],
            &["application/json", "Text/HTML"],
            &["text/html;level=1"],
            // A weight that cannot be read is none.
            &["text/html;q=many"],
        ] {
            assert!(prefers(browser), "{browser:?}");
        }
        for program in [
            &[][..],
            &["*/*"],
            &["application/json, text/plain, */*"],
            &["application/json, text/html;q=0.9"],
            &["text/html;q=0"],
            &["text/html;level=1;q=0"],
        ] {
            assert!(!prefers(program), "{program:?}");
        }
    }

    #[test]
    fn what_is_said_on_a_page_is_text() {
        let mut page = String::new();
        escape("<script>\"&'", &mut page);
        assert_eq!(page, "&lt;script&gt;&quot;&amp;&#39;");
    }
}
