//! A flood of answers nobody asks for twice: it stays within the budget, and it does not push out what is popular.

use bytes::Bytes;
use gatehouse_tests::{
    edge::Edge,
    process::resident_kib,
    raw::{Raw, RawAnswer},
    upstream::{Octets, RawUpstream},
};

const BUDGET_KIB: u64 = 64 << 10;
/// What the edge may take beside its budget: buffers of its connections, and what the allocator has not given back.
const ALLOWANCE_KIB: u64 = 12 << 10;
/// And once bodies have been coded: encoders, and the heap of the thread that codes.
const ALLOWANCE_FOR_CODING_KIB: u64 = 48 << 10;

/// Stored answers that are asked for again and again.
const POPULAR: usize = 300;

#[test]
fn resident_memory_stays_within_the_budget_and_the_popular_stay_in_it() {
    let warehouse = warehouse();
    let edge = Edge::over_raw(&warehouse)
        .tables("[cache]\nmemory = \"64 MiB\"\nlargest_object = \"1 MiB\"\n[log]\nformat = \"off\"")
        .start();
    let mut clients: Vec<Raw> = (0..4).map(|_| edge.raw()).collect();
    for client in &mut clients {
        get(client, "/bytes/warm-up/1000", "identity");
    }
    let (baseline, _) = resident_kib(edge.id());
    let mut limit = baseline + BUDGET_KIB + BUDGET_KIB / 50 + ALLOWANCE_KIB;
    println!("{:<44} {:>9} {:>10} {:>9} {:>9}", "", "resident", "accounted", "entries", "evicted");
    println!("{:<44} {baseline:>5} KiB", "before");

    for _ in 0..3 {
        for number in 0..POPULAR {
            get(&mut clients[0], &popular(number), "identity");
        }
    }
    let mut serial = 0..;
    let mut flood = |what: &str, count: usize, kind: &str, coding: &str, sizes: &[usize]| {
        if coding != "identity" {
            limit += ALLOWANCE_FOR_CODING_KIB;
        }
        for size in sizes.iter().cycle().take(count) {
            let number = serial.next().unwrap();
            get(&mut clients[number % 4], &format!("/{kind}/{number}/{size}"), coding);
            if number % 512 == 0 {
                assert_within(&edge, limit, what);
            }
        }
        report(&edge, what);
        assert_within(&edge, limit, what);
    };
    flood("40,000 of 300 bytes", 40_000, "bytes", "identity", &[300]);
    flood("6,000 of 1 to 200 KB", 6_000, "bytes", "identity", &[1_000, 4_000, 16_000, 60_000, 200_000]);
    flood("200 of 900 KB", 200, "bytes", "identity", &[900_000]);
    flood("3,000 texts of 2 to 60 KB, coded", 3_000, "text", "gzip", &[2_000, 8_000, 60_000]);
    flood("10,000 of 3 KB", 10_000, "bytes", "identity", &[3_000]);

    let kept =
        (0..POPULAR).filter(|number| get(&mut clients[0], &popular(*number), "identity").is_hit()).count();
    println!("{kept} of {POPULAR} popular answers outlasted about 60,000 one-hit wonders");
    assert!(kept * 100 >= POPULAR * 95, "{kept} of {POPULAR}");
}

#[test]
fn what_slow_clients_still_read_counts_even_when_it_is_no_longer_stored() {
    const CLIENTS: usize = 100;
    const SIZE: usize = 6_000_000;
    // Beside the budget a quarter for what is on its way, in or out; and for each client what waits for it.
    const ALLOWED_KIB: u64 = BUDGET_KIB + BUDGET_KIB / 4 + CLIENTS as u64 * 5 * 64;
    let warehouse = warehouse();
    let edge = Edge::over_raw(&warehouse)
        .tables("[cache]\nmemory = \"64 MiB\"\nlargest_object = \"7 MiB\"\n[log]\nformat = \"off\"")
        .start();
    let (baseline, _) = resident_kib(edge.id());
    let mut slow: Vec<Raw> = (0..CLIENTS).map(|_| edge.raw()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        client.send(format!("GET /bytes/slow-{number}/{SIZE} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.read_until(b"\r\n\r\n");
    }
    let (_, highest) = resident_kib(edge.id());
    let mut quick = edge.raw();
    get(&mut quick, "/bytes/page/10000", "identity");
    assert!(get(&mut quick, "/bytes/page/10000", "identity").is_hit(), "pages are stored all the same");
    println!("{CLIENTS} slow clients: {baseline} KiB before, {highest} KiB at the highest");
    assert!(highest < baseline + ALLOWED_KIB, "{baseline} KiB before, {highest} KiB at the highest");
}

fn popular(number: usize) -> String {
    format!("/bytes/popular-{number}/10000")
}

fn get(raw: &mut Raw, path: &str, coding: &str) -> RawAnswer {
    let answer =
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n")).answer();
    assert_eq!(answer.status, 200, "{path}: {}", answer.head);
    answer
}

#[track_caller]
fn assert_within(edge: &Edge, limit: u64, what: &str) {
    let (now, _) = resident_kib(edge.id());
    assert!(now <= limit, "{what}: {now} KiB resident, at most {limit} KiB allowed");
}

fn report(edge: &Edge, what: &str) {
    let value = |name: &str| edge.metric(name);
    let (resident, _) = resident_kib(edge.id());
    println!(
        "{what:<44} {resident:>5} KiB {:>6} KiB {:>9} {:>9}",
        value("gatehouse_edge_cache_bytes") >> 10,
        value("gatehouse_edge_cache_entries"),
        value("gatehouse_edge_cache_evictions_total"),
    );
    assert!(value("gatehouse_edge_cache_bytes") <= BUDGET_KIB << 10);
}

/// An upstream for many requests: `/KIND/NAME/SIZE`.
fn warehouse() -> RawUpstream {
    let words = Bytes::from("Shelves, boxes and labels with numbers. ".repeat(150_000));
    RawUpstream::scripted(move |head| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let mut parts = target.split('/').skip(1);
        let content_type =
            if parts.next() == Some("text") { "text/plain" } else { "application/octet-stream" };
        let size: usize = parts.nth(1).and_then(|size| size.parse().ok()).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\n\
             Cache-Control: max-age=600\r\nETag: \"{target}\"\r\n\r\n"
        );
        Octets::of(head).then(words.slice(..size))
    })
}
