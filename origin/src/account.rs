//! What customers do with their own account: another password, a new one for one that is forgotten, and the end of it.
//!
//! Whoever changes the password or ends the account proves again who they are, and every other session of the account ends.
//! A forgotten password is replaced by whoever reads the account's mail: a token goes there, works once and for an hour, and
//! only its digest is kept. Whether an address has an account, no answer here tells. Orders outlive the account without a name.

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    attempts,
    client::Client,
    cookies,
    input::{Checked, Input, Wrong},
    numbers::UserId,
    problem::Problem,
    sessions::{self, Closed, Confirmed, Ended},
    shop::Shop,
    users::check_password,
};

/// Mail may be slow, and its reader asleep; a thief has no more than this.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A token for the account of `$1`, unless one was made within a minute, and the mail that carries it (`$4`, `$5`), both or
/// neither.
pub(crate) const FORGOTTEN: &str = "
    WITH account AS (
             SELECT id, email FROM users u
              WHERE email_normal = normal_email($1)
                AND NOT EXISTS (SELECT FROM password_resets r
                                 WHERE r.user_id = u.id AND r.created_at > now() - interval '1 minute')),
         token AS (
             INSERT INTO password_resets (token_hash, user_id, expires_at)
             SELECT $2, id, now() + make_interval(secs => $3) FROM account)
    INSERT INTO mails (recipient, subject, body) SELECT email, $4, $5 FROM account";

/// A new password for whoever has the token: it, all other tokens and all sessions of the account end.
pub(crate) const RESET: &str = "
    WITH token AS (DELETE FROM password_resets WHERE token_hash = $1 AND expires_at > now() RETURNING user_id),
         others AS (DELETE FROM password_resets r USING token
                     WHERE r.user_id = token.user_id AND r.token_hash <> $1),
         closed AS (DELETE FROM sessions s USING token WHERE s.user_id = token.user_id RETURNING s.token_hash)
    UPDATE users u SET password_hash = $2 FROM token WHERE u.id = token.user_id
    RETURNING u.id, (SELECT array_agg(token_hash) FROM closed) AS closed";

/// Forgets who somebody was; their orders stay, and nobody can sign in to them.
pub(crate) const FORGET: &str = "
    WITH account AS (
             UPDATE users SET email = 'deleted-' || id || '@invalid', name = '', password_hash = '!', role = 'customer'
              WHERE id = $1 AND password_hash = $2
             RETURNING id),
         closed AS (DELETE FROM sessions s USING account WHERE s.user_id = account.id RETURNING s.token_hash),
         tokens AS (DELETE FROM password_resets r USING account WHERE r.user_id = account.id),
         keys AS (DELETE FROM idempotency_keys k USING account WHERE k.user_id = account.id),
         log AS (UPDATE activity_logs l SET user_id = NULL FROM account WHERE l.user_id = account.id)
    SELECT array_agg(closed.token_hash) FILTER (WHERE closed.token_hash IS NOT NULL) AS closed
      FROM account LEFT JOIN closed ON true GROUP BY account.id";

/// Another password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    #[schema(max_length = 200)]
    current: String,
    #[schema(min_length = 8, max_length = 200)]
    new: String,
}

impl Checked for NewPassword {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless(self.current.chars().count() <= 200, "current", "200 characters at most");
        check_password(&self.new, "new", wrong);
    }
}

/// `PUT /api/account/password`: another password. The session goes on under a new token, all others end.
#[utoipa::path(
    put,
    path = "/account/password",
    operation_id = "change_password",
    tag = "account",
    security(("session" = [], "requested_with" = [])),
    request_body = NewPassword,
    responses((status = 200, description = "Changed", body = sessions::Session))
)]
pub(crate) async fn change_password(
    State(shop): State<Shop>,
    client: Client,
    headers: HeaderMap,
    Input(NewPassword { current, new }): Input<NewPassword>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let user = sessions::owner(&mut connection, &headers).await?;
    drop(connection);
    let mut confirmed = Confirmed::by(&shop, client, &user.email, current).await?;
    confirmed.upgraded = Some(shop.passwords.hash(new).await?);
    shop.activity.record(Event::new("password.change").by(user.id));
    confirmed.open(&shop, client, &headers, Closed::All).await
}

/// The account's password, once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Farewell {
    #[schema(max_length = 200)]
    password: String,
}

impl Checked for Farewell {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless(self.password.chars().count() <= 200, "password", "200 characters at most");
    }
}

/// `POST /api/account/deletion`: the end of one's account. Orders stay, without a name.
#[utoipa::path(
    post,
    path = "/account/deletion",
    operation_id = "delete_account",
    tag = "account",
    security(("session" = [], "requested_with" = [])),
    request_body = Farewell,
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(
    State(shop): State<Shop>,
    client: Client,
    headers: HeaderMap,
    Input(Farewell { password }): Input<Farewell>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let user = sessions::owner(&mut connection, &headers).await?;
    drop(connection);
    let confirmed = Confirmed::by(&shop, client, &user.email, password).await?;
    let mut connection = shop.database.acquire().await?;
    let query = sqlx::query_as::<_, Ended>(FORGET).bind(user.id).bind(confirmed.password_hash);
    let ended = connection.optional("account.forget", query).await?.ok_or_else(Problem::wrong_credentials)?;
    drop(connection);
    ended.everywhere(&shop).await;
    Ok((StatusCode::NO_CONTENT, sessions::set_cookie("", Duration::ZERO)).into_response())
}

/// Whose password is forgotten.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forgotten {
    #[schema(pattern = "^[^@\\s\\x00-\\x1f\\x7f-\\x9f]+@[^@\\s\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 254)]
    email: String,
}

impl Checked for Forgotten {
    fn check(&self, wrong: &mut Wrong) {
        wrong.email(&self.email);
    }
}

/// `POST /api/account/forgotten-password`: sends a mail with a token, if there is an account with this address.
#[utoipa::path(
    post,
    path = "/account/forgotten-password",
    operation_id = "forget_password",
    tag = "account",
    request_body = Forgotten,
    responses((status = 202, description = "If there is such an account, it gets mail"))
)]
pub(crate) async fn forgotten(
    State(shop): State<Shop>,
    client: Client,
    Input(Forgotten { email }): Input<Forgotten>,
) -> Result<StatusCode, Problem> {
    let mut connection = shop.database.acquire().await?;
    attempts::of_client(&mut connection, client).await?;
    let token = sessions::new_token();
    let body = format!(
        "Somebody, hopefully you, has forgotten the password of your account at {site}.\n\n\
         To choose a new one within an hour, open\n\n    {site}/account#reset={token}\n\n\
         If it was not you, there is nothing to do.\n",
        site = shop.site
    );
    let query = sqlx::query(FORGOTTEN)
        .bind(email)
        .bind(cookies::digest(&token))
        .bind(TOKEN_LIFETIME.as_secs_f64())
        .bind("A new password")
        .bind(body);
    connection.execute("account.forgotten", query).await?;
    Ok(StatusCode::ACCEPTED)
}

/// A new password in place of a forgotten one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reset {
    /// From the mail.
    #[schema(max_length = 100)]
    token: String,
    #[schema(min_length = 8, max_length = 200)]
    new: String,
}

impl Checked for Reset {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless(self.token.len() <= 100, "token", "the one from the mail");
        check_password(&self.new, "new", wrong);
    }
}

/// Whose password is new.
#[derive(Debug, FromRow)]
struct Renewed {
    id: UserId,
    #[sqlx(flatten)]
    ended: Ended,
}

/// `PUT /api/account/forgotten-password`: a new password with the token from the mail. All sessions of the account end.
#[utoipa::path(
    put,
    path = "/account/forgotten-password",
    operation_id = "reset_password",
    tag = "account",
    request_body = Reset,
    responses((status = 204, description = "Changed: sign in with it"))
)]
pub(crate) async fn reset(
    State(shop): State<Shop>,
    client: Client,
    Input(Reset { token, new }): Input<Reset>,
) -> Result<StatusCode, Problem> {
    let mut connection = shop.database.acquire().await?;
    attempts::of_client(&mut connection, client).await?;
    drop(connection);
    let hash = shop.passwords.hash(new).await?;
    let mut connection = shop.database.acquire().await?;
    let query = sqlx::query_as::<_, Renewed>(RESET).bind(cookies::digest(&token)).bind(hash);
    let Renewed { id: user, ended } =
        connection.optional("account.reset", query).await?.ok_or_else(Problem::token_expired)?;
    drop(connection);
    ended.everywhere(&shop).await;
    shop.activity.record(Event::new("password.reset").by(user));
    Ok(StatusCode::NO_CONTENT)
}
