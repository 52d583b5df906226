//! Content codings: which responses are coded, on the fly or once for a stored body, and which are decoded.
//!
//! A stored body is coded off the request path, on one thread with a bounded queue, at a high level; until that is done
//! (and for responses that are not stored) bodies are coded on the fly at a low level.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, ready},
    thread,
};

use async_compression::{
    Level,
    brotli::EncoderParams,
    tokio::bufread::{BrotliDecoder, BrotliEncoder, GzipDecoder, GzipEncoder, ZstdDecoder, ZstdEncoder},
    zstd::CParameter,
};
use bytes::{Bytes, BytesMut};
use cache_policy::{Coding, Codings, choose_coding, forbids_transforming, list_elements};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt as _, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::io::StreamReader;

use crate::{
    cache::{Key, Memory, Stored, StoredBody, stored_body::WeakStoredBody},
    message::{body_error::BodyError, long_lived::is_incremental},
    settings::{MediaRange, Route},
};

/// The codings the edge offers.
pub const OFFERED: Codings = Codings::ALL;

/// Shorter bodies stay uncoded: head and checksum would cost the gain.
pub const SMALLEST: u64 = 256;

/// Whether a response may be coded: a complete, uncoded body of a type that shrinks, long enough, with no objection from
/// the origin (`no-transform`, RFC 9111 §5.2.2.6).
///
/// The status hardly matters: error pages are text like others. A part is not coded, for its octets are those of the whole.
pub fn codable(types: &[MediaRange], status: StatusCode, head: &HeaderMap, length: Option<u64>) -> bool {
    is_complete(status)
        && length.is_none_or(|length| length >= SMALLEST)
        && !head.contains_key(header::CONTENT_ENCODING)
        && !head.contains_key(header::TRAILER)
        && head.get(header::CONTENT_TYPE).is_some_and(|content_type| shrinks(types, content_type))
        && !forbids_transforming(head)
        // A coder would hold back what is to be sent on as it comes.
        && !is_incremental(head)
}

/// Whether a response may be decoded: a complete body in gzip and in nothing else, with no objection from the origin
/// (`no-transform`, RFC 9111 §5.2.2.6).
///
/// Any type: a client that refuses gzip cannot use it, whatever is inside.
pub fn decodable(status: StatusCode, head: &HeaderMap, length: Option<u64>) -> bool {
    // No entry in the field but this one: what lies under a second coding is not gzip.
    let is_gzip = || {
        let mut codings = list_elements(head, &header::CONTENT_ENCODING);
        codings.next().and_then(Coding::of_token) == Some(Coding::Gzip) && codings.next().is_none()
    };
    head.contains_key(header::CONTENT_ENCODING)
        && is_complete(status)
        && length != Some(0)
        && !head.contains_key(header::TRAILER)
        && is_gzip()
        && !forbids_transforming(head)
}

/// The octets under a body's coding, at most so many; `None` where there are more, where they cannot be read, or where the coding is
/// none that is known here. All is there: it waits for nothing.
pub async fn plain_octets(head: &HeaderMap, coded: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut codings = list_elements(head, &header::CONTENT_ENCODING);
    let coding = codings.next().map(Coding::of_token);
    if codings.next().is_some() {
        return None;
    }
    let mut plain = Vec::new();
    let source: Pin<Box<dyn AsyncRead + Send + '_>> = match coding {
        None | Some(Some(Coding::Identity)) => Box::pin(coded),
        Some(Some(Coding::Gzip)) => Box::pin(GzipDecoder::new(coded)),
        Some(Some(Coding::Brotli)) => Box::pin(BrotliDecoder::new(coded)),
        Some(Some(Coding::Zstd)) => Box::pin(ZstdDecoder::new(coded)),
        Some(None) => return None,
    };
    let length = source.take(most + 1).read_to_end(&mut plain).await.ok()?;
    (length as u64 <= most).then_some(plain)
}

/// Whether a client would rather have a body in no coding than in gzip. Without the field any coding is acceptable
/// (RFC 9110 §12.5.3), and where identity is refused too, decoding helps nobody.
pub fn refuses_gzip(request: &HeaderMap) -> bool {
    request.contains_key(header::ACCEPT_ENCODING)
        && choose_coding(request, Codings::GZIP) == Some(Coding::Identity)
}

/// Whether a response with this status carries the whole of its content.
fn is_complete(status: StatusCode) -> bool {
    const NEVER: [StatusCode; 4] = [
        StatusCode::PARTIAL_CONTENT,
        StatusCode::NO_CONTENT,
        StatusCode::RESET_CONTENT,
        StatusCode::NOT_MODIFIED,
    ];
    !status.is_informational() && !NEVER.contains(&status)
}

fn shrinks(types: &[MediaRange], content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let media_type = text.split(';').next().unwrap_or_default().trim();
    let is_lower = !media_type.bytes().any(|octet| octet.is_ascii_uppercase());
    let media_type = if is_lower { media_type.into() } else { Cow::from(media_type.to_ascii_lowercase()) };
    // Server-sent events must arrive one by one; coding them would be sound but gains nothing.
    media_type != "text/event-stream" && types.iter().any(|range| range.holds(&media_type))
}

/// What decides about a body that is coded or decoded on its way.
#[derive(Clone, Copy)]
pub struct OnItsWay<'a> {
    pub coder: &'a Coder,
    pub route: &'a Route,
}

/// A body that is coded, or decoded, while it is sent, as fast as its client reads. When the source has no data at once, the encoder is flushed, so that a slow
/// source's pieces arrive as they come.
pub struct CodedBody {
    /// The encoder, or the decoder.
    transformer: Pin<Box<dyn AsyncRead + Send>>,
    buffer: BytesMut,
    failure: Failures,
    _slot: Slot,
}

type Failures = Arc<std::sync::OnceLock<BodyError>>;

impl std::fmt::Debug for CodedBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CodedBody").finish_non_exhaustive()
    }
}

/// Permission to code one body on the fly.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// Codes a body on the fly.
///
/// # Errors
/// The body itself where the coding is identity.
pub fn on_the_fly<B>(body: B, coding: Coding, slot: Slot) -> Result<CodedBody, B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    let failure = Failures::default();
    let source = StreamReader::new(Data { body, failure: Arc::clone(&failure) });
    match encoder(source, coding, Effort::OnTheFly) {
        Ok(transformer) => Ok(CodedBody { transformer, buffer: BytesMut::new(), failure, _slot: slot }),
        Err(source) => Err(source.into_inner().body),
    }
}

/// Decodes a body in gzip while it is sent.
pub fn decoded<B>(body: B, slot: Slot) -> CodedBody
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    let failure = Failures::default();
    let source = StreamReader::new(Data { body, failure: Arc::clone(&failure) });
    let mut decoder = GzipDecoder::new(source);
    // RFC 1952 §2.2: a file is a series of members.
    decoder.multiple_members(true);
    CodedBody { transformer: Box::pin(decoder), buffer: BytesMut::new(), failure, _slot: slot }
}

impl CodedBody {
    /// The next piece.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.buffer.resize(PIECE, 0);
        let mut read = ReadBuf::new(&mut self.buffer);
        match ready!(self.transformer.as_mut().poll_read(context, &mut read)) {
            Ok(()) => {
                let filled = read.filled().len();
                if filled == 0 {
                    return Poll::Ready(None);
                }
                // A copy of exactly these bytes: the piece may wait long in a connection's queue.
                let piece = Bytes::copy_from_slice(&self.buffer[..filled]);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => {
                let error = self.failure.get().cloned().unwrap_or_else(|| BodyError::Coding(Arc::new(error)));
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

/// The data of a body as a stream; trailers end it.
struct Data<B> {
    body: B,
    failure: Failures,
}

impl<B> Stream for Data<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => return Poll::Ready(None),
                },
                Some(Err(error)) => {
                    // Kept aside, because the encoder hands back only an `io::Error`.
                    let _ = self.failure.set(error.clone());
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Effort {
    OnTheFly,
    Once,
}

fn encoder<S: AsyncBufRead + Send + 'static>(
    source: S,
    coding: Coding,
    effort: Effort,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, S> {
    let choose = |on_the_fly, once| match effort {
        Effort::OnTheFly => on_the_fly,
        Effort::Once => once,
    };
    let level = |on_the_fly, once| Level::Precise(choose(on_the_fly, once));
    // On the fly windows and tables are small, because every client holds some; 64 and 128 KiB are enough for pages and
    // data. `held_on_the_fly` has the memory of each.
    Ok(match coding {
        Coding::Gzip => Box::pin(GzipEncoder::with_quality(source, level(6, 9))),
        Coding::Brotli => {
            let parameters = EncoderParams::default().quality(level(3, 9)).window_size(choose(16, 22));
            Box::pin(BrotliEncoder::with_params(source, parameters))
        }
        Coding::Zstd => {
            let parameters: &[CParameter] = match effort {
                Effort::OnTheFly => {
                    &[CParameter::window_log(17), CParameter::hash_log(15), CParameter::chain_log(15)]
                }
                Effort::Once => &[CParameter::window_log(21)],
            };
            Box::pin(ZstdEncoder::with_quality_and_params(source, level(3, 12), parameters))
        }
        Coding::Identity => return Err(source),
    })
}

/// The thread that codes stored bodies, and its queue.
#[derive(Clone, Debug)]
pub struct Coder {
    queue: mpsc::SyncSender<Job>,
    /// Memory that encoders and decoders may hold, for as long as their clients read: a permit a KiB.
    encoders: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    key: Key,
    /// Weak, so that the queue keeps nothing in memory that has been evicted.
    identity: WeakStoredBody,
    coding: Coding,
}

impl Coder {
    /// Starts the thread. It ends when the last clone of the coder is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(memory: Arc<Memory>) -> io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel::<Job>(QUEUE);
        thread::Builder::new().name("coder".into()).spawn(move || {
            while let Ok(job) = jobs.recv() {
                code(&memory, &job);
            }
        })?;
        Ok(Self { queue, encoders: Arc::new(Semaphore::new(ENCODERS)) })
    }

    /// Permission to bring one more body into this coding on the fly; `None` when those under way hold all the memory they
    /// may.
    pub fn slot(&self, coding: Coding) -> Option<Slot> {
        let encoders = Arc::clone(&self.encoders);
        let permit = encoders.try_acquire_many_owned(held_on_the_fly(coding)).ok()?;
        Some(Slot { _permit: permit })
    }

    /// Requests a coding of a stored body, once. When the queue is full a later request repeats it.
    pub fn ask(&self, key: &Key, stored: &Stored, coding: Coding) {
        if !stored.ask(coding) {
            return;
        }
        let job = Job { key: key.clone(), identity: stored.identity().body.downgrade(), coding };
        if self.queue.try_send(job).is_err() {
            stored.unask(coding);
        }
    }
}

fn code(memory: &Memory, job: &Job) {
    let Some(identity) = job.identity.upgrade() else { return };
    let coded = whole(&identity, job.coding).unwrap_or_else(|error| {
        tracing::warn!(%error, key = job.key.as_str(), "a stored body could not be coded");
        identity.clone()
    });
    let worth_it = coded.length() < identity.length();
    memory.add_coding(&job.key, &identity, job.coding, worth_it.then_some(coded));
}

fn whole(body: &StoredBody, coding: Coding) -> io::Result<StoredBody> {
    let pieces: Vec<io::Result<Bytes>> = body.pieces().iter().cloned().map(Ok).collect();
    let source = StreamReader::new(futures_util::stream::iter(pieces));
    let Ok(mut encoder) = encoder(source, coding, Effort::Once) else {
        return Err(io::Error::other("identity is no coding"));
    };
    let mut coded = Vec::new();
    futures_util::FutureExt::now_or_never(encoder.read_to_end(&mut coded))
        .ok_or_else(|| io::Error::other("a source in memory is never pending"))??;
    coded.shrink_to_fit();
    Ok(StoredBody::new(&[Bytes::from(coded)]))
}

/// The KiB that a body holds while it is coded on the fly: measured, with a margin (see the test of it).
const fn held_on_the_fly(coding: Coding) -> u32 {
    match coding {
        Coding::Gzip => 384,
        Coding::Brotli => 704,
        Coding::Zstd => 896,
        // A decoder of gzip: its window of 32 KiB, its tables and its buffer, far below what an encoder holds.
        Coding::Identity => 96,
    }
}

const PIECE: usize = 16 * 1024;
const QUEUE: usize = 1024;
/// Memory in KiB for all bodies that are coded on the fly at once, beside the cache's budget: enough for 68 of any coding.
/// Bodies beyond it are sent as they are.
const ENCODERS: usize = 60 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::body::Body;

    fn head(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    fn codable(status: StatusCode, head: &HeaderMap, length: Option<u64>) -> bool {
        super::codable(&MediaRange::defaults(), status, head, length)
    }

    /// NDJSON, YAML and playlists of HLS went out as they were.
    #[test]
    fn text_is_codable_and_pictures_are_not() {
        for content_type in [
            "text/html; charset=utf-8",
            "application/json",
            "application/problem+json",
            "image/svg+xml",
            "application/x-ndjson",
            "application/yaml",
            "application/vnd.oai.openapi+yaml",
            "application/vnd.apple.mpegurl",
            "Application/X-MpegURL",
        ] {
            assert!(codable(StatusCode::OK, &head(content_type), Some(1000)), "{content_type}");
        }
        for content_type in ["image/webp", "application/zip", "video/mp4", "text/event-stream", "json", ""] {
            assert!(!codable(StatusCode::OK, &head(content_type), Some(1000)), "{content_type}");
        }
        let mut incremental = head("text/plain");
        incremental.insert("incremental", http::HeaderValue::from_static("?1"));
        assert!(!codable(StatusCode::OK, &incremental, None), "a coder would hold it back (RFC 10036)");
    }

    /// A 404 page of any length went out as it was.
    #[test]
    fn error_pages_are_codable() {
        for status in [StatusCode::NOT_FOUND, StatusCode::GONE, StatusCode::INTERNAL_SERVER_ERROR] {
            assert!(codable(status, &head("text/html"), Some(1000)), "{status}");
        }
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::PARTIAL_CONTENT] {
            assert!(!codable(status, &head("text/html"), None), "{status}");
        }
    }

    #[test]
    fn short_partial_coded_and_protected_bodies_are_left_alone() {
        assert!(!codable(StatusCode::OK, &head("text/css"), Some(SMALLEST - 1)));
        assert!(!codable(StatusCode::PARTIAL_CONTENT, &head("text/css"), None));
        let mut coded = head("text/css");
        coded.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!codable(StatusCode::OK, &coded, None));
        let mut protected = head("text/css");
        protected.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, No-Transform"));
        assert!(!codable(StatusCode::OK, &protected, None));
    }

    #[test]
    fn gzip_alone_is_decodable_and_only_whole() {
        let decodable = |status, coding: &'static str, length| {
            let mut head = head("application/octet-stream");
            head.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            decodable(status, &head, length)
        };
        for coding in ["gzip", "X-GZIP"] {
            assert!(
                decodable(StatusCode::OK, coding, None) && decodable(StatusCode::NOT_FOUND, coding, Some(9))
            );
            assert!(!decodable(StatusCode::OK, coding, Some(0)), "there is nothing in it");
            for status in [StatusCode::PARTIAL_CONTENT, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
                assert!(!decodable(status, coding, None), "{status}");
            }
        }
        for coding in ["br", "gzip, br", "gzip, gzip", "identity", ""] {
            assert!(!decodable(StatusCode::OK, coding, None), "{coding}");
        }
        assert!(!super::decodable(StatusCode::OK, &head("text/css"), None));
    }

    /// Every shorter beginning of gzip is an error, wherever it ends.
    #[tokio::test]
    async fn gzip_that_breaks_off_is_an_error_wherever_it_does() {
        let coded = gzip("gatehouse ".repeat(100).as_bytes()).await;
        let two = [&coded[..], &coded[..]].concat();
        assert_eq!(decode(two).await.unwrap(), "gatehouse ".repeat(200));
        for length in 1..coded.len() {
            assert!(decode(coded[..length].to_vec()).await.is_err(), "{length} of {}", coded.len());
        }
    }

    /// A few KiB that stand for very many cost what the client reads of them, and no more.
    #[tokio::test]
    async fn gzip_is_decoded_no_faster_than_its_client_reads() {
        use http_body_util::{BodyExt as _, StreamBody};
        let coded = gzip(&vec![0; 16 << 20]).await;
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let pieces: Vec<Bytes> = coded.chunks(1024).map(Bytes::copy_from_slice).collect();
        assert!(pieces.len() > 10);
        let count = Arc::clone(&taken);
        let source = futures_util::stream::iter(pieces.into_iter().map(move |piece| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Frame::data(piece))
        }));
        let coder = Coder::start(Arc::new(Memory::new(1 << 20, 1, Arc::default()))).unwrap();
        let body = decoded(StreamBody::new(source), coder.slot(Coding::Identity).unwrap());
        let mut body = Body::Coded(Box::new(body));
        for _ in 0..4 {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE && piece.iter().all(|octet| *octet == 0));
        }
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    async fn gzip(text: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        GzipEncoder::new(text).read_to_end(&mut coded).await.unwrap();
        coded
    }

    async fn decode(coded: Vec<u8>) -> Result<Bytes, BodyError> {
        use http_body_util::{BodyExt as _, Full};
        let coder = Coder::start(Arc::new(Memory::new(1 << 20, 1, Arc::default()))).unwrap();
        let body = Full::new(Bytes::from(coded)).map_err(|never| match never {});
        let slot = coder.slot(Coding::Identity).unwrap();
        Ok(Body::Coded(Box::new(decoded(body, slot))).collect().await?.to_bytes())
    }

    #[test]
    fn a_stored_body_is_coded_whole_and_smaller() {
        let body =
            StoredBody::new(&[Bytes::from("gatehouse ".repeat(20_000)), Bytes::from("x".repeat(100_000))]);
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let coded = whole(&body, coding).unwrap();
            assert!(coded.length() < 10_000, "{coding:?}: {}", coded.length());
        }
    }
}
