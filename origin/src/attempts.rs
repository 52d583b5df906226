//! How often somebody may try to sign in or register, counted in the database, so that it holds over all instances.
//!
//! Every attempt is judged and counted before the password is looked at, so a thousand at the same moment count as a thousand.
//! There is a limit for an account, for a client, and for the pair of both. The pair's is the strictest, and an attempt that is
//! refused is charged to nobody, so one stranger uses up a tenth of what an account has. The account's limit is not for
//! clients that have signed in to it before. What an account is, whatever its address looks like, `normal_email` says
//! (migration 0007); nothing here spells an address in its own way.

use std::time::Duration;

use crate::{client::Client, database::Connection, problem::Problem};

/// Attempts within fifteen minutes.
pub(crate) const OF_A_PAIR: i32 = 10;
/// Of an account, and of a client, within the same.
pub(crate) const OF_ONE: i32 = 100;

/// The subjects of an attempt to sign in: `$1` is the client, `$2` the address.
macro_rules! pair {
    () => {
        "sha256(convert_to(concat_ws(E'\\n', 'pair', $1::text, normal_email($2)), 'UTF8'))"
    };
}
pub(crate) use pair;

macro_rules! client {
    () => {
        "sha256(convert_to(concat_ws(E'\\n', 'client', $1::text), 'UTF8'))"
    };
}
pub(crate) use client;

macro_rules! account {
    () => {
        "sha256(convert_to(concat_ws(E'\\n', 'account', normal_email($2)), 'UTF8'))"
    };
}
pub(crate) use account;

pub(crate) const OF_CLIENT: &str = concat!("SELECT count_attempt(NULL, ", client!(), ", NULL, $2, $2)");

/// Counts an attempt of this client's with no account in particular.
///
/// # Errors
/// 429 when it has had its share; then nothing is counted.
pub(crate) async fn of_client(connection: &mut Connection, client: Client) -> Result<(), Problem> {
    let query = sqlx::query_as::<_, (i64,)>(OF_CLIENT).bind(client.text()).bind(OF_ONE);
    within(connection.one("attempts.count", query).await?.0)
}

/// What `count_attempt` has answered: the seconds until there is another attempt.
///
/// # Errors
/// 429 unless it is now.
pub(crate) fn within(wait: i64) -> Result<(), Problem> {
    match wait.unsigned_abs() {
        0 => Ok(()),
        seconds => Err(Problem::too_many_attempts(Duration::from_secs(seconds))),
    }
}
