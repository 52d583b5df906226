//! Addresses that must be known before whoever listens there has started, and stay the same when it starts again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below what systems hand out by themselves.
const FIRST_PORT: u16 = 20_001;

/// An address that nobody else on this machine has: of the loopback network the part that belongs to this process's id, which
/// has 22 bits at most on Linux, and a port that this process has not had.
///
/// # Panics
/// After some ten thousand of them.
#[must_use]
pub fn own() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port >= FIRST_PORT, "this process has had every port there is");
    let network = u32::from(Ipv4Addr::new(127, 64, 0, 0));
    SocketAddr::from((Ipv4Addr::from(network | (process::id() & 0x003f_ffff)), port))
}
