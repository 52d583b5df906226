//! Where the frames of a WebSocket end (RFC 6455 §5.2): the only places at which a third party may say goodbye.

/// The frames of one direction, as far as they have been sent.
#[derive(Debug, Default)]
pub struct Frames {
    /// The header of the frame under way, as far as it has come.
    header: Vec<u8>,
    /// Octets of its payload that are still to come.
    left: u64,
}

impl Frames {
    /// Notes octets that were sent.
    pub fn sent(&mut self, mut octets: &[u8]) {
        while let [octet, rest @ ..] = octets {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
                self.left -= skipped as u64;
                octets = &octets[skipped..];
                continue;
            }
            self.header.push(*octet);
            octets = rest;
            if let Some(length) = payload_length(&self.header) {
                self.left = length;
                self.header.clear();
            }
        }
    }

    /// Whether the octets sent so far are whole frames.
    pub fn at_end(&self) -> bool {
        self.header.is_empty() && self.left == 0
    }
}

/// The length of a payload, once its header is complete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = header else { return None };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if rest.len() < extended + mask {
        return None;
    }
    Some(match extended {
        0 => u64::from(second & 0x7f),
        _ => rest[..extended].iter().fold(0, |length, octet| length << 8 | u64::from(*octet)),
    })
}

/// "Going away" (RFC 6455 §7.4.1), as a server sends it.
pub const GOING_AWAY_TO_CLIENT: &[u8] = &[0x88, 2, 0x03, 0xe9];
/// And as a client does: with a mask, here of zeros.
pub const GOING_AWAY_TO_SERVER: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_where_its_header_says_however_it_is_cut() {
        let mut long = vec![0x82, 126, 1, 0];
        long.resize(4 + 256, 7);
        let mut longer = vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 9, 9, 9];
        longer.resize(14 + 65_536, 7);
        for frame in [&b"\x81\x05hello"[..], b"\x88\x82\0\0\0\0\x03\xe9", b"\x89\x00", &long, &longer] {
            for cut in [1, frame.len() / 2, frame.len() - 1] {
                let mut frames = Frames::default();
                frames.sent(&frame[..cut]);
                assert!(!frames.at_end());
                frames.sent(&frame[cut..]);
                assert!(frames.at_end());
            }
        }
    }
}
