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
    pub(super) length: u64,
    pub(super) checksum: u32,
}

impl BodyPlace {
    /// Of a body within its head's hash.
    pub(super) fn inline(body: &StoredBody) -> Self {
        Self { id: "-".to_owned(), count: 0, length: body.length(), checksum: checksum(body.pieces()) }
    }

    /// Of a body in pieces of its own.
    pub(super) fn beside(body: &StoredBody) -> Self {
        let count = usize::try_from(body.length()).unwrap_or(usize::MAX).div_ceil(PIECE);
        Self { id: digest::random(), count, ..Self::inline(body) }
    }

    pub(super) fn piece(&self, prefix: &str, number: usize) -> String {
        format!("{prefix}:b:{}:{number}", self.id)
    }

    pub(super) fn pieces(&self, prefix: &str) -> Vec<String> {
        (0..self.count).map(|number| self.piece(prefix, number)).collect()
    }

    pub(super) fn to_text(&self) -> String {
        let Self { id, count, length, checksum } = self;
        format!("{id} {count} {length} {checksum}")
    }

    /// The place of this text.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let place = Self {
            id: words.next()?.to_owned(),
            count: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok()?,
            checksum: words.next()?.parse().ok()?,
        };
        // No body of so many pieces is shorter.
        let fits = usize::try_from(place.length).is_ok_and(|length| place.count <= length.div_ceil(PIECE));
        (words.next().is_none() && fits).then_some(place)
    }
}

pub(super) fn checksum(pieces: &[Bytes]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| checksum.update(piece));
    checksum.finalize()
}

/// Bodies beside their heads lie in pieces of so many octets.
pub(super) const PIECE: usize = 256 * 1024;
