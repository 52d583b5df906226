//! `make run-three`: three edges that are one, over three origins, PostgreSQL with a replica, and Redis.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, process::Command};

use gatehouse_tests::{
    binaries::{self, repository},
    curl::{Answer, Curl},
    edge::assert_nothing_left,
    folder::Folder,
    origin::Account,
    process::Process,
    wait,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";
const KITCHEN: &str = "/api/products?category=kitchen&limit=100";
const PAGE: &str = "/category/kitchen?sort=price_asc";

/// The program that `make run-three` runs, in a folder of its own.
struct Three {
    program: Process,
    said: HashMap<String, String>,
    folder: Folder,
}

impl Three {
    fn start() -> Self {
        let folder = Folder::new();
        let mut command = Command::new(binaries::run_three());
        // Whatever it starts lives below this folder, and has its name in its environment.
        command.env("TMPDIR", folder.path()).env("GATEHOUSE_TEST_FOLDER", folder.path());
        let mut program = Process::start_group("run_three", &mut command);
        let ready = wait::until_within(4 * wait::PATIENCE, || {
            assert!(program.ended().is_none(), "run_three has ended");
            program.lines().iter().any(|line| line == "ready").then_some(())
        });
        ready.expect("everything is there");
        let said = program.lines();
        let said = said.iter().filter_map(|line| line.split_once(": "));
        let said = said.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        Self { program, said, folder }
    }

    /// What it says of this program, word by word.
    fn words(&self, name: &str) -> Vec<String> {
        self.said[name].split(' ').map(str::to_owned).collect()
    }

    fn edges(&self) -> Vec<SocketAddr> {
        let of =
            |number: u32| self.words(&format!("edge-{number}"))[1].replace("http://", "").parse().unwrap();
        (1..=3).map(of).collect()
    }

    /// Every edge, by the name that stands for all of them.
    fn get(&self, path: &str) -> Vec<Answer> {
        let authority = self.folder.path().join("authority.pem");
        let each = (1..=3).map(|number| {
            let tls = self.words(&format!("edge-{number}"))[0].replace("https://", "").parse().unwrap();
            Curl::tls(tls, &authority, path).h2().send()
        });
        each.collect()
    }

    fn database(&self, name: &str) -> (i32, PathBuf) {
        let words = self.words(name);
        (words[1].parse().unwrap(), words[3].clone().into())
    }

    fn psql(&self, name: &str, statement: &str) -> String {
        let (_, socket) = self.database(name);
        let mut psql = Command::new(gatehouse_tests::tool::find(&["psql"], "postgresql-client"));
        psql.arg("-h").arg(socket).args(["-U", "gatehouse", "-d", "gatehouse", "-Atqc", statement]);
        gatehouse_tests::tool::run_command(&mut psql)
    }
}

#[test]
fn one_shop_by_three_edges_survives_its_primary_and_leaves_nothing_behind() {
    let mut three = Three::start();
    let authority = three.program.lines().iter().find_map(|line| {
        let (_, rest) = line.split_once("--cacert ")?;
        rest.split(' ').next().map(PathBuf::from)
    });
    std::fs::copy(authority.unwrap(), three.folder.path().join("authority.pem")).unwrap();
    let edges = three.edges();

    for page in three.get("/") {
        assert!(page.status == 200 && page.version == "HTTP/2" && page.text().contains("<html"), "{page:#?}");
    }
    let administrator = Account::register(edges[0], "admin@example.org");
    three.psql("primary", "UPDATE users SET role = 'administrator'");
    // What one has stored the others find: in Redis, which they need not wait for.
    let _ = three.get(KITCHEN);
    wait::until("every edge has it", || three.get(KITCHEN).iter().all(Answer::is_hit).then_some(()));
    let _ = three.get(PAGE);

    change(&administrator, edges[0], 4_200);
    let told = "SELECT count(*) FROM outbox";
    wait::until("the edges have heard", || (three.psql("primary", told).trim() == "0").then_some(()));
    for (list, page) in three.get(KITCHEN).iter().zip(three.get(PAGE)) {
        assert_eq!(price_of_kettle(list), 4_200);
        assert!(page.text().contains("42.00"), "{}", page.text());
    }

    // The primary dies, and the replica takes its place. Nobody restarts anything.
    kill_process(Pid::from_raw(three.database("primary").0).unwrap(), Signal::INT).unwrap();
    three.psql("replica", "SELECT pg_promote()");
    wait::until("writes go on", || try_change(&administrator, edges[1], 4_300).then_some(()));
    wait::until("the edges have heard", || (three.psql("replica", told).trim() == "0").then_some(()));
    // What was stored is purged, and each origin looks for the new primary by itself.
    let answers = || three.get(KITCHEN).iter().all(|list| list.status == 200).then_some(());
    wait::until("every origin has found it", answers);
    for list in three.get(KITCHEN) {
        assert_eq!(price_of_kettle(&list), 4_300);
    }

    // Ctrl-C in a terminal reaches the whole group.
    three.program.signal_group(Signal::INT);
    let ended = wait::until_within(2 * wait::PATIENCE, || three.program.ended());
    assert!(ended.expect("it ends").success(), "{ended:?}");
    assert_nothing_left(three.folder.path());
}

#[test]
fn three_edges_have_the_routes_of_the_demo() {
    let routes = |path: &str| {
        let text = std::fs::read_to_string(repository().join(path)).unwrap();
        let routes = text.split_once("# Whoever opens a page in clear text").expect("they begin so").1;
        routes.to_owned()
    };
    assert_eq!(routes("config/three/edge.toml"), routes("config/demo.toml"));
}

#[track_caller]
fn change(administrator: &Account, edge: SocketAddr, cents: i64) {
    assert!(try_change(administrator, edge, cents));
}

fn try_change(administrator: &Account, edge: SocketAddr, cents: i64) -> bool {
    let Some(known) = Curl::clear(edge, KETTLE).start().result().ok().filter(|known| known.status == 200)
    else {
        return false;
    };
    let version = format!("If-Match: {}", known.must("etag"));
    let body = json!({ "price_cents": cents });
    let changed = administrator.send(edge, "PATCH", KETTLE, &body).header(&version).start().result();
    changed.is_ok_and(|changed| changed.status == 200)
}

#[track_caller]
fn price_of_kettle(list: &Answer) -> i64 {
    assert_eq!(list.status, 200, "{list:#?}");
    let json = list.json();
    let products = json["products"].as_array().unwrap();
    let kettle = products.iter().find(|product| product["slug"] == "harbour-enamel-kettle");
    kettle
        .and_then(|kettle: &Value| kettle["price_cents"].as_i64())
        .unwrap_or_else(|| panic!("no kettle in {json}"))
}
