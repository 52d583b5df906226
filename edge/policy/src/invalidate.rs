//! Invalidation by unsafe methods (RFC 9111 §4.4), and the POST whose answer stands for a GET (RFC 9110 §9.3.3).

use crate::reference::ResourceName;
use crate::request::RequestFacts;
use crate::spelling::one_spelling;
use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode};

/// Whether a response to `method` invalidates what is stored for its target: the method is not known to be safe and
/// the status is no error.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    let succeeded = status.is_success() || status.is_redirection();
    succeeded && !is_safe(method)
}

/// The further resources that such a response invalidates: path and query, in their one spelling, of its Location and
/// Content-Location, where they are of the target's own origin (§4.4: any other origin's would be a way to attack it).
pub fn invalidated_targets(target: &ResourceName<'_>, head: &HeaderMap) -> Vec<String> {
    let itself = one_spelling(target.path_and_query);
    let references = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|field| head.get(field));
    let targets = references.filter_map(|reference| target.same_origin(reference.as_bytes()));
    let mut targets: Vec<_> = targets.filter(|found| *found != itself).collect();
    targets.dedup();
    targets
}

/// The facts under which the answer to a POST may be admitted as the answer to a later GET: it is a success whose
/// Content-Location is the target itself. It needs explicit freshness of its own (RFC 9110 §9.3.3).
pub fn stands_for_get(
    method: &Method,
    request: &RequestFacts,
    target: &ResourceName<'_>,
    status: StatusCode,
    head: &HeaderMap,
) -> Option<RequestFacts> {
    let location = head.get(CONTENT_LOCATION)?;
    let itself = target.same_origin(location.as_bytes())? == one_spelling(target.path_and_query);
    (*method == Method::POST && status.is_success() && itself).then(|| request.for_explicit_freshness())
}

/// RFC 9110 §9.2.1, RFC 10008 for QUERY, and the method registry.
fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH" | "PRI"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;
    use http::HeaderValue;

    const TARGET: ResourceName<'_> =
        ResourceName { scheme: "https", authority: "shop.test", path_and_query: "/a/b?c" };

    fn head(fields: &[(http::HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn unsafe_methods_invalidate_unless_they_fail() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "UNKNOWN"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert!(invalidates(&method, StatusCode::OK), "{method}");
            assert!(invalidates(&method, StatusCode::SEE_OTHER), "{method}");
            assert!(!invalidates(&method, StatusCode::INTERNAL_SERVER_ERROR), "{method}");
            assert!(!invalidates(&method, StatusCode::NOT_FOUND), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "QUERY"] {
            assert!(
                !invalidates(&Method::from_bytes(method.as_bytes()).unwrap(), StatusCode::OK),
                "{method}"
            );
        }
    }

    #[test]
    fn locations_of_the_same_origin_are_invalidated() {
        let head = head(&[(LOCATION, "x"), (CONTENT_LOCATION, "https://SHOP.test:443/y?z#f")]);
        assert_eq!(invalidated_targets(&TARGET, &head), ["/a/x", "/y?z"]);
    }

    #[test]
    fn locations_of_another_origin_are_not() {
        for other in [
            "http://shop.test/y",
            "https://shop.test:444/y",
            "//evil.test/y",
            "https://shop.test@evil.test/y",
        ] {
            assert!(invalidated_targets(&TARGET, &head(&[(LOCATION, other)])).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_post_stands_for_a_get_only_where_it_says_so() {
        let request = RequestFacts::read(&Method::POST, &HeaderMap::new(), &Rules::default());
        let stands = |method: &Method, location: &str, status: StatusCode| {
            stands_for_get(method, &request, &TARGET, status, &head(&[(CONTENT_LOCATION, location)]))
                .is_some()
        };
        assert!(stands(&Method::POST, "/a/b?c", StatusCode::OK));
        assert!(!stands(&Method::POST, "/a/b", StatusCode::OK));
        assert!(!stands(&Method::POST, "/a/b?c", StatusCode::BAD_REQUEST));
        assert!(!stands(&Method::PUT, "/a/b?c", StatusCode::OK));
    }
}
