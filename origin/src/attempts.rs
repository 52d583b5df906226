//! How often somebody may try to sign in or register, counted in the database, so that it holds over all instances.
//!
//! Every attempt is counted before the password is looked at, so a thousand at the same moment count as a thousand. There is
//! a limit for an account, for a client, and for the pair of both. The pair's is the strictest, so that a stranger's guesses
//! do not soon lock out the owner, who asks from elsewhere.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::{client::Client, database::Connection, problem::Problem};

/// Attempts within fifteen minutes.
const OF_A_PAIR: i32 = 10;
const OF_AN_ACCOUNT: i32 = 100;
const OF_A_CLIENT: i32 = 100;

/// Rows are locked in the order of their subjects, so that two attempts at once cannot deadlock.
pub(crate) const COUNT: &str = "
    INSERT INTO sign_in_attempts AS known (subject, attempts, ends_at)
    SELECT subject, 1, now() + interval '15 minutes' FROM UNNEST($1::bytea[]) AS subject ORDER BY subject
    ON CONFLICT (subject) DO UPDATE
       SET attempts = CASE WHEN known.ends_at > now() THEN known.attempts + 1 ELSE 1 END,
           ends_at = CASE WHEN known.ends_at > now() THEN known.ends_at ELSE excluded.ends_at END
    RETURNING subject, attempts, ceil(extract(epoch FROM ends_at - now()))::bigint";

/// What is counted, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    digest: Vec<u8>,
    limit: i32,
}

/// The account an address would have, whether there is one or not.
pub(crate) fn account(email: &str) -> Subject {
    Subject { digest: digest(&["account", &email.to_lowercase()]), limit: OF_AN_ACCOUNT }
}

pub(crate) fn client(client: Client) -> Subject {
    Subject { digest: digest(&["client", &client.text()]), limit: OF_A_CLIENT }
}

/// A client's attempts with one account.
pub(crate) fn pair(client: Client, email: &str) -> Subject {
    Subject { digest: digest(&["pair", &client.text(), &email.to_lowercase()]), limit: OF_A_PAIR }
}

/// Counts an attempt of each subject.
///
/// # Errors
/// 429 when one of them has had its share.
pub(crate) async fn count(connection: &mut Connection, subjects: &[Subject]) -> Result<(), Problem> {
    let digests: Vec<&[u8]> = subjects.iter().map(|subject| subject.digest.as_slice()).collect();
    let query = sqlx::query_as::<_, (Vec<u8>, i32, i64)>(COUNT).bind(digests);
    let counted = connection.all("attempts.count", query).await?;
    let over = counted.into_iter().filter(|(digest, attempts, _)| {
        subjects.iter().any(|subject| subject.digest == *digest && *attempts > subject.limit)
    });
    match over.map(|(_, _, seconds)| seconds).max() {
        None => Ok(()),
        Some(seconds) => Err(Problem::too_many_attempts(Duration::from_secs(seconds.max(1).unsigned_abs()))),
    }
}

/// Forgets what a client has tried with an account: it has just shown that it is theirs.
pub(crate) async fn forgive(connection: &mut Connection, subject: &Subject) -> Result<(), sqlx::Error> {
    let query = sqlx::query("DELETE FROM sign_in_attempts WHERE subject = $1").bind(&subject.digest);
    connection.execute("attempts.forgive", query).await.map(drop)
}

fn digest(parts: &[&str]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}
