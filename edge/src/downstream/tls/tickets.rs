//! Session tickets: sealed by keys that other edges have too, where there are some, else by this edge's own.

use std::sync::Arc;

use rustls::{crypto::aws_lc_rs, server::ProducesTickets};

use crate::message::ticket_keys::TicketKeys;

/// Tickets of all listeners.
#[derive(Debug)]
pub(super) struct Tickets {
    shared: Arc<TicketKeys>,
    own: Arc<dyn ProducesTickets>,
}

impl Tickets {
    /// Own keys are made once per process and changed every six hours.
    pub(super) fn new(shared: Arc<TicketKeys>) -> Result<Self, rustls::Error> {
        Ok(Self { shared, own: aws_lc_rs::Ticketer::new()? })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.own.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.own.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.shared.seal(plain).or_else(|| self.own.encrypt(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        // What was sealed before keys were shared is opened as well.
        self.shared.open(cipher).or_else(|| self.own.decrypt(cipher))
    }
}
