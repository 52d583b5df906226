//! Sessions: a random token in a cookie, its SHA-256 in the database.
//!
//! Neither what an answer says nor how long it takes tells an unknown address from a wrong password. Caches never store what
//! depends on who asks.

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    attempts,
    client::Client,
    cookies,
    database::Connection,
    input::{Checked, Input, Wrong},
    problem::Problem,
    shop::Shop,
};

/// After this long one has to sign in again.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) const BY_TOKEN: &str = "
    SELECT u.id, u.email, u.name, u.role
      FROM sessions s JOIN users u ON u.id = s.user_id
     WHERE s.token_hash = $1 AND s.expires_at > now()";

pub(crate) const BY_EMAIL: &str =
    "SELECT id, email, name, role, password_hash FROM users WHERE lower(email) = lower($1)";

const INSERT: &str = "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))";

const DELETE: &str = "DELETE FROM sessions WHERE token_hash = $1";

/// What signing in takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    #[schema(pattern = "^[^@\\s\\x00-\\x1f\\x7f-\\x9f]+@[^@\\s\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 254)]
    email: String,
    #[schema(max_length = 200)]
    password: String,
}

impl Checked for Credentials {
    fn check(&self, wrong: &mut Wrong) {
        wrong.email(&self.email);
        wrong.unless(self.password.chars().count() <= 200, "password", "200 characters at most");
    }
}

/// Somebody who has signed in.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) email: String,
    pub(crate) name: String,
    /// `customer` or `administrator`.
    pub(crate) role: String,
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// Null: nobody.
    pub(crate) user: Option<User>,
}

#[derive(FromRow)]
struct Account {
    #[sqlx(flatten)]
    user: User,
    password_hash: String,
}

/// `POST /api/session`: signs in.
#[utoipa::path(
    post,
    path = "/session",
    tag = "account",
    request_body = Credentials,
    responses((status = 200, description = "Signed in", body = Session))
)]
pub(crate) async fn sign_in(
    State(shop): State<Shop>,
    client: Client,
    headers: HeaderMap,
    Input(credentials): Input<Credentials>,
) -> Result<Response, Problem> {
    let Credentials { email, password } = credentials;
    let pair = attempts::pair(client, &email);
    let mut connection = shop.database.acquire().await?;
    attempts::count(&mut connection, &[pair.clone(), attempts::account(&email), attempts::client(client)])
        .await?;
    let query = sqlx::query_as::<_, Account>(BY_EMAIL).bind(&email);
    let account = connection.optional("sessions.account", query).await?;
    // Hashing takes long, and must not keep a connection from others.
    drop(connection);
    let (user, known) = account.map(|account| (account.user, account.password_hash)).unzip();
    let matches = shop.passwords.verify(password, known).await?;
    let user = user.filter(|_| matches).ok_or_else(Problem::wrong_credentials)?;
    let mut connection = shop.database.acquire().await?;
    connection.begin().await?;
    attempts::forgive(&mut connection, &pair).await?;
    let cookie = open(&mut connection, &user, &headers).await?;
    connection.commit().await?;
    shop.activity.record(Event::new("session.open").by(user.id));
    Ok((cookie, axum::Json(Session { user: Some(user) })).into_response())
}

/// `GET /api/session`: who is signed in. Nobody is no error: every page asks.
#[utoipa::path(
    get,
    path = "/session",
    operation_id = "show_session",
    tag = "account",
    security((), ("session" = [])),
    responses((status = 200, description = "OK", body = Session))
)]
pub(crate) async fn show(
    State(shop): State<Shop>,
    headers: HeaderMap,
) -> Result<axum::Json<Session>, Problem> {
    if cookies::session(&headers).is_none() {
        return Ok(axum::Json(Session { user: None }));
    }
    let mut connection = shop.reads.acquire(&headers).await?;
    Ok(axum::Json(Session { user: find(&mut connection, &headers).await? }))
}

/// `DELETE /api/session`: signs out; also who is not signed in.
#[utoipa::path(
    delete,
    path = "/session",
    tag = "account",
    security((), ("session" = [], "requested_with" = [])),
    responses((status = 204, description = "Signed out"))
)]
pub(crate) async fn sign_out(State(shop): State<Shop>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(token) = cookies::session(&headers) {
        let mut connection = shop.database.acquire().await?;
        connection.execute("sessions.delete", sqlx::query(DELETE).bind(cookies::digest(token))).await?;
    }
    Ok((StatusCode::NO_CONTENT, set_cookie("", Duration::ZERO)).into_response())
}

/// The user of the request's session.
///
/// # Errors
/// 401 without one.
pub(crate) async fn user(connection: &mut Connection, headers: &HeaderMap) -> Result<User, Problem> {
    find(connection, headers).await?.ok_or_else(Problem::not_signed_in)
}

/// The same, for what administrators alone may do.
///
/// # Errors
/// 401 without a session, 403 in a customer's.
pub(crate) async fn administrator(connection: &mut Connection, headers: &HeaderMap) -> Result<User, Problem> {
    let user = user(connection, headers).await?;
    if user.role == "administrator" { Ok(user) } else { Err(Problem::forbidden()) }
}

/// Opens a session in place of the one the request came with; the cookie to answer with. Always a new token: one that was there
/// before could be known to somebody else.
pub(crate) async fn open(
    connection: &mut Connection,
    user: &User,
    headers: &HeaderMap,
) -> Result<[(HeaderName, HeaderValue); 1], sqlx::Error> {
    if let Some(old) = cookies::session(headers) {
        connection.execute("sessions.delete", sqlx::query(DELETE).bind(cookies::digest(old))).await?;
    }
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let query = sqlx::query(INSERT).bind(cookies::digest(&token)).bind(user.id).bind(LIFETIME.as_secs_f64());
    connection.execute("sessions.insert", query).await?;
    Ok(set_cookie(&token, LIFETIME))
}

async fn find(connection: &mut Connection, headers: &HeaderMap) -> Result<Option<User>, sqlx::Error> {
    let Some(token) = cookies::session(headers) else { return Ok(None) };
    let query = sqlx::query_as(BY_TOKEN).bind(cookies::digest(token));
    connection.optional("sessions.find", query).await
}

fn set_cookie(token: &str, age: Duration) -> [(HeaderName, HeaderValue); 1] {
    [(header::SET_COOKIE, cookies::set(cookies::SESSION, token, age))]
}
