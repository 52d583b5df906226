//! Where the body of a stored response lies: within its head's hash, or in pieces of its own, which are written before the head
//! and are never changed, so that no reader mixes two bodies.

use bytes::Bytes;

use super::digest;
use crate::cache::StoredBody;

/// Where a body lies.
pub(super) struct BodyPlace {
    /// `-` for one beside its head.
    id: String,
    pub(super) count: usize,
    /// Of the body as it is read.
    pub(super) length: u64,
    pub(super) checksum: u32,
    /// How many octets lie there, of a body that lies there compressed.
    pub(super) compressed: Option<u64>,
}

impl BodyPlace {
    /// Of a body within its head's hash.
    pub(super) fn inline(body: &StoredBody) -> Self {
        let (length, checksum) = (body.length(), checksum(body.pieces()));
        Self { id: "-".to_owned(), count: 0, length, checksum, compressed: None }
    }

    /// Of a body whose compressed octets lie within its head's hash.
    pub(super) fn compressed(self, octets: u64) -> Self {
        let count = if self.count == 0 { 0 } else { pieces_of(octets) };
        Self { compressed: Some(octets), count, ..self }
    }

    /// Of a body in pieces of its own.
    pub(super) fn beside(body: &StoredBody) -> Self {
        Self { id: digest::random(), count: pieces_of(body.length()), ..Self::inline(body) }
    }

    pub(super) fn piece(&self, prefix: &str, number: usize) -> String {
        format!("{prefix}:b:{}:{number}", self.id)
    }

    pub(super) fn pieces(&self, prefix: &str) -> Vec<String> {
        (0..self.count).map(|number| self.piece(prefix, number)).collect()
    }

    pub(super) fn to_text(&self) -> String {
        let Self { id, count, length, checksum, compressed } = self;
        let compressed = compressed.map_or_else(String::new, |octets| format!(" {octets}"));
        format!("{id} {count} {length} {checksum}{compressed}")
    }

    /// The place of this text.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let place = Self {
            id: words.next()?.to_owned(),
            count: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok()?,
            checksum: words.next()?.parse().ok()?,
            compressed: match words.next() {
                Some(octets) => Some(octets.parse().ok()?),
                None => None,
            },
        };
        // No body of so many pieces is shorter.
        let fits = place.count <= pieces_of(place.compressed.unwrap_or(place.length));
        (words.next().is_none() && fits).then_some(place)
    }
}

fn pieces_of(octets: u64) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX).div_ceil(PIECE)
}

pub(super) fn checksum(pieces: &[Bytes]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| checksum.update(piece));
    checksum.finalize()
}

/// Bodies beside their heads lie in pieces of so many octets.
pub(super) const PIECE: usize = 256 * 1024;
