//! What somebody does in the first five minutes: no file, a file that is made, files that include others, and a file of nginx.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
};

use gatehouse_tests::{
    address, binaries,
    curl::Curl,
    edge::Edge,
    folder::Folder,
    process::Process,
    raw::Raw,
    tool,
    upstream::{Reply, Upstream},
    wait,
};
use rustix::process::{Pid, Signal};

/// Runs `edge` in a folder; its exit code, and both outputs.
fn edge(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binaries::edge());
    command.args(arguments).current_dir(folder).env("XDG_DATA_HOME", folder.join("data"));
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// `edge run` in a folder.
fn run(folder: &Folder, arguments: &[&str]) -> Process {
    let mut command = Command::new(binaries::edge());
    command.arg("run").args(arguments).current_dir(folder.path());
    command.env("XDG_DATA_HOME", folder.path().join("data"));
    Process::start("edge", &mut command)
}

/// The address that stands behind some words of its log.
fn told(process: &mut Process, before: &str) -> SocketAddr {
    process.wait_for_line(before, |line| {
        let rest = line.split_once(before)?.1;
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter));
        rest[..end.unwrap_or(rest.len())].parse().ok()
    })
}

fn shop() -> Upstream {
    Upstream::start(|_| Reply::ok("hello").cache_control("public, max-age=600"))
}

#[test]
fn an_app_is_served_without_a_file_and_the_commands_find_the_edge() {
    let upstream = shop();
    let folder = Folder::new();
    let to = upstream.address().to_string();
    let mut running = run(
        &folder,
        &[
            "--to",
            &to,
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "https://127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ],
    );
    let [clear, tls, admin] = ["listening on http://", "listening on https://", "admin on http://"]
        .map(|before| told(&mut running, before));
    running.wait_for_line("it is ready", |line| line.contains("ready").then_some(()));
    let authority = folder.path().join("data/gatehouse/ca.pem");
    assert_eq!(Curl::clear(clear, "/").send().text(), "hello");
    assert!(!Curl::tls(tls, &authority, "/").h2().send().is_hit(), "https is another key");
    assert!(Curl::tls(tls, &authority, "/").h2().send().is_hit());

    let admin = admin.to_string();
    let (code, said) = edge(folder.path(), &["purge", "--all", "--admin", &admin]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("2 stored responses purged"), "{said}");
    let (code, said) = edge(folder.path(), &["reload", "--admin", &admin]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("there is no file to read again: nothing changed"), "{said}");
    running.signal(Signal::HUP);
    wait::until("it is told at SIGHUP too", || {
        let said = running.lines().iter().filter(|line| line.contains("no file to read again")).count();
        (said == 2).then_some(())
    });
    assert_eq!(Curl::clear(clear, "/").send().status, 200);

    let (code, said) = edge(folder.path(), &["purge", "--admin", &admin]);
    assert!(code == Some(2) && said.contains("--url") && said.contains("--all"), "{said}");
    let (code, said) = edge(folder.path(), &["run"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no edge.toml here") && said.contains("edge run --to :3000"), "{said}");
}

#[test]
fn what_init_writes_for_an_app_is_run_from_its_folder() {
    let upstream = shop();
    let folder = Folder::new();
    folder.write("package.json", r#"{"main":"app.js","dependencies":{"express":"5"}}"#);
    folder.write("app.js", &format!("app.listen({})", upstream.address().port()));
    let (code, said) = edge(folder.path(), &["init"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("edge check") && said.contains("https://localhost:8443"), "{said}");
    let (code, said) = edge(folder.path(), &["init"]);
    assert_eq!((code, said.contains("stays as it is")), (Some(1), true), "{said}");
    let (code, said) = edge(folder.path(), &["check"]);
    assert_eq!((code, said.contains("edge.toml: ok: 2 listeners")), (Some(0), true), "{said}");
    let (code, said) = edge(folder.path(), &["fmt", "--check"]);
    assert_eq!(code, Some(0), "{said}");

    let file = folder.path().join("edge.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for public in ["\"[::]:8080\"", "\"[::]:8443\"", "\"127.0.0.1:9900\""] {
        text = text.replace(public, "\"127.0.0.1:0\"");
    }
    fs::write(&file, text).unwrap();
    let mut running = run(&folder, &[]);
    let tls = told(&mut running, "listening on https://");
    let authority = folder.path().join("data/gatehouse/ca.pem");
    assert_eq!(Curl::tls(tls, &authority, "/").h2().send().text(), "hello");
    assert!(!folder.path().join("certs").exists(), "no key lies where an app may serve it");
}

/// A WordPress lies where its web server serves everything.
#[test]
fn what_init_writes_beside_wordpress_gives_nothing_of_the_edge_away() {
    let upstream = shop();
    let folder = Folder::new();
    folder.write("wp-config.php", "");
    assert_eq!(edge(folder.path(), &["init"]).0, Some(0));
    let mut text = fs::read_to_string(folder.path().join("edge.toml")).unwrap();
    for public in ["\"[::]:8080\"", "\"[::]:8443\"", "\"127.0.0.1:9900\""] {
        text = text.replace(public, "\"127.0.0.1:0\"");
    }
    folder.write("edge.toml", &text.replace("127.0.0.1:8081", &upstream.address().to_string()));
    let mut running = run(&folder, &[]);
    let [clear, tls] =
        ["listening on http://", "listening on https://"].map(|before| told(&mut running, before));
    let authority = folder.path().join("data/gatehouse/ca.pem");
    for path in ["/edge.toml", "/edge.schema.json", "/certs/acme/account.key"] {
        assert_eq!(Curl::tls(tls, &authority, path).h2().send().status, 404, "{path}");
        assert_eq!(Curl::clear(clear, path).send().status, 404, "{path}");
    }
    let sent_on = Curl::clear(clear, "/a").send();
    assert_eq!(sent_on.status, 308);
    assert!(sent_on.must("location").starts_with("https://127.0.0.1:"), "{sent_on:?}");
    assert_eq!(Curl::tls(tls, &authority, "/a").h2().send().text(), "hello");
    assert_eq!(Curl::tls(tls, &authority, "/a").method("PURGE").send().status, 200);
}

/// Where people read it, the log is written for people.
#[test]
fn at_a_terminal_the_log_is_for_people() {
    let upstream = shop();
    let folder = Folder::new();
    let (edge, to) = (binaries::edge().display(), upstream.address());
    let addresses = "--listen 127.0.0.1:0 --listen https://127.0.0.1:0 --admin 127.0.0.1:0";
    // The terminal goes with `script`, the edge within a minute whatever becomes of the test.
    let run = format!("exec timeout --foreground 60 {edge} run --to {to} {addresses}");
    let mut terminal = Command::new(tool::find(&["script"], "bsdutils"));
    terminal.args(["-qefc", &run, "/dev/null"]).current_dir(folder.path());
    terminal.env("XDG_DATA_HOME", folder.path().join("data")).env("NO_COLOR", "1");
    let mut running = Process::start_group("script", &mut terminal);
    let clear = told(&mut running, "listening on http://");
    running.wait_for_line("what is to be done stands in lines", |line| {
        line.trim_start().starts_with("edge trust --ca").then_some(())
    });
    assert_eq!(Curl::clear(clear, "/a").send().status, 200);
    running.wait_for_line("the request's line", |line| {
        (line.contains("GET") && line.contains("/a") && !line.contains('{')).then_some(())
    });
    let children = format!("/proc/{0}/task/{0}/children", running.id());
    let timeout = fs::read_to_string(children).unwrap().trim().parse().ok().and_then(Pid::from_raw);
    rustix::process::kill_process(timeout.expect("it runs"), Signal::TERM).unwrap();
    running.wait();
}

#[test]
fn included_files_are_reloaded_and_a_fault_names_its_own() {
    let upstream = shop();
    let folder = Folder::new();
    let text = Edge::over(&upstream).top("include = [\"conf.d/*.toml\"]\nwatch = true").text();
    folder.write("edge.toml", &text);
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let answer = |text: &str| {
        format!(
            "[[routes]]\nname = \"a\"\npath = \"/a\"\nhosts = [\"${{HOST_OF_A:-a.test}}\"]\nrespond = {text}\n"
        )
    };
    let mut edge = Edge::start_in(folder);
    let a = |edge: &Edge| edge.curl("/a").header("host: a.test").send().status;
    assert_eq!(a(&edge), 200);
    let file = edge.folder().join("conf.d/a.toml");
    // The upstream's route is before it, and takes all.
    fs::write(&file, answer("410")).unwrap();
    let refused = wait::until("an unreachable route is refused", || {
        edge.process().lines().iter().find(|line| line.contains("unreachable")).cloned()
    });
    assert!(refused.contains("conf.d/a.toml:3") && refused.contains("of edge.toml"), "{refused}");
    let main = edge.folder().join("edge.toml");
    fs::write(&main, text.replace("path = \"/*\"", "path = \"/*\"\nhosts = [\"b.test\"]")).unwrap();
    wait::until("what is included counts", || (a(&edge) == 410).then_some(()));
    fs::write(&file, answer("411")).unwrap();
    wait::until("and is seen when it changes", || (a(&edge) == 411).then_some(()));
}

#[test]
fn what_is_in_force_by_each_recipe_is_a_file_again() {
    let folder = crate::recipes::place();
    let program = folder.path().join("venv/bin/gunicorn");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    for recipe in crate::recipes::recipes() {
        let file = recipe.join("edge.toml");
        let Output { status, stdout, .. } = Command::new(binaries::edge())
            .args(["check", "--effective", "--config"])
            .arg(&file)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(status.success(), "{}", file.display());
        folder.write("effective.toml", &String::from_utf8(stdout).unwrap());
        let (code, said) = edge(folder.path(), &["check", "--config", "effective.toml"]);
        assert_eq!(code, Some(0), "{}: {said}", file.display());
    }
}

/// The same requests, to nginx and to the edge with what was made of nginx's file.
#[test]
fn what_is_imported_answers_as_nginx_does() {
    let upstream = Upstream::start(|seen| {
        Reply::ok(format!("{} {}", seen.target, seen.header("x-tenant"))).cache_control("no-store")
    });
    let folder = Folder::new();
    folder.write("site/index.html", "the page");
    folder.write("site/static/a.css", "a{}");
    let (nginx, app, root) = (address::own(), upstream.address(), folder.path().display().to_string());
    let server = format!(
        r#"server {{
  listen {nginx};
  server_name _;
  add_header X-Frame-Options DENY;
  location / {{ root {root}/site; try_files $uri $uri/ /index.html; index index.html; }}
  location /static/ {{ root {root}/site; expires 1h; }}
  location = /ping {{ return 200 "pong"; }}
  location /old/ {{ return 301 /new$request_uri; }}
  location /app/ {{ proxy_pass http://{app}; proxy_set_header Host $host; proxy_set_header X-Tenant shop; }}
  location /cut/ {{ proxy_pass http://{app}/; proxy_set_header Host $host; proxy_set_header X-Tenant shop; }}
  location /gone/ {{ return 410; }}
}}
"#
    );
    folder.write("site.conf", &server);
    folder.write(
        "nginx.conf",
        &format!(
            "user root; pid {root}/nginx.pid; daemon off; error_log stderr; events {{}}\nhttp {{ access_log off; types {{ text/html html; text/css css; }}\n\
             client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; \
             scgi_temp_path {root}/t5;\ninclude {root}/site.conf; }}\n"
        ),
    );
    let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-p", &root, "-c", "nginx.conf"]);
    let _nginx = Process::start("nginx", &mut command);
    wait::until("nginx answers", || Raw::try_connect(nginx).map(drop));

    let Output { status, stdout, stderr } = Command::new(binaries::edge())
        .args(["import", "site.conf"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let left = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), left.as_str()), (Some(0), ""));
    let text = String::from_utf8(stdout).unwrap();
    let text = text.replace(&nginx.to_string(), "127.0.0.1:0").replace("127.0.0.1:9900", "127.0.0.1:0");
    folder.write("edge.toml", &text);
    let mut running = run(&folder, &[]);
    let clear = told(&mut running, "listening on http://");
    for path in [
        "/",
        "/deep/link",
        "/static/a.css",
        "/static/none.css",
        "/ping",
        "/old/a?b=c",
        "/app/x?y",
        "/cut/x/y",
        "/gone/",
    ] {
        let [one, other] = [nginx, clear].map(|address| Curl::clear(address, path).send());
        assert_eq!(one.status, other.status, "{path}\n{text}");
        if one.status == 200 {
            assert_eq!(one.text(), other.text(), "{path}\n{text}");
            assert_eq!(one.header("x-frame-options"), other.header("x-frame-options"), "{path}");
        }
        if path.ends_with("a.css") {
            assert_eq!(one.must("cache-control"), other.must("cache-control"), "{path}\n{text}");
        }
        let path_of = |location: Option<&str>| {
            location.map(|location| {
                location.replacen(&format!("http://{nginx}"), "", 1).replacen(
                    &format!("http://{clear}"),
                    "",
                    1,
                )
            })
        };
        assert_eq!(path_of(one.header("location")), path_of(other.header("location")), "{path}\n{text}");
    }
}
