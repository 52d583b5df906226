//! What programs of the operator ask: whether the origin lives, whether it can do its work, and its metrics. All but the first
//! are on an address of their own: a probe asks the database, and neither is a visitor's business, whatever the proxies before
//! the shop say or leave out. Their answers name no Cache-Control, so the router makes them `no-store`.

use std::time::Duration;

use axum::{extract::State, response::IntoResponse};
use http::header;
use tokio::time::timeout;

use crate::{
    database::{self, AcquireError},
    problem::Problem,
    shop::Shop,
};

/// A probe wants a quick no rather than a late yes.
const PATIENCE: Duration = Duration::from_secs(1);

/// `GET /livez`: 200 as long as requests are answered at all.
pub(crate) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: 200 when the database answers and lacks no migration. An origin whose queue is full is busy, not unready:
/// sending its clients elsewhere would only fill the next one. Neither is one that can only be read from.
pub(crate) async fn ready(State(shop): State<Shop>) -> Result<&'static str, Problem> {
    if shop.reads.go_on_alone() {
        return Ok("ready to be read from\n");
    }
    let check = async {
        let mut connection = match shop.database.acquire().await {
            Err(AcquireError::Full) => return Ok(0),
            outcome => outcome?,
        };
        let applied = connection.all("health.migrations", sqlx::query_as(database::APPLIED)).await?;
        Ok::<_, AcquireError>(database::missing(&applied))
    };
    match timeout(PATIENCE, check).await {
        Ok(Ok(0)) => Ok("ready\n"),
        Ok(Ok(_)) => Err(Problem::unavailable().detail("the database lacks migrations")),
        Ok(Err(error)) => Err(Problem::from(error).detail("the database does not answer")),
        Err(_) => Err(Problem::unavailable().detail("the database does not answer in time")),
    }
}

/// `GET /metrics` in the OpenMetrics text format.
pub(crate) async fn metrics(State(shop): State<Shop>) -> Result<impl IntoResponse, Problem> {
    let text = shop.metrics.encode(shop.reads.pools(), shop.reads.standings()).map_err(|error| {
        tracing::error!(%error, "metrics cannot be written");
        Problem::internal()
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}
