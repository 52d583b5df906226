//! Which of several servers is asked, and what becomes of one that fails.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edge::{
    message::byte_stream::ByteStream,
    upstream::{
        address::Address,
        connect::{Dial, Dialling},
    },
};
use http::Request;
use scripted_upstream::{Gate, Reply, Seen};

use crate::{
    front::{CACHED, Front, PASSED, front_by, pass, settings_for, start},
    upstream::Upstream,
};

/// Servers by name.
#[derive(Default)]
struct Servers {
    by_name: HashMap<&'static str, (Server, AtomicUsize)>,
}

enum Server {
    Answers(Upstream),
    /// It accepts and closes.
    Closes,
    Refuses,
}

impl Servers {
    fn of(servers: impl IntoIterator<Item = (&'static str, Server)>) -> Arc<Self> {
        let counted = |(name, server)| (name, (server, AtomicUsize::new(0)));
        Arc::new(Self { by_name: servers.into_iter().map(counted).collect() })
    }

    /// How many connections to it were begun.
    fn dialled(&self, name: &str) -> usize {
        self.by_name[name].1.load(Ordering::Relaxed)
    }

    fn front(self: &Arc<Self>, more: &str) -> Front {
        let mut names: Vec<_> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        front_by(settings_for(&names, more), Vec::new(), start(), Arc::clone(self) as Arc<dyn Dial>)
    }
}

fn host(address: &Address) -> &str {
    match address {
        Address::Name { host, .. } => host,
        Address::Socket(_) | Address::Unix(_) | Address::UnixOf(..) | Address::Files(_) => "",
    }
}

impl Dial for Servers {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
        let (server, dialled) = &self.by_name[host(address)];
        dialled.fetch_add(1, Ordering::Relaxed);
        match server {
            Server::Answers(upstream) => upstream.dial(address),
            Server::Closes => Box::pin(async {
                let (near, far) = tokio::io::duplex(64);
                drop(far);
                Ok(Box::new(near) as Box<dyn ByteStream>)
            }),
            Server::Refuses => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
        }
    }
}

fn answers(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Upstream, Server) {
    let upstream = Upstream::start(script);
    (upstream.clone(), Server::Answers(upstream))
}

/// A server that takes its time and answers well.
fn good() -> (Upstream, Server) {
    answers(|_| Reply::ok("good").cache_control("no-store").late(Duration::from_millis(200)))
}

/// A server that fails at once with a status of its own.
fn failing(status: u16) -> (Upstream, Server) {
    answers(move |_| Reply::ok("bad").with_status(status))
}

/// How many of 400 requests, 20 at a time, get a good answer.
async fn good_answers(front: &Front) -> usize {
    let clients = (0..20).map(|_| {
        let front = front.clone();
        tokio::spawn(async move {
            let mut good = 0;
            for _ in 0..20 {
                let got = front.get("/").await;
                good += usize::from((got.status, got.text()) == (200, "good"));
            }
            good
        })
    });
    let mut good = 0;
    for client in clients.collect::<Vec<_>>() {
        good += client.await.unwrap();
    }
    good
}

/// 364 of 400 answers were bad: the server that fails at once is always the one with the fewest requests under way.
#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_closes_costs_no_answer() {
    for more in [PASSED, CACHED] {
        let servers = Servers::of([("a", good().1), ("b", good().1), ("c", Server::Closes), ("d", good().1)]);
        assert_eq!(good_answers(&servers.front(more)).await, 400);
        assert!(servers.dialled("c") <= 25, "{}", servers.dialled("c"));
    }
}

/// Half of the answers were bad.
#[tokio::test(start_paused = true)]
async fn one_bad_server_of_two_costs_no_answer() {
    for bad in [Server::Closes, Server::Refuses, answers(|_| Reply::hang_up()).1] {
        let servers = Servers::of([("a", good().1), ("b", bad)]);
        assert_eq!(good_answers(&servers.front(PASSED)).await, 400);
        assert!(servers.dialled("b") <= 25, "{}", servers.dialled("b"));
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_that_are_named_are_failures() {
    let keys = format!("failing_statuses = [500, 503]\n{PASSED}");
    for status in [500, 503] {
        let (bad, server) = failing(status);
        let servers = Servers::of([("a", good().1), ("b", server)]);
        assert_eq!(good_answers(&servers.front(&keys)).await, 400);
        assert!(bad.count() <= 25, "{}", bad.count());
    }
    let (teapot, server) = failing(502);
    let servers = Servers::of([("a", good().1), ("b", server)]);
    assert!(good_answers(&servers.front(&keys)).await < 400, "it is not named");
    assert!(teapot.count() > 0);
}

/// With three good servers of 200 ms it got nine of ten requests.
#[tokio::test(start_paused = true)]
async fn a_server_that_errs_at_once_gets_no_more_than_its_share() {
    let (bad, server) = failing(500);
    let servers = Servers::of([("a", good().1), ("b", good().1), ("c", server), ("d", good().1)]);
    let good = good_answers(&servers.front(PASSED)).await;
    assert_eq!(good + bad.count(), 400, "nothing is sent again, for 500 is not said to be a failure");
    assert!(bad.count() <= 100, "{}", bad.count());
}

#[tokio::test(start_paused = true)]
async fn what_a_server_may_have_seen_is_sent_again_only_if_that_is_safe() {
    let (closing, server) = answers(|_| Reply::hang_up());
    let servers = Servers::of([("a", server)]);
    assert_eq!(servers.front(PASSED).get("/").await.status, 502, "there is no other server");
    assert_eq!(closing.count(), 1);
    let (one, first) = answers(|_| Reply::hang_up());
    let (two, second) = answers(|_| Reply::hang_up());
    let front = Servers::of([("a", first), ("b", second)]).front(PASSED);
    assert_eq!(front.send_body(Request::post("/"), "order").await.status, 502);
    assert_eq!(one.count() + two.count(), 1, "RFC 9110 §9.2.2");
    assert_eq!(front.get("/").await.status, 502);
    assert_eq!(one.count() + two.count(), 3, "both were asked");
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_never_sent_goes_to_another_server() {
    let servers = Servers::of([("a", Server::Refuses), ("b", good().1)]);
    let front = servers.front(PASSED);
    for _ in 0..10 {
        assert_eq!(front.send_body(Request::post("/"), "order").await.status, 200);
    }
    assert!(servers.dialled("a") <= 1, "one refused connection puts a server aside");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_passed_over_when_it_has_been_waited_for() {
    let (hung, server) = answers(|_| Reply::ok("late").late(Duration::from_secs(3600)));
    let front = Servers::of([("a", good().1), ("b", server)])
        .front(&format!("response_timeout = \"1s\"\nfailures = 2\nput_aside = \"1h\"\n{PASSED}"));
    for _ in 0..50 {
        assert_eq!(front.get("/").await.text(), "good");
        pass(20).await;
    }
    assert_eq!(hung.count(), 2, "then it is put aside");
}

/// A server that began answers and broke them off was never blamed, for its head came.
#[tokio::test(start_paused = true)]
async fn answers_that_break_off_put_a_server_aside() {
    let (broken, server) = answers(|_| Reply::streamed().then("begin").then_break());
    let servers = Servers::of([("a", good().1), ("b", server)]);
    let front = servers.front(&format!("put_aside = \"1h\"\n{PASSED}"));
    for _ in 0..50 {
        front.get("/").await;
        pass(20).await;
    }
    assert_eq!(broken.count(), 5);
    assert_eq!(front.metric_lines("gatehouse_edge_upstream_server_up").len(), 2);
    let up = front.metric_lines("gatehouse_edge_upstream_server_up{upstream=\"origin\",server=\"b:80\"} ");
    assert_eq!(up, ["0"]);
    let troubles = front.edge.state.load().troubles("all", front.edge.clock.now());
    assert!(
        troubles[0].starts_with("b:80 is put aside for ") && troubles[0].ends_with(": broken"),
        "{troubles:?}"
    );
}

/// Before, a few event streams on which nothing happened for a while put a good server aside, and any client can open them.
#[tokio::test(start_paused = true)]
async fn event_streams_that_fall_silent_put_no_server_aside() {
    let never = Gate::closed();
    let held = never.clone();
    let (events, server) = answers(move |_| {
        Reply::streamed().header("content-type", "text/event-stream").then("data: 1\n\n").then_wait(&held)
    });
    let servers = Servers::of([("a", server)]);
    let front = servers.front(&format!("failures = 2\nidle_timeout = \"10s\"\n{PASSED}"));
    let open: Vec<_> = (0..3).map(|_| front.ask("/events")).collect();
    pass(20).await;
    for stream in open {
        stream.await.unwrap();
    }
    assert_eq!(events.count(), 3);
    let up = front.metric_lines("gatehouse_edge_upstream_server_up{upstream=\"origin\",server=\"a:80\"} ");
    assert_eq!(up, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn one_request_finds_out_whether_a_server_is_back() {
    let (upstream, server) = answers(|_| Reply::hang_up());
    let servers = Servers::of([("a", good().1), ("b", server)]);
    let front = servers.front(&format!("failures = 1\nslow_start = \"0s\"\n{PASSED}"));
    while upstream.count() == 0 {
        assert_eq!(front.get("/").await.text(), "good");
    }
    pass(10).await;
    assert_eq!(good_answers(&front).await, 400);
    assert_eq!(upstream.count(), 2, "one trial, which failed");
    upstream.change(|_| Reply::ok("good").cache_control("no-store").late(Duration::from_millis(200)));
    pass(20).await;
    assert_eq!(good_answers(&front).await, 400);
    assert!(upstream.count() > 100, "{}: it is back", upstream.count());
}

#[tokio::test(start_paused = true)]
async fn when_all_servers_fail_requests_are_not_multiplied() {
    let all: Vec<_> = (0..4).map(|_| answers(|_| Reply::hang_up())).collect();
    let upstreams: Vec<_> = all.iter().map(|(upstream, _)| upstream.clone()).collect();
    let servers =
        Servers::of(["a", "b", "c", "d"].into_iter().zip(all.into_iter().map(|(_, server)| server)));
    let front = servers.front(&format!("retries = \"10%\"\n{PASSED}"));
    for _ in 0..2000 {
        assert_eq!(front.send(Request::put("/")).await.status, 502);
    }
    let asked: usize = upstreams.iter().map(|upstream| upstream.count()).sum();
    // One at a time is always permitted to be sent again; never more than twice.
    assert!(asked <= 6000, "{asked}");
    let clients: Vec<_> = (0..200).map(|_| front.ask("/")).collect();
    let before: usize = upstreams.iter().map(|upstream| upstream.count()).sum();
    for client in clients {
        client.await.unwrap();
    }
    let asked = upstreams.iter().map(|upstream| upstream.count()).sum::<usize>() - before;
    assert!(asked <= 200 + 20 + 100, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_server_outlives_a_reload() {
    let servers = Servers::of([("a", Server::Refuses), ("b", good().1)]);
    let front = servers.front(PASSED);
    while servers.dialled("a") == 0 {
        front.get("/").await;
    }
    front.reload(settings_for(&["a", "b"], &format!("connections = 7\n{PASSED}")));
    for _ in 0..20 {
        assert_eq!(front.get("/").await.text(), "good");
    }
    assert_eq!(servers.dialled("a"), 1);
}

/// The servers of an upstream that a reload had removed were shown for ever, as they had been at last.
#[tokio::test(start_paused = true)]
async fn servers_of_an_upstream_that_is_gone_are_shown_no_more() {
    let (_, silent) = answers(|_| Reply::ok("late").late(Duration::from_secs(3600)));
    let front =
        Servers::of([("a", silent)]).front(&format!("failures = 1\nresponse_timeout = \"1s\"\n{PASSED}"));
    let under_way = front.ask("/");
    pass(0).await;
    let shown =
        |front: &Front| front.metric_lines("gatehouse_edge_upstream_server_up{upstream=\"origin\"").len();
    assert_eq!(shown(&front), 1);
    let text = "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
                [upstreams.other]\nservers = [\"http://b:80\"]\n\
                [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"other\"\n";
    front.reload(edge::settings::parse(text, "test.toml").unwrap());
    assert_eq!(shown(&front), 0);
    assert_eq!(under_way.await.unwrap().status, 504);
    assert_eq!(shown(&front), 0, "also by what was under way");
}

/// Content is sent again only while it is held whole, and a POST only where the route says so.
#[tokio::test(start_paused = true)]
async fn what_a_route_permits_is_sent_again_with_its_content() {
    let route = |resend: &str| format!("{PASSED}resend = {{ {resend} }}\n");
    for (method, resend, status) in [
        ("PUT", "", 502),
        ("PUT", "content = \"1 KiB\"", 200),
        ("PUT", "content = \"4 B\"", 502),
        ("POST", "content = \"1 KiB\"", 502),
        ("POST", "content = \"1 KiB\", methods = [\"POST\"]", 200),
        ("PATCH", "content = \"1 KiB\", methods = [\"POST\"]", 502),
    ] {
        let echo = |seen: &Seen| Reply::ok(seen.body.clone());
        let (upstream, good) = answers(echo);
        let (bad, hangs_up) = answers(|_| Reply::hang_up());
        let servers = Servers::of([("a", good), ("b", hangs_up)]);
        let front = servers.front(&format!("failures = 1000\n{}", route(resend)));
        let (mut worst, mut asked) = (200, 0);
        for _ in 0..12 {
            let request = Request::builder().method(method).uri("/");
            let got = front.send_body(request, "content").await;
            asked += 1;
            match got.status {
                200 => assert_eq!(got.text(), "content"),
                other => worst = other,
            }
        }
        assert_eq!(worst, status, "{method} {resend}");
        assert!(bad.count() > 0, "the bad one was asked too");
        let sent = upstream.count() + bad.count();
        assert!(
            if status == 200 { sent > asked } else { sent == asked },
            "{method} {resend}: {sent} of {asked}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_without_content_is_sent_again_where_the_route_says_so() {
    let servers = Servers::of([("a", good().1), ("b", answers(|_| Reply::hang_up()).1)]);
    let front = servers.front(&format!("failures = 1000\n{PASSED}resend = {{ methods = [\"POST\"] }}\n"));
    for _ in 0..12 {
        assert_eq!(front.send(Request::post("/")).await.status, 200);
    }
}
