//! What a customer has done, as they read it themselves. The activity log writes it.

use axum::{Json, extract::State};
use http::HeaderMap;
use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    pagination::newest_first::{Page, Parameters},
    problem::Problem,
    sessions,
    shop::Shop,
};

pub(crate) const BY_USER: &str = "
    SELECT id, timestamp, action, subject
      FROM activity_logs
     WHERE user_id = $1 AND (timestamp, id) < ($2, $3)
     ORDER BY timestamp DESC, id DESC
     LIMIT $4";

/// An event as its owner reads it.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Entry {
    id: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: OffsetDateTime,
    action: String,
    subject: Option<String>,
}

/// A page of one's activity.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entries {
    activity: Vec<Entry>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// `GET /api/activity?limit=&cursor=`: one's own, newest first.
#[utoipa::path(
    get,
    path = "/activity",
    operation_id = "list_activity",
    tag = "account",
    security(("session" = [])),
    params(Parameters),
    responses((status = 200, description = "OK", body = Entries))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    page: Page,
) -> Result<Json<Entries>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    let user = sessions::user(&shop, &mut connection, &headers).await?;
    let query = sqlx::query_as(BY_USER).bind(user.id);
    let place = |entry: &Entry| (entry.timestamp, entry.id);
    let (activity, next_cursor) = page.read(&mut connection, "activity.list", query, place).await?;
    Ok(Json(Entries { activity, next_cursor }))
}
