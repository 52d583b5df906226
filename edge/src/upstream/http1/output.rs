//! What is on its way to a server: a head, and the piece of content behind it, in one write where the system takes both.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Octets to be written: heads, sizes of chunks and the like, then a piece of content as its client sent it, then what ends it.
#[derive(Debug, Default)]
pub struct Output {
    lines: BytesMut,
    piece: Bytes,
    end: &'static [u8],
}

impl Output {
    /// Where lines are written, before the next piece.
    pub fn lines(&mut self) -> &mut BytesMut {
        &mut self.lines
    }

    /// Writes a piece behind the lines, and `end` behind it. Nothing may be left of the piece before.
    pub fn add(&mut self, piece: Bytes, end: &'static [u8]) {
        debug_assert!(self.piece.is_empty() && self.end.is_empty(), "a piece would be lost");
        (self.piece, self.end) = (piece, end);
    }

    /// Whether something is left of the last piece, or of what ends it.
    pub fn has_piece(&self) -> bool {
        !(self.piece.is_empty() && self.end.is_empty())
    }

    /// Forgets what has not been written.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.lines.len() + self.piece.len() + self.end.len()
    }

    fn chunk(&self) -> &[u8] {
        match (&self.lines[..], &self.piece[..]) {
            ([], []) => self.end,
            ([], piece) => piece,
            (lines, _) => lines,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = [&self.lines[..], &self.piece[..], self.end].into_iter().filter(|part| !part.is_empty());
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let of_lines = count.min(self.lines.len());
        self.lines.advance(of_lines);
        let of_piece = (count - of_lines).min(self.piece.len());
        self.piece.advance(of_piece);
        self.end = &self.end[count - of_lines - of_piece..];
        if of_piece > 0 && self.piece.is_empty() {
            // Its buffer is its client's.
            self.piece = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_system_takes_at_once_each_octet_goes_out_in_its_turn() {
        for step in 1..12 {
            let mut output = Output::default();
            output.lines().extend_from_slice(b"3\r\n");
            output.add(Bytes::from_static(b"abc"), b"\r\n0\r\n\r\n");
            let mut sent = Vec::new();
            while output.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 4];
                let filled = output.chunks_vectored(&mut slices);
                let whole: Vec<u8> =
                    slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                assert!(whole.starts_with(output.chunk()) && whole.len() == output.remaining());
                let taken = step.min(whole.len());
                sent.extend_from_slice(&whole[..taken]);
                output.advance(taken);
            }
            assert_eq!(sent, b"3\r\nabc\r\n0\r\n\r\n", "{step} at once");
        }
    }
}
