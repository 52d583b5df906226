//! Whether the origin lives, and whether it can do its work. Neither answer is ever stored.

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use tokio::time::timeout;

use crate::{
    caching::NO_STORE,
    database::{self, AcquireError},
    problem::Problem,
    server::Shop,
};

/// A probe wants a quick no rather than a late yes.
const PATIENCE: Duration = Duration::from_secs(1);

/// `GET /livez`: 200 as long as requests are answered at all.
pub(crate) async fn live() -> Response {
    ([(header::CACHE_CONTROL, NO_STORE)], "alive\n").into_response()
}

/// `GET /readyz`: 200 when the database answers and lacks no migration. An origin whose queue is full is busy, not unready:
/// sending its clients elsewhere would only fill the next one.
pub(crate) async fn ready(State(shop): State<Shop>) -> Result<Response, Problem> {
    let check = async {
        let mut connection = match shop.database.acquire().await {
            Err(AcquireError::Full) => return Ok(0),
            outcome => outcome?,
        };
        let applied = connection.all("health.migrations", sqlx::query_as(database::APPLIED)).await?;
        Ok::<_, AcquireError>(database::missing(&applied))
    };
    match timeout(PATIENCE, check).await {
        Ok(Ok(0)) => Ok(([(header::CACHE_CONTROL, NO_STORE)], "ready\n").into_response()),
        Ok(Ok(_)) => Err(Problem::unavailable().detail("the database lacks migrations")),
        Ok(Err(error)) => Err(Problem::from(error).detail("the database does not answer")),
        Err(_) => Err(Problem::unavailable().detail("the database does not answer in time")),
    }
}
