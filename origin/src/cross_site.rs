//! Keeps other sites from writing in a customer's name (CSRF).
//!
//! Three checks, because each has a gap: `Sec-Fetch-Site`, which browsers send wherever the connection can be trusted and no
//! script can forge; `Origin` against `Host` where it is missing; and for whatever brings a session cookie, a header that a
//! form cannot set and a script of another site may not. Requests without any of them come from no browser.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, Method, header};

use crate::{cookies, problem::Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Required, with any value, on writes that bring a session cookie.
pub(crate) const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Refuses writes that another site may have caused.
pub(crate) async fn refuse(request: Request, next: Next) -> Response {
    // Safe methods change nothing (RFC 9110 §9.2.1), and their answers are unreadable to other sites.
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    match judge(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => Problem::cross_site(reason).into_response(),
    }
}

fn judge(headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(&SEC_FETCH_SITE), text(&header::ORIGIN)) {
        // `same-site` is refused too: a sibling domain may belong to somebody else.
        (Some(site), _) if site != "same-origin" && site != "none" => {
            return Err("another site has caused this request");
        }
        (None, Some(origin)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            if authority.is_none() || authority != text(&header::HOST) {
                return Err("`Origin` is not this site");
            }
        }
        _ => {}
    }
    if cookies::session(headers).is_some() && !headers.contains_key(REQUESTED_WITH) {
        return Err("a write with a session cookie needs the header `X-Requested-With`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_site_or_no_browser_sends_may_write() {
        let cookie = ("cookie", "a=b; __Host-session=AAAA");
        let asked = ("x-requested-with", "storefront");
        for (allowed, fields) in [
            (true, &[][..]),
            (true, &[("sec-fetch-site", "same-origin")]),
            (true, &[("sec-fetch-site", "none")]),
            (false, &[("sec-fetch-site", "cross-site")]),
            (false, &[("sec-fetch-site", "same-site")]),
            (false, &[("sec-fetch-site", "\u{ff}")]),
            (true, &[("host", "shop.test:8443"), ("origin", "https://shop.test:8443")]),
            (false, &[("host", "shop.test"), ("origin", "https://shop.test.evil.test")]),
            (false, &[("host", "shop.test"), ("origin", "null")]),
            (false, &[("origin", "https://shop.test")]),
            (false, &[cookie]),
            (false, &[cookie, ("sec-fetch-site", "same-origin")]),
            (true, &[cookie, asked]),
            (true, &[cookie, asked, ("sec-fetch-site", "same-origin")]),
            (false, &[cookie, asked, ("sec-fetch-site", "cross-site")]),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
            }
            assert_eq!(judge(&headers).is_ok(), allowed, "{fields:?}");
        }
    }
}
