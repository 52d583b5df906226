//! Mail to customers: written into the database with what it is about, and sent from there, by SMTP or into a folder.
//!
//! Promises: a mail whose transaction has committed is handed to the server at least once, and tried again with growing pauses
//! for a day. It must never make a request wait for a mail server, and never log what it carries.

use std::{path::Path, time::Duration};

use lettre::{
    AsyncFileTransport, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor, message::Mailbox,
};
use sqlx::{Connection as _, FromRow, PgPool};
use tokio::{sync::watch, time::timeout};

use crate::settings::MailSettings;

const POLL: Duration = Duration::from_secs(1);

/// One at a time, so that a slow server holds up no more than one row.
pub(crate) const DUE: &str = "
    SELECT id, recipient, subject, body, attempts, created_at < now() - interval '1 day' AS late
      FROM mails WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED";

const DELETE: &str = "DELETE FROM mails WHERE id = $1";

/// Twice as long each time, up to an hour.
const POSTPONE: &str = "
    UPDATE mails SET attempts = attempts + 1, due_at = now() + least(interval '1 hour', interval '1 s' * 2 ^ least(attempts, 12))
     WHERE id = $1";

#[derive(Debug, FromRow)]
struct Mail {
    id: i64,
    recipient: String,
    subject: String,
    body: String,
    attempts: i32,
    late: bool,
}

/// Sends what is to be sent.
#[derive(Debug)]
pub struct Postman {
    from: Mailbox,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Server(AsyncSmtpTransport<Tokio1Executor>),
    Folder(AsyncFileTransport<Tokio1Executor>),
}

impl Postman {
    /// One that goes to the server of the settings, or without one puts mails into their folder, below `data` unless it is
    /// absolute.
    ///
    /// # Errors
    /// Neither the server's URL nor the folder can be used.
    pub fn new(settings: &MailSettings, data: &Path) -> anyhow::Result<Self> {
        let way = match &settings.smtp {
            Some(url) => Way::Server(AsyncSmtpTransport::<Tokio1Executor>::from_url(url.reveal())?.build()),
            None => {
                let folder = data.join(&settings.folder);
                std::fs::create_dir_all(&folder)?;
                Way::Folder(AsyncFileTransport::new(folder))
            }
        };
        Ok(Self { from: settings.from.0.clone(), way })
    }

    /// Works until `stop` says so.
    pub async fn run(self, pool: PgPool, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            match self.send_next(&pool).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "mails cannot be read"),
            }
            let _ = timeout(POLL, stop.changed()).await;
        }
    }

    /// Whether there was one.
    async fn send_next(&self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let Some(mail) = sqlx::query_as::<_, Mail>(DUE).fetch_optional(&mut *transaction).await? else {
            return Ok(false);
        };
        let (id, attempts) = (mail.id, mail.attempts);
        let given_up = mail.late;
        let done = match self.send(mail).await {
            Ok(()) => DELETE,
            Err(error) if given_up => {
                tracing::error!(error = %error, id, "a mail is given up after a day");
                DELETE
            }
            Err(error) => {
                tracing::warn!(error = %error, id, attempts, "a mail could not be sent");
                POSTPONE
            }
        };
        sqlx::query(done).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn send(&self, mail: Mail) -> anyhow::Result<()> {
        let to = mail.recipient.parse::<lettre::Address>()?;
        let message =
            Message::builder().from(self.from.clone()).to(to.into()).subject(mail.subject).body(mail.body)?;
        match &self.way {
            Way::Server(server) => server.send(message).await.map(drop)?,
            Way::Folder(folder) => folder.send(message).await.map(drop)?,
        }
        Ok(())
    }
}
