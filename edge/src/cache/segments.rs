//! A complete body in memory, as a few shared pieces.

use std::{
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;

/// Bodies up to this many bytes are kept as one piece, so that a hit is one write.
const ONE_PIECE: u64 = LARGEST_PIECE as u64;
const LARGEST_PIECE: usize = 64 * 1024;

/// A complete body. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    pieces: Arc<[Bytes]>,
    length: u64,
}

impl Segments {
    /// Takes the pieces of a body, which must own their memory (not slices of a larger read buffer).
    pub fn new(pieces: &[Bytes]) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        if length <= ONE_PIECE && pieces.len() > 1 {
            return Self { pieces: Arc::from([Bytes::from(pieces.concat())]), length };
        }
        // Sent piece by piece: what has not been sent yet is then known to within a piece.
        let split = |piece: &Bytes| {
            let piece = piece.clone();
            let starts = (0..piece.len()).step_by(LARGEST_PIECE);
            starts.map(move |start| piece.slice(start..piece.len().min(start + LARGEST_PIECE)))
        };
        Self { pieces: pieces.iter().flat_map(split).collect(), length }
    }

    /// Whether both are the very same body in memory.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pieces, &other.pieces)
    }

    /// A handle that does not keep the body in memory.
    pub fn downgrade(&self) -> WeakSegments {
        WeakSegments { pieces: Arc::downgrade(&self.pieces), length: self.length }
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of memory it holds, bookkeeping included.
    pub fn weight(&self) -> u64 {
        self.length + 64 * self.pieces.len() as u64
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Reads the whole body.
    pub fn read(&self) -> SegmentsReader {
        self.read_range(0..self.length)
    }

    /// Reads a part of the body; `range` must lie inside it.
    pub fn read_range(&self, range: Range<u64>) -> SegmentsReader {
        let (mut skip, mut next) = (range.start, 0);
        while let Some(piece) = self.pieces.get(next) {
            if skip < piece.len() as u64 {
                break;
            }
            skip -= piece.len() as u64;
            next += 1;
        }
        SegmentsReader { segments: self.clone(), next, skip, left: range.end.saturating_sub(range.start) }
    }
}

/// A body that may be gone.
#[derive(Clone, Debug)]
pub struct WeakSegments {
    pieces: Weak<[Bytes]>,
    length: u64,
}

impl WeakSegments {
    /// The body, if anyone still holds it.
    pub fn upgrade(&self) -> Option<Segments> {
        Some(Segments { pieces: self.pieces.upgrade()?, length: self.length })
    }
}

/// A position in a body.
#[derive(Debug)]
pub struct SegmentsReader {
    segments: Segments,
    next: usize,
    skip: u64,
    left: u64,
}

impl SegmentsReader {
    /// The next piece, never empty; `None` at the end.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let piece = self.segments.pieces.get(self.next)?;
        let start = usize::try_from(std::mem::take(&mut self.skip)).expect("skip is inside the piece");
        let end = usize::try_from(self.left)
            .map_or(piece.len(), |left| piece.len().min(start.saturating_add(left)));
        self.next += 1;
        self.left -= (end - start) as u64;
        Some(piece.slice(start..end))
    }

    /// Bytes not read yet.
    pub fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_reads_what_slicing_gives(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            a in 0u64..200, b in 0u64..200,
        ) {
            let whole = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            // Built without joining, so that ranges cross pieces.
            let segments = Segments { length: whole.len() as u64, pieces: pieces.into() };
            let end = (a.max(b)).min(whole.len() as u64);
            let start = a.min(b).min(end);
            let mut reader = segments.read_range(start..end);
            let mut read = Vec::new();
            while let Some(piece) = reader.next_piece() {
                prop_assert!(!piece.is_empty());
                read.extend_from_slice(&piece);
            }
            prop_assert_eq!(read.as_slice(), &whole[start as usize..end as usize]);
        }
    }
}
