//! Programs that the edge runs: real ones, in Node and in the shell, under load while they are replaced.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use gatehouse_tests::{
    address, binaries,
    curl::Curl,
    edge::{Edge, Setup},
    folder::Folder,
    raw::Raw,
    tool, wait,
};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// An app as its author wrote it: it knows nothing of the edge, and ends at once when it is told to.
const APP: &str = r#"
const http = require("http");
if (require("fs").existsSync("broken")) { console.log("cannot go on"); process.exit(9); }
const kept = [];
http.createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    if (request.url == "/exit") process.exit(3);
    if (request.url == "/grow") { for (let i = 0; i < 128; i++) kept.push(Buffer.alloc(1 << 20, 1)); }
    if (request.url == "/print") console.log("asked to print");
    const answer = () => { response.setHeader("cache-control", "no-store"); response.end(String(process.pid)); };
    setTimeout(answer, request.url == "/slow" ? 300 : 0);
  });
}).listen(process.env.SOCKET || { port: process.env.PORT, host: "127.0.0.1" },
  () => console.log("listening", process.env.COLOUR || "without a colour"));
"#;

/// One that tells of itself at a port of its own, in the manner that a file names.
const TELLING_APP: &str = r#"
const http = require("http"), fs = require("fs");
if (fs.existsSync("broken")) process.exit(9);
http.createServer((request, response) => response.end("a page")).listen(process.env.PORT, "127.0.0.1");
http.createServer((request, response) => {
  const manner = fs.existsSync("manner") ? fs.readFileSync("manner", "utf8") : "";
  response.statusCode = manner == "failing" ? 500 : 200;
  response.setHeader("content-type", manner == "a page" ? "text/html" : "text/plain; version=0.0.4; charset=utf-8");
  if (manner == "coded") response.setHeader("content-encoding", "gzip");
  response.write(`# TYPE told gauge
told{pid="${process.pid}",url="${request.url}",accept="${request.headers.accept}"} 1
`);
  if (manner == "long") response.write(Buffer.alloc(5 << 20, 35));
  if (manner == "breaking off") return setImmediate(() => response.destroy());
  response.end();
}).listen(process.env.OWN_PORT, "127.0.0.1");
"#;

/// Settings over one command `app`, with this in its table.
fn settings(lines: &str) -> String {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let node = tool::find(&["node"], "nodejs");
    let run = format!("run = [\"{}\", \"app.js\"]\n", node.display());
    let run = if lines.contains("run = ") { "" } else { &run };
    let ready = if lines.contains("ready = ") { "" } else { "ready = \"/\"\n" };
    let table = format!("[commands.app]\nready_interval = \"50ms\"\n{run}{ready}{lines}");
    let text = Setup::over_address(nowhere).admin(address::own()).tables(&table).text();
    text.replace("http://127.0.0.1:1\"", "command:app\"")
}

fn start(settings: &str) -> Edge {
    let folder = Folder::new();
    folder.write("app.js", APP);
    start_in(folder, settings)
}

fn start_in(folder: Folder, settings: &str) -> Edge {
    folder.write("edge.toml", settings);
    Edge::start_in(folder)
}

/// Runs `edge` with these arguments beside a running one; its exit code, and both outputs.
fn edge(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(binaries::edge())
        .args(arguments)
        .args(["--config", "edge.toml"])
        .current_dir(folder)
        .output()
        .unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// The process ids of the ready instances, as `edge ps` shows them.
fn ready(edge_: &Edge) -> BTreeSet<String> {
    let (code, table) = edge(edge_.folder(), &["ps"]);
    assert_eq!(code, Some(0), "{table}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(4) == Some(&"ready")).map(|row| row[2].to_owned()).collect()
}

fn until_ready(edge: &Edge, count: usize) -> BTreeSet<String> {
    wait::until("so many instances are ready", || Some(ready(edge)).filter(|ready| ready.len() == count))
}

/// Does something while clients send requests without a pause, each on its connection, and counts those that were answered
/// with 200. Any other answer, and any that does not come, fails the test.
fn under_load<T>(address: SocketAddr, work: impl FnOnce() -> T) -> (usize, T) {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let requests = [
        "GET /quick HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET /slow HTTP/1.1\r\nHost: app\r\n\r\n",
        "POST /quick HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody",
        "POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody",
    ];
    let result = thread::scope(|scope| {
        for request in requests.iter().cycle().take(2 * requests.len()) {
            let (over, answered) = (&over, &answered);
            scope.spawn(move || {
                let mut client = Raw::connect(address);
                while !over.load(Ordering::Relaxed) {
                    let answer = client.send(request).answer();
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    assert_eq!(answer.status, 200, "{request}\n{}\n{text}", answer.head);
                    assert!(text.parse::<u32>().is_ok(), "{text}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        result
    });
    let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    (answered.into_inner(), result)
}

#[test]
fn a_restart_replaces_every_instance_and_fails_no_request() {
    let mut running = start(&settings("instances = 3\n"));
    let before = until_ready(&running, 3);
    let (answered, (code, said)) =
        under_load(running.clear(), || edge(running.folder(), &["restart", "app"]));
    assert_eq!(code, Some(0), "{said}");
    let steps: Vec<&str> = said.lines().collect();
    let expected = [
        "app: 1 of 3 new and ready",
        "app: 2 of 3 new and ready",
        "app: 3 of 3 new and ready",
        "app is restarted",
    ];
    assert_eq!(steps, expected);
    let after = until_ready(&running, 3);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    assert!(answered > 50, "{answered}");
    assert!(!running.process().lines().iter().any(|line| line.contains("ended by itself")));
}

#[test]
fn a_restart_whose_new_instance_fails_changes_nothing_and_says_why() {
    let mut running = start(&settings("instances = 2\n"));
    let before = until_ready(&running, 2);
    fs::write(running.folder().join("broken"), "").unwrap();
    let (_, (code, said)) = under_load(running.clear(), || edge(running.folder(), &["restart", "app"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is given up: app.1 ended by itself: exit status: 9"), "{said}");
    assert_eq!(ready(&running), before);
    fs::remove_file(running.folder().join("broken")).unwrap();
    assert_eq!(edge(running.folder(), &["restart", "app"]).0, Some(0));
    assert!(before.is_disjoint(&until_ready(&running, 2)));
    let (code, said) = edge(running.folder(), &["restart", "no-such"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no command \"no-such\", but app"), "{said}");
    assert!(running.stop().success());
}

#[test]
fn a_reload_replaces_the_instances_of_a_changed_command_and_fails_no_request() {
    let before = settings("instances = 3\nenvironment = { COLOUR = \"red\" }\n");
    let mut running = start(&before);
    let old = until_ready(&running, 3);
    let clear = running.clear();
    let (answered, new) = under_load(clear, || {
        running.reload(&before.replace("red", "green"));
        wait::until("all are new", || {
            Some(ready(&running)).filter(|new| new.len() == 3 && new.is_disjoint(&old))
        })
    });
    assert!(answered > 50 && new.len() == 3, "{answered}");
    let green = |line: &&String| line.contains("listening green");
    wait::until("each says so", || {
        (running.process().lines().iter().filter(green).count() == 3).then_some(())
    });
}

#[test]
fn a_change_of_watched_files_replaces_the_instances_and_fails_no_request() {
    let mut running = start(&settings("instances = 2\nwatch = [\"app.js\"]\n"));
    let old = until_ready(&running, 2);
    let folder = running.folder().to_owned();
    under_load(running.clear(), || {
        fs::write(folder.join("app.js"), format!("{APP}\n// changed")).unwrap();
        wait::until("all are new", || {
            Some(ready(&running)).filter(|new| new.len() == 2 && new.is_disjoint(&old))
        })
    });
    let told = |line: &&String| line.contains("files of app have changed");
    assert_eq!(running.process().lines().iter().filter(told).count(), 1);
}

#[test]
fn what_is_printed_is_shown_and_followed() {
    let running = start(&settings(""));
    until_ready(&running, 1);
    let (code, said) = edge(running.folder(), &["logs", "app", "-n", "1"]);
    assert_eq!((code, said.as_str()), (Some(0), "app.1 | listening without a colour\n"));

    let mut follow = Command::new(binaries::edge());
    follow.args(["logs", "app", "--follow", "--config", "edge.toml"]).current_dir(running.folder());
    let mut follower = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "app.1 | listening without a colour");
    assert_eq!(running.get("/print").status, 200);
    assert_eq!(lines.next().unwrap().unwrap(), "app.1 | asked to print");
    // Whoever has seen enough leaves, and its place is free again: more come than have one at once.
    follower.kill().unwrap();
    follower.wait().unwrap();
    for _ in 0..20 {
        wait::until("there is a place", || {
            let mut follower = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let line = BufReader::new(follower.stdout.take().unwrap()).lines().next();
            follower.kill().unwrap();
            follower.wait().unwrap();
            line.map(|line| assert!(line.unwrap().starts_with("app.1 | ")))
        });
    }
}

/// What a program prints may hold anything: a web page whose name leads to this machine must not read it.
#[test]
fn what_is_printed_is_for_those_alone_who_may_change_something() {
    let running = start(&settings(""));
    until_ready(&running, 1);
    let ask = |fields: &str| {
        let content = "{\"command\":\"app\",\"lines\":1}";
        let mut raw = Raw::connect(running.admin());
        raw.send(format!(
            "POST /logs HTTP/1.1\r\nConnection: close\r\n{fields}\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        ));
        raw.answer().status
    };
    assert_eq!(ask("Host: localhost\r\nContent-Type: application/json"), 200);
    assert_eq!(ask("Host: rebound.example\r\nContent-Type: application/json"), 403);
    assert_eq!(ask("Host: localhost\r\nContent-Type: text/plain"), 415);
}

/// A command that failed was told with each failure, and nothing told an accident from a loop.
#[test]
fn a_command_that_fails_again_and_again_is_told_once_with_what_it_printed() {
    let lines = "ready = \"tcp\"\nrun = [\"sh\", \"-c\", \"echo reason; exit 7\"]\ninstances = 2\n";
    let folder = Folder::new();
    folder.write("edge.toml", &settings(lines));
    let mut command = Command::new(binaries::edge());
    command.args(["run", "--config", "edge.toml"]).current_dir(folder.path());
    let mut process = gatehouse_tests::process::Process::start("edge", &mut command);
    let verdict = |line: &str| line.contains("fails again and again").then(|| line.to_owned());
    let line = process.wait_for_line("the verdict", verdict);
    for part in
        ["ERROR", "command app", "5 times in", "ended by itself: exit status: 7", "tried again in", "reason"]
    {
        assert!(line.replace("app fails", "command app fails").contains(part), "{part}: {line}");
    }
    let (code, table) = edge(folder.path(), &["ps"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("waiting") && table.contains("exit status: 7"), "{table}");
    assert_eq!(process.lines().iter().filter_map(|line| verdict(line)).count(), 1);
    assert!(process.stop().success());
}

#[test]
fn readiness_says_why_no_instance_is_ready() {
    let running = start(&settings(""));
    until_ready(&running, 1);
    fs::write(running.folder().join("broken"), "").unwrap();
    let _ = running.curl("/exit").send();
    wait::until("the failure is told", || {
        let mut raw = Raw::connect(running.admin());
        let answer =
            raw.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").answer();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        text.contains("no instance of command app is ready: app.1 ").then_some(())?;
        text.contains("exit status: 9").then_some(())
    });
}

#[test]
fn an_instance_that_outgrows_its_memory_is_replaced_and_no_request_fails() {
    let mut running = start(&settings("memory = \"128 MiB\"\n"));
    let before = until_ready(&running, 1);
    let clear = running.clear();
    under_load(clear, || {
        assert_eq!(running.get("/grow").status, 200);
        wait::until("another one serves", || {
            Some(ready(&running)).filter(|ready| ready.len() == 1 && ready.is_disjoint(&before))
        });
    });
    let told = running.process().lines();
    assert!(
        told.iter().any(|line| line.contains("app.1 uses ") && line.contains("its 128 MiB")),
        "{told:#?}"
    );
    assert!(!told.iter().any(|line| line.contains("ended by itself")));
}

#[test]
fn instances_may_listen_on_unix_sockets_that_nobody_else_reaches() {
    let mut running = start(&settings("instances = 2\nlisten = \"unix\"\n"));
    until_ready(&running, 2);
    let (_, table) = edge(running.folder(), &["ps"]);
    let socket = table.split_whitespace().find_map(|word| word.strip_prefix("unix:")).unwrap().to_owned();
    let (answered, (code, said)) =
        under_load(running.clear(), || edge(running.folder(), &["restart", "app"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(answered > 50);
    let folder = Path::new(&socket).parent().unwrap();
    let open = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder).unwrap().permissions()) & 0o777;
    assert_eq!(open, 0o700);
    assert!(running.stop().success());
    assert!(!folder.parent().unwrap().exists(), "nothing is left of the sockets");
}

#[test]
fn output_goes_to_a_file_that_may_be_rotated() {
    let text = settings("output = \"app.log\"\n");
    let mut running = start(&text);
    until_ready(&running, 1);
    let log = running.folder().join("app.log");
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    wait::until("it is written", || (read(&log) == "app.1 | listening without a colour\n").then_some(()));
    fs::rename(&log, running.folder().join("app.log.1")).unwrap();
    // Also when the settings are refused: the file has been renamed all the same.
    assert!(running.reload("wrong").contains("refused"));
    assert_eq!(running.get("/print").status, 200);
    wait::until("it goes on in a new file", || (read(&log) == "app.1 | asked to print\n").then_some(()));
    assert!(!running.process().lines().iter().any(|line| line.contains("asked to print")));
}

#[test]
fn a_file_of_variables_is_read_at_each_start() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    folder.write(".env", "# of the app\nexport COLOUR='deep blue'\nPORT=1\n");
    let mut running = start_in(folder, &settings("env_file = \".env\"\n"));
    until_ready(&running, 1);
    fs::write(running.folder().join(".env"), "COLOUR=yellow\n").unwrap();
    assert_eq!(edge(running.folder(), &["restart", "app"]).0, Some(0));
    for colour in ["listening deep blue", "listening yellow"] {
        // What a program prints takes its own way to the log.
        running.process().wait_for_line(colour, |line| line.contains(colour).then_some(()));
    }
    fs::write(running.folder().join(".env"), "COLOUR=yellow\nwhat is this\n").unwrap();
    let (code, said) = edge(running.folder(), &["check"]);
    assert_eq!(code, Some(1));
    assert!(said.contains(".env:2: this is no line NAME=value"), "{said}");
    let (code, said) = edge(running.folder(), &["restart", "app"]);
    assert_eq!(code, Some(1));
    assert!(said.contains(".env:2"), "{said}");
    assert_eq!(running.get("/").status, 200, "the old one serves");
}

#[test]
fn the_signal_that_stops_it_is_the_operators_choice() {
    let script = "trap 'echo asked by INT; exit 0' INT; trap 'echo asked by TERM; exit 0' TERM; echo is up now; \
                  while :; do sleep 0.05; done";
    let lines = format!("ready = \"tcp\"\nrun = [\"sh\", \"-c\", \"{script}\"]\nstop_signal = \"INT\"\n");
    let folder = Folder::new();
    folder.write("edge.toml", &settings(&lines));
    let mut command = Command::new(binaries::edge());
    command.args(["run", "--config", "edge.toml"]).current_dir(folder.path());
    let mut process = gatehouse_tests::process::Process::start("edge", &mut command);
    process.wait_for_line("that it is up", |line| line.contains("is up now").then_some(()));
    process.signal(Signal::TERM);
    process.wait_for_line("the signal", |line| line.contains("asked by INT").then_some(()));
    assert!(process.wait().success());
}

/// As root it becomes another user, without root's groups and with that user's home; otherwise it is told that it cannot.
#[test]
fn only_root_runs_a_program_as_somebody_else() {
    let lines = "user = \"nobody\"\nlisten = \"unix\"\n";
    if !geteuid().is_root() {
        let folder = Folder::new();
        folder.write("edge.toml", &settings(lines));
        let (code, said) = edge(folder.path(), &["check"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("only root may run a program as another user"), "{said}");
        return;
    }
    let app = format!(
        "{APP}\nconsole.log('ids', process.getuid(), JSON.stringify(process.getgroups()), process.env.USER);"
    );
    let folder = Folder::new();
    folder.write("app.js", &app);
    let mut running = start_in(folder, &settings(lines));
    until_ready(&running, 1);
    assert_eq!(running.get("/").status, 200, "its socket is its own and the edge's");
    let ids = tool::run(&tool::find(&["id"], "coreutils"), ["-u", "nobody"]);
    let group = tool::run(&tool::find(&["id"], "coreutils"), ["-g", "nobody"]);
    let expected = format!("ids {} [{}] nobody", ids.trim(), group.trim());
    running.process().wait_for_line(&expected, |line| line.contains(&expected).then_some(()));
    assert!(running.stop().success());
}

#[test]
fn instances_may_be_one_a_core() {
    let cores = thread::available_parallelism().unwrap().get();
    let running = start(&settings("instances = \"cores\"\n"));
    until_ready(&running, cores.min(256));
}

#[test]
fn each_instance_tells_its_metrics_under_a_name_that_stays() {
    let folder = Folder::new();
    folder.write("app.js", TELLING_APP);
    let edge_ =
        start_in(folder, &settings("instances = 2\nadmin_port = \"OWN_PORT\"\nmetrics = \"/metrics?all\"\n"));
    wait::until("both are ready", || (ready(&edge_).len() == 2).then_some(()));
    let ask = |path: &str| Curl::clear(edge_.admin(), path);
    let targets = ask("/commands/targets").send();
    assert_eq!((targets.status, targets.must("content-type")), (200, "application/json"));
    let labels = |number: u32| {
        serde_json::json!({
            "targets": [edge_.admin().to_string()],
            "labels": {
                "__metrics_path__": format!("/commands/app/{number}/metrics"), "instance": format!("app.{number}"), "job": "app"
            },
        })
    };
    assert_eq!(targets.json(), serde_json::json!([labels(1), labels(2)]));

    let told = |number: u32| {
        let wanted = "Accept: application/openmetrics-text;version=1.0.0";
        let answer = ask(&format!("/commands/app/{number}/metrics")).header(wanted).send();
        assert_eq!(answer.status, 200, "{answer:#?}");
        assert_eq!(answer.must("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.text();
        assert!(
            text.contains("url=\"/metrics?all\"") && text.contains("accept=\"application/openmetrics"),
            "{text}"
        );
        text.split_once("pid=\"").unwrap().1.split_once('"').unwrap().0.to_owned()
    };
    let before = BTreeSet::from([told(1), told(2)]);
    assert_eq!(before, ready(&edge_));
    assert_eq!(edge(edge_.folder(), &["restart", "app"]).0, Some(0));
    let after = BTreeSet::from([told(1), told(2)]);
    assert!(
        after.len() == 2 && after.is_disjoint(&before),
        "the same names, other processes: {before:?} {after:?}"
    );

    // Only an operator reads, and nobody is handed a page in the name of this listener.
    assert_eq!(ask("/commands/app/1/metrics").header("Host: evil.test").send().status, 403);
    assert_eq!(ask("/commands/app/1/metrics").post("POST", "").send().status, 405);
    for path in [
        "app/3/metrics",
        "app/0/metrics",
        "app/01/metrics",
        "other/1/metrics",
        "app/metrics",
        "app/1/metrics/",
        "",
    ] {
        let answer = ask(&format!("/commands/{path}")).send();
        assert_eq!(answer.status, 404, "{path}: {answer:#?}");
    }
    for (manner, said) in [
        ("failing", "the answer is 500"),
        ("a page", "\"text/html\" is no format of metrics"),
        ("coded", "they are coded as \"gzip\""),
        ("long", "they are longer than 4 MiB"),
        ("breaking off", "the answer breaks off"),
    ] {
        fs::write(edge_.folder().join("manner"), manner).unwrap();
        let answer = ask("/commands/app/1/metrics").send();
        answer.assert_problem(502);
        assert!(
            answer.text().contains("app.1") && answer.text().contains(&said.replace('"', "\\\"")),
            "{}",
            answer.text()
        );
    }
    fs::remove_file(edge_.folder().join("manner")).unwrap();

    // One that does not run is listed, and says why.
    fs::write(edge_.folder().join("broken"), "").unwrap();
    let pid = told(2).parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let away = wait::until("it is away", || {
        Some(ask("/commands/app/2/metrics").send()).filter(|answer| answer.status == 503)
    });
    assert!(away.text().contains("app.2"), "{}", away.text());
    assert_eq!(ask("/commands/targets").send().json(), targets.json());
}
