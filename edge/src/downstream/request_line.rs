//! The target of a request as it comes over HTTP/1.x, with the octets percent-encoded that clients send and hyper
//! refuses.
//!
//! `"`, `<`, `>` and octets that are no UTF-8 have no place in a URI (RFC 3986 §2), but clients write them all the same,
//! and every other gateway lets them pass. Encoded here they have one form, in the cache's key as for the upstream.
//! HTTP/2 has no such place: h2 resets the stream.
//!
//! Of a client that sends several requests at once, or one after a content of a declared length, only those request lines
//! are read that are sure to be some; hyper refuses the others where they need it.

use std::borrow::Cow;

use crate::message::turn::{Incoming, LastOctets, Turn};

/// The request lines of a connection, one after the other.
#[derive(Debug, Default)]
pub struct RequestLines {
    line: RequestLine,
    /// The head that `line` is about, by the number of those before it.
    head: usize,
    last: LastOctets,
}

impl RequestLines {
    /// The next octets of a connection, as hyper shall see them.
    pub fn read<'b>(&mut self, octets: &'b [u8], turn: &Turn) -> Cow<'b, [u8]> {
        // hyper, which asks for more, then holds no part of a head: a head ends with the first empty line. Anything else may be
        // one that came in one piece with what was before it, and what comes now its fields or even its content, of which
        // nothing may change: one octet more, and the end of that content would be taken for a request (RFC 9112 §11.2).
        let nothing_left = self.last.is_empty_line();
        self.last.add(octets);
        if turn.incoming() != Incoming::Whole {
            return Cow::Borrowed(octets);
        }
        let heads = turn.heads();
        if self.head != heads {
            self.head = heads;
            self.line = if nothing_left { RequestLine::default() } else { RequestLine(LinePart::Rest) };
        }
        self.line.read(octets)
    }

    /// Whether a part of a head lies behind the last whole message: it came in one piece with it.
    pub fn holds_part_of_a_head(&self, turn: &Turn) -> bool {
        turn.heads() > 0 && turn.incoming() == Incoming::Whole && !turn.ends_with(self.last)
    }
}

/// How far a request line has been read. It may come in several pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLine(LinePart);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LinePart {
    #[default]
    Method,
    /// At the space after the method.
    Target,
    /// In a target of another form than `/path` (RFC 9112 §3.2), before its query.
    Whole,
    Path,
    Query,
    /// Past the target, or not in a request line that is understood.
    Rest,
}

impl RequestLine {
    /// The next octets of a head, as hyper shall see them. Past the target they are not looked at.
    pub fn read<'b>(&mut self, octets: &'b [u8]) -> Cow<'b, [u8]> {
        let Self(place) = self;
        let mut encoded: Option<Vec<u8>> = None;
        let mut text = LazyText::default();
        for (at, octet) in octets.iter().copied().enumerate() {
            *place = place.after(octet);
            if *place == LinePart::Rest {
                if let Some(encoded) = &mut encoded {
                    encoded.extend_from_slice(&octets[at..]);
                }
                break;
            }
            let encode = match *place {
                LinePart::Path => matches!(octet, b'<' | b'>' | b'`'),
                LinePart::Query => matches!(octet, b'"' | b'<' | b'>'),
                LinePart::Method | LinePart::Target | LinePart::Whole | LinePart::Rest => false,
            } || octet >= 0x80 && !text.of(&octets[at..]);
            if encode {
                let encoded = encoded.get_or_insert_with(|| octets[..at].to_vec());
                encoded.extend_from_slice(format!("%{octet:02X}").as_bytes());
            } else if let Some(encoded) = &mut encoded {
                encoded.push(octet);
            }
        }
        encoded.map_or(Cow::Borrowed(octets), Cow::Owned)
    }
}

impl LinePart {
    /// Where the octet stands that comes next.
    fn after(self, octet: u8) -> Self {
        match (self, octet) {
            // Empty lines before a request line are ignored (RFC 9112 §2.2).
            (Self::Method, b'\r' | b'\n') => Self::Method,
            (Self::Method, b' ') => Self::Target,
            (Self::Method, octet) if octet.is_ascii_graphic() && octet != b':' => Self::Method,
            (Self::Target | Self::Whole | Self::Path | Self::Query, b' ' | b'\r' | b'\n') => Self::Rest,
            (Self::Target | Self::Whole | Self::Path, b'?') => Self::Query,
            (Self::Target, b'/') => Self::Path,
            (Self::Target, _) => Self::Whole,
            (place @ (Self::Whole | Self::Path | Self::Query), _) => place,
            (Self::Method | Self::Rest, _) => Self::Rest,
        }
    }
}

/// Whether the rest of a line is UTF-8, found out at most once.
#[derive(Default)]
struct LazyText(Option<bool>);

impl LazyText {
    fn of(&mut self, from: &[u8]) -> bool {
        *self.0.get_or_insert_with(|| {
            let line = from.split(|octet| matches!(octet, b' ' | b'\r' | b'\n')).next().unwrap_or_default();
            std::str::from_utf8(line).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> String {
        let mut line = RequestLine::default();
        let read = pieces.iter().flat_map(|piece| line.read(piece).into_owned()).collect();
        String::from_utf8(read).unwrap()
    }

    #[test]
    fn what_hyper_would_refuse_in_a_target_is_encoded_and_nothing_else() {
        let head: &[u8] = b"GET /<a>`?q=\"<b>\"|{} HTTP/1.1\r\nHost: a\r\nX: /?\"<>\r\n\r\n";
        let expected = "GET /%3Ca%3E%60?q=%22%3Cb%3E%22|{} HTTP/1.1\r\nHost: a\r\nX: /?\"<>\r\n\r\n";
        assert_eq!(read(&[head]), expected);
        assert_eq!(read(&[b"GET http://a<b/c?\" HTTP/1.1\r\n"]), "GET http://a<b/c?%22 HTTP/1.1\r\n");
    }

    #[test]
    fn octets_that_are_no_text_are_encoded_and_text_is_left_alone() {
        assert_eq!(read(&[b"GET /caf\xe9 HTTP/1.1\r\n"]), "GET /caf%E9 HTTP/1.1\r\n");
        assert_eq!(read(&["GET /café HTTP/1.1\r\n".as_bytes()]), "GET /café HTTP/1.1\r\n");
    }

    /// Once, the second piece was taken for a request line: the content grew, and its end became a third request.
    #[test]
    fn a_head_that_began_together_with_the_message_before_it_is_left_alone_and_so_is_its_content() {
        let turn = Arc::new(Turn::default());
        let mut lines = RequestLines::default();
        lines.read(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n",
            &turn,
        );
        drop(turn.begin(Incoming::Whole));
        let rest = b"\r\nx /<<<<";
        assert_eq!(lines.read(rest, &turn), &rest[..]);
        // The same behind the end of a content.
        let mut lines = RequestLines::default();
        lines.read(b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", &turn);
        let content = turn.begin(Incoming::UnderWay);
        lines.read(b"helloGET /4 HTTP/1.1\r\nAuthorization: Digest", &turn);
        content.whole();
        let rest = b"a=\"b\", uri=\"/?\" /?\"\r\n\r\n";
        assert_eq!(lines.read(rest, &turn), &rest[..]);
    }

    #[test]
    fn each_request_line_of_a_connection_is_read() {
        let turn = Arc::new(Turn::default());
        let mut lines = RequestLines::default();
        for _ in 0..2 {
            let mut heard = lines.read(b"GET /<", &turn).into_owned();
            heard.extend_from_slice(&lines.read(b"> HTTP/1.1\r\nHost: a\r\n\r", &turn));
            heard.extend_from_slice(&lines.read(b"\n", &turn));
            assert_eq!(heard, b"GET /%3C%3E HTTP/1.1\r\nHost: a\r\n\r\n");
            drop(turn.begin(Incoming::Whole));
        }
        lines.read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &turn);
        let content = turn.begin(Incoming::UnderWay);
        let chunks = b"3\r\n /<\r\n0\r\n\r\n";
        assert_eq!(lines.read(chunks, &turn), &chunks[..]);
        content.whole();
        assert_eq!(lines.read(b"GET /< HTTP/1.1\r\n", &turn), &b"GET /%3C HTTP/1.1\r\n"[..]);
    }

    proptest! {
        #[test]
        fn in_however_many_pieces_a_head_comes_it_reads_the_same(
            head in "(\r\n)?[A-Z]{1,4} (http://a)?/[a-z<>\"?|]{0,12} HTTP/1.1\r\n[a-z]: [/?\" <>]{0,6}\r\n\r\n",
            cuts in proptest::collection::vec(0_usize..48, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(head.len())).collect();
            cuts.sort_unstable();
            cuts.push(head.len());
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts
                .iter()
                .map(|cut| &head.as_bytes()[std::mem::replace(&mut from, *cut)..*cut])
                .collect();
            prop_assert_eq!(read(&pieces), read(&[head.as_bytes()]));
        }
    }
}
