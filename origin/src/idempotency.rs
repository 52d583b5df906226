//! Writes that happen once, however often they are asked for.
//!
//! ```text
//!   BEGIN ─ lock (user, key) ─ known? ──▶ the answer given then, or 422 for another request
//!               │ taken: 409      │ no
//!               │             SAVEPOINT ─ the work ─ refused ─▶ back to the savepoint
//!               │                             │
//!               └────── the key with the answer ─ COMMIT ─▶ the answer
//! ```
//! The answer is on disk with the work before it is given, so who did not get it asks again with the same key. A refusal is
//! final as well: what could not be done is not done later by an old retry. An error of ours (5xx) is no answer, and leaves
//! the key unused.

use std::collections::BTreeMap;

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, types::Json};
use utoipa::IntoParams;

use crate::{database::Connection, problem::Problem};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended($2, $1))";

pub(crate) const BY_KEY: &str = "
    SELECT request_hash, response_status, jsonb_strip_nulls(response_headers) AS response_headers, response_body
      FROM idempotency_keys
     WHERE user_id = $1 AND key = $2 AND response_status IS NOT NULL";

const KEEP: &str = "
    INSERT INTO idempotency_keys (user_id, key, request_hash, response_status, response_headers, response_body)
    VALUES ($1, $2, $3, $4, $5, $6)";

/// What a client has made up for one request.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// Made up by the client, new for each request that is to have an effect of its own; 1 to 255 visible characters
    #[param(rename = "Idempotency-Key", pattern = "^[!-~]{1,255}$")]
    key: String,
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut sent = parts.headers.get_all("idempotency-key").iter();
        let (Some(value), None) = (sent.next(), sent.next()) else {
            return Err(Problem::no_idempotency_key());
        };
        let key = value
            .to_str()
            .ok()
            .filter(|key| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
        key.map(|key| Self { key: key.to_owned() }).ok_or_else(Problem::no_idempotency_key)
    }
}

/// What a key turns out to be.
#[derive(Debug)]
pub(crate) enum Begun {
    /// A known one: its request has been answered with this.
    Answered(Response),
    /// A new one. The transaction has begun.
    First(Attempt),
}

/// The first request with its key, under way in a transaction that holds the key.
#[derive(Debug)]
pub(crate) struct Attempt {
    user: i64,
    key: String,
    request_hash: Vec<u8>,
}

impl IdempotencyKey {
    /// Begins the transaction of the work. `request` is all by which two requests are told apart, so it must also differ
    /// between two resources that take keys.
    ///
    /// # Errors
    /// 409 while another has the key, 422 when it belongs to another request; then there is no transaction.
    pub(crate) async fn begin(
        self,
        connection: &mut Connection,
        user: i64,
        request: &impl Serialize,
    ) -> Result<Begun, Problem> {
        let request = serde_json::to_vec(request).map_err(|_| Problem::internal())?;
        let request_hash = Sha256::digest(request).to_vec();
        connection.begin().await?;
        let lock = sqlx::query_as::<_, (bool,)>(LOCK).bind(user).bind(self.key.clone());
        if !connection.one("idempotency.lock", lock).await?.0 {
            return Err(Problem::in_progress());
        }
        let known = sqlx::query_as::<_, Answer>(BY_KEY).bind(user).bind(self.key.clone());
        if let Some(answer) = connection.optional("idempotency.find", known).await? {
            // Nothing was written. The commit frees the lock, so that the next request with this key does not find it taken.
            connection.commit().await?;
            if answer.request_hash != request_hash {
                return Err(Problem::key_reused());
            }
            let mut response = answer.into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(Begun::Answered(response));
        }
        connection.execute("savepoint", sqlx::query("SAVEPOINT untouched")).await?;
        Ok(Begun::First(Attempt { user, key: self.key, request_hash }))
    }
}

impl Attempt {
    /// Keeps the answer with the work, or the refusal without it, and commits.
    ///
    /// # Errors
    /// The work's own problem if it is a 5xx. Nothing is committed then: the transaction is rolled back when the connection is
    /// dropped.
    pub(crate) async fn end(
        self,
        connection: &mut Connection,
        outcome: Result<Done, Problem>,
    ) -> Result<Response, Problem> {
        let Done { status, fields, body } = match outcome {
            Ok(done) => done,
            Err(problem) if problem.status().is_server_error() => return Err(problem),
            Err(refusal) => {
                connection.execute("savepoint", sqlx::query("ROLLBACK TO SAVEPOINT untouched")).await?;
                let (status, body) = refusal.written();
                Done {
                    status,
                    fields: vec![(header::CONTENT_TYPE, "application/problem+json".to_owned())],
                    body,
                }
            }
        };
        let answer = Answer {
            request_hash: self.request_hash,
            response_status: i16::try_from(status.as_u16()).map_err(|_| Problem::internal())?,
            response_headers: Json(
                fields.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect(),
            ),
            response_body: body,
        };
        let keep = sqlx::query(KEEP)
            .bind(self.user)
            .bind(self.key)
            .bind(&answer.request_hash)
            .bind(answer.response_status)
            .bind(&answer.response_headers)
            .bind(&answer.response_body);
        connection.execute("idempotency.keep", keep).await?;
        connection.commit().await?;
        Ok(answer.into_response())
    }
}

/// Work that is done, as it is answered.
#[derive(Debug)]
pub(crate) struct Done {
    status: StatusCode,
    fields: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Done {
    /// With a value as JSON.
    pub(crate) fn json(
        status: StatusCode,
        field: (HeaderName, String),
        value: &impl Serialize,
    ) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(|_| Problem::internal())?;
        Ok(Self { status, fields: vec![(header::CONTENT_TYPE, "application/json".to_owned()), field], body })
    }
}

/// An answer as it is kept and given again.
#[derive(Debug, FromRow)]
struct Answer {
    request_hash: Vec<u8>,
    response_status: i16,
    response_headers: Json<BTreeMap<String, String>>,
    response_body: Vec<u8>,
}

impl Answer {
    fn into_response(self) -> Response {
        let status =
            u16::try_from(self.response_status).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let mut response = (status.unwrap_or_default(), self.response_body).into_response();
        for (name, value) in self.response_headers.0 {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
