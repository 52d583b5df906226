//! The head of a response as HTTP/1.1 writes it, and the framing of the content behind it (RFC 9112 §4, §6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use smallvec::SmallVec;

use super::{Http1Error, chunks::Chunks};
use crate::{message::head_room, settings::HeadBounds};

/// How a response's content is framed, and how much of it is still to come.
#[derive(Debug)]
pub enum ResponseFraming {
    /// None, or no more.
    None,
    /// So many octets.
    Length(u64),
    /// In chunks.
    Chunks(Box<Chunks>),
    /// As long as the connection.
    UntilClose,
}

/// Heads in what a connection has read.
#[derive(Debug, Default)]
pub struct Heads {
    /// So many octets hold no head's end.
    searched: usize,
}

impl Heads {
    /// Takes a head, once it has come whole: a final one or an interim one.
    ///
    /// # Errors
    /// [`Http1Error`]: it is none, or exceeds the bounds.
    pub fn take(
        &mut self,
        input: &mut BytesMut,
        bounds: HeadBounds,
    ) -> Result<Option<Response<()>>, Http1Error> {
        // Once it has been seen that it is not whole, it is read again when it may be: else each octet that comes by itself
        // would cost as much as all before it.
        if self.searched > 0 && !ends_in(input, self.searched) {
            self.searched = input.len();
            return if input.len() > bounds.head { Err(Http1Error::TooLarge) } else { Ok(None) };
        }
        let mut here = [const { MaybeUninit::uninit() }; FIELDS];
        let mut more;
        let fields = match bounds.fields.checked_sub(FIELDS) {
            Some(1..) => {
                more = vec![MaybeUninit::uninit(); bounds.fields];
                &mut more[..]
            }
            _ => &mut here[..bounds.fields],
        };
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut parsed, input, fields) {
            Ok(httparse::Status::Complete(length)) if length <= bounds.head => length,
            Ok(httparse::Status::Partial) if input.len() <= bounds.head => {
                self.searched = input.len();
                return Ok(None);
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Http1Error::TooLarge),
            Err(error) => return Err(Http1Error::Malformed(error)),
        };
        self.searched = 0;
        let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
            .map_err(|_| Http1Error::Framing("has no status"))?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        // The values are slices of the head itself, where they are kept without being copied.
        let start = input.as_ptr() as usize;
        let mut lines: SmallVec<[(HeaderName, usize, usize); 32]> = SmallVec::new();
        for field in &*parsed.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| Http1Error::Framing("has a malformed name"))?;
            lines.push((name, field.value.as_ptr() as usize - start, field.value.len()));
        }
        let octets = input.split_to(length).freeze();
        let mut response = Response::new(());
        (*response.status_mut(), *response.version_mut()) = (status, version);
        *response.headers_mut() = fields_of(&octets, lines)?;
        Ok(Some(response))
    }
}

fn fields_of(
    octets: &Bytes,
    lines: SmallVec<[(HeaderName, usize, usize); 32]>,
) -> Result<HeaderMap, Http1Error> {
    let mut fields = HeaderMap::with_capacity(lines.len() + head_room::ADDED);
    for (name, at, length) in lines {
        let value = if length == 0 { Bytes::new() } else { octets.slice(at..at + length) };
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| Http1Error::Framing("has a malformed value"))?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// Whether an empty line ends what has come since `searched` octets had.
fn ends_in(input: &[u8], searched: usize) -> bool {
    let new = &input[searched.saturating_sub(3).min(input.len())..];
    new.windows(2).any(|two| two == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

impl ResponseFraming {
    /// How the content of a final response is framed (RFC 9112 §6.3). What a pool refuses to read anyway
    /// (`one_framing`) lasts here as long as the connection.
    ///
    /// # Errors
    /// [`Http1Error::Framing`]: the head does not say how, or contradicts itself.
    pub fn of(response: &Response<()>, asked: &Method) -> Result<Self, Http1Error> {
        let (status, headers) = (response.status(), response.headers());
        let is_coded = headers.contains_key(header::TRANSFER_ENCODING);
        if is_coded && response.version() == Version::HTTP_10 {
            return Err(Http1Error::Framing("has a transfer coding in HTTP/1.0"));
        }
        if status.is_informational()
            || *asked == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Ok(Self::None);
        }
        if is_coded {
            let codings: SmallVec<[&HeaderValue; 2]> =
                headers.get_all(header::TRANSFER_ENCODING).iter().collect();
            let is_chunked = matches!(&codings[..], [one] if one.as_bytes().eq_ignore_ascii_case(b"chunked"));
            return Ok(if is_chunked { Self::Chunks(Box::default()) } else { Self::UntilClose });
        }
        let mut lengths = list_elements(headers, &header::CONTENT_LENGTH);
        let Some(first) = lengths.next() else {
            return match headers.contains_key(header::CONTENT_LENGTH) {
                true => Err(Http1Error::Framing("states an empty length")),
                false => Ok(Self::UntilClose),
            };
        };
        if lengths.any(|other| other != first) {
            return Err(Http1Error::Framing("states two lengths"));
        }
        match octets(first) {
            Some(0) => Ok(Self::None),
            Some(length) => Ok(Self::Length(length)),
            None => Err(Http1Error::Framing("states a length that is no number")),
        }
    }
}

/// A length in digits alone.
fn octets(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether another request may follow on the connection, as far as the head says (RFC 9112 §9.3).
pub fn persists(response: &Response<()>) -> bool {
    let says = |option: &[u8]| {
        list_elements(response.headers(), &header::CONNECTION).any(|said| said.eq_ignore_ascii_case(option))
    };
    match response.version() {
        Version::HTTP_11 => !says(b"close"),
        _ => says(b"keep-alive") && !says(b"close"),
    }
}

/// So many lines are read without room made for them.
const FIELDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { head: 200, fields: 3 };

    fn taken(input: &str) -> Result<Option<Response<()>>, Http1Error> {
        Heads::default().take(&mut BytesMut::from(input), BOUNDS)
    }

    #[test]
    fn a_head_is_taken_once_it_is_whole_and_what_follows_is_left() {
        let (mut heads, mut input) = (Heads::default(), BytesMut::new());
        let octets = b"HTTP/1.1 200 OK\r\nA: 1\r\na:  2 \r\nB:\r\n\r\nrest";
        let whole = octets.len() - 4;
        for (at, octet) in octets[..whole].iter().enumerate() {
            assert!(heads.take(&mut input, BOUNDS).unwrap().is_none(), "{at}");
            input.extend_from_slice(&[*octet]);
        }
        input.extend_from_slice(b"rest");
        let head = heads.take(&mut input, BOUNDS).unwrap().unwrap();
        assert_eq!((head.status(), head.version()), (StatusCode::OK, Version::HTTP_11));
        let values: Vec<_> = head.headers().get_all("a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!((&head.headers()["b"], &input[..]), (&HeaderValue::from_static(""), &b"rest"[..]));
    }

    #[test]
    fn a_head_has_its_bounds() {
        let ok = "HTTP/1.1 200 OK\r\n";
        assert!(taken(&format!("{ok}A: 1\r\nB: 1\r\nC: 1\r\n\r\n")).unwrap().is_some());
        for long in [
            format!("{ok}A: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n"),
            format!("{ok}A: {}\r\n\r\n", "1".repeat(200)),
            format!("{ok}A: {}", "1".repeat(200)),
        ] {
            assert!(matches!(taken(&long), Err(Http1Error::TooLarge)), "{long}");
        }
        let (mut heads, mut input) = (Heads::default(), BytesMut::from(ok));
        assert!(heads.take(&mut input, BOUNDS).unwrap().is_none());
        input.extend_from_slice(&[b'a'; 200]);
        assert!(matches!(heads.take(&mut input, BOUNDS), Err(Http1Error::TooLarge)));
    }

    #[test]
    fn content_ends_where_its_head_says() {
        let framing = |lines: &str, method: Method| {
            let head = taken(&format!("HTTP/1.1 {lines}\r\n\r\n")).unwrap().unwrap();
            ResponseFraming::of(&head, &method).map(|framing| match framing {
                ResponseFraming::None => "none".to_owned(),
                ResponseFraming::Length(length) => length.to_string(),
                ResponseFraming::Chunks(_) => "chunks".to_owned(),
                ResponseFraming::UntilClose => "close".to_owned(),
            })
        };
        for (lines, expected) in [
            ("200 OK", "close"),
            ("200 OK\r\nContent-Length: 0", "none"),
            ("200 OK\r\nContent-Length: 7", "7"),
            ("200 OK\r\nContent-Length: 7, 7", "7"),
            ("200 OK\r\nTransfer-Encoding: Chunked", "chunks"),
            ("200 OK\r\nTransfer-Encoding: x", "close"),
            ("204 No Content\r\nContent-Length: 7", "none"),
            ("304 Not Modified\r\nContent-Length: 7", "none"),
        ] {
            assert_eq!(framing(lines, Method::GET).unwrap(), expected, "{lines}");
            assert_eq!(framing(lines, Method::HEAD).unwrap(), "none", "{lines}");
        }
        for lines in [
            "Content-Length:",
            "Content-Length: +7",
            "Content-Length: 7, 8",
            "Content-Length: 99999999999999999999",
        ] {
            assert!(framing(&format!("200 OK\r\n{lines}"), Method::GET).is_err(), "{lines}");
        }
    }

    #[test]
    fn a_connection_persists_as_its_version_and_the_server_say() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close", false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive", false),
            ("HTTP/1.0 200 OK", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive", true),
        ] {
            assert_eq!(persists(&taken(&format!("{head}\r\n\r\n")).unwrap().unwrap()), expected, "{head}");
        }
    }
}
