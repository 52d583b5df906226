//! The origin by itself, over a private PostgreSQL of its own in a temporary folder; and people who use it.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, ExitStatus},
};

use rustix::process::Signal;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{binaries, curl::Curl, folder::Folder, metrics, process::Process, tool};

/// The settings file's name in the origin's folder.
const SETTINGS: &str = "origin.toml";
/// What everybody signs in with.
pub const PASSWORD: &str = "correct horse";

/// A running origin. It stops, with its PostgreSQL, when the value goes.
#[derive(Debug)]
pub struct Origin {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    folder: Folder,
}

impl Origin {
    /// Starts it with these settings (lines of `origin.toml` before its tables, and the tables) and waits until it listens.
    ///
    /// # Panics
    /// When it ends before.
    #[track_caller]
    #[must_use]
    pub fn start(settings: &str) -> Self {
        let folder = Folder::new();
        folder.write(SETTINGS, settings);
        let (process, admin, address) = serve(&folder, 0);
        Self { process, address, admin, folder }
    }

    /// Kills it, as a power cut does. Its PostgreSQL ends with it.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again where it was, once it has ended.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process.wait();
        (self.process, self.admin, self.address) = serve(&self.folder, self.address.port());
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for the operator's programs.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// A request over HTTP/1.1.
    #[must_use]
    pub fn curl(&self, path: &str) -> Curl {
        Curl::clear(self.address, path)
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// What runs, and what it prints.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Makes somebody with an account an administrator, with the operator's own command.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn promote(&self, email: &str) {
        promote(self.folder.path(), email);
    }

    /// Fills the catalogue up to so many demo products.
    #[track_caller]
    pub fn seed(&self, products: u32) {
        command(self.folder.path(), &["seed", "--products", &products.to_string()]);
    }

    /// The sum of a metric over its labels; 0 before its first value.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        metrics::values::<f64>(&Curl::clear(self.admin, "/metrics").send().text(), name).iter().sum()
    }

    /// How to reach its database.
    #[must_use]
    pub fn database(&self) -> PgConnectOptions {
        database(self.folder.path())
    }

    /// How many changes some edge has yet to hear of.
    #[track_caller]
    #[must_use]
    pub fn untold(&self) -> i64 {
        untold(self.folder.path())
    }
}

/// Makes somebody with an account an administrator, in the private database of the origin that runs in this folder.
///
/// # Panics
/// When there is no such account.
#[track_caller]
pub fn promote(folder: &Path, email: &str) {
    command(folder, &["promote", email]);
}

/// A command of the operator's, beside the origin that runs in this folder.
#[track_caller]
fn command(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(binaries::origin());
    tool::run_command(
        command.args(arguments).arg("--data").arg(folder.join("data")).env_remove("DATABASE_URL"),
    );
}

/// How many changes some edge has yet to hear of from the origin that runs in this folder: the rows of its outbox.
///
/// # Panics
/// When its database cannot be asked.
#[track_caller]
#[must_use]
pub fn untold(folder: &Path) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let count = runtime.expect("a runtime can be built").block_on(async {
        let mut connection = PgConnection::connect_with(&database(folder)).await?;
        sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&mut connection).await
    });
    count.unwrap_or_else(|error: sqlx::Error| panic!("the outbox: {error}"))
}

/// How to reach the private database of the origin that runs in this folder.
#[must_use]
pub fn database(folder: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(folder.join("data/postgres/run"))
        .username("gatehouse")
        .database("gatehouse")
}

/// Runs `origin serve` in the folder; with port 0 on one that the system chooses.
#[track_caller]
fn serve(folder: &Folder, port: u16) -> (Process, SocketAddr, SocketAddr) {
    let mut command = Command::new(binaries::origin());
    command.args(["serve", "--config", SETTINGS]).current_dir(folder.path());
    command.env("PORT", port.to_string()).env("ADMIN_PORT", "0").env_remove("DATABASE_URL");
    let mut process = Process::start("origin", &mut command);
    let admin = process.wait_for_line("its admin address", |line| {
        line.strip_prefix("origin: metrics on http://")?.parse().ok()
    });
    let address = process
        .wait_for_line("its address", |line| line.strip_prefix("origin: listening on http://")?.parse().ok());
    (process, admin, address)
}

/// Somebody with an account, signed in.
#[derive(Debug, Clone)]
pub struct Account {
    /// The address they have registered.
    pub email: String,
    /// What their session cookie holds.
    pub session: String,
}

impl Account {
    /// Registers, at the origin or through an edge.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    #[must_use]
    pub fn register(address: SocketAddr, email: &str) -> Self {
        let body = json!({ "email": email, "password": PASSWORD }).to_string();
        let request = Curl::clear(address, "/api/users").header("Content-Type: application/json");
        let answer = request.post("POST", body).send();
        assert_eq!(answer.status, 201, "{answer:#?}");
        let cookie =
            answer.all("set-cookie").into_iter().find_map(|line| line.strip_prefix("__Host-session="));
        let session = cookie.and_then(|rest| rest.split(';').next()).expect("registering signs in");
        Self { email: email.to_owned(), session: session.to_owned() }
    }

    /// A request of theirs.
    #[must_use]
    pub fn curl(&self, address: SocketAddr, path: &str) -> Curl {
        let cookie = format!("Cookie: __Host-session={}", self.session);
        Curl::clear(address, path).header(&cookie).header("X-Requested-With: tests")
    }

    /// A request of theirs with content of JSON.
    #[must_use]
    pub fn send(&self, address: SocketAddr, method: &str, path: &str, body: &serde_json::Value) -> Curl {
        self.curl(address, path).header("Content-Type: application/json").post(method, body.to_string())
    }
}
