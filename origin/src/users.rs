//! The customers of the shop, and how one becomes one.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    attempts,
    client::Client,
    cookies,
    input::{Checked, Input, Wrong},
    problem::Problem,
    sessions::{self, User},
    shop::Shop,
};

/// What registering takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    #[schema(pattern = "^[^@\\s\\x00-\\x1f\\x7f-\\x9f]+@[^@\\s\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 254)]
    email: String,
    #[serde(default)]
    #[schema(pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$", max_length = 200)]
    name: String,
    #[schema(min_length = 8, max_length = 200)]
    password: String,
}

impl Checked for Registration {
    fn check(&self, wrong: &mut Wrong) {
        wrong.email(&self.email);
        wrong.line(&self.name, 0..=200, "name");
        check_password(&self.password, "password", wrong);
    }
}

/// No rules on kinds of characters (NIST SP 800-63B §5.1.1.2); the upper bound keeps hashing cheap.
pub(crate) fn check_password(password: &str, field: &str, wrong: &mut Wrong) {
    wrong.unless((8..=200).contains(&password.chars().count()), field, "8 to 200 characters");
}

/// The account and its first session, in place of the one the request came with (`$6`).
const INSERT: &str = "
    WITH account AS (
        INSERT INTO users (email, name, password_hash) VALUES ($1, $2, $3)
        ON CONFLICT DO NOTHING
        RETURNING id, email, name, role),
    closed AS (DELETE FROM sessions WHERE token_hash = $6 AND EXISTS (SELECT FROM account)),
    opened AS (
        INSERT INTO sessions (token_hash, user_id, expires_at)
        SELECT $4, id, now() + make_interval(secs => $5) FROM account)
    SELECT * FROM account";

/// `POST /api/users`: registers, and signs in. Whether an address is taken cannot be hidden from whoever wants it, so it costs an
/// attempt, and as much time either way.
#[utoipa::path(
    post,
    path = "/users",
    tag = "account",
    request_body = Registration,
    responses((status = 201, description = "Registered and signed in", body = sessions::Session))
)]
pub(crate) async fn register(
    State(shop): State<Shop>,
    client: Client,
    headers: HeaderMap,
    Input(registration): Input<Registration>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    attempts::of_client(&mut connection, client).await?;
    drop(connection);
    let hash = shop.passwords.hash(registration.password).await?;
    let token = sessions::new_token();
    let mut connection = shop.database.acquire().await?;
    let query = sqlx::query_as::<_, User>(INSERT)
        .bind(registration.email)
        .bind(registration.name)
        .bind(hash)
        .bind(cookies::digest(&token))
        .bind(sessions::LIFETIME.as_secs_f64())
        .bind(cookies::session(&headers).map(cookies::digest));
    let user = connection.optional("users.insert", query).await?.ok_or_else(Problem::email_taken)?;
    drop(connection);
    shop.memory.end_sessions(cookies::session(&headers).map(cookies::digest)).await;
    shop.activity.record(Event::new("user.register").by(user.id));
    let cookie = sessions::set_cookie(&token, sessions::LIFETIME);
    Ok((StatusCode::CREATED, cookie, axum::Json(sessions::Session { user: Some(user) })).into_response())
}

/// Makes the account with this address an administrator's; answers whether there is one.
pub async fn promote(connection: &mut PgConnection, email: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE users SET role = 'administrator' WHERE email_normal = normal_email($1)")
        .bind(email)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}
