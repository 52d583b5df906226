//! A complete body in memory, as a few shared pieces.
//!
//! Sending a body keeps it in memory for as long as its client reads, even after its entry is evicted. Such bytes are
//! counted: see [`Detached`].

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

/// Bodies up to this many bytes are kept as one piece, so that a hit is one write.
const LARGEST_PIECE: usize = 64 * 1024;
/// A body in this many times the pieces it needs is copied into fewer.
const SCATTERED: usize = 4;

/// A complete body. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct StoredBody {
    shared: Arc<Pieces>,
    length: u64,
}

#[derive(Debug, Default)]
struct Pieces {
    pieces: Box<[Bytes]>,
    account: OnceLock<Account>,
}

/// Where a body is counted while no entry holds it.
#[derive(Debug)]
struct Account {
    lent: Arc<Detached>,
    weight: i64,
    entries: AtomicUsize,
}

/// Bytes of bodies that no entry holds and that are still being read.
#[derive(Debug, Default)]
pub struct Detached(AtomicI64);

impl Detached {
    pub fn bytes(&self) -> u64 {
        // A body that is added and removed on two threads may be subtracted before it is added.
        self.0.load(Ordering::Relaxed).try_into().unwrap_or(0)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(account) = self.account.get() {
            // Entries hold it, so none of its bytes count as lent.
            account.lent.0.fetch_sub(account.weight, Ordering::Relaxed);
        }
    }
}

impl StoredBody {
    /// Takes the pieces of a body, which must own their memory (not slices of a larger read buffer). Many small ones
    /// are merged into few: an upstream that flushes each line would make every hit as slow as itself.
    pub fn new(pieces: &[Bytes]) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let fewest = usize::try_from(length).unwrap_or(usize::MAX).div_ceil(LARGEST_PIECE);
        let all = match pieces.len() {
            count if count > 1 && (fewest <= 1 || count > SCATTERED * fewest) => join(pieces, fewest),
            _ => split(pieces),
        };
        Self::of(all.into_boxed_slice(), length)
    }

    fn of(pieces: Box<[Bytes]>, length: u64) -> Self {
        Self { shared: Arc::new(Pieces { pieces, account: OnceLock::new() }), length }
    }

    /// Counts it as lent from now on, while it is in use and no entry holds it.
    pub fn lend(&self, lent: &Arc<Detached>) {
        self.account(lent);
    }

    /// An entry begins to hold it.
    pub(super) fn enter(&self, lent: &Arc<Detached>) {
        let account = self.account(lent);
        if account.entries.fetch_add(1, Ordering::Relaxed) == 0 {
            account.lent.0.fetch_sub(account.weight, Ordering::Relaxed);
        }
    }

    /// An entry that held it is dropped.
    pub(super) fn leave(&self) {
        if let Some(account) = self.shared.account.get()
            && account.entries.fetch_sub(1, Ordering::Relaxed) == 1
        {
            account.lent.0.fetch_add(account.weight, Ordering::Relaxed);
        }
    }

    fn account(&self, lent: &Arc<Detached>) -> &Account {
        self.shared.account.get_or_init(|| {
            let weight = i64::try_from(self.weight()).unwrap_or(i64::MAX);
            lent.0.fetch_add(weight, Ordering::Relaxed);
            Account { lent: Arc::clone(lent), weight, entries: AtomicUsize::new(0) }
        })
    }

    /// Whether both are the very same body in memory.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A handle that does not keep the body in memory.
    pub fn downgrade(&self) -> WeakStoredBody {
        WeakStoredBody { shared: Arc::downgrade(&self.shared), length: self.length }
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of memory it holds, bookkeeping included.
    pub fn weight(&self) -> u64 {
        self.length + 64 * self.pieces().len() as u64 + size_of::<Pieces>() as u64
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.shared.pieces
    }

    pub fn read(&self) -> StoredBodyReader {
        self.read_range(0..self.length)
    }

    /// Reads a part of the body; `range` must lie inside it.
    pub fn read_range(&self, range: Range<u64>) -> StoredBodyReader {
        let (mut skip, mut next) = (range.start, 0);
        while let Some(piece) = self.pieces().get(next) {
            if skip < piece.len() as u64 {
                break;
            }
            skip -= piece.len() as u64;
            next += 1;
        }
        StoredBodyReader { segments: self.clone(), next, skip, left: range.end.saturating_sub(range.start) }
    }
}

/// Splits pieces for sending: the unsent bytes are then known to within a piece.
fn split(pieces: &[Bytes]) -> Vec<Bytes> {
    // Allocated at its final size: the memory a vector frees when it shrinks is lost between its neighbours.
    let count = pieces.iter().map(|piece| piece.len().div_ceil(LARGEST_PIECE)).sum();
    let mut all = Vec::with_capacity(count);
    for piece in pieces {
        let starts = (0..piece.len()).step_by(LARGEST_PIECE);
        all.extend(starts.map(|start| piece.slice(start..piece.len().min(start + LARGEST_PIECE))));
    }
    all
}

/// The same octets in `count` pieces.
fn join(pieces: &[Bytes], count: usize) -> Vec<Bytes> {
    let mut all = Vec::with_capacity(count);
    let mut left: usize = pieces.iter().map(Bytes::len).sum();
    let mut last = Vec::with_capacity(left.min(LARGEST_PIECE));
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (fits, beyond) = rest.split_at(rest.len().min(LARGEST_PIECE - last.len()));
            last.extend_from_slice(fits);
            left -= fits.len();
            rest = beyond;
            if last.len() == LARGEST_PIECE || left == 0 {
                let next = Vec::with_capacity(left.min(LARGEST_PIECE));
                all.push(Bytes::from(std::mem::replace(&mut last, next)));
            }
        }
    }
    all
}

/// A body that may have been dropped.
#[derive(Clone, Debug)]
pub struct WeakStoredBody {
    shared: Weak<Pieces>,
    length: u64,
}

impl WeakStoredBody {
    /// The body, if anyone still holds it.
    pub fn upgrade(&self) -> Option<StoredBody> {
        Some(StoredBody { shared: self.shared.upgrade()?, length: self.length })
    }
}

/// A position in a body.
#[derive(Debug)]
pub struct StoredBodyReader {
    segments: StoredBody,
    next: usize,
    skip: u64,
    left: u64,
}

impl StoredBodyReader {
    /// The next piece, never empty; `None` at the end.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let piece = self.segments.pieces().get(self.next)?;
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

    #[test]
    fn a_body_is_lent_while_it_is_read_and_no_entry_holds_it() {
        let lent = Arc::<Detached>::default();
        let body = StoredBody::new(&[Bytes::from(vec![b'x'; 100_000])]);
        let weight = body.weight();
        assert_eq!(lent.bytes(), 0, "nobody has said so");
        body.lend(&lent);
        assert_eq!(lent.bytes(), weight);
        body.enter(&lent);
        body.enter(&lent);
        let reader = body.read();
        body.leave();
        assert_eq!(lent.bytes(), 0, "the second entry holds it");
        body.leave();
        drop(body);
        assert_eq!(lent.bytes(), weight, "its reader alone");
        drop(reader);
        assert_eq!(lent.bytes(), 0);
    }

    proptest! {
        #[test]
        fn scattered_pieces_become_few_and_stay_the_same(
            pieces in proptest::collection::vec((any::<u8>(), 0usize..3_000), 0..400),
        ) {
            let pieces: Vec<Bytes> =
                pieces.into_iter().map(|(octet, length)| Bytes::from(vec![octet; length])).collect();
            let segments = StoredBody::new(&pieces);
            prop_assert_eq!(segments.pieces().concat(), pieces.concat());
            let length = usize::try_from(segments.length()).unwrap();
            prop_assert_eq!(length, pieces.concat().len());
            prop_assert!(segments.pieces().len() <= SCATTERED * length.div_ceil(LARGEST_PIECE));
            prop_assert!(segments.pieces().iter().all(|piece| (1..=LARGEST_PIECE).contains(&piece.len())));
        }

        #[test]
        fn a_range_reads_what_slicing_gives(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            a in 0u64..200, b in 0u64..200,
        ) {
            let whole = pieces.concat();
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            // Built without joining, so that ranges cross pieces.
            let segments = StoredBody::of(pieces.into(), whole.len() as u64);
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
