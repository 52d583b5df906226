//! Attacks in small on the real program: who is good notices nothing, the attackers are cut off, and nothing of theirs is left.
//!
//! `make siege` runs the same in full, beside nginx and HAProxy, and measures. Here nothing is measured but memory; deadlines
//! are short, so that what they cut off is cut off soon.

use std::{net::Ipv4Addr, thread, time::Duration};

use gatehouse_tests::{
    attack::{Assault, Attack, Ends, Force, How, Target},
    besieged::{self, Besieged},
    edge::{Edge, Setup},
    process::resident_kib,
    raw::Raw,
    steady::{Plan, Steady, Verdict},
    wait,
};

/// What an attack may take beside what the edge has taken before it.
const ALLOWED_KIB: u64 = 64 << 10;
/// Connections to the server behind the edge, which attackers may not keep.
const PLACES: usize = 16;
/// Requests of the good client, for what is stored and for what may not be, at fifty a second each.
const GOOD: usize = 100;
const PACE: Duration = Duration::from_millis(100);

/// An edge whose deadlines are short, and which has fewer places upstream than attackers take.
fn hasty(server: &Besieged) -> Setup {
    hasty_with(server, "")
}

fn hasty_with(server: &Besieged, upstream: &str) -> Setup {
    Setup::over_address(server.address()).upstream(&format!("connections = {PLACES}\n{upstream}")).tables(
        "[log]\nformat = \"off\"\n[timeouts]\nhandshake = \"500ms\"\nheader = \"500ms\"\nbody = \"500ms\"",
    )
}

/// An edge whose deadlines are not reached.
fn patient(server: &Besieged) -> Setup {
    Setup::over_address(server.address())
        .upstream(&format!("connections = {PLACES}\nwaiting_timeout = \"20s\""))
        .tables("[log]\nformat = \"off\"")
}

/// Attacks until the good client has asked for all of its own and the attackers have got `enough`: what they got.
#[track_caller]
fn withstands(
    attack: Attack,
    (connections, each): (usize, usize),
    setup: impl FnOnce(&Besieged) -> Setup,
    enough: impl Fn(&Ends) -> bool,
) -> Ends {
    let server = Besieged::start(PLACES);
    let edge = setup(&server).start();
    for path in ["/hit/0", "/hit/1", "/large-hit"] {
        edge.until_hit(path);
    }
    let (before, _) = resident_kib(edge.id());
    let target = Target { clear: edge.clear(), tls: edge.tls(), authority: edge.authority() };
    let assault =
        Assault::start(attack, target, Force { connections, each, again: 20 * connections, pace: PACE });
    let good = |target: fn(usize) -> String| {
        Steady::start(Plan {
            newcomer_every: 2,
            repeats: true,
            target,
            from: Ipv4Addr::new(127, 0, 0, 2).into(),
            ..Plan::new(edge.clear(), vec![besieged::NAME], 50, GOOD)
        })
    };
    let loads = [good(|number| format!("/hit/{}", number % 2)), good(|number| format!("/miss/{number}"))];
    let outcomes = loads.map(Steady::finish).concat();
    let got = wait::until_within(wait::PATIENCE, || Some(assault.ends()).filter(|ends| enough(ends)));
    let ends = assault.stop();
    println!("{attack}: {ends}");
    assert!(got.is_some(), "{attack} is not cut off: {ends}");
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Right).collect();
    assert!(wrong.is_empty(), "during {attack}: {wrong:#?}");
    let (_, highest) = resident_kib(edge.id());
    println!("{before} KiB before, {highest} KiB at the highest");
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
    assert_all_places_are_free(&edge);
    ends
}

/// As many requests as there are places reach the server at once, and no connection is left of those that attacked.
#[track_caller]
fn assert_all_places_are_free(edge: &Edge) {
    let together: Vec<_> = (0..PLACES)
        .map(|number| {
            // The last places are for those who have no more than their share: whoever comes last has none yet.
            let client = Ipv4Addr::new(127, 0, 0, 2 + number.to_le_bytes()[0]);
            let mut raw = Raw::connect_from(client, edge.clear());
            raw.send(format!("GET /together/{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            thread::spawn(move || raw.answer().status)
        })
        .collect();
    for answer in together {
        assert_eq!(answer.join().unwrap(), 200, "a place upstream is still taken");
    }
    wait::until("no connection is left", || {
        (edge.metric("gatehouse_edge_connections_open") == 0).then_some(())
    });
}

/// So many ends that the other side made.
fn cuts(count: usize) -> impl Fn(&Ends) -> bool {
    move |ends| ends.count(How::is_cut) >= count
}

/// So many GOAWAYs that say why: ENHANCE_YOUR_CALM, or a breach of the protocol.
fn go_aways(count: usize) -> impl Fn(&Ends) -> bool {
    move |ends| ends.count(|how| matches!(how, How::GoAway(1..) | How::Reset | How::Closed)) >= count
}

#[test]
fn heads_that_never_end_are_408() {
    withstands(Attack::SlowHeads, (50, 1_000), hasty, |ends| {
        ends.count(|how| how == How::Answered(408)) >= 50
    });
}

#[test]
fn idle_connections_at_the_bound_make_room() {
    let full = |server: &Besieged| patient(server).tables("[bounds]\nconnections = 20");
    withstands(Attack::IdleKeepAlives, (20, 1), full, cuts(20));
}

#[test]
fn clients_that_begin_tls_and_are_silent_are_closed() {
    withstands(Attack::SilentTls, (50, 1), hasty, cuts(100));
}

#[test]
fn answers_without_a_window_give_their_places_back() {
    // More streams than there are places.
    withstands(Attack::ClosedWindows, (2, 20), hasty, cuts(2));
}

#[test]
fn answers_that_nobody_reads_take_little_memory() {
    let ends = withstands(Attack::UnreadAnswers, (4, 64), hasty, cuts(4));
    assert!(ends.count(|how| matches!(how, How::Reset | How::Closed | How::GoAway(_))) > 0, "{ends}");
}

#[test]
fn streams_that_the_server_has_to_reset_end_the_connection() {
    withstands(Attack::MadeResets, (2, 20_000), patient, go_aways(2));
}

#[test]
fn streams_that_are_reset_at_once_end_the_connection() {
    withstands(Attack::RapidResets, (2, 20_000), patient, go_aways(2));
}

#[test]
fn a_head_of_continuations_ends_the_connection() {
    withstands(Attack::EndlessHead, (2, 10_000), patient, go_aways(2));
}

#[test]
fn pings_and_settings_without_end_end_the_connection() {
    withstands(Attack::Pings, (2, 50_000), patient, go_aways(2));
}

#[test]
fn frames_without_content_end_the_connection() {
    withstands(Attack::EmptyData, (2, 50_000), patient, go_aways(2));
}

#[test]
fn a_hundred_ranges_are_answered_by_no_more_than_the_whole() {
    withstands(Attack::Ranges, (4, 100), patient, |ends| {
        ends.count(|how| matches!(how, How::Answered(200 | 206 | 416))) >= 200
    });
}

#[test]
fn heads_beyond_the_bound_are_431() {
    withstands(Attack::BigHeads, (4, 50), patient, |ends| ends.count(|how| how == How::Answered(431)) >= 4);
}

#[test]
fn urls_that_nobody_asks_for_twice_do_not_push_out_what_is_asked_for() {
    withstands(Attack::UniqueUrls, (4, 250), patient, |ends| {
        ends.count(|how| how == How::Answered(200)) >= 500
    });
}

#[test]
fn variants_without_end_are_bounded() {
    withstands(Attack::UniqueVariants, (4, 250), patient, |ends| {
        ends.count(|how| how == How::Answered(200)) >= 500
    });
}

#[test]
fn handshakes_without_requests_leave_nothing() {
    withstands(Attack::Handshakes, (2, 50), patient, |ends| ends.count(|how| how == How::Taken) >= 100);
}

#[test]
fn hellos_that_are_refused_leave_nothing() {
    withstands(Attack::RefusedHellos, (2, 50), patient, |ends| ends.count(|how| how == How::Refused) >= 100);
}

#[test]
fn slow_uploads_give_their_places_back() {
    // More uploads than there are places, each below the floor.
    let floor = |server: &Besieged| {
        let waits = hasty_with(server, "waiting_timeout = \"20s\"");
        waits.tables("[bounds]\nbody_rate = \"100 KiB\"")
    };
    withstands(Attack::SlowUploads, (2, 20), floor, |ends| ends.count(|how| how == How::Answered(408)) >= 20);
}
