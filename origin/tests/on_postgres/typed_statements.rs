//! That every statement takes what it is called with, and gives what is read of it.
//!
//! The program talks to PostgreSQL through somebody who reads along: each statement with the types that Rust binds, and whether
//! a row came back, whose columns sqlx then compares with the types that are read. The server is asked afterwards what types it
//! would take if nobody had said. `docs/decisions/0014-statements-are-tested-and-not-compiled.md` says why it is done so.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use origin::{
    housekeeping,
    mail::Postman,
    settings::{DatabaseSettings, MailSettings},
};
use serde_json::{Value, json as value};
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    sync::watch,
};

use crate::{
    PATIENCE,
    requests::{Customer, cookie, get, json, send, send_json},
    test_server::{TestServer, folder, searches},
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

/// What is asked only where two requests meet, or of a replica: `orders.rs` and `replicas.rs` beside this file do that.
const ELSEWHERE: [&str; 3] = ["orders.buyer", "replicas.primary", "replicas.replica"];

/// A statement as it was asked.
#[derive(Debug, Clone, Default)]
struct Asked {
    /// The types of its parameters as the program binds them, by their numbers in `pg_type`.
    bound: Vec<i64>,
    /// Whether it has given a row.
    gave: bool,
}

type Record = Arc<Mutex<BTreeMap<String, Asked>>>;

/// A way to the server on which everything is read along.
async fn overheard(server: &TestServer, record: &Record) -> PgConnectOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let socket = server.socket().join(".s.PGSQL.5432");
    let record = Arc::clone(record);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.expect("the server");
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let conversation =
                Arc::new(Mutex::new(Conversation { record: Arc::clone(&record), ..Conversation::default() }));
            let (asking, answering) = (Arc::clone(&conversation), conversation);
            tokio::spawn(relay(from_client, to_server, Head::Untold, move |kind, message| {
                asking.lock().expect("no panic").asks(kind, message);
            }));
            tokio::spawn(relay(from_server, to_client, Head::Told, move |kind, _| {
                answering.lock().expect("no panic").answers(kind);
            }));
        }
    });
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("gatehouse")
        .database("gatehouse")
        .ssl_mode(PgSslMode::Disable)
}

/// One connection: which statement is being answered.
#[derive(Default)]
struct Conversation {
    record: Record,
    /// By the name that the driver has given it.
    prepared: HashMap<Vec<u8>, String>,
    /// Those that are being executed, the first to be answered first.
    under_way: VecDeque<String>,
    bound: Option<String>,
}

impl Conversation {
    fn asks(&mut self, kind: u8, message: &[u8]) {
        let mut rest = message;
        match kind {
            b'P' => {
                let (name, sql) = (word(&mut rest), word(&mut rest));
                let sql = String::from_utf8(sql).expect("SQL is text");
                let count = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                let types = rest[2..].chunks_exact(4).take(count);
                let bound = types.map(|oid| i64::from(u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]])));
                let asked = Asked { bound: bound.collect(), gave: false };
                self.record.lock().expect("no panic").entry(sql.clone()).or_insert(asked);
                self.prepared.insert(name, sql);
            }
            b'B' => {
                word(&mut rest);
                self.bound = self.prepared.get(&word(&mut rest)).cloned();
            }
            b'E' => self.under_way.extend(self.bound.take()),
            _ => {}
        }
    }

    fn answers(&mut self, kind: u8) {
        match kind {
            b'D' => {
                if let Some(sql) = self.under_way.front()
                    && let Some(asked) = self.record.lock().expect("no panic").get_mut(sql)
                {
                    asked.gave = true;
                }
            }
            // Done, suspended, nothing to do; after an error nothing that was asked before the next synchronisation is done.
            b'C' | b's' | b'I' => drop(self.under_way.pop_front()),
            b'E' => self.under_way.clear(),
            _ => {}
        }
    }
}

/// Takes a text up to its zero.
fn word(rest: &mut &[u8]) -> Vec<u8> {
    let end = rest.iter().position(|byte| *byte == 0).expect("a text ends");
    let word = rest[..end].to_vec();
    *rest = &rest[end + 1..];
    word
}

/// Whether the first message has a letter in front, as all others have.
#[derive(PartialEq, Eq)]
enum Head {
    Told,
    Untold,
}

async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut head: Head,
    mut told: impl FnMut(u8, &[u8]),
) {
    let mut message = Vec::new();
    loop {
        let letter = usize::from(std::mem::replace(&mut head, Head::Told) == Head::Told);
        message.resize(letter + 4, 0);
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let length = &message[letter..];
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        message.resize(letter + length, 0);
        if from.read_exact(&mut message[letter + 4..]).await.is_err() {
            return;
        }
        if letter == 1 {
            told(message[0], &message[5..]);
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn every_statement_takes_and_gives_what_the_program_says() {
    let server = TestServer::start(60).await;
    let record = Record::default();
    let options = overheard(&server, &record).await;
    let router = TestServer::router_on(options.clone(), &DatabaseSettings::default(), searches());
    walk(&server, &router).await;
    let pool = PgPool::connect_with(options).await.expect("a pool");
    housekeeping::tidy(&pool, 13).await.expect("tidy");
    send_mails(&server, pool).await;

    let metrics = String::from_utf8(get(&router, "/metrics").await.body).expect("text");
    let asked: BTreeSet<&str> = metrics
        .split("origin_query_duration_seconds_count{query=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let missing: Vec<String> = names().into_iter().filter(|name| !asked.contains(name.as_str())).collect();
    assert_eq!(missing, ELSEWHERE, "a statement that nobody asks is not tested");

    let record = record.lock().expect("no panic").clone();
    let mut connection = server.connect().await;
    let mut wrong = Vec::new();
    for (sql, Asked { bound, gave }) in &record {
        let first = sql.split_whitespace().next().unwrap_or_default();
        if !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first) {
            continue;
        }
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE asked AS {sql}")))
            .execute(&mut connection)
            .await
            .expect("as before");
        let taken: Vec<i64> = sqlx::query_scalar(
            "SELECT coalesce(array_agg(type::oid::bigint ORDER BY number), '{}')
               FROM pg_prepared_statements, UNNEST(parameter_types) WITH ORDINALITY AS p (type, number) WHERE name = 'asked'",
        )
        .fetch_one(&mut connection)
        .await
        .expect("its types");
        sqlx::raw_sql("DEALLOCATE asked").execute(&mut connection).await.expect("it is there");
        if taken != *bound {
            wrong.push(format!("takes {taken:?} and is given {bound:?}: {sql}"));
        }
        let gives = gives_rows(sql);
        if gives && !gave {
            wrong.push(format!("has given no row to be read: {sql}"));
        }
    }
    assert!(record.len() > 70, "{}", record.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a statement has columns to be read: what stands outside of all brackets says so.
fn gives_rows(sql: &str) -> bool {
    let mut depth = 0_i32;
    let outside: String = sql
        .chars()
        .filter(|letter| {
            depth += i32::from(*letter == '(') - i32::from(*letter == ')');
            depth == 0
        })
        .collect();
    let writes = ["INSERT INTO ", "DELETE FROM ", " SET "].iter().any(|verb| outside.contains(verb));
    !writes || outside.contains("RETURNING")
}

/// Every name by which the program asks a statement.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(file).expect("a source is text");
        for call in [".all", ".one", ".optional", ".execute", ".read"] {
            for rest in text.split(call).skip(1) {
                let rest = rest
                    .strip_prefix("::<")
                    .map_or(rest, |rest| rest.split_once(">(").map_or("", |(_, rest)| rest));
                let rest = rest
                    .trim_start_matches('(')
                    .trim_start()
                    .trim_start_matches("&mut connection,")
                    .trim_start();
                let name = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or_default();
                if name.split_once('.').is_some_and(|(room, verb)| !room.is_empty() && !verb.is_empty()) {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    // These are named elsewhere: by the shape of a list.
    names.extend(["products.list", "products.list_category", "products.search"].map(str::to_owned));
    assert!(names.len() > 50, "{names:?}");
    names
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// Through the whole shop, once.
async fn walk(server: &TestServer, router: &axum::Router) {
    let admin = Customer::administrator(server, router).await;
    let ada = Customer::register(router, "ada@example.org").await;
    let ok = |answer: crate::requests::Answer| {
        assert!(answer.status.is_success(), "{answer:?}");
        answer
    };
    let picture = {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(200, 200).write_to(&mut bytes, image::ImageFormat::Png).expect("a picture");
        let request = Request::post("/api/pictures")
            .header("cookie", &admin.cookie)
            .header("x-requested-with", "tests");
        ok(send(router, request.body(Body::from(bytes.into_inner())).expect("a request")).await)
    };
    // Twice: what is not known yet, and what is.
    for _ in 0..2 {
        for sort in ["newest", "price_asc", "price_desc", "name"] {
            for chosen in ["", "&category=kitchen", "&search=kettle"] {
                let first = ok(get(router, &format!("/api/products?limit=1&sort={sort}{chosen}")).await);
                if let Some(cursor) = first.json()["next_cursor"].as_str() {
                    ok(get(router, &format!("/api/products?limit=1&sort={sort}{chosen}&cursor={cursor}"))
                        .await);
                }
            }
        }
        for path in [
            "/",
            "/category/kitchen",
            "/category/kitchen?price=50-100&stock=in",
            "/search?category=kitchen&price=50-100&q=kettle",
            "/product/harbour-enamel-kettle",
            "/search?q=kettle",
            "/sitemap.xml",
            "/sitemap/products-0.xml",
            "/robots.txt",
            "/readyz",
            "/api/categories",
            "/api/suggestions?words=ket",
            "/api/suggestions?words=kettel",
            KETTLE,
            "/api/products/harbour-enamel-kettle/stock",
            picture.header("location"),
        ] {
            ok(get(router, path).await);
        }
    }
    let known = get(router, KETTLE).await.header("etag").to_owned();
    assert_eq!(
        crate::requests::get_if_none_match(router, KETTLE, &known).await.status,
        StatusCode::NOT_MODIFIED
    );

    // The office.
    let new = value!({ "slug": "herb-rack", "name": "Herb rack", "category": "kitchen", "price_cents": 1200, "stock": 5 });
    ok(admin.send(Method::POST, "/api/products", &[], &new).await);
    let herbs = "/api/products/herb-rack";
    ok(admin
        .send(
            Method::POST,
            &format!("{herbs}/restock"),
            &[("idempotency-key", "r1")],
            &value!({ "quantity": 3 }),
        )
        .await);
    ok(admin
        .send(
            Method::POST,
            &format!("{herbs}/restock"),
            &[("idempotency-key", "r1")],
            &value!({ "quantity": 3 }),
        )
        .await);
    admin
        .send(
            Method::POST,
            "/api/products/nothing/restock",
            &[("idempotency-key", "r2")],
            &value!({ "quantity": 3 }),
        )
        .await;
    let version = async || get(router, herbs).await.header("etag").to_owned();
    let change = value!({ "category": "garden", "image": picture.json()["image"] });
    ok(admin.send(Method::PATCH, herbs, &[("if-match", &version().await)], &change).await);
    ok(admin
        .send(Method::PUT, "/api/office/products/herb-rack/stock", &[], &value!({ "was": 8, "is": 7 }))
        .await);
    ok(admin.send(Method::POST, "/api/categories", &[], &value!({ "slug": "attic", "name": "Attic" })).await);
    ok(admin.send(Method::PATCH, "/api/categories/attic", &[], &value!({ "name": "The attic" })).await);
    for path in ["/api/office/products?limit=1", "/api/office/products/herb-rack"] {
        ok(admin.get(path).await);
    }

    // A customer.
    let product = ok(get(router, herbs).await).json()["id"].clone();
    let order = async |key: &str, quantity: i32| {
        let lines = value!({ "lines": [{ "product_id": product, "quantity": quantity }] });
        ada.send(Method::POST, "/api/orders", &[("idempotency-key", key)], &lines).await
    };
    let placed = ok(order("k1", 1).await).json()["id"].clone();
    ok(order("k1", 1).await);
    assert_eq!(order("k2", 1000).await.status, StatusCode::CONFLICT);
    for path in ["/api/orders", &format!("/api/orders/{placed}"), "/api/session", "/api/activity"] {
        ok(ada.get(path).await);
    }
    ok(admin.get("/api/office/orders").await);
    ok(admin.get(&format!("/api/office/orders/{placed}")).await);
    ok(ada.send(Method::POST, &format!("/api/orders/{placed}/cancel"), &[], &Value::Null).await);
    sqlx::query("INSERT INTO activity_logs (user_id, action) VALUES ($1, 'order.place')")
        .bind(ada.id)
        .execute(&mut server.connect().await)
        .await
        .expect("an entry");
    ok(ada.get("/api/activity").await);
    ok(admin.send(Method::DELETE, herbs, &[("if-match", &version().await)], &Value::Null).await);
    assert_eq!(get(router, "/product/herb-rack").await.status, StatusCode::GONE);

    // Accounts.
    let (old, new) = ("correct horse", "another horse");
    let sign_in = async |password: &str| {
        let body = value!({ "email": "ada@example.org", "password": password });
        send_json(router, json(Method::POST, "/api/session", &body)).await
    };
    ok(ada.send(Method::PUT, "/api/account/password", &[], &value!({ "current": old, "new": new })).await);
    let session = ok(sign_in(new).await);
    let ada = Customer { router: router.clone(), cookie: cookie(&session), id: ada.id };
    ok(send_json(
        router,
        json(Method::POST, "/api/account/forgotten-password", &value!({ "email": "ada@example.org" })),
    )
    .await);
    let body: String = sqlx::query_scalar("SELECT body FROM mails")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("a mail");
    let token: String = body
        .split_once("#reset=")
        .expect("a link")
        .1
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter))
        .collect();
    ok(ada.send(Method::DELETE, "/api/session", &[], &Value::Null).await);
    let reset = value!({ "token": token, "new": old });
    ok(send_json(router, json(Method::PUT, "/api/account/forgotten-password", &reset)).await);
    let ada = Customer { router: router.clone(), cookie: cookie(&ok(sign_in(old).await)), id: ada.id };
    ok(ada.send(Method::POST, "/api/account/deletion", &[], &value!({ "password": old })).await);
}

/// Until there is none left.
async fn send_mails(server: &TestServer, pool: PgPool) {
    let data = folder();
    let (stop, stopped) = watch::channel(false);
    let postman = Postman::new(&MailSettings::default(), data.path()).expect("a postman");
    let working = tokio::spawn(postman.run(pool, stopped));
    let gone = async {
        let mut connection = server.connect().await;
        while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM mails")
            .fetch_one(&mut connection)
            .await
            .expect("a count")
            > 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("they go");
    stop.send(true).expect("it listens");
    working.await.expect("it ends");
}
