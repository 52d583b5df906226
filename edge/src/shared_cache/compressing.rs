//! Bodies that lie in Redis compressed: less of its memory, and of the way there. Compressed on the tier's own thread, piece by
//! piece, so that what else it does is not held up; read on a worker, no further than the body is long.

use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use tokio::task::yield_now;

use crate::cache::StoredBody;

/// The compressed octets of a body, if it is worth it.
pub(super) async fn compress(body: &StoredBody) -> Option<Bytes> {
    if body.length() < SHORTEST {
        return None;
    }
    let most = usize::try_from(body.length() / 10 * 9).ok()?;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).ok()?;
    for piece in body.pieces() {
        for part in piece.chunks(AT_ONCE) {
            encoder.write_all(part).ok()?;
            if encoder.get_ref().len() > most {
                return None;
            }
            yield_now().await;
        }
    }
    let compressed = encoder.finish().ok()?;
    (compressed.len() <= most).then(|| compressed.into())
}

/// The body of these octets, which is so long.
pub(super) async fn decompress(compressed: &[Bytes], length: u64) -> io::Result<Vec<Bytes>> {
    let compressed = compressed.concat();
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&compressed[..])?;
    let mut pieces = Vec::new();
    let mut rest = usize::try_from(length).map_err(io::Error::other)?;
    while rest > 0 {
        let mut piece = vec![0; rest.min(AT_ONCE)];
        decoder.read_exact(&mut piece)?;
        rest -= piece.len();
        pieces.push(piece.into());
        yield_now().await;
    }
    if decoder.read(&mut [0])? > 0 {
        return Err(io::Error::other("a body is longer than it says"));
    }
    Ok(pieces)
}

const AT_ONCE: usize = 64 * 1024;
/// What is shorter hardly becomes less.
const SHORTEST: u64 = 512;
/// The fastest.
const LEVEL: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_compressed_is_read_as_it_was_and_only_that() {
        let text = Bytes::from("A page of a catalogue. ".repeat(20_000));
        let body = StoredBody::new(&[text.slice(..100_000), text.slice(100_000..)]);
        let compressed = compress(&body).await.unwrap();
        assert!(compressed.len() < text.len() / 100, "{}", compressed.len());
        let length = text.len() as u64;
        assert_eq!(decompress(std::slice::from_ref(&compressed), length).await.unwrap().concat(), text);
        for wrong in [length - 1, length + 1] {
            assert!(decompress(std::slice::from_ref(&compressed), wrong).await.is_err());
        }
        assert!(decompress(&[compressed.slice(..compressed.len() - 9)], length).await.is_err());
        assert!(decompress(&[text], length).await.is_err());
    }

    #[tokio::test]
    async fn what_hardly_becomes_less_stays_as_it_is() {
        let mut number = 1_u32;
        let mut noise = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        let noise: Vec<u8> = (0..100_000).map(|_| noise()).collect();
        for octets in [noise, b"short".to_vec()] {
            assert!(compress(&StoredBody::new(&[octets.into()])).await.is_none());
        }
    }
}
