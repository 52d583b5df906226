//! Films larger than what is kept of anything whole, from a real server of files, as players and curl ask for them.

use std::{fs, process::Command};

use gatehouse_tests::{
    address,
    curl::{Answer, Curl},
    edge::{Edge, Setup},
    folder::Folder,
    process::Process,
    raw::Raw,
    tool, wait,
};

const SLICE: usize = 256 << 10;

/// Octets whose place can be told from them. `of` makes other films, of other lengths.
fn film(of: u8) -> Vec<u8> {
    (0..6 * 1_000_000 + usize::from(of)).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8 ^ of).collect()
}

/// nginx with its files in a folder, and an edge that keeps slices of them.
struct Cinema {
    folder: Folder,
    edge: Edge,
    _nginx: Process,
}

impl Cinema {
    fn open() -> Self {
        let folder = Folder::new();
        let (address, root) = (address::own(), folder.path().display().to_string());
        folder.write("asked.log", "");
        folder.write(
            "nginx.conf",
            &format!(
                "user root; pid {root}/nginx.pid; daemon off; error_log stderr; events {{}}\nhttp {{ log_format asked '$uri $http_range';\n\
                 access_log {root}/asked.log asked; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
                 uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5; server {{ listen {address}; root {root}/films; }} }}\n"
            ),
        );
        fs::create_dir(folder.path().join("films")).unwrap();
        let mut command = Command::new(tool::find(&["nginx"], "nginx-light"));
        command.args(["-e", "stderr", "-p", &root, "-c", "nginx.conf"]);
        let nginx = Process::start("nginx", &mut command);
        wait::until("nginx answers", || Raw::try_connect(address).map(drop));
        let edge = Setup::over_address(address)
            .tables("[cache]\nmemory = \"64 MiB\"\nlargest_object = \"1 MiB\"")
            .route("path = \"/*\"\ncache = { ttl = \"1h\", slice = \"256 KiB\" }")
            .start();
        Self { folder, edge, _nginx: nginx }
    }

    /// Shows this film under the name from now on.
    fn shows(&self, name: &str, film: &[u8]) {
        let place = self.folder.path().join("films").join(name);
        fs::write(place, film).unwrap();
    }

    fn watch(&self, path: &str, range: Option<&str>) -> Curl {
        let curl = self.edge.curl(path);
        match range {
            Some(range) => curl.argument("-r").argument(range),
            None => curl,
        }
    }

    /// The numbers of the slices that nginx was asked for, once there are so many.
    fn asked(&self, path: &str, count: usize) -> Vec<usize> {
        let start = format!("{path} bytes=");
        let asked = || {
            let log = fs::read_to_string(self.folder.path().join("asked.log")).unwrap();
            let ranges =
                log.lines().filter_map(|line| Some(line.strip_prefix(&start)?.split_once('-')?.0.to_owned()));
            ranges.map(|first| first.parse::<usize>().unwrap() / SLICE).collect::<Vec<_>>()
        };
        wait::until("nginx has logged what it was asked for", || (asked().len() >= count).then_some(()));
        asked()
    }
}

#[track_caller]
fn assert_shows(answer: &Answer, status: u16, octets: &[u8]) {
    assert_eq!((answer.status, answer.body.len()), (status, octets.len()), "{answer:?}");
    assert!(answer.body == octets, "other octets: {answer:?}");
}

#[test]
fn what_is_watched_of_a_film_is_fetched_once_and_kept() {
    let (cinema, film) = (Cinema::open(), film(0));
    cinema.shows("film.mp4", &film);
    let seek = cinema.watch("/film.mp4", Some("3000000-3000099")).send();
    assert_shows(&seek, 206, &film[3_000_000..3_000_100]);
    assert_eq!(seek.must("content-range"), format!("bytes 3000000-3000099/{}", film.len()));
    assert!(cinema.watch("/film.mp4", Some("2900000-3100000")).send().is_hit(), "it is of the same slice");
    assert_eq!(cinema.asked("/film.mp4", 1), [11]);
    assert_shows(&cinema.watch("/film.mp4", Some("-1000")).send(), 206, &film[film.len() - 1000..]);
    assert_eq!(cinema.asked("/film.mp4", 3), [11, 0, 22]);
    assert_shows(&cinema.watch("/film.mp4", None).send(), 200, &film);
    let again = cinema.watch("/film.mp4", None).send();
    assert!(again.is_hit());
    assert_shows(&again, 200, &film);
    let mut asked = cinema.asked("/film.mp4", 23);
    asked.sort_unstable();
    assert_eq!(asked, (0..23).collect::<Vec<_>>(), "each once");
    let head = cinema.edge.curl("/film.mp4").head().send();
    assert_eq!((head.status, head.must("content-length")), (200, &*film.len().to_string()));
    let behind = cinema.watch("/film.mp4", Some("6000000-")).send();
    assert_eq!((behind.status, behind.must("content-range")), (416, &*format!("bytes */{}", film.len())));
}

#[test]
fn a_film_that_is_replaced_while_it_is_watched_breaks_off_and_is_the_new_one_then() {
    let (cinema, new) = (Cinema::open(), film(3));
    cinema.shows("film.mp4", &film(0));
    let _ = cinema.watch("/film.mp4", Some("0-99")).send();
    cinema.shows("film.mp4", &new);
    let broken = cinema.watch("/film.mp4", None).fail();
    assert!(broken.contains("curl ended with"), "{broken}");
    assert_shows(&cinema.watch("/film.mp4", None).send(), 200, &new);
    assert!(cinema.watch("/film.mp4", Some("0-99")).send().is_hit());
}
