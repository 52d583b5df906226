//! A server and a database for one test, and the router on it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use axum::Router;
use origin::{
    activity_log::ActivityLog,
    common_memory::CommonMemory,
    database::{self, Database},
    observe::Metrics,
    passwords::Passwords,
    primary::Servers,
    replicas::Reads,
    search::Searches,
    seed, server,
    settings::{DatabaseSettings, SearchSettings},
    shop::Shop,
    traces::Tracer,
};
use private_postgres::PrivatePostgres;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::origin_process::ORIGIN;

/// A folder that other users may pass through, whatever the umask.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder's mode");
    folder
}

/// A connection without a time limit on statements.
pub(crate) async fn connect(options: &PgConnectOptions) -> PgConnection {
    let connected = Servers::from(options.clone()).connect(database::START_PATIENCE).await;
    connected.expect("the server takes connections")
}

/// A private server with a migrated database; stopped and removed when dropped.
pub(crate) struct TestServer {
    pub(crate) private: Option<PrivatePostgres>,
    pub(crate) options: PgConnectOptions,
    _folder: TempDir,
}

impl TestServer {
    pub(crate) async fn start(products: u32) -> Self {
        // What the origin would have logged is what explains a failure; a second test in this process has it already.
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("warn").try_init();
        let folder = folder();
        let data = folder.path().to_owned();
        let private = tokio::task::spawn_blocking(move || PrivatePostgres::start(&data, Path::new(ORIGIN)))
            .await
            .expect("no panic")
            .unwrap_or_else(|error| panic!("{error:#}"));
        let options = private.connect_options();
        let server = Self { private: Some(private), options, _folder: folder };
        let mut connection = server.connect().await;
        database::migrate(&mut connection).await.expect("the migrations apply");
        seed::seed(&mut connection, products).await.expect("the demo catalogue");
        server
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        connect(&self.options).await
    }

    /// The folder of its unix socket.
    pub(crate) fn socket(&self) -> &Path {
        self.options.get_socket().expect("a private server has no other way in")
    }

    pub(crate) fn router(&self) -> Router {
        self.router_with(&DatabaseSettings::default())
    }

    pub(crate) fn router_with(&self, settings: &DatabaseSettings) -> Router {
        Self::router_on(self.options.clone(), settings, searches())
    }

    /// A shop on whatever answers there.
    pub(crate) fn router_on(
        servers: impl Into<Servers>,
        settings: &DatabaseSettings,
        searches: Searches,
    ) -> Router {
        let metrics = Arc::new(Metrics::new(settings.slow_query));
        let database = Database::new(servers, settings, Arc::clone(&metrics));
        // Nobody writes them down: they wait in their queue.
        let (activity, _writer) = ActivityLog::new(Arc::clone(&metrics));
        let reads = Reads::new(database.clone(), Vec::new(), Duration::from_secs(1), None);
        let (passwords, proxies) = (Passwords::new(Arc::clone(&metrics)), Arc::default());
        let shop = Shop {
            memory: CommonMemory::default(),
            database,
            reads,
            metrics,
            tracer: Tracer::default(),
            activity,
            passwords,
            searches,
            site: "https://shop.test".into(),
            proxies,
        };
        // Two listeners' worth: what visitors ask, and what the operator does.
        server::router(shop.clone(), Duration::from_secs(10)).merge(server::admin_router(shop))
    }
}

/// Bounds that no test reaches which is about something else: all of a test's requests come from the same client.
pub(crate) fn searches() -> Searches {
    let many = std::num::NonZeroU32::new(1_000_000).expect("not zero");
    let timeout = crate::PATIENCE;
    Searches::new(&SearchSettings { rate: many, burst: many, connections: many, timeout })
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(private) = self.private.take() {
            let elsewhere = private.folder().to_owned();
            drop(private);
            // Where the temporary folder could not be reached by PostgreSQL's user.
            let _ = fs::remove_dir_all(elsewhere);
        }
    }
}
