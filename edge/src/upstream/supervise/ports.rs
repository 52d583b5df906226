//! A `PORT` for each instance.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::upstream::address::Address;

/// Ports given to instances, so that two never get the same one.
#[derive(Debug, Default)]
pub(super) struct Ports(Mutex<BTreeSet<u16>>);

/// A port of 127.0.0.1, until it is dropped.
pub(super) struct Port(pub(super) u16, Arc<Ports>);

impl Ports {
    /// A port on which nobody listens. Another process may take it before the instance does: then the instance ends,
    /// and the next start takes another.
    pub(super) fn claim(self: &Arc<Self>) -> io::Result<Port> {
        // Rejected ports are held until one fits, so that the system offers each port once.
        let mut offered = Vec::new();
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            if self.0.lock().insert(port) {
                return Ok(Port(port, Arc::clone(self)));
            }
            offered.push(listener);
        }
    }
}

impl Port {
    pub(super) fn address(&self) -> Address {
        Address::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, self.0)))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.1.0.lock().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once() {
        let ports = Arc::<Ports>::default();
        let given: Vec<Port> = (0..50).map(|_| ports.claim().unwrap()).collect();
        assert_eq!(given.iter().map(|port| port.0).collect::<BTreeSet<_>>().len(), 50);
        drop(given);
        assert!(ports.0.lock().is_empty());
    }
}
