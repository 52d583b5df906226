//! What bodies that are coded or decoded on the fly hold, all of them at once, in the worst case. Each test wants a process of its own,
//! as nextest gives it: what one has freed, the next would take again unmeasured.
#![expect(clippy::disallowed_macros, reason = "a test prints what it has counted or is asked for")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{fs, io::Write as _, sync::Arc};

use bytes::Bytes;
use cache_policy::Coding;
use edge::{
    cache::{Memory, Recording},
    response::{
        body::{Body, Cut},
        coding::{Coder, decoded, on_the_fly},
    },
};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

/// Beside the cache's budget.
const MOST: u64 = 64 << 20;

#[test]
fn gzip_on_the_fly_stays_inside_its_bound() {
    assert_bounded(Coding::Gzip);
}

#[test]
fn brotli_on_the_fly_stays_inside_its_bound() {
    assert_bounded(Coding::Brotli);
}

#[test]
fn zstd_on_the_fly_stays_inside_its_bound() {
    assert_bounded(Coding::Zstd);
}

#[test]
fn decoding_on_the_fly_stays_inside_its_bound() {
    assert_bounded(Coding::Identity);
}

/// As many bodies as the edge codes at once, each in the middle of a body longer than any window.
fn assert_bounded(coding: Coding) {
    let coder = Coder::start(Arc::new(Memory::new(1 << 20, 1, Arc::default()))).unwrap();
    let recording = Recording::new();
    let source = match coding {
        Coding::Identity => gzip(&text(512 << 10)),
        _ => text(512 << 10),
    };
    for piece in source.chunks(16 * 1024) {
        recording.push(Bytes::copy_from_slice(piece));
    }
    let before = resident();
    let mut bodies = Vec::new();
    while let Some(slot) = coder.slot(coding) {
        let reader = recording.reader().unwrap();
        let body = Body::Filling(Box::new(Cut::whole(reader, None)));
        let body = match coding {
            Coding::Identity => decoded(body, slot),
            _ => on_the_fly(body, coding, slot).unwrap(),
        };
        let mut body = Body::Coded(Box::new(body));
        // Pieces are dropped as a client that reads them does; the encoder waits for more at the end of what is there.
        while let Some(frame) = body.frame().now_or_never() {
            frame.unwrap().unwrap();
        }
        bodies.push(body);
    }
    let held = resident() - before;
    println!(
        "{coding:?}: {} bodies hold {} KiB, {} KiB each",
        bodies.len(),
        held >> 10,
        (held >> 10) / bodies.len() as u64
    );
    assert!(bodies.len() >= 64, "{} are too few for a busy edge", bodies.len());
    assert!(held <= MOST, "{coding:?}: {held} bytes");
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.flush().unwrap();
    // Not finished: the body is in its middle.
    encoder.get_ref().clone()
}

/// Words in no order, so that nothing repeats far back and every table is used.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("{:x} ", state >> 40).as_bytes());
    }
    text
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kilobytes.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}
