//! The router, and what surrounds every request.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    account, activity,
    caching::{NO_STORE, SURROGATE_KEY},
    categories, cross_site, health,
    input::LARGEST_BODY,
    observe, office, openapi, orders, pages, pictures,
    problem::Problem,
    products::{self, administration, suggestions},
    replicas, sessions,
    shop::Shop,
    users,
};

/// The tag of what comes with the binary and not out of the database.
const STOREFRONT: HeaderValue = HeaderValue::from_static("storefront");

/// Milliseconds, counted from the arrival of a request, for which whoever sent it will wait. It can only shorten the
/// origin's own deadline. Relative, because two machines seldom agree on what time it is.
pub const REQUEST_DEADLINE: HeaderName = HeaderName::from_static("x-request-deadline");

/// Every resource of the origin. A request without an answer after `deadline` (or less, see [`REQUEST_DEADLINE`]) gets a 503,
/// and the query it waits for is cancelled.
pub fn router(shop: Shop, deadline: Duration) -> Router {
    let watching = (Arc::clone(&shop.metrics), shop.tracer.clone());
    let (api, document) = interface();
    let api = api.layer(middleware::from_fn_with_state(shop.reads.clone(), replicas::remember_writes)).route(
        "/api/openapi.json",
        get(move |headers: HeaderMap| async move { openapi::show(&document, &headers) }),
    );
    Router::new()
        .merge(api)
        .merge(pages::router())
        .route("/pictures/{name}", get(pictures::show))
        .route("/livez", get(health::live))
        .with_state(shop)
        .merge(storefront::router().layer(SetResponseHeaderLayer::if_not_present(SURROGATE_KEY, STOREFRONT)))
        // Each layer surrounds those above it.
        .layer(middleware::from_fn_with_state(deadline, give_up_late))
        .layer(CatchPanicLayer::custom(|_| {
            // The panic hook has printed what and where.
            Problem::internal().into_response()
        }))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, NO_STORE))
        .layer(middleware::from_fn_with_state(watching, observe::record))
}

/// What only the operator's programs ask, for an address of its own.
pub fn admin_router(shop: Shop) -> Router {
    Router::new()
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .with_state(shop)
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, NO_STORE))
}

/// The description of everything under `/api`, as it is served and as it is written down.
pub fn description() -> String {
    openapi::text(&interface().1)
}

/// Everything under `/api`, and its description.
fn interface() -> (Router<Shop>, Value) {
    let api = OpenApiRouter::new()
        .routes(routes!(categories::list, office::create_category))
        .routes(routes!(products::list, administration::create))
        .routes(routes!(products::show, administration::change, administration::deactivate))
        .routes(routes!(products::stock))
        .routes(routes!(administration::restock))
        .routes(routes!(suggestions::suggest))
        .routes(routes!(office::change_category))
        .routes(routes!(office::products))
        .routes(routes!(office::product))
        .routes(routes!(office::correct))
        .routes(routes!(office::placed_orders))
        .routes(routes!(office::placed_order))
        .routes(routes!(account::change_password))
        .routes(routes!(account::delete))
        .routes(routes!(account::forgotten, account::reset))
        .routes(routes!(pictures::put))
        .routes(routes!(users::register))
        .routes(routes!(sessions::show, sessions::sign_in, sessions::sign_out))
        .routes(routes!(orders::list, orders::place))
        .routes(routes!(orders::show))
        .routes(routes!(orders::cancel))
        .routes(routes!(activity::list))
        .fallback(|| async { Problem::not_found("no such resource") });
    let (router, document) =
        OpenApiRouter::with_openapi(openapi::frame()).nest("/api", api).split_for_parts();
    let router = router
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(cross_site::refuse));
    (router, openapi::finish(&document))
}

async fn give_up_late(State(deadline): State<Duration>, request: Request, next: Next) -> Response {
    // A value that is no number is ignored: the origin's own deadline holds.
    let sent = request.headers().get(REQUEST_DEADLINE).and_then(|value| value.to_str().ok()?.parse().ok());
    let deadline =
        if request.uri().path() == pictures::PATH { deadline.max(pictures::DEADLINE) } else { deadline };
    let deadline = sent.map_or(deadline, |milliseconds| deadline.min(Duration::from_millis(milliseconds)));
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow().into_response(),
    }
}
