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

/// Flag: these settings, or this ping, are acknowledged.
pub const ACK: u8 = 0x1;

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    /// Its type as a number: there are others than [`Kind`] names.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is of this type.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }
}

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
        raw.send(PREFACE);
        let mut frames = Self { raw };
        frames.send(Kind::Settings, 0, 0, &[]);
        frames
    }

    /// Sends one frame, if the edge still listens.
    pub fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.raw.try_send(frame(kind, flags, stream, payload))
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
            let Some(frame) = self.next() else { return Outcome::Ended(None) };
            let code = |at: usize| frame.payload.get(at..at + 4).map(number);
            if frame.is(Kind::Headers) && frame.stream == stream {
                return Outcome::Answered;
            }
            if frame.is(Kind::ResetStream) && frame.stream == stream {
                return Outcome::Reset(code(0).expect("RST_STREAM holds its code"));
            }
            if frame.is(Kind::GoAway) {
                return Outcome::Ended(code(4));
            }
        }
    }

    /// Reads until the stream is decided: the status of its response, the connection's first, or what came in its place.
    ///
    /// # Errors
    /// What became of the stream instead.
    ///
    /// # Panics
    /// When nothing comes and the connection stays open.
    #[track_caller]
    pub fn status(&mut self, stream: u32) -> Result<u16, Outcome> {
        loop {
            let Some(frame) = self.next() else { return Err(Outcome::Ended(None)) };
            let code = |at: usize| frame.payload.get(at..at + 4).map(number);
            match frame.kind {
                kind if kind == Kind::Headers as u8 && frame.stream == stream => {
                    return Ok(first_status(&frame.payload).expect("a response begins with its status"));
                }
                kind if kind == Kind::ResetStream as u8 && frame.stream == stream => {
                    return Err(Outcome::Reset(code(0).expect("RST_STREAM holds its code")));
                }
                kind if kind == Kind::GoAway as u8 => return Err(Outcome::Ended(code(4))),
                _ => {}
            }
        }
    }

    /// Sends these octets as they are, if the edge still listens.
    pub fn send_octets(&mut self, octets: &[u8]) -> bool {
        self.raw.try_send(octets)
    }

    /// Reads the next frame, or `None` when the connection has ended. Acknowledges settings.
    ///
    /// # Panics
    /// When nothing comes and the connection stays open.
    #[track_caller]
    #[expect(clippy::should_implement_trait, reason = "it panics where an iterator would end")]
    pub fn next(&mut self) -> Option<Frame> {
        let header = self.raw.read_exactly(9)?;
        let payload = self.raw.read_exactly(number(&header[..3]) as usize)?;
        let stream = number(&header[5..]) & 0x7fff_ffff;
        let frame = Frame { kind: header[3], flags: header[4], stream, payload };
        if frame.is(Kind::Settings) && frame.flags & ACK == 0 {
            self.send(Kind::Settings, ACK, 0, &[]);
        }
        Some(frame)
    }
}

/// What a client sends first.
pub const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it goes over the wire.
///
/// # Panics
/// When the payload is longer than any frame may be.
#[must_use]
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind as u8, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Octets as a number, the highest first.
#[must_use]
pub fn number(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |number, octet| number << 8 | u32::from(*octet))
}

/// The `:status` of a connection's first response: an entry of HPACK's static table, or a literal of digits (RFC 7541 §6).
fn first_status(block: &[u8]) -> Option<u16> {
    // A change of the table's size may stand before it.
    let at = block.iter().position(|octet| octet & 0xe0 != 0x20)?;
    match *block.get(at)? {
        octet @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500].get(usize::from(octet - 0x88)).copied(),
        0x48 | 0x08 | 0x18 => {
            let length = block.get(at + 1)?;
            let octets = block.get(at + 2..at + 2 + usize::from(length & 0x7f))?;
            if length & 0x80 == 0 {
                return std::str::from_utf8(octets).ok()?.parse().ok();
            }
            // Huffman's code has five bits for 0, 1 and 2, and six for the other digits (RFC 7541 Appendix B).
            let bits = octets.iter().fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
            let mut left = octets.len() * 8;
            let mut status = 0;
            for _ in 0..3 {
                let five = (bits >> (left.checked_sub(5)?)) & 0x1f;
                let (digit, length) = match five {
                    0..=2 => (five, 5),
                    _ => (((bits >> left.checked_sub(6)?) & 0x3f).checked_sub(0x16)?, 6),
                };
                status = status * 10 + u16::try_from(digit).ok()?;
                left -= length;
            }
            Some(status)
        }
        _ => None,
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
