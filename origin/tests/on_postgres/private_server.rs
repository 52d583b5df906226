//! The private PostgreSQL through the deaths and restarts of those around it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use private_postgres::PrivatePostgres;
use rustix::process::{Pid, Signal, kill_process};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    PATIENCE,
    origin_process::{ORIGIN, Origin, cluster, gone, owner_and_server, postmaster},
    test_server::folder,
};

fn running(data: &Path) -> i32 {
    postmaster(data).expect("the server has written its process id")
}

#[tokio::test]
async fn visitors_find_neither_metrics_nor_readiness_and_the_operator_does() {
    let data = folder();
    let origin = Origin::serve(data.path()).await;
    for (path, public, admin) in
        [("/livez", 200, 404), ("/readyz", 404, 200), ("/metrics", 404, 200), ("/", 200, 404)]
    {
        let statuses = (origin.status(path).await, Origin::status_at(&origin.admin, path).await);
        assert_eq!(statuses, (public, admin), "{path}");
    }
    // A second instance beside it opens the shop all the same.
    let second = folder();
    let port = origin.admin.rsplit(':').next().expect("a port").to_owned();
    let mut command = Origin::command(second.path());
    command.env("ADMIN_PORT", port).arg("serve");
    let mut child = command.spawn().expect("origin starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("UTF-8");
    assert!(line.expect("a line").starts_with("origin: listening on http://"));
    kill_process(
        Pid::from_raw(child.id().expect("it runs").try_into().expect("small")).expect("not zero"),
        Signal::TERM,
    )
    .expect("it is there");
    assert!(child.wait().await.expect("an exit").success());
}

#[tokio::test]
async fn a_clean_stop_takes_the_server_along() {
    let data = folder();
    let mut origin = Origin::serve(data.path()).await;
    assert_eq!(origin.status("/api/products").await, 200);
    let server = running(data.path());
    origin.signal(Signal::TERM);
    assert!(origin.child.wait().await.expect("an exit").success());
    gone(server).await;
    assert_eq!(postmaster(data.path()), None);
}

#[tokio::test]
async fn after_a_kill_nothing_is_left_and_the_next_start_recovers() {
    let data = folder();
    let mut origin = Origin::serve(data.path()).await;
    let server = running(data.path());
    origin.child.kill().await.expect("killed");
    // At once, while the old server may still be on its way out.
    let again = Origin::serve(data.path()).await;
    gone(server).await;
    again.recovers().await;
    assert_eq!(again.status("/api/products/harbour-enamel-kettle").await, 200, "the data is still there");
}

#[tokio::test]
async fn a_server_that_is_killed_comes_back() {
    let data = folder();
    let origin = Origin::serve(data.path()).await;
    let server = running(data.path());
    kill_process(Pid::from_raw(server).expect("not zero"), Signal::KILL).expect("the server is there");
    gone(server).await;
    origin.recovers().await;
    assert_ne!(running(data.path()), server);
}

#[tokio::test]
async fn a_second_origin_joins_and_takes_over_when_the_first_goes() {
    let data = folder();
    // Both at once: exactly one may make and start the server.
    let (mut one, mut other) = tokio::join!(Origin::serve(data.path()), Origin::serve(data.path()));
    assert_eq!((one.status("/api/products").await, other.status("/api/products").await), (200, 200));
    let (owner, server) = owner_and_server(data.path()).expect("a server");
    if owner == other.pid() {
        std::mem::swap(&mut one, &mut other);
    }
    assert_eq!(owner, one.pid());

    // The one that joined leaves: nothing happens to the server.
    let mut joined = Origin::serve(data.path()).await;
    joined.signal(Signal::TERM);
    assert!(joined.child.wait().await.expect("an exit").success());
    assert_eq!(running(data.path()), server);
    assert_eq!(one.status("/api/products").await, 200);

    // The owner is killed: the other becomes the owner.
    one.child.kill().await.expect("killed");
    gone(server).await;
    other.recovers().await;
    let second = running(data.path());

    // The owner stops in good order, and the server with it: one that joined starts it again.
    let joined = Origin::serve(data.path()).await;
    other.signal(Signal::TERM);
    assert!(other.child.wait().await.expect("an exit").success());
    gone(second).await;
    joined.recovers().await;
    assert_ne!(running(data.path()), second);
}

#[tokio::test]
async fn an_orphan_that_works_is_adopted_and_stopped_with_its_new_owner() {
    let data = folder();
    let start =
        || PrivatePostgres::start(data.path(), Path::new(ORIGIN)).unwrap_or_else(|error| panic!("{error:#}"));
    let first = start();
    let pid = running(data.path());
    let command = fs::read(format!("/proc/{pid}/cmdline")).expect("its command");
    let command: Vec<&str> = command
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| str::from_utf8(part).expect("UTF-8"))
        .collect();
    let owner = fs::metadata(cluster(data.path())).expect("a cluster");
    drop(first);

    // The same server without an owner: what a kill leaves where there is no parent-death signal.
    use std::os::unix::fs::MetadataExt as _;
    let mut orphan = Command::new(command[0]);
    orphan
        .args(&command[1..])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        orphan.uid(owner.uid()).gid(owner.gid());
    }
    let mut orphan = orphan.spawn().expect("the server starts");
    let orphan_pid = i32::try_from(orphan.id()).expect("process ids are small");
    while postmaster(data.path()) != Some(orphan_pid) {
        assert!(orphan.try_wait().expect("a child").is_none(), "the orphan has ended");
    }

    let adopter = start();
    assert_eq!(running(data.path()), orphan_pid);
    // The test is the orphan's parent: until it takes the exit status, the process is not gone.
    let waiting = std::thread::spawn(move || orphan.wait());
    drop(adopter);
    assert!(waiting.join().expect("no panic").expect("a child").success(), "a fast shutdown");
}

#[tokio::test]
async fn a_pid_file_whose_number_went_to_another_process_does_not_stop_the_start() {
    let data = folder();
    let start =
        || PrivatePostgres::start(data.path(), Path::new(ORIGIN)).unwrap_or_else(|error| panic!("{error:#}"));
    let first = start();
    let file = cluster(data.path()).join("postmaster.pid");
    let text = fs::read_to_string(&file).expect("the pid file");
    let (number, rest) = text.split_once('\n').expect("lines");
    let stale = format!("{}\n{rest}", std::process::id());
    assert_ne!(number, std::process::id().to_string());
    drop(first);
    fs::write(&file, stale).expect("a stale pid file");
    let _second = start();
    assert_ne!(running(data.path()).to_string(), std::process::id().to_string());
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_reach_is_replaced() {
    let closed = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    let data = closed.path().join("data");
    let server = PrivatePostgres::start(&data, Path::new(ORIGIN)).unwrap_or_else(|error| panic!("{error:#}"));
    let place = server.folder().to_owned();
    drop(server);
    if rustix::process::geteuid().is_root() {
        assert!(place.starts_with("/var/lib/gatehouse"), "{place:?}");
        fs::remove_dir_all(&place).expect("removed");
    } else {
        assert_eq!(place, data.canonicalize().expect("it exists").join("postgres"));
    }
}

#[tokio::test]
async fn a_data_folder_with_a_long_name_works() {
    let folder = folder();
    let data = folder.path().join("long".repeat(30));
    let server = PrivatePostgres::start(&data, Path::new(ORIGIN)).unwrap_or_else(|error| panic!("{error:#}"));
    let socket = server.connect_options().get_socket().expect("it has no other way in").clone();
    assert!(socket.starts_with("/tmp"), "{socket:?}");
    drop(server);
    fs::remove_dir_all(socket).expect("removed");
}
