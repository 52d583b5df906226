//! Three edges that are one, three instances of the origin, a PostgreSQL with a replica, and a Redis: what `config/three/` is for.
//!
//! The settings are those of `config/three/`, word for word, but for what has to differ on one machine: names of hosts become
//! addresses. The edges have addresses of their own and one port, so that a name may stand for all of them: what one has stored
//! for that name the others find.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use crate::{
    address,
    binaries::{self, repository},
    curl::Curl,
    edge::Edge,
    folder::Folder,
    origin::Origin,
    postgres::Postgres,
    redis::Redis,
    shop::replace,
    tool, wait,
};

/// All of it. It stops in this order: whoever asks before whoever is asked.
#[derive(Debug)]
pub struct Three {
    /// The first has made the local authority, and the others have its certificates.
    pub edges: Vec<Edge>,
    /// Behind all of them.
    pub origins: Vec<Origin>,
    /// What has been remembered and stored.
    pub redis: Redis,
    /// The replica, which may be promoted.
    pub replica: Postgres,
    /// Takes writes, until it is gone.
    pub primary: Option<Postgres>,
}

/// Of each.
pub const COUNT: u8 = 3;
const PRODUCTS: &str = "600";

impl Three {
    /// Starts everything, with the demo's catalogue, and waits until each is ready and the edges hear each other.
    ///
    /// # Panics
    /// When something does not start.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let (primary, redis) = (Postgres::start(), Redis::start_bounded());
        fill(&primary);
        let replica = primary.follow();
        let admins = [(); COUNT as usize].map(|()| address::own());
        let token = format!("{:032x}", rand::random::<u128>());
        let settings = of_origins(&primary, &replica, &redis, &admins, &token);
        let origins: Vec<Origin> = (0..COUNT).map(|_| Origin::start(&settings)).collect();
        let ports = [free_port(), free_port()];
        let mut edges: Vec<Edge> = Vec::new();
        for (number, admin) in (1..).zip(admins) {
            let folder = Folder::new();
            folder.write("edge.toml", &of_edge(number, admin, ports, &origins, &redis));
            folder.write("purge-token", &token);
            if let Some(first) = edges.first() {
                copy_certificates(first.folder(), folder.path());
            }
            edges.push(Edge::start_in(folder));
        }
        for edge in &edges {
            wait::until("the edges hear each other", || {
                (edge.metric("gatehouse_edge_tier_in_touch") == 1).then_some(())
            });
        }
        for origin in &origins {
            wait::until("Redis is believed", || {
                (origin.metric("origin_memory_believed") >= 1.0).then_some(())
            });
        }
        Self { edges, origins, redis, replica, primary: Some(primary) }
    }

    /// A request to this edge, over TLS and HTTP/2, by the name that stands for all.
    ///
    /// # Panics
    /// When there is no such edge.
    #[must_use]
    pub fn curl(&self, edge: usize, path: &str) -> Curl {
        Curl::tls(self.edges[edge].tls(), &self.edges[0].authority(), path).h2()
    }

    /// How many changes somebody has yet to hear of, by the server that takes writes.
    #[must_use]
    pub fn untold(&self) -> Option<u32> {
        let database = self.primary.as_ref().unwrap_or(&self.replica);
        database.psql("gatehouse", "SELECT count(*) FROM outbox")?.trim().parse().ok()
    }

    /// Makes somebody with an account an administrator.
    ///
    /// # Panics
    /// When there is no such account.
    #[track_caller]
    pub fn promote(&self, email: &str) {
        let database = self.primary.as_ref().unwrap_or(&self.replica);
        origin_command(database, &["promote", email]);
    }
}

#[track_caller]
fn fill(primary: &Postgres) {
    origin_command(primary, &["migrate"]);
    origin_command(primary, &["seed", "--products", PRODUCTS]);
}

#[track_caller]
fn origin_command(database: &Postgres, arguments: &[&str]) {
    let mut command = Command::new(binaries::origin());
    tool::run_command(command.args(arguments).env("DATABASE_URL", database.url()));
}

#[track_caller]
fn of_origins(
    primary: &Postgres,
    replica: &Postgres,
    redis: &Redis,
    admins: &[SocketAddr],
    token: &str,
) -> String {
    let file = read("config/three/origin.toml");
    let names = [
        ("0.0.0.0:".to_owned(), "127.0.0.1:".to_owned()),
        ("postgres://shop@postgres-1/shop".to_owned(), primary.url()),
        ("postgres://shop@postgres-2/shop".to_owned(), replica.url()),
        ("redis://redis:6379".to_owned(), format!("redis://{}", redis.address())),
        ("[purge]\n".to_owned(), format!("[purge]\ntoken = \"{token}\"\n")),
        ("[database]\n".to_owned(), format!("[database]\ncookie_key = \"{token}\"\n")),
        ("172.30.84.1".to_owned(), "127.0.0.".to_owned()),
    ];
    let edges = (1..).zip(admins).map(|(number, admin)| (format!("edge-{number}:9900"), admin.to_string()));
    names.into_iter().chain(edges).fold(file, |text, (from, to)| replace(&text, &from, &to))
}

#[track_caller]
fn of_edge(
    number: u8,
    admin: SocketAddr,
    [clear, tls]: [u16; 2],
    origins: &[Origin],
    redis: &Redis,
) -> String {
    let ip = ip(number);
    let names = [
        ("0.0.0.0:8080".to_owned(), format!("{ip}:{clear}")),
        ("0.0.0.0:8443".to_owned(), format!("{ip}:{tls}")),
        ("0.0.0.0:9900".to_owned(), admin.to_string()),
        ("/run/secrets/purge-token".to_owned(), "purge-token".to_owned()),
        ("redis://redis:6379".to_owned(), format!("redis://{}", redis.address())),
        ("\"pretty\"".to_owned(), "\"json\"".to_owned()),
    ];
    let origins = (1..)
        .zip(origins)
        .map(|(number, origin)| (format!("origin-{number}:9000"), origin.address().to_string()));
    let file = read("config/three/edge.toml");
    names.into_iter().chain(origins).fold(file, |text, (from, to)| replace(&text, &from, &to))
}

/// Of the edge of this number: 127.0.0.1 and so on.
fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, number).into()
}

/// One that is free at the addresses of all edges.
#[track_caller]
fn free_port() -> u16 {
    let free = (0..100).find_map(|_| {
        let first = TcpListener::bind((ip(1), 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let others: Option<Vec<TcpListener>> =
            (2..=COUNT).map(|number| TcpListener::bind((ip(number), port)).ok()).collect();
        others.map(|_| port)
    });
    free.expect("127.0.0.1 to 127.0.0.3 have a port that is free at all three")
}

#[track_caller]
fn copy_certificates(from: &Path, to: &Path) {
    let (from, to) = (from.join("certs"), to.join("certs"));
    std::fs::create_dir_all(&to).expect("the temporary folder is ours");
    for file in std::fs::read_dir(from).expect("the first edge has made them").flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).expect("the temporary folder is ours");
    }
}

#[track_caller]
fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
