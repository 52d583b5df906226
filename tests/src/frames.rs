//! HTTP/2 written frame by frame (RFC 9113 §4), for what no honest client sends.

use crate::raw::Raw;

/// A frame's type (RFC 9113 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    ResetStream = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
}

/// Flag: the stream's last frame from here, on DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// Flag: the head is complete.
pub const END_HEADERS: u8 = 0x4;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response's head came.
    Answered,
    /// The stream was reset with this code (RFC 9113 §7).
    Reset(u32),
    /// The connection was given up with this code, or closed.
    Ended(Option<u32>),
}

/// A connection on which the preface has been exchanged.
#[derive(Debug)]
pub struct Frames {
    raw: Raw,
}

impl Frames {
    /// Sends the preface and empty settings.
    #[track_caller]
    #[must_use]
    pub fn open(mut raw: Raw) -> Self {
        raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Self { raw };
        frames.send(Kind::Settings, 0, 0, &[]);
        frames
    }

    /// Sends one frame, if the edge still listens.
    pub fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind as u8, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.raw.try_send(frame)
    }

    /// Sends a complete head and ends the stream.
    pub fn request(&mut self, stream: u32, fields: &[(&str, &str)]) -> bool {
        self.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &head(fields))
    }

    /// Reads until the stream is decided.
    ///
    /// # Panics
    /// When nothing comes and the connection stays open.
    #[track_caller]
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some((kind, flags, on, payload)) = self.next() else { return Outcome::Ended(None) };
            let code = |at: usize| {
                payload
                    .get(at..at + 4)
                    .map(|bytes| bytes.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)))
            };
            match kind {
                1 if on == stream => return Outcome::Answered,
                3 if on == stream => return Outcome::Reset(code(0).expect("RST_STREAM holds its code")),
                7 => return Outcome::Ended(code(4)),
                4 if flags & 1 == 0 => {
                    self.send(Kind::Settings, 1, 0, &[]);
                }
                _ => {}
            }
        }
    }

    #[track_caller]
    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let header = self.raw.read_exactly(9)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let payload = self.raw.read_exactly(number(&header[..3]) as usize)?;
        Some((header[3], header[4], number(&header[5..]) & 0x7fff_ffff, payload))
    }
}

/// A head as HPACK literals that enter no table (RFC 7541 §6.2.2), octet for octet as given.
#[must_use]
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The four fields of a plain GET.
#[must_use]
pub fn get(path: &str) -> Vec<(&'static str, &str)> {
    vec![(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
}

/// An integer with a 7-bit prefix (RFC 7541 §5.1), no Huffman coding.
fn push_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).expect("less than 127"));
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("less than 128"));
}
