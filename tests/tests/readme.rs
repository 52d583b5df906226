//! A stranger follows README.md: the very commands it prints, in a copy of what the repository holds.
//!
//! The demo's ports are fixed (8080, 8443, 9900), so this test needs them free and says so when they are not.
#![expect(clippy::unwrap_used, reason = "a test that unwraps says where")]

use std::{
    collections::BTreeSet,
    fs::File,
    net::{SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use gatehouse_tests::{
    binaries::{self, build_folder, repository},
    curl::Curl,
    edge::assert_nothing_left,
    folder::Folder,
    load,
    process::Process,
    tool, wait,
};
use rustix::process::Signal;

#[test]
fn make_run_starts_the_shop_as_the_readme_says() {
    let commands = commands_of_the_readme();
    assert!(commands.iter().any(|command| command == "make test"), "README.md names make test: {commands:?}");
    let run = commands.iter().find(|command| *command == "make run").expect("README.md names make run");
    for port in [8080, 8443, 9900] {
        if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
            panic!("port {port} is taken ({error}): stop what listens there; the demo is about to");
        }
    }
    let _up_to_date = (binaries::edge(), binaries::origin());
    let copy = Folder::new();
    copy_repository(copy.path());

    let mut words = run.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir(copy.path()).env("GATEHOUSE_TEST_FOLDER", copy.path());
    // Cargo gives its own settings to tests; a stranger's shell has none of them. Whether it builds by increments it was told, and
    // what was built in another way is built again.
    for (name, _) in std::env::vars_os() {
        let is_kept = name == "CARGO_HOME" || name == "CARGO_INCREMENTAL";
        if name.to_string_lossy().starts_with("CARGO") && !is_kept {
            command.env_remove(name);
        }
    }
    let mut project = Process::start_group("make run", &mut command);

    let [clear, tls]: [SocketAddr; 2] =
        ["127.0.0.1:8080", "127.0.0.1:8443"].map(|address| address.parse().unwrap());
    let authority = copy.path().join("certs/ca.pem");
    let page = wait::until_within(20 * wait::PATIENCE, || {
        assert!(project.ended().is_none(), "make run ended");
        Curl::tls(tls, &authority, "/").h2().start().result().ok().filter(|page| page.status == 200)
    });
    let page = page.expect("the shop answers");
    assert_eq!(page.version, "HTTP/2");
    assert!(page.text().contains("<html"), "{}", page.text());
    let products = Curl::tls(tls, &authority, "/api/products").h2().send();
    assert!(!products.json()["products"].as_array().unwrap().is_empty());
    assert!(Curl::tls(tls, &authority, "/api/products").h2().send().is_hit());

    // The capacity guide's own words: ab -n 200 -c 200 http://localhost:8080/
    for path in ["/", "/api/products"] {
        let ab = load::ab(clear, path, 200, 200);
        assert_eq!((ab.complete, ab.failed, ab.not_2xx), (200, 0, 0), "{path}: {ab:?}");
    }
    let h2load = load::h2load(tls, "/", 1_000, 200, 5);
    assert_eq!((h2load.complete, h2load.failed, h2load.not_2xx), (1_000, 0, 0), "{h2load:?}");

    // Ctrl-C in a terminal reaches the whole group.
    project.signal_group(Signal::INT);
    project.wait();
    assert_nothing_left(copy.path());
}

/// Lines of the README's shell blocks, without comments.
fn commands_of_the_readme() -> Vec<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks = readme.split("```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    let lines =
        shell.flat_map(str::lines).map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// Copies every file that git knows or would take, with its times, and shares the build folder: cargo finds everything built.
fn copy_repository(into: &Path) {
    let git = tool::find(&["git"], "git");
    let root = repository();
    let listing = tool::run(
        &git,
        ["-C", root.to_str().unwrap(), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    );
    let mut folders = BTreeSet::new();
    for name in listing.split('\0').filter(|name| !name.is_empty()).map(Path::new) {
        if repository().join(name).is_file() {
            let parent = into.join(name).parent().unwrap().to_owned();
            std::fs::create_dir_all(parent).unwrap();
            std::fs::copy(repository().join(name), into.join(name)).unwrap();
            copy_times(name, into);
            folders.extend(name.ancestors().skip(1));
        }
    }
    // After the files in them; build scripts watch folders, too.
    for folder in folders {
        copy_times(folder, into);
    }
    symlink(build_folder().parent().unwrap(), into.join("target")).unwrap();
}

fn copy_times(name: &Path, into: &Path) {
    let modified = repository().join(name).metadata().unwrap().modified().unwrap();
    File::open(into.join(name)).unwrap().set_modified(modified).unwrap();
}
