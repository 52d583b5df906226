//! A client has one rate at all edges together, and no edge refuses for Redis's sake.

use std::{sync::Arc, thread, time::Duration};

use gatehouse_tests::{
    edge::Edge,
    redis::Redis,
    upstream::{Reply, Upstream},
    wait,
};

use super::{setup, until_in_touch, until_out_of_touch};

const RATE: f64 = 100.0;
const BURST: f64 = 100.0;

fn limited(upstream: &Upstream, redis: &str) -> [Edge; 3] {
    let limit = format!("[limits.api]\nrate = \"{RATE}/s\"\nburst = {BURST}\n");
    [(); 3].map(|()| {
        let table = format!("{redis}{limit}");
        let edge = setup(upstream, &table).route("path = \"/*\"\nlimit = \"api\"").start();
        until_in_touch(&edge);
        edge
    })
}

/// Asks all edges at once, faster than the rate of any, for so long; how many requests were admitted, and in what time.
fn ask(edges: &[Edge], time: Duration) -> (f64, f64) {
    let began = wait::now();
    let clients: Vec<_> = edges
        .iter()
        .map(|edge| {
            let mut raw = edge.raw();
            thread::spawn(move || {
                let mut admitted = 0;
                while began.elapsed() < time {
                    let answer = raw.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").answer();
                    assert!([200, 429].contains(&answer.status), "{}", answer.head);
                    admitted += u32::from(answer.status == 200);
                    wait::pass(Duration::from_millis(2));
                }
                admitted
            })
        })
        .collect();
    let admitted: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    (f64::from(admitted), began.elapsed().as_secs_f64())
}

fn upstream() -> Upstream {
    Upstream::start(|_| Reply::ok("x").cache_control("max-age=600"))
}

#[test]
fn a_client_that_asks_three_edges_has_the_rate_of_one() {
    let (upstream, redis) = (upstream(), Redis::start());
    let edges = limited(&upstream, &redis.table());
    let (admitted, seconds) = ask(&edges, Duration::from_secs(10));
    let fair = RATE.mul_add(seconds, BURST);
    let off = admitted / fair;
    println!("{admitted} admitted of {fair:.0} in {seconds:.1} s: {off:.3}");
    assert!((0.95..1.05).contains(&off), "{admitted} admitted of {fair}");
    // Whose clients they are is not to be read there.
    let keys = redis.ask(&["EVAL", "return table.concat(redis.call('KEYS', '*:l:*'), ' ')", "0"]);
    assert!(keys.contains("gatehouse:gatehouse:l:") && !keys.contains("127.0.0.1"), "{keys}");
    assert!(edges[0].metrics().contains("clients_exchanged_total{tier=\"redis\",outcome=\"exchanged\"}"));
    wait::until("what nobody owes any more is gone", || {
        redis.ask(&["EVAL", "return #redis.call('KEYS', '*:l:*')", "0"]).starts_with(":0").then_some(())
    });
}

#[test]
fn where_redis_is_killed_or_stands_still_each_edge_limits_by_itself_and_refuses_nothing_else() {
    let upstream = upstream();
    let mut redis = Redis::start();
    let edges = Arc::new(limited(&upstream, &redis.table()));
    let asked = {
        let edges = Arc::clone(&edges);
        thread::spawn(move || ask(&*edges, Duration::from_secs(8)))
    };
    wait::pass(Duration::from_secs(1));
    redis.pause();
    wait::pass(Duration::from_secs(1));
    redis.go_on();
    edges.iter().for_each(until_in_touch);
    redis.kill();
    edges.iter().for_each(until_out_of_touch);
    redis.start_again();
    let (admitted, seconds) = asked.join().unwrap();
    let (least, most) = (RATE * seconds * 0.95, RATE.mul_add(seconds, BURST) * 3.05);
    assert!((least..most).contains(&admitted), "{admitted} admitted, and none had to be fewer than {least}");
}
