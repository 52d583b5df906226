//! Servers of other languages as commands of the edge: started by it, reached on ports and Unix sockets, replaced under load.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use gatehouse_tests::{
    address, binaries,
    binaries::repository,
    edge::{Edge, Setup},
    folder::Folder,
    python,
    raw::Raw,
    tool, wait,
};

/// A server that runs as two instances: its words as an operator writes them, and what else stands in its table.
struct Served {
    run: Vec<String>,
    lines: &'static str,
}

fn served(program: &Path, words: &[&str], lines: &'static str) -> Served {
    let words = words.iter().map(|word| (*word).to_owned());
    Served { run: std::iter::once(program.display().to_string()).chain(words).collect(), lines }
}

fn sources() -> String {
    repository().join("tests/apps/programs").display().to_string()
}

fn installed(program: &str) -> std::path::PathBuf {
    let requirements = Path::new(&sources()).join("requirements.txt");
    python::environment("programs", &requirements).join("bin").join(program)
}

/// Starts it, replaces its instances while clients ask without a pause, and stops it. No request fails, every process is new,
/// and none is left.
fn is_replaced_under_load(served: &Served) {
    let run = served.run.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let table = format!(
        "[commands.app]\nrun = [{run}]\ndirectory = {:?}\nready = \"/ready\"\ninstances = 2\nready_interval = \"200ms\"\n\
         environment = {{ PYTHONDONTWRITEBYTECODE = \"1\" }}\n{}",
        sources(),
        served.lines
    );
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let text = Setup::over_address(nowhere).admin(address::own()).tables(&table).text();
    let folder = Folder::new();
    folder.write("edge.toml", &text.replace("http://127.0.0.1:1\"", "command:app\""));
    let mut edge = Edge::start_in(folder);
    let restart = || {
        let Output { status, stdout, stderr } = Command::new(binaries::edge())
            .args(["restart", "app", "--config", "edge.toml"])
            .current_dir(edge.folder())
            .output()
            .expect("the program is built");
        let said = String::from_utf8([stdout, stderr].concat()).expect("what edge says is text");
        assert!(status.success(), "{said}");
    };
    wait::until("both instances are ready", || {
        edge.metrics()
            .contains("gatehouse_edge_command_instances{command=\"app\",state=\"ready\"} 2")
            .then_some(())
    });
    let old = answering(&edge);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (method, path) in [("GET", "/"), ("GET", "/slow"), ("POST", "/"), ("POST", "/slow")].repeat(2) {
            let (over, address) = (&over, edge.clear());
            scope.spawn(move || {
                let mut client = Raw::connect(address);
                while !over.load(Ordering::Relaxed) {
                    let request =
                        format!("{method} {path} HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody");
                    let answer = client.send(request).answer();
                    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.head);
                }
            });
        }
        let restarted = std::panic::catch_unwind(restart);
        over.store(true, Ordering::Relaxed);
        restarted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let new = answering(&edge);
    assert!(old.is_disjoint(&new), "{old:?} {new:?}");
    assert!(edge.stop().success());
    edge.assert_stopped_cleanly();
}

/// Processes that answer.
fn answering(edge: &Edge) -> BTreeSet<String> {
    (0..20).map(|_| edge.get("/").text()).collect()
}

#[test]
fn gunicorn_on_a_port_and_on_a_socket() {
    let gunicorn = installed("gunicorn");
    let words = |bind| ["--workers", "2", "--bind", bind, "app:wsgi"];
    is_replaced_under_load(&served(&gunicorn, &words("127.0.0.1:{port}"), ""));
    is_replaced_under_load(&served(&gunicorn, &words("unix:{socket}"), "listen = \"unix\""));
}

#[test]
fn uvicorn_on_a_port_and_on_a_socket() {
    let uvicorn = installed("uvicorn");
    is_replaced_under_load(&served(&uvicorn, &["--port", "{port}", "app:asgi"], ""));
    is_replaced_under_load(&served(&uvicorn, &["--uds", "{socket}", "app:asgi"], "listen = \"unix\""));
}

#[test]
fn a_cluster_of_node() {
    is_replaced_under_load(&served(&tool::find(&["node"], "nodejs"), &["cluster.js"], ""));
}

/// Each instance leaves what it has not accepted to the others, and no connection is refused meanwhile.
#[test]
fn instances_that_share_a_socket() {
    let node = tool::find(&["node"], "nodejs");
    is_replaced_under_load(&served(&node, &["shared.js", "{fd}"], "listen = \"shared\""));
    let uvicorn = installed("uvicorn");
    is_replaced_under_load(&served(&uvicorn, &["--fd", "{fd}", "app:asgi"], "listen = \"shared\""));
    let gunicorn = installed("gunicorn");
    // It finds the socket by itself, as a service of systemd does.
    let words = ["--workers", "2", "app:wsgi"];
    is_replaced_under_load(&served(&gunicorn, &words, "listen = \"shared\""));
}

#[test]
fn phps_own_server() {
    let php = tool::find(&["php"], "php-cli");
    is_replaced_under_load(&served(&php, &["-S", "127.0.0.1:{port}", "index.php"], ""));
}

#[test]
fn php_fpm_behind_nginx() {
    // Debian puts the version into the name; a number of versions may be there.
    let versions = ["php-fpm8.4", "php-fpm8.3", "php-fpm8.2", "php-fpm8.1", "php-fpm"];
    let (fpm, nginx) = (tool::find(&versions, "php-fpm"), tool::find(&["nginx"], "nginx-light"));
    let [fpm, nginx] = [fpm, nginx].map(|program| program.display().to_string());
    let words = ["fpm.sh", "{port}", &fpm, &nginx];
    is_replaced_under_load(&served(&tool::find(&["sh"], "dash"), &words, "stop_signal = \"QUIT\""));
}
