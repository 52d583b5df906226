//! Answers that the file of settings states: redirects (RFC 9110 §15.4) and fixed answers.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::body::Body;
use crate::{
    message::target::Target,
    settings::{LocationPart, PathPattern, Redirect, RouteAction, StatedAnswer},
};

/// The answer that an action states, and a word for it; `None` for one that forwards.
///
/// A redirect for a path that no field could hold goes to its target without it: [`location`].
pub fn answer(
    action: &RouteAction,
    method: &Method,
    target: &Target,
    paths: &[PathPattern],
) -> Option<(Response<Body>, &'static str)> {
    match action {
        RouteAction::Forward(_) => None,
        RouteAction::Redirect(redirect) => Some((redirected(redirect, target, paths), "redirect")),
        RouteAction::Respond(stated) => Some((fixed(stated, method), "respond")),
    }
}

fn redirected(redirect: &Redirect, target: &Target, paths: &[PathPattern]) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = redirect.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    // A request's target is made of octets that a field may hold.
    if let Ok(location) = HeaderValue::from_str(&location(redirect, target, paths)) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// Where a request is sent.
pub fn location(redirect: &Redirect, target: &Target, paths: &[PathPattern]) -> String {
    // `OPTIONS *` has no path of its own.
    let path = if target.path() == "*" { "/" } else { target.path() };
    let mut location = String::new();
    for part in redirect.to.parts() {
        match part {
            LocationPart::Text(text) => location.push_str(text),
            LocationPart::Host => location.push_str(&target.host),
            LocationPart::Path => location.push_str(path),
            LocationPart::Rest => location.push_str(&rest(target, paths)),
            LocationPart::Query => {
                if let Some(query) = target.query() {
                    location.push(if location.contains('?') { '&' } else { '?' });
                    location.push_str(query);
                }
            }
        }
    }
    // To browsers, what begins with two slashes, of either kind, is another host.
    match location.starts_with('/') {
        true => format!("/{}", location.trim_start_matches(['/', '\\'])),
        false => location,
    }
}

/// What of the path the `*` of the route's pattern stands for.
fn rest(target: &Target, paths: &[PathPattern]) -> String {
    let path = target.route_path();
    let rest = paths.iter().find_map(|pattern| match pattern {
        PathPattern::Exact(exact) => (**exact == *path).then_some(""),
        PathPattern::Prefix(prefix) => path.strip_prefix(&**prefix),
        PathPattern::Between(before, after) if pattern.holds(&path) => {
            path.strip_prefix(&**before)?.strip_suffix(&**after)
        }
        PathPattern::Between(..) => None,
    });
    rest.unwrap_or_default().to_owned()
}

fn fixed(stated: &StatedAnswer, method: &Method) -> Response<Body> {
    let StatedAnswer { status, content_type, content } = stated;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = *status;
    let headers: &mut HeaderMap = response.headers_mut();
    // A 204 has no length, and a 205 none but this (RFC 9110 §8.6, §15.3.6).
    if *status == StatusCode::NO_CONTENT {
        return response;
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
    if !content.is_empty() {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
        if method != Method::HEAD {
            *response.body_mut() = Body::Whole(content.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::target::Scheme,
        settings::{RouteAction, parse},
    };

    fn led(path: &str, to: &str, asked: (&str, Option<&str>)) -> String {
        let text = format!(
            "listen = [{{ address = \"[::]:80\" }}, {{ address = \"[::]:8443\", tls = {{ certificate = \"c\", key = \"k\" }} }}]\n\
             [[routes]]\nname = \"r\"\npath = {path:?}\nredirect = {to:?}\n"
        );
        let settings = parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        let RouteAction::Redirect(redirect) = &settings.routes[0].action else { panic!("a redirect") };
        let target = Target::new(Scheme::Http, "Shop.test", 80, asked);
        location(redirect, &target, &settings.routes[0].paths)
    }

    #[test]
    fn parts_of_the_request_stand_where_the_file_wants_them() {
        let asked = ("/old/a%20b", Some("c=d"));
        for (path, to, location) in [
            ("/*", "https", "https://shop.test:8443/old/a%20b?c=d"),
            ("/*", "https://www.{host}{path}{query}", "https://www.shop.test/old/a%20b?c=d"),
            ("/old/*", "/new/{rest}{query}", "/new/a%20b?c=d"),
            ("/old/*", "/new/{rest}", "/new/a%20b"),
            ("/*", "/find?lang=de{query}", "/find?lang=de&c=d"),
            ("/*", "https://other.test/", "https://other.test/"),
        ] {
            assert_eq!(led(path, to, asked), location, "{path} {to}");
        }
    }

    /// `/old//evil.test` would have sent a browser to another host.
    #[test]
    fn no_path_leads_to_another_host() {
        for asked in ["/old//evil.test", "/old///evil.test/x", "/old/\\evil.test"] {
            let location = led("/old/*", "/{rest}", (asked, None));
            assert!(
                location.starts_with('/') && !location[1..].starts_with(['/', '\\']),
                "{asked}: {location}"
            );
        }
        assert_eq!(led("/*", "https://shop.test{path}", ("*", None)), "https://shop.test/");
    }
}
