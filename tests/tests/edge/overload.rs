//! Some are slow, failing or greedy: what the others still get.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
};

use gatehouse_tests::{
    edge::{Edge, Setup},
    process::resident_kib,
    upstream::{Gate, Reply, Upstream},
};

#[test]
fn a_moments_failure_does_not_turn_the_cache_off() {
    // Once, one 503 made everybody pass for half a minute.
    for status in [404, 429, 500, 502, 503, 504] {
        let upstream = Upstream::start(move |seen| match seen.earlier {
            0 => Reply::status(status).cache_control("no-store"),
            _ => Reply::ok("good").cache_control("max-age=600"),
        });
        let edge = Edge::over(&upstream).start();
        assert_eq!(edge.get("/").status, status);
        let recovered = edge.get("/");
        assert_eq!((recovered.status, recovered.is_hit()), (200, false), "{recovered:#?}");
        assert!(edge.get("/").is_hit(), "after one {status} the first good answer is stored");
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn an_answer_that_was_private_once_is_stored_when_it_no_longer_is() {
    // Once, a marked key was passed, so that nothing could end the marker before its time.
    let upstream = Upstream::start(|seen| match seen.earlier {
        0 => Reply::ok("mine").cache_control("private"),
        _ => Reply::ok("ours").cache_control("max-age=600"),
    });
    let edge = Edge::over(&upstream).start();
    assert_eq!(edge.get("/").text(), "mine");
    assert_eq!(edge.get("/").text(), "ours");
    assert!(edge.get("/").is_hit());
}

#[test]
fn a_connection_whose_request_is_still_being_sent_is_nobody_elses() {
    // Once, an early answer gave it back to the pool, and the next request waited behind the upload.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || refuse_uploads(stream));
        }
    });
    // Nothing but the pool's own rule parts the two: the upload may stall longer than the test has patience.
    let edge = Setup::over_address(address).tables("[timeouts]\nbody = \"10m\"").start();
    let mut uploads = Vec::new();
    for round in 0..5 {
        let mut upload = edge.raw();
        upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").send([b'x'; 1000]);
        assert_eq!(upload.answer().status, 401, "round {round}");
        uploads.push(upload);
        let answer = edge.raw().send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\n\r\n")).answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]), "round {round}");
    }
}

/// Answers GET, and answers POST before its content has come, both inviting reuse.
fn refuse_uploads(mut stream: TcpStream) {
    let reader = BufReader::new(stream.try_clone().unwrap());
    let mut first_line = None;
    for line in reader.lines().map_while(Result::ok) {
        if !line.is_empty() {
            first_line.get_or_insert(line);
            continue;
        }
        let answer = match first_line.take() {
            Some(line) if line.starts_with("GET") => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            _ => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno",
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn fills_that_stall_take_room_but_never_an_answer() {
    // Once, with the room for fills in use, every small miss was broken off.
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| match seen.target.strip_prefix("/stalls/") {
        Some(size) => {
            let size = size.split('-').next().unwrap().parse().unwrap();
            Reply::streamed().then(vec![b'x'; size]).then_wait(&held).cache_control("max-age=600")
        }
        None => Reply::ok(vec![b'y'; 8192]).cache_control("max-age=600"),
    });
    let edge =
        Edge::over(&upstream).tables("[cache]\nmemory = \"4 MiB\"\nlargest_object = \"512 KiB\"").start();
    // A quarter of `memory` is for fills. Large ones first, then what takes the crumbs.
    let sizes = [vec![60 << 10; 20], vec![4 << 10; 30], vec![1 << 10; 10]].concat();
    let mut stalled: Vec<_> = sizes.iter().map(|_| edge.raw()).collect();
    for (number, (raw, size)) in stalled.iter_mut().zip(&sizes).enumerate() {
        raw.send(format!("GET /stalls/{size}-{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        raw.read_until(b"xxxx");
    }
    for number in 0..20 {
        let answer = edge.get(&format!("/small/{number}"));
        assert_eq!((answer.status, answer.body.len()), (200, 8192), "{answer:#?}");
    }
    gate.open();
    for raw in &mut stalled {
        assert!(raw.read_to_close().ends_with(b"\r\n0\r\n\r\n"), "those who waited get all of theirs");
    }
    edge.until_hit("/small/0");
}

#[test]
fn a_body_in_crumbs_takes_room_for_them() {
    const CRUMBS: usize = 1 << 18;
    let upstream =
        Upstream::start(|_| Reply::streamed().cache_control("max-age=600").then_repeated("x", CRUMBS));
    let edge = Edge::over(&upstream).tables("[cache]\nmemory = \"64 MiB\"").start();
    let (before, _) = resident_kib(edge.id());
    assert_eq!(edge.get("/").body.len(), CRUMBS);
    let (_, highest) = resident_kib(edge.id());
    println!("{CRUMBS} crumbs: {before} KiB before, {highest} KiB at the highest");
    // A quarter of the budget may be on its way.
    assert!(highest < before + (20 << 10), "{before} KiB before, {highest} KiB at the highest");
}

#[test]
fn a_client_that_does_not_read_holds_little_of_its_answer() {
    const CLIENTS: usize = 200;
    // What is read from its upstream, on its way and waiting for the client: four pieces of 64 KiB, and all else.
    const ALLOWED_KIB: u64 = CLIENTS as u64 * 5 * 64;
    let page = bytes::Bytes::from(vec![b'x'; 8 << 20]);
    let upstream = Upstream::start(move |_| Reply::streamed().then(page.clone()).cache_control("private"));
    let edge = Edge::over(&upstream).start();
    let (before, _) = resident_kib(edge.id());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| edge.raw()).collect();
    for raw in &mut clients {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    for raw in &mut clients {
        raw.read_exactly(4 << 10).expect("each gets what it reads");
    }
    let (_, highest) = resident_kib(edge.id());
    println!("{CLIENTS} clients: {before} KiB before, {highest} KiB at the highest");
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
}

#[test]
fn what_coding_on_the_fly_may_take_is_bounded() {
    // Once, each slow stream of a private page held an encoder of several megabytes, and nothing bounded their number.
    const STREAMS: usize = 200;
    // 60 MiB of encoders; and for each stream what is read from its upstream, on its way and waiting for its client: four
    // pieces of 64 KiB, and as much again as one of them for all else.
    const ALLOWED_KIB: u64 = (60 << 10) + STREAMS as u64 * 5 * 64;
    let gate = Gate::closed();
    let held = gate.clone();
    let page: Vec<u8> = (0..40_000_u32)
        .flat_map(|number| format!("{:x} ", number.wrapping_mul(0x9e37_79b9)).into_bytes())
        .collect();
    let piece = bytes::Bytes::from(page);
    let upstream = Upstream::start(move |_| {
        Reply::streamed()
            .then(piece.clone())
            .then_wait(&held)
            .header("content-type", "text/html")
            .cache_control("private")
    });
    let edge = Edge::over(&upstream).start();
    let (before, _) = resident_kib(edge.id());
    let mut streams: Vec<_> = (0..STREAMS).map(|_| edge.raw()).collect();
    for (number, raw) in streams.iter_mut().enumerate() {
        let request =
            format!("GET /{number} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\nConnection: close\r\n\r\n");
        raw.send(request);
    }
    let heads: Vec<String> = streams
        .iter_mut()
        .map(|raw| String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap().to_ascii_lowercase())
        .collect();
    let coded = heads.iter().filter(|head| head.contains("content-encoding: br")).count();
    for raw in &mut streams {
        raw.read_exactly(4 << 10).expect("each gets what there is");
    }
    let (_, highest) = resident_kib(edge.id());
    println!("{STREAMS} streams, {coded} of them coded: {before} KiB before, {highest} KiB at the highest");
    assert!(heads.iter().all(|head| head.starts_with("http/1.1 200")));
    assert!((1..STREAMS).contains(&coded), "beyond the bound pages go as they are: {coded}");
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
    gate.open();
    for raw in &mut streams {
        raw.read_to_close();
    }
}
