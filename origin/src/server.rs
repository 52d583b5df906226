//! The router, what surrounds every request, and the listener's life from bind to drained.

use std::{future::IntoFuture as _, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
    serve::ListenerExt as _,
};
use http::header;
use tokio::net::TcpListener;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

use crate::{
    caching::NO_STORE, categories, database::Database, health, observe, observe::Metrics, problem::Problem,
    products, storefront,
};

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Shop {
    /// The catalogue and all else that lasts.
    pub database: Database,
    /// Counters of this process.
    pub metrics: Arc<Metrics>,
}

/// Every resource of the origin. A request without an answer after `deadline` gets a 503.
pub fn router(shop: Shop, deadline: Duration) -> Router {
    let metrics = Arc::clone(&shop.metrics);
    let api = Router::new()
        .route("/categories", get(categories::list))
        .route("/products", get(products::list))
        .route("/products/{slug}", get(products::show))
        .fallback(|| async { Problem::not_found("no such resource") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() });
    Router::new()
        .nest("/api", api)
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(observe::show))
        .with_state(shop)
        .merge(storefront::router())
        // Each layer surrounds those above it.
        .layer(middleware::from_fn_with_state(deadline, give_up_late))
        .layer(CatchPanicLayer::custom(|_| {
            // The panic hook has printed what and where.
            Problem::internal().into_response()
        }))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, NO_STORE))
        .layer(middleware::from_fn_with_state(metrics, observe::record))
}

/// Serves until `stop` resolves; then takes no new connection, and lets requests under way end for as long as `drain`.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> std::io::Result<()> {
    let (draining, drained_from) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = draining.send(());
    };
    let listener = listener.tap_io(|stream| {
        // Without it, the second small write of an answer can wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop).into_future();
    let too_long = async {
        // An error means that the server ended by itself, and the other branch has the result.
        if drained_from.await.is_ok() {
            tokio::time::sleep(drain).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = serving => result,
        () = too_long => {
            tracing::warn!("some requests did not end in time and were cut off");
            Ok(())
        }
    }
}

async fn give_up_late(State(deadline): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow().into_response(),
    }
}
