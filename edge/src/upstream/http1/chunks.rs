//! Content in chunks (RFC 9112 §7.1), read strictly: each line ends with CRLF, sizes are hexadecimal digits alone, and neither
//! extensions nor trailer fields are without a bound.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Http1Error;
use crate::settings::HeadBounds;

/// How far chunked content has been read.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Octets of extensions so far.
    extensions: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At a line that says a size.
    #[default]
    Size,
    /// So much of a chunk is to come.
    Octets(u64),
    /// Behind a chunk's octets.
    End,
    /// Behind the last chunk, where of the trailer section so many octets have no end in them.
    Trailers(usize),
}

/// What has been read of chunked content.
#[derive(Debug)]
pub enum Chunked {
    /// A piece.
    Octets(Bytes),
    /// Its end, with the trailer fields that came.
    End(HeaderMap),
    /// More must come first.
    More,
}

impl Chunks {
    /// Reads on in what has come.
    ///
    /// # Errors
    /// [`Http1Error::Framing`]: it is not in chunks, or exceeds the bounds.
    pub fn read(&mut self, input: &mut BytesMut, bounds: HeadBounds) -> Result<Chunked, Http1Error> {
        loop {
            match self.state {
                State::Size => {
                    let Some(end) = line_end(input)? else { return Ok(Chunked::More) };
                    let size = self.size(&input[..end])?;
                    input.advance(end + 2);
                    self.state = if size == 0 { State::Trailers(0) } else { State::Octets(size) };
                }
                State::Octets(_) if input.is_empty() => return Ok(Chunked::More),
                State::Octets(left) => {
                    let piece = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - piece as u64;
                    self.state = if left == 0 { State::End } else { State::Octets(left) };
                    let octets = input.split_to(piece).freeze();
                    // The end is read with the octets where it has come with them, so that nobody comes back for it alone.
                    if left == 0 && input.starts_with(b"\r\n") {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    return Ok(Chunked::Octets(octets));
                }
                State::End => match &input[..] {
                    [] | b"\r" => return Ok(Chunked::More),
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    _ => return Err(Http1Error::Framing("has a chunk that is longer than it says")),
                },
                State::Trailers(searched) => return self.trailers(searched, input, bounds),
            }
        }
    }

    /// A size, as the line says it. What stands behind `;` is read over, within a bound for all.
    fn size(&mut self, line: &[u8]) -> Result<u64, Http1Error> {
        let digits = line.iter().take_while(|octet| octet.is_ascii_hexdigit()).count();
        let extension = line[digits..].trim_ascii_start();
        let is_well_formed = (1..=16).contains(&digits)
            && (extension.is_empty() || extension.starts_with(b";"))
            && !extension.iter().any(|octet| octet.is_ascii_control() && *octet != b'\t');
        self.extensions += extension.len();
        if !is_well_formed || self.extensions > MOST_EXTENSIONS {
            return Err(Http1Error::Framing("has a chunk of no size"));
        }
        let size = std::str::from_utf8(&line[..digits]).ok();
        let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        size.ok_or(Http1Error::Framing("has a chunk of no size"))
    }

    fn trailers(
        &mut self,
        searched: usize,
        input: &mut BytesMut,
        bounds: HeadBounds,
    ) -> Result<Chunked, Http1Error> {
        if input.starts_with(b"\r\n") {
            input.advance(2);
            return Ok(Chunked::End(HeaderMap::new()));
        }
        let from = searched.saturating_sub(3).min(input.len());
        let end = input[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
        if end.unwrap_or(input.len()) > bounds.head {
            return Err(Http1Error::Framing("has trailer fields that exceed bounds.head"));
        }
        let Some(end) = end else {
            self.state = State::Trailers(input.len());
            return Ok(Chunked::More);
        };
        let section = input.split_to(end).freeze();
        let mut fields = HeaderMap::new();
        for (count, line) in section[..end - 2].split_inclusive(|octet| *octet == b'\n').enumerate() {
            if count == bounds.fields {
                return Err(Http1Error::Framing("has more trailer fields than bounds.fields"));
            }
            let (name, value) = field(line).ok_or(Http1Error::Framing("has a malformed trailer field"))?;
            fields.append(name, value);
        }
        Ok(Chunked::End(fields))
    }
}

/// A field's line, its end included (RFC 9112 §5).
fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let line = line.strip_suffix(b"\r\n")?;
    let colon = line.iter().position(|octet| *octet == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = !name.contains(&b'"');
    let name = HeaderName::from_bytes(name).ok().filter(|_| is_token)?;
    Some((name, HeaderValue::from_bytes(value.trim_ascii()).ok()?))
}

/// Where a line ends, at its CR.
fn line_end(input: &[u8]) -> Result<Option<usize>, Http1Error> {
    let head = &input[..input.len().min(LONGEST_LINE)];
    match head.iter().position(|octet| *octet == b'\n') {
        Some(at) if at > 0 && head[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(Http1Error::Framing("has a line of chunks without CRLF")),
        None if input.len() >= LONGEST_LINE => {
            Err(Http1Error::Framing("has a chunk extension that is too long"))
        }
        None => Ok(None),
    }
}

/// Octets of a line that says a chunk's size: what a server has to say there beside it is little.
const LONGEST_LINE: usize = 4096;
/// Octets of extensions in all chunks of one content.
const MOST_EXTENSIONS: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { head: 100, fields: 3 };

    type WasRead = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// The content and its trailer fields, whose octets come `step` at once, and what was left.
    fn read(octets: &[u8], step: usize) -> Result<WasRead, Http1Error> {
        let (mut chunks, mut input, mut content) = (Chunks::default(), BytesMut::new(), Vec::new());
        for piece in octets.chunks(step) {
            input.extend_from_slice(piece);
            loop {
                match chunks.read(&mut input, BOUNDS)? {
                    Chunked::Octets(octets) => content.extend_from_slice(&octets),
                    Chunked::More => break,
                    Chunked::End(trailers) => return Ok((content, Some(trailers), input.to_vec())),
                }
            }
        }
        Ok((content, None, input.to_vec()))
    }

    #[test]
    fn however_the_octets_come_the_content_is_the_same() {
        let octets = b"3;a=\"b\"\r\nabc\r\n00000000000000aF \t;x\r\n".to_vec();
        let octets = [octets, vec![b'x'; 0xaf], b"\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n".to_vec()].concat();
        let expected = [b"abc".to_vec(), vec![b'x'; 0xaf]].concat();
        for step in 1..octets.len() {
            let (content, trailers, left) = read(&octets, step).unwrap();
            assert!(content == expected && left.is_empty(), "{step} at once");
            let trailers = trailers.unwrap();
            assert_eq!((&trailers["x-sum"], trailers["y"].len()), (&HeaderValue::from_static("1"), 0));
        }
        let (_, trailers, left) = read(b"0\r\n\r\nHTTP/1.1", 99).unwrap();
        assert!(trailers.unwrap().is_empty());
        assert_eq!(left, b"HTTP/1.1", "which is for the connection to judge");
    }

    #[test]
    fn what_has_two_readings_or_no_bound_is_none() {
        for octets in [
            "x\r\n",
            "\r\n",
            " 1\r\na\r\n",
            "0x1\r\n",
            "+1\r\n",
            "-1\r\n",
            "1\na\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            "1 x\r\na\r\n",
            "1;a\rb\r\na\r\n",
            "1;a\nb\r\na\r\n",
            "1;\0\r\na\r\n",
            "11111111111111111\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n X: 1\r\n\r\n",
            "0\r\nX: a\r\n b\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nX: a\rb\r\n\r\n",
            "0\r\nX: a\nY: b\r\n\r\n",
            "0\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n",
        ] {
            for step in [1, 999] {
                assert!(read(octets.as_bytes(), step).is_err(), "{octets:?}");
            }
        }
        for endless in [format!("1;{}", "a".repeat(5000)), format!("0\r\nA: {}", "a".repeat(200))] {
            assert!(read(endless.as_bytes(), 7).is_err(), "{endless:.9}");
        }
        let crumbs = format!("1;{}\r\na\r\n", "a".repeat(1000)).repeat(20);
        assert!(read(crumbs.as_bytes(), 999).is_err(), "extensions are bounded in all");
    }
}
