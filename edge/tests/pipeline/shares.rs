//! Nobody takes more than a share of what all need: places at upstreams, memory, time.

use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, client::ResponseFuture};
use http::Request;
use scripted_upstream::{Reply, Seen};

use crate::{
    client::{Client, client, client_with, read},
    front::{CACHED, Front, front_with, pass, settle},
    upstream::Upstream,
};

/// One route to an upstream that bears six requests at once.
const NARROW: &str =
    "connections = 6\n[[routes]]\nname = \"big\"\npath = \"/big/*\"\nupstream = \"origin\"\n";

/// An upstream whose answers have so many octets.
fn answering(octets: usize, cache: &'static str) -> Upstream {
    let content = Bytes::from(vec![b'x'; octets]);
    Upstream::start(move |_| Reply::ok(content.clone()).cache_control(cache))
}

/// A client that gives no window to any answer.
async fn without_window(front: &Front) -> Client {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    client_with(front, &builder).await
}

async fn head_of(response: ResponseFuture) -> RecvStream {
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Once, three connections without window kept every other client's misses from the upstream for as long as they liked.
#[tokio::test(start_paused = true)]
async fn small_answers_that_no_client_takes_leave_their_upstream_free() {
    let upstream = answering(8500, "no-store");
    let front = front_with(&upstream, NARROW);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = without_window(&front).await;
        let mut bodies = Vec::new();
        for _ in 0..40 {
            bodies.push(head_of(client.get("/big/x")).await);
        }
        held.push((client, bodies));
    }
    assert_eq!(front.get("/big/other").await.status, 200);
    assert_eq!(upstream.count(), 121);
}

/// As before, where the answers are too long to be read ahead.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_takes_nothing_is_reset_although_others_of_its_connection_move() {
    let upstream = answering(1 << 20, "no-store");
    let front = front_with(&upstream, NARROW);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = without_window(&front).await;
        let bodies = [head_of(client.get("/big/1")).await, head_of(client.get("/big/2")).await];
        held.push((client, bodies));
    }
    assert_eq!(front.get("/big/other").await.status, 503, "all six places are taken");
    for _ in 0..7 {
        for (client, _) in &mut held {
            let moves = client.send(Request::head("https://shop.example/other"), true).0;
            assert_eq!(moves.await.unwrap().status(), 404);
        }
        pass(5).await;
    }
    assert_eq!(front.get("/big/other").await.status, 200);
    for (_, bodies) in held {
        for mut body in bodies {
            assert_eq!(body.data().await.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
        }
    }
    assert_eq!(front.metric_lines("gatehouse_edge_cut_off_total"), ["{reason=\"stalled\"} 6"]);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_opens_by_crumbs_is_none_and_one_that_opens_slowly_is_enough() {
    for (each_time, ends) in [(10, true), (1024, false)] {
        let upstream = answering(1 << 20, "no-store");
        let front = front_with(&upstream, NARROW);
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1024);
        let mut client = client_with(&front, &builder).await;
        let mut body = head_of(client.get("/big/x")).await;
        let mut reset = false;
        for _ in 0..12 {
            settle().await;
            // What has come is read, and of it only so much is given back as window.
            while let Some(data) = tokio::time::timeout(Duration::ZERO, body.data()).await.ok().flatten() {
                reset = data.is_err();
                if reset {
                    break;
                }
            }
            if !reset {
                let _ = body.flow_control().release_capacity(each_time);
                pass(10).await;
            }
        }
        assert_eq!(reset, ends, "{each_time} bytes each time");
    }
}

/// Who shares a connection with many others waits its turn for longer than any of them may stand still.
#[tokio::test(start_paused = true)]
async fn what_waits_behind_others_of_a_slow_connection_is_not_given_up() {
    let upstream = answering(256 << 10, "max-age=60");
    let front = front_with(&upstream, "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
    let mut client = client_with(&front, &builder).await;
    let mut bodies = Vec::new();
    for _ in 0..16 {
        bodies.push(head_of(client.get("/x")).await);
    }
    let mut seen = vec![0; bodies.len()];
    // Each gets all of its own, one after the other, at some 8 KiB a second.
    for (body, seen) in bodies.iter_mut().zip(&mut seen) {
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            *seen += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
            pass(data.len() as u64 >> 13).await;
        }
    }
    assert!(seen.iter().all(|seen| *seen == 256 << 10), "{seen:?}");
    assert_eq!(front.edge.unsent.held(), 0);
}

/// An upstream that answers with what it was sent, and bears four requests at once; and settings of its one route, and tables.
fn echo() -> Upstream {
    Upstream::start(|seen: &Seen| Reply::ok(seen.body.clone()).cache_control("no-store"))
}

fn four_places(upstream: &Upstream, keys: &str) -> Front {
    let route = "connections = 4\n[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n";
    front_with(upstream, &format!("{route}{keys}\n"))
}

/// Once, uploads of a few octets a second had every place at their upstream, for hours.
#[tokio::test(start_paused = true)]
async fn an_upload_takes_a_place_only_when_all_of_it_is_here() {
    let upstream = echo();
    let front = four_places(&upstream, "");
    let mut client = client(&front).await;
    let mut uploads = Vec::new();
    for _ in 0..20 {
        let request = Request::post("https://shop.example/").header("content-length", "6");
        let (response, mut content) = client.send(request, false);
        content.send_data("slo".into(), false).unwrap();
        uploads.push((response, content));
    }
    settle().await;
    assert_eq!(front.get("/").await.status, 200);
    assert_eq!(upstream.count(), 1, "none of the uploads has gone on");
    assert_eq!(front.edge.held_content.held(), 60);
    let (response, mut content) = uploads.pop().unwrap();
    content.send_data("wly".into(), true).unwrap();
    assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap().0, "slowly");
    // Over HTTP/1.1 as well.
    assert_eq!(front.send_body(Request::post("/"), "at once").await.text(), "at once");
    drop((uploads, client));
    settle().await;
    assert_eq!(front.edge.held_content.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn uploads_that_are_not_received_first_take_half_of_the_places() {
    for (length, keys) in [(None, ""), (Some("6"), "receive_first = \"0 B\"")] {
        let upstream = echo();
        let front = four_places(&upstream, keys);
        let mut client = client(&front).await;
        let mut uploads = Vec::new();
        for _ in 0..4 {
            let request = Request::post("https://shop.example/");
            let request =
                length.into_iter().fold(request, |request, length| request.header("content-length", length));
            let (response, mut content) = client.send(request, false);
            content.send_data("slo".into(), false).unwrap();
            uploads.push((response, content));
        }
        settle().await;
        assert_eq!(front.get("/").await.status, 200, "the other half is everybody's");
        let mut answered = Vec::new();
        for (response, mut content) in uploads {
            // Those that have waited for too long are answered already.
            let _ = content.send_data("wly".into(), true);
            answered.push(response.await.unwrap().status().as_u16());
        }
        answered.sort_unstable();
        assert_eq!(answered, [200, 200, 200, 200], "whoever waits for a place gets it when others are done");
    }
}

/// RFC 10036.
#[tokio::test(start_paused = true)]
async fn content_that_is_to_go_on_as_it_comes_is_not_received_first() {
    for (field, asked) in [("?1", 1), ("?1;a", 1), ("?0", 0), ("1", 0)] {
        let upstream = echo();
        let front = four_places(&upstream, "");
        let mut client = client(&front).await;
        let request = Request::post("https://shop.example/").header("content-length", "6");
        let (response, mut content) = client.send(request.header("incremental", field), false);
        content.send_data("slo".into(), false).unwrap();
        settle().await;
        assert_eq!(upstream.connections(), asked, "{field}");
        content.send_data("wly".into(), true).unwrap();
        assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap().0, "slowly");
    }
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_sent_on_as_it_comes() {
    let upstream = echo();
    let front =
        four_places(&upstream, "resend = { content = \"1 MiB\" }\n[bounds]\nheld_content = \"10 KiB\"");
    let mut client = client(&front).await;
    let request = Request::post("https://shop.example/").header("content-length", "40000");
    let (response, mut content) = client.send(request, false);
    for letter in [b'a', b'b', b'c', b'd'] {
        content.send_data(vec![letter; 10_000].into(), letter == b'd').unwrap();
        settle().await;
        assert!(front.edge.held_content.held() <= 10 << 10, "{}", front.edge.held_content.held());
    }
    let text = read(response.await.unwrap().body_mut()).await.unwrap().0;
    let expected: String = ["a", "b", "c", "d"].map(|letter| letter.repeat(10_000)).concat();
    assert!(text == expected, "{} octets came back", text.len());
    settle().await;
    assert_eq!(front.edge.held_content.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_of_a_content_has_a_time() {
    for route in ["", "receive_first = \"0 B\"\n"] {
        let front = four_places(
            &echo(),
            &format!("{route}[bounds]\nbody_rate = \"0 B\"\n[timeouts]\nupload = \"45s\""),
        );
        let mut client = client(&front).await;
        let request = Request::post("https://shop.example/").header("content-length", "100");
        let (response, mut content) = client.send(request, false);
        for _ in 0..6 {
            // Once it is answered, nothing more is taken.
            let _ = content.send_data("x".into(), false);
            pass(10).await;
        }
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status, 408);
        assert!(read(&mut body).await.unwrap().0.contains("timeouts.upload (45 s)"));
    }
}

/// Once, whoever called its content one of gRPC could be silent for ten minutes, and as slow as it liked.
#[tokio::test(start_paused = true)]
async fn only_where_http2_is_spoken_can_a_request_be_a_call() {
    let front = four_places(&echo(), "");
    let mut client = client(&front).await;
    let request = Request::post("https://shop.example/").header("content-type", "application/grpc");
    let (response, mut content) = client.send(request, false);
    content.send_data("x".into(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 408, "after timeouts.body");
}

#[tokio::test(start_paused = true)]
async fn a_client_has_so_many_requests_under_way_and_others_have_theirs() {
    for of_all_routes_or_one in
        ["[bounds]\nrequests_per_client = 2\n", "bounds = { requests_per_client = 2 }\n"]
    {
        two_of_a_client(of_all_routes_or_one).await;
    }
}

async fn two_of_a_client(bounds: &str) {
    let gate = scripted_upstream::Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::ok("text").cache_control("no-store").after(&held));
    let front = four_places(&upstream, &format!("{bounds}[clients]\ntrusted_proxies = [\"192.0.2.1\"]"));
    let from = |client: &'static str| {
        let front = front.clone();
        tokio::spawn(async move { front.get_with("/", &[("x-forwarded-for", client)]).await })
    };
    let first = [from("198.51.100.1"), from("198.51.100.1")];
    settle().await;
    let refused = from("198.51.100.1").await.unwrap();
    assert_eq!((refused.status, refused.field("retry-after")), (429, "1"));
    assert!(refused.field("cache-status").contains("client-busy"), "{refused:?}");
    let other = from("198.51.100.2");
    settle().await;
    gate.open();
    for answered in first.into_iter().chain([other]) {
        assert_eq!(answered.await.unwrap().status, 200);
    }
    assert_eq!(
        from("198.51.100.1").await.unwrap().status,
        200,
        "what has been answered is no longer under way"
    );
}

/// Once, who waited for slow answers or read none of his kept all others from the upstream.
#[tokio::test(start_paused = true)]
async fn one_client_leaves_places_at_the_upstream_to_others_and_a_proxy_is_many() {
    for (trusted, greedy) in [("192.0.2.1", "198.51.100.1"), ("192.0.2.0/24", "192.0.2.2")] {
        let gate = scripted_upstream::Gate::closed();
        let held = gate.clone();
        let upstream = Upstream::start(move |seen| {
            let reply = Reply::ok("text").cache_control("no-store");
            if seen.target == "/quick" { reply } else { reply.after(&held) }
        });
        let settings = format!(
            "connections = 16\nwaiting = 8\n[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n\
             [clients]\ntrusted_proxies = [\"{trusted}\", \"192.0.2.1\"]"
        );
        let front = front_with(&upstream, &settings);
        let ask = |client: &'static str, path: String| {
            let front = front.clone();
            tokio::spawn(async move { front.get_with(&path, &[("x-forwarded-for", client)]).await })
        };
        let all: Vec<_> = (0..40).map(|number| ask(greedy, format!("/slow/{number}"))).collect();
        settle().await;
        let is_many = trusted.ends_with("24");
        let (taken, refused) = if is_many { (16, 40 - 16 - 8) } else { (14, 40 - 14 - 7) };
        assert_eq!(upstream.count(), taken, "{greedy}");
        assert_eq!(
            all.iter().filter(|asked| asked.is_finished()).count(),
            refused,
            "{greedy}: those beyond the queue"
        );
        let other = ask("203.0.113.9", "/quick".to_owned()).await.unwrap();
        assert_eq!(other.status, if is_many { 503 } else { 200 });
        gate.open();
        let answered = futures_util::future::join_all(all).await;
        let served = answered.iter().filter(|answer| answer.as_ref().unwrap().status == 200).count();
        assert_eq!(served, 40 - refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_too_many_streams_begin_is_told_to_calm_down() {
    let upstream = answering(4, "max-age=60");
    let front = front_with(
        &upstream,
        "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n[bounds]\nstreams_per_second = 10\n",
    );
    let mut client = client(&front).await;
    for _ in 0..3 {
        for _ in 0..10 {
            assert_eq!(client.get("/").await.unwrap().status(), 200);
        }
        pass(1).await;
    }
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
    assert!(client.get("/").await.is_err());
    assert_eq!(front.metric_lines("gatehouse_edge_cut_off_total"), ["{reason=\"streams-per-second\"} 1"]);
}

/// Who reads with a small window sends thousands of WINDOW_UPDATEs for one answer.
#[tokio::test(start_paused = true)]
async fn frames_that_a_large_answer_needs_count_for_nothing() {
    let content = Bytes::from(vec![b'x'; 8 << 20]);
    let upstream = Upstream::start(move |_: &Seen| Reply::ok(content.clone()).cache_control("max-age=600"));
    let front = front_with(
        &upstream,
        "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n[bounds]\ncontrol_frames_per_second = 10\n",
    );
    let mut narrow = h2::client::Builder::new();
    narrow.initial_window_size(4096).initial_connection_window_size(65_535);
    let mut client = client_with(&front, &narrow).await;
    for _ in 0..2 {
        let mut answer = client.get("/").await.unwrap();
        assert_eq!(read(answer.body_mut()).await.unwrap().0.len(), 8 << 20);
    }
    assert!(front.metric_lines("gatehouse_edge_cut_off_total").is_empty());
}

/// Once, addresses of which nothing may be stored pushed out nearly all that had been asked for once.
#[tokio::test(start_paused = true)]
async fn what_may_not_be_stored_pushes_out_nothing_that_is() {
    let content = Bytes::from(vec![b'x'; 20_000]);
    let upstream = Upstream::start(move |seen: &Seen| {
        let cache = if seen.target.starts_with("/stored/") { "max-age=600" } else { "no-store" };
        Reply::ok(content.clone()).cache_control(cache)
    });
    let front = front_with(&upstream, CACHED);
    for number in 0..300 {
        assert_eq!(front.get(&format!("/stored/{number}")).await.status, 200);
    }
    for number in 0..1000 {
        assert_eq!(front.get(&format!("/never/{number}")).await.status, 200);
    }
    for number in 0..300 {
        assert_eq!(front.get(&format!("/stored/{number}")).await.cache(), "hit", "{number}");
    }
}
