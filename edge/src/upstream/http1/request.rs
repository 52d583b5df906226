//! A request as HTTP/1.1 writes it: its head, and the framing of its content (RFC 9112 §3, §6).

use bytes::{BufMut as _, Bytes, BytesMut};
use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, uri::PathAndQuery};
use http_body::{Body as _, Frame};

use super::{Http1Error, output::Output};
use crate::upstream::RequestBody;

/// How a request's content is framed, and how much of it is still to come.
#[derive(Debug)]
pub enum RequestFraming {
    /// None is sent.
    None,
    /// So many octets.
    Length(u64),
    /// In chunks; with those of its trailer fields that the head announces (RFC 9110 §6.6.2).
    Chunks(Vec<HeaderName>),
}

impl RequestFraming {
    /// How the content of a request is framed. Its head says so afterwards, and nothing else.
    pub fn choose(request: &mut Request<()>, body: &RequestBody) -> Self {
        let (is_empty, length) = (body.is_end_stream(), body.size_hint().exact());
        let seldom_has_content = matches!(*request.method(), Method::GET | Method::HEAD);
        let headers = request.headers_mut();
        let says_chunked = headers.remove(header::TRANSFER_ENCODING).is_some();
        if is_empty {
            if headers.contains_key(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            return Self::None;
        }
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
            return if length == 0 { Self::None } else { Self::Length(length) };
        }
        headers.remove(header::CONTENT_LENGTH);
        if seldom_has_content && !says_chunked {
            // It may come and be empty: servers seldom expect chunks with these methods (RFC 9110 §9.3.1).
            return Self::None;
        }
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        Self::Chunks(announced(headers))
    }

    /// Whether all of the content has been taken.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Writes the next frame of the content, and its end where it is the last one.
    ///
    /// # Errors
    /// [`Http1Error::Content`]: there is less than the head has said.
    pub fn write(
        &mut self,
        frame: Option<Frame<Bytes>>,
        is_last: bool,
        output: &mut Output,
    ) -> Result<(), Http1Error> {
        match (&mut *self, frame.map(Frame::into_data)) {
            (Self::None, _) => {}
            (Self::Length(left), Some(Ok(mut piece))) => {
                // What is more than was said would be read as another request.
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
                output.add(piece, b"");
            }
            (Self::Length(0), _) => {}
            (Self::Length(_), _) => return Err(Http1Error::Content),
            (Self::Chunks(_), Some(Ok(piece))) => {
                if !piece.is_empty() {
                    write_size(output.lines(), piece.len());
                    output.add(piece, if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                } else if is_last {
                    output.lines().put_slice(LAST_CHUNK);
                }
                if is_last {
                    *self = Self::None;
                }
            }
            (Self::Chunks(announced), Some(Err(trailers))) => {
                output.lines().put_slice(b"0\r\n");
                for (name, value) in trailers.trailers_ref().into_iter().flatten() {
                    if announced.contains(name) {
                        write_field(output.lines(), name, value);
                    }
                }
                output.lines().put_slice(b"\r\n");
                *self = Self::None;
            }
            (Self::Chunks(_), None) => {
                output.lines().put_slice(LAST_CHUNK);
                *self = Self::None;
            }
        }
        Ok(())
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the head of a request, the target in origin form, or `*` (RFC 9112 §3.2).
pub fn write_head(request: &Request<()>, lines: &mut BytesMut) {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let method = request.method().as_str();
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    lines.reserve(method.len() + target.len() + b"  HTTP/1.1\r\n\r\n".len() + fields.sum::<usize>());
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        lines.put_slice(part.as_bytes());
    }
    for (name, value) in request.headers() {
        write_field(lines, name, value);
    }
    lines.put_slice(b"\r\n");
}

fn write_field(lines: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        lines.put_slice(part);
    }
}

/// A chunk's size (RFC 9112 §7.1).
fn write_size(lines: &mut BytesMut, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        lines.put_u8(b"0123456789ABCDEF"[(size >> (4 * digit)) & 0xf]);
    }
    lines.put_slice(b"\r\n");
}

fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    list_elements(headers, &header::TRAILER).filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::*;

    #[test]
    fn sizes_of_chunks_have_no_digit_too_many() {
        for (size, digits) in [(1, "1\r\n"), (15, "F\r\n"), (16, "10\r\n"), (0x1234_ABCD, "1234ABCD\r\n")] {
            let mut lines = BytesMut::new();
            write_size(&mut lines, size);
            assert_eq!(lines, digits);
        }
    }

    fn written(
        framing: &mut RequestFraming,
        frame: Option<Frame<Bytes>>,
        is_last: bool,
    ) -> Result<String, Http1Error> {
        let mut output = Output::default();
        framing.write(frame, is_last, &mut output)?;
        let octets = output.copy_to_bytes(output.remaining());
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    #[test]
    fn content_has_the_length_that_its_head_says_or_the_request_fails() {
        let data = |octets: &'static [u8]| Some(Frame::data(Bytes::from_static(octets)));
        let mut framing = RequestFraming::Length(5);
        assert_eq!(written(&mut framing, data(b"abc"), false).unwrap(), "abc");
        assert_eq!(written(&mut framing, data(b"defGET / HTTP/1.1"), false).unwrap(), "de");
        assert!(framing.is_whole());
        assert!(written(&mut RequestFraming::Length(5), None, false).is_err());
    }

    #[test]
    fn trailers_are_sent_as_far_as_they_were_announced() {
        let announced =
            |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("x-other", HeaderValue::from_static("2"));
        let mut framing = RequestFraming::Chunks(announced(&["x-sum"]));
        let written_of =
            |framing: &mut RequestFraming| written(framing, Some(Frame::trailers(trailers.clone())), false);
        assert_eq!(written_of(&mut framing).unwrap(), "0\r\nx-sum: 1\r\n\r\n");
        assert!(framing.is_whole());
        let mut framing = RequestFraming::Chunks(Vec::new());
        assert_eq!(
            written(&mut framing, Some(Frame::data(Bytes::from_static(b"a"))), true).unwrap(),
            "1\r\na\r\n0\r\n\r\n"
        );
        assert!(framing.is_whole());
    }
}
