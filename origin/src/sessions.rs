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
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    attempts,
    client::Client,
    common_memory::Recalled,
    cookies,
    database::Connection,
    input::{Checked, Input, Wrong},
    numbers::UserId,
    problem::Problem,
    shop::Shop,
};

/// After this long one has to sign in again.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) const BY_TOKEN: &str = "
    SELECT u.id, u.email, u.name, u.role, extract(epoch FROM s.expires_at - now())::double precision AS left
      FROM sessions s JOIN users u ON u.id = s.user_id
     WHERE s.token_hash = $1 AND s.expires_at > now()";

/// Whether client `$1` may try to sign in with address `$2`, and if so, the account of that address.
pub(crate) const ATTEMPT: &str = concat!(
    "SELECT wait, u.id, u.email, u.name, u.role, u.password_hash
       FROM count_attempt(",
    attempts::pair!(),
    ", ",
    attempts::client!(),
    ", ",
    attempts::account!(),
    ", $3, $4) AS wait
       LEFT JOIN users u ON wait = 0 AND u.email_normal = normal_email($2)"
);

/// Opens a session of user `$3`, unless the password is another than the one that was compared (`$4`), in place of the one the
/// request came with (`$7`), or of all of the account's (`$9`). The pair of client and account is known from now on, and what it has tried is forgotten. `$8` is the
/// same password's new hash, if the old one was made with less work than is usual now.
pub(crate) const OPEN: &str = concat!(
    "WITH account AS (SELECT id FROM users WHERE id = $3 AND password_hash = $4),
     known AS (
         INSERT INTO sign_in_attempts (subject, attempts, ends_at, known_until)
         SELECT ",
    attempts::pair!(),
    ", 0, now(), now() + interval '30 days' FROM account
         ON CONFLICT (subject) DO UPDATE SET attempts = 0, known_until = excluded.known_until),
     upgraded AS (
         UPDATE users u SET password_hash = $8::text FROM account WHERE u.id = account.id AND $8::text IS NOT NULL),
     closed AS (
         DELETE FROM sessions s USING account WHERE s.token_hash = $7 OR ($9 AND s.user_id = account.id)
         RETURNING s.token_hash)
     INSERT INTO sessions (token_hash, user_id, expires_at)
     SELECT $5, id, now() + make_interval(secs => $6) FROM account
     RETURNING (SELECT array_agg(token_hash) FROM closed) AS closed"
);

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
#[derive(Debug, Clone, FromRow, Serialize, Deserialize, ToSchema)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum Role {
    Customer,
    Administrator,
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// Null: nobody.
    pub(crate) user: Option<User>,
}

/// Somebody who has just shown that an account is theirs.
#[derive(Debug)]
pub(crate) struct Confirmed {
    pub(crate) user: User,
    /// As it was compared.
    pub(crate) password_hash: String,
    /// What is to be kept in its place, if anything.
    pub(crate) upgraded: Option<String>,
}

impl Confirmed {
    /// Counts an attempt, and compares the password.
    ///
    /// # Errors
    /// 429 when there is no attempt left, 401 when address and password do not fit together.
    pub(crate) async fn by(
        shop: &Shop,
        client: Client,
        email: &str,
        password: String,
    ) -> Result<Self, Problem> {
        let mut connection = shop.database.acquire().await?;
        let query = sqlx::query_as::<_, Attempt>(ATTEMPT).bind(client.text()).bind(email);
        let query = query.bind(attempts::OF_A_PAIR).bind(attempts::OF_ONE);
        let mut attempt = connection.one("sessions.attempt", query).await?;
        attempts::within(attempt.wait)?;
        // Hashing takes long, and must not keep a connection from others.
        drop(connection);
        let known = attempt.password_hash.take();
        let verified = shop.passwords.verify(password, known.clone()).await?;
        let user = attempt.user().filter(|_| verified.matches).ok_or_else(Problem::wrong_credentials)?;
        Ok(Self { user, password_hash: known.unwrap_or_default(), upgraded: verified.upgraded })
    }

    /// Opens a session in place of others; the answer that carries it.
    ///
    /// # Errors
    /// 401 when the password has been changed since it was compared.
    pub(crate) async fn open(
        self,
        shop: &Shop,
        client: Client,
        headers: &HeaderMap,
        closed: Closed,
    ) -> Result<Response, Problem> {
        let token = new_token();
        let mut connection = shop.database.acquire().await?;
        let query = sqlx::query_as::<_, Ended>(OPEN)
            .bind(client.text())
            .bind(&self.user.email)
            .bind(self.user.id)
            .bind(self.password_hash)
            .bind(cookies::digest(&token))
            .bind(LIFETIME.as_secs_f64())
            .bind(cookies::session(headers).map(cookies::digest))
            .bind(self.upgraded)
            .bind(closed == Closed::All);
        let ended =
            connection.optional("sessions.open", query).await?.ok_or_else(Problem::wrong_credentials)?;
        drop(connection);
        ended.everywhere(shop).await;
        Ok((set_cookie(&token, LIFETIME), axum::Json(Session { user: Some(self.user) })).into_response())
    }
}

/// The digests of the tokens of sessions that a statement has ended.
#[derive(Debug, FromRow)]
pub(crate) struct Ended {
    closed: Option<Vec<Vec<u8>>>,
}

impl Ended {
    /// Has it known to all instances.
    pub(crate) async fn everywhere(self, shop: &Shop) {
        shop.memory.end_sessions(self.closed.unwrap_or_default()).await;
    }
}

/// Which sessions end when one is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// That of the request.
    Own,
    /// All that the account has.
    All,
}

/// The answer to [`ATTEMPT`]; null but for the first when there is no such account, or no attempt left.
#[derive(FromRow)]
struct Attempt {
    wait: i64,
    id: Option<UserId>,
    email: Option<String>,
    name: Option<String>,
    role: Option<Role>,
    password_hash: Option<String>,
}

impl Attempt {
    fn user(self) -> Option<User> {
        Some(User { id: self.id?, email: self.email?, name: self.name?, role: self.role? })
    }
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
    let confirmed = Confirmed::by(&shop, client, &email, password).await?;
    shop.activity.record(Event::new("session.open").by(confirmed.user.id));
    confirmed.open(&shop, client, &headers, Closed::Own).await
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
    let Some(token) = cookies::session(&headers) else { return Ok(axum::Json(Session { user: None })) };
    let user = match shop.memory.session(token).await {
        Recalled::Somebody(user) => Some(user),
        Recalled::Nobody => None,
        Recalled::Unknown => {
            let mut connection = shop.reads.acquire(&headers).await?;
            find_to_keep(&shop, &mut connection, token).await?
        }
    };
    Ok(axum::Json(Session { user }))
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
        let digest = cookies::digest(token);
        let ended = connection.execute("sessions.delete", sqlx::query(DELETE).bind(&digest)).await? > 0;
        drop(connection);
        // Others' guesses leave nothing behind.
        shop.memory.end_sessions(ended.then_some(digest)).await;
    }
    Ok((StatusCode::NO_CONTENT, set_cookie("", Duration::ZERO)).into_response())
}

/// The user of the request's session, as it may be remembered: for showing what is theirs.
///
/// # Errors
/// 401 without one.
pub(crate) async fn user(
    shop: &Shop,
    connection: &mut Connection,
    headers: &HeaderMap,
) -> Result<User, Problem> {
    let token = cookies::session(headers).ok_or_else(Problem::not_signed_in)?;
    let user = match shop.memory.session(token).await {
        Recalled::Somebody(user) => Some(user),
        Recalled::Nobody => None,
        Recalled::Unknown => find_to_keep(shop, connection, token).await?,
    };
    user.ok_or_else(Problem::not_signed_in)
}

/// The user of the request's session as the database has it, for whoever changes something.
///
/// # Errors
/// 401 without one.
pub(crate) async fn owner(connection: &mut Connection, headers: &HeaderMap) -> Result<User, Problem> {
    let token = cookies::session(headers).ok_or_else(Problem::not_signed_in)?;
    find(connection, token).await?.map(|open| open.user).ok_or_else(Problem::not_signed_in)
}

/// The same, for what administrators alone may do.
///
/// # Errors
/// 401 without a session, 403 in a customer's.
pub(crate) async fn administrator(connection: &mut Connection, headers: &HeaderMap) -> Result<User, Problem> {
    let user = owner(connection, headers).await?;
    if user.role == Role::Administrator { Ok(user) } else { Err(Problem::forbidden()) }
}

/// Always a new one at signing in: one that was there before could be known to somebody else.
pub(crate) fn new_token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// A session that is open.
#[derive(FromRow)]
struct Open {
    #[sqlx(flatten)]
    user: User,
    /// Seconds until it ends by itself.
    left: f64,
}

async fn find(connection: &mut Connection, token: &str) -> Result<Option<Open>, sqlx::Error> {
    let query = sqlx::query_as(BY_TOKEN).bind(cookies::digest(token));
    connection.optional("sessions.find", query).await
}

async fn find_to_keep(
    shop: &Shop,
    connection: &mut Connection,
    token: &str,
) -> Result<Option<User>, sqlx::Error> {
    let read = Instant::now();
    let Some(Open { user, left }) = find(connection, token).await? else { return Ok(None) };
    shop.memory.keep_session(token, &user, read, Duration::from_secs_f64(left.max(0.0))).await;
    Ok(Some(user))
}

/// The cookie of a session.
pub(crate) fn set_cookie(token: &str, age: Duration) -> [(HeaderName, HeaderValue); 1] {
    [(header::SET_COOKIE, cookies::set(cookies::SESSION, token, age))]
}
