//! What an operator sees of a shop that is slow.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use origin::settings::DatabaseSettings;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    requests::{Customer, get},
    test_server::TestServer,
};

/// A log that can be read while it is written.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_slow_query_is_logged_and_counted_by_its_name_and_what_it_was_asked_is_nowhere() {
    let server = TestServer::start(12).await;
    let router =
        server.router_with(&DatabaseSettings { slow_query: Duration::ZERO, ..DatabaseSettings::default() });
    let log = Log::default();
    // Of this thread, on which the whole test runs.
    let _logging = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish(),
    );
    Customer::register(&router, "confidential@example.org").await;
    get(&router, "/api/products?search=confidential").await;
    let text = log.text();
    for query in ["products.search", "users.insert"] {
        let logged = text
            .lines()
            .any(|line| line.contains("slow query") && line.contains(&format!("query=\"{query}\"")));
        assert!(logged, "{query} is not in:\n{text}");
    }
    let metrics = String::from_utf8(get(&router, "/metrics").await.body).expect("metrics are text");
    for counted in ["origin_slow_queries_total", "origin_query_duration_seconds_count"] {
        assert!(
            metrics.contains(&format!("{counted}{{query=\"products.search\"}} 1")),
            "{counted}:\n{metrics}"
        );
    }
    for (what, shown) in [("log", text), ("metrics", metrics)] {
        assert!(!shown.contains("confidential"), "the {what} shows what was asked:\n{shown}");
    }
}
