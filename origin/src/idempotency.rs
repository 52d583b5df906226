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
//! the key unused. Housekeeping forgets keys when nobody asks with them any more. An order does the same in one statement of
//! its own ([`orders`](crate::orders)); here is what it shares: the key, what a request is told apart by, and the answers kept.

use std::collections::BTreeMap;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, types::Json};
use utoipa::IntoParams;

use crate::{
    database::Connection,
    input::{self, Checked},
    numbers::UserId,
    problem::Problem,
};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended($2, $1))";

pub(crate) const BY_KEY: &str = "
    SELECT request_hash, fingerprint, response_status, jsonb_strip_nulls(response_headers) AS response_headers, response_body
      FROM idempotency_keys
     WHERE user_id = $1 AND key = $2 AND response_status IS NOT NULL";

const KEEP: &str = "
    INSERT INTO idempotency_keys
           (user_id, key, request_hash, fingerprint, response_status, response_headers, response_body)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (user_id, key) DO NOTHING";

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

/// A request with a key: its input, and what tells it from other requests.
#[derive(Debug)]
pub(crate) struct Keyed<T> {
    pub(crate) key: IdempotencyKey,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) input: T,
}

impl<T: Checked, S: Send + Sync> FromRequest<S> for Keyed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let key = IdempotencyKey::from_request_parts(&mut parts, state).await?;
        let body = input::read(Request::from_parts(parts, body), state).await?;
        Ok(Self { key, input: input::parse(&body)?, fingerprint: Fingerprint::of_body(&body)? })
    }
}

/// Which request a key belongs to: a digest of what was sent, in canonical form (RFC 8785) and without members that are null.
/// Not of what this program made of it: another version of the program, with another member in its types, must take a retry
/// for what it is.
#[derive(Debug)]
pub(crate) struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// How it is made. Those of another version cannot be compared: then the key alone tells that it is the same request.
    pub(crate) const VERSION: i16 = 1;

    /// Of a request that its body says all about.
    fn of_body(body: &[u8]) -> Result<Self, Problem> {
        let mut sent: Value = serde_json::from_slice(body).map_err(|_| Problem::internal())?;
        if let Value::Object(members) = &mut sent {
            members.retain(|_, value| !value.is_null());
        }
        Self::of(&sent)
    }

    /// Of a request as it is to be told from those to other resources: these must differ.
    pub(crate) fn of(request: &impl Serialize) -> Result<Self, Problem> {
        let canonical = serde_json_canonicalizer::to_vec(request).map_err(|_| Problem::internal())?;
        Ok(Self(Sha256::digest(canonical).to_vec()))
    }

    pub(crate) fn digest(&self) -> &[u8] {
        &self.0
    }
}

impl IdempotencyKey {
    pub(crate) fn as_str(&self) -> &str {
        &self.key
    }

    /// The answer that this key has got before.
    ///
    /// # Errors
    /// 422 when it belongs to another request, 409 when there is none yet.
    pub(crate) async fn replay(
        &self,
        connection: &mut Connection,
        user: UserId,
        fingerprint: &Fingerprint,
    ) -> Result<Response, Problem> {
        self.known(connection, user).await?.ok_or_else(Problem::in_progress)?.again(fingerprint)
    }

    async fn known(&self, connection: &mut Connection, user: UserId) -> Result<Option<Answer>, sqlx::Error> {
        let known = sqlx::query_as(BY_KEY).bind(user).bind(&self.key);
        connection.optional("idempotency.find", known).await
    }

    /// Keeps a refusal, of which nothing else was written, and answers with it; or with what another request with this key has
    /// been answered meanwhile.
    pub(crate) async fn refuse(
        &self,
        connection: &mut Connection,
        user: UserId,
        fingerprint: &Fingerprint,
        refusal: Problem,
    ) -> Result<Response, Problem> {
        let answer = Answer::refusing(fingerprint, &refusal)?;
        if answer.keep(connection, user, &self.key).await? == 0 {
            return self.replay(connection, user, fingerprint).await;
        }
        Ok(answer.into_response())
    }

    /// Begins the transaction of the work, which holds the key until its [`end`](Self::end); or answers what the request has been
    /// answered before.
    ///
    /// # Errors
    /// 409 while another has the key, 422 when it belongs to another request; then there is no transaction.
    pub(crate) async fn begin(
        &self,
        connection: &mut Connection,
        user: UserId,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Response>, Problem> {
        connection.begin().await?;
        let lock = sqlx::query_as::<_, (bool,)>(LOCK).bind(user).bind(&self.key);
        if !connection.one("idempotency.lock", lock).await?.0 {
            return Err(Problem::in_progress());
        }
        if let Some(answer) = self.known(connection, user).await? {
            // Nothing was written. The commit frees the lock, so that the next request with this key does not find it taken.
            connection.commit().await?;
            return answer.again(fingerprint).map(Some);
        }
        connection.execute("savepoint", sqlx::query("SAVEPOINT untouched")).await?;
        Ok(None)
    }

    /// Keeps the answer with the work, or the refusal without it, and commits.
    ///
    /// # Errors
    /// The work's own problem if it is a 5xx. Nothing is committed then: the transaction is rolled back when the connection is
    /// dropped.
    pub(crate) async fn end(
        &self,
        connection: &mut Connection,
        user: UserId,
        fingerprint: &Fingerprint,
        outcome: Result<Done, Problem>,
    ) -> Result<Response, Problem> {
        let answer = match outcome {
            Ok(done) => Answer::of(fingerprint, done)?,
            Err(problem) if problem.status().is_server_error() => return Err(problem),
            Err(refusal) => {
                connection.execute("savepoint", sqlx::query("ROLLBACK TO SAVEPOINT untouched")).await?;
                Answer::refusing(fingerprint, &refusal)?
            }
        };
        answer.keep(connection, user, &self.key).await?;
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
    fingerprint: i16,
    response_status: i16,
    response_headers: Json<BTreeMap<String, String>>,
    response_body: Vec<u8>,
}

impl Answer {
    fn of(fingerprint: &Fingerprint, Done { status, fields, body }: Done) -> Result<Self, Problem> {
        Ok(Self {
            request_hash: fingerprint.digest().to_vec(),
            fingerprint: Fingerprint::VERSION,
            response_status: i16::try_from(status.as_u16()).map_err(|_| Problem::internal())?,
            response_headers: Json(
                fields.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect(),
            ),
            response_body: body,
        })
    }

    fn refusing(fingerprint: &Fingerprint, refusal: &Problem) -> Result<Self, Problem> {
        let (status, body) = refusal.written();
        let fields = vec![(header::CONTENT_TYPE, "application/problem+json".to_owned())];
        Self::of(fingerprint, Done { status, fields, body })
    }

    /// How many rows were written: none when the key has an answer.
    async fn keep(&self, connection: &mut Connection, user: UserId, key: &str) -> Result<u64, sqlx::Error> {
        let keep = sqlx::query(KEEP)
            .bind(user)
            .bind(key)
            .bind(&self.request_hash)
            .bind(self.fingerprint)
            .bind(self.response_status)
            .bind(&self.response_headers)
            .bind(&self.response_body);
        connection.execute("idempotency.keep", keep).await
    }

    /// Once more, to the same request.
    fn again(self, request: &Fingerprint) -> Result<Response, Problem> {
        if self.fingerprint == Fingerprint::VERSION && self.request_hash != request.digest() {
            return Err(Problem::key_reused());
        }
        let mut response = self.into_response();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }

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
