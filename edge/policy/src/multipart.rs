//! multipart/byteranges (RFC 9110 §14.6): the framing of several ranges, without the octets.

use http::HeaderValue;
use std::ops::Range;

/// The frame of a 206 with several parts: send each part's preamble and then its octets, and `closing` at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// In the order asked for.
    pub parts: Vec<Part>,
    /// The closing delimiter.
    pub closing: String,
    /// Octets in all: Content-Length.
    pub length: u64,
    /// Content-Type of the whole answer.
    pub content_type: HeaderValue,
}

/// One part of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Delimiter and head of the part.
    pub preamble: Vec<u8>,
    /// The octets that follow it.
    pub range: Range<u64>,
}

/// Frames `ranges` of a representation of `length` octets.
///
/// `boundary` must be made of letters and digits, at most 70, and not stand in the content: a caller draws it at random.
pub fn multipart(
    ranges: &[Range<u64>],
    length: u64,
    content_type: Option<&HeaderValue>,
    boundary: &str,
) -> Multipart {
    let parts: Vec<_> = ranges
        .iter()
        .enumerate()
        .map(|(index, range)| Part {
            preamble: preamble(index, range, length, content_type, boundary),
            range: range.clone(),
        })
        .collect();
    let closing = format!("\r\n--{boundary}--\r\n");
    let octets = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let framed: u64 =
        parts.iter().map(|part| octets(part.preamble.len()) + (part.range.end - part.range.start)).sum();
    Multipart {
        length: framed + octets(closing.len()),
        parts,
        closing,
        content_type: HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"))
            .expect("a boundary is made of letters and digits"),
    }
}

fn preamble(
    index: usize,
    range: &Range<u64>,
    length: u64,
    content_type: Option<&HeaderValue>,
    boundary: &str,
) -> Vec<u8> {
    // The first delimiter begins the content, so no line break stands before it.
    let mut preamble = if index == 0 { Vec::new() } else { b"\r\n".to_vec() };
    preamble.extend(format!("--{boundary}\r\n").bytes());
    if let Some(content_type) = content_type {
        preamble.extend(b"Content-Type: ");
        preamble.extend(content_type.as_bytes());
        preamble.extend(b"\r\n");
    }
    let last = range.end.saturating_sub(1);
    preamble.extend(format!("Content-Range: bytes {}-{last}/{length}\r\n\r\n", range.start).bytes());
    preamble
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_as_long_as_it_says() {
        let content = b"0123456789A";
        let plain = HeaderValue::from_static("text/plain");
        let framed = multipart(&[0..2, 8..11], 11, Some(&plain), "XYZ");
        let mut sent = Vec::new();
        for part in &framed.parts {
            sent.extend(&part.preamble);
            sent.extend(
                &content
                    [usize::try_from(part.range.start).unwrap()..usize::try_from(part.range.end).unwrap()],
            );
        }
        sent.extend(framed.closing.bytes());
        assert_eq!(framed.length, u64::try_from(sent.len()).unwrap());
        assert_eq!(framed.content_type, "multipart/byteranges; boundary=XYZ");
        let wanted = "--XYZ\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/11\r\n\r\n01\r\n\
                      --XYZ\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-10/11\r\n\r\n89A\r\n--XYZ--\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), wanted);
    }
}
