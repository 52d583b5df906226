//! A PostgreSQL of the origin's own, for when no database is configured: made on first use, kept under the data folder,
//! reachable through a unix socket by the origin's user and root alone, stopped with the origin.
//!
//! ```text
//!              lock free                        lock taken
//!   start ──────────────▶ Owner       start ──────────────▶ Joined
//!                          │  ▲                               │
//!       stop: SIGINT, wait │  └── the owner is gone: lock won ┘
//!                          ▼      (adopt the server if it still works, else start it)
//!                         end
//! ```
//! Promises: one owner a folder (`flock`); a server that dies is started again; after `kill -9` of the origin the server shuts
//! down by itself (Linux), and an orphan elsewhere is adopted; `postmaster.pid` is never deleted while its process
//! lives; fsync stays on. It must never open a TCP port.

#![warn(missing_docs)]
#![expect(
    clippy::disallowed_methods,
    reason = "a supervisor on a thread of its own may block it, and PostgreSQL offers nothing to wait on but its files"
)]

mod account;
mod binaries;
mod child;
mod error;
mod home;
mod server;

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sqlx::postgres::PgConnectOptions;

pub use child::RunPostgres;
use error::{Doing as _, START_DEADLINE, too_slow};
use home::Home;
use server::{Owned, POLL, Postmaster};

/// Name of the superuser and of the database; the socket's folder is what guards them.
const NAME: &str = "gatehouse";
const WATCH: Duration = Duration::from_millis(200);

/// A running private server, its own or another origin's. Dropping it stops the server if it is its own, and waits.
#[derive(Debug)]
pub struct PrivatePostgres {
    home: Home,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl PrivatePostgres {
    /// Starts or joins the server of the data folder `data`, and returns when it answers. Blocks for up to a minute.
    ///
    /// `launcher` is the origin's own program; it is run again to become the server (see [`RunPostgres`]).
    pub fn start(data: &Path, launcher: &Path) -> anyhow::Result<Self> {
        let home = Home::find(data)?;
        let (stop, stopped) = mpsc::channel();
        let (report, first) = mpsc::sync_channel(1);
        let keeper = thread::Builder::new()
            .name("private-postgres".to_owned())
            .spawn({
                let (home, launcher) = (home.clone(), launcher.to_owned());
                move || keep(&home, &launcher, &report, &stopped)
            })
            .doing("cannot start a thread for", &home.folder)?;
        let server = Self { home, stop: Some(stop), keeper: Some(keeper) };
        match first.recv() {
            Ok(outcome) => outcome.map(|()| server),
            Err(_) => Err(too_slow(&server.home.log())),
        }
    }

    /// How to connect to it, as the owner of the database.
    pub fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.home.socket)
            .port(5432)
            .username(NAME)
            .database(NAME)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Where the cluster, the log and the lock are.
    pub fn folder(&self) -> &Path {
        &self.home.folder
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(keeper) = self.keeper.take() {
            // A keeper that panicked has ended too, and with its thread the server.
            let _ = keeper.join();
        }
    }
}

/// The keeper's thread: the only one that starts and stops the server, and it lives as long as the server may.
fn keep(home: &Home, launcher: &Path, report: &SyncSender<anyhow::Result<()>>, stopped: &Receiver<()>) {
    let deadline = Instant::now() + START_DEADLINE;
    let mut owned: Option<Owned> = None;
    let mut reported = false;
    loop {
        let outcome = match &mut owned {
            Some(owned) => owned.mend(home, launcher),
            None => Owned::try_win(home, launcher).map(|won| owned = won),
        };
        match outcome {
            Err(error) if reported => tracing::error!("the private PostgreSQL is down: {error:#}"),
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
            Ok(()) if reported => {}
            Ok(()) if Postmaster::of(home).is_some_and(|server| server.answers(home)) => {
                reported = report.send(Ok(())).is_ok();
            }
            Ok(()) if Instant::now() > deadline => {
                let _ = report.send(Err(too_slow(&home.log())));
                return;
            }
            Ok(()) => {}
        }
        match stopped.recv_timeout(if reported { WATCH } else { POLL }) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(owned) = owned {
        owned.stop(home);
    }
}
