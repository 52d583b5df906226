//! A client that leaves: what its upstream was asked for it alone ends with it.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use gatehouse_tests::{
    edge::{Edge, Setup},
    frames::{END_HEADERS, Frames, Kind, head},
    raw::Raw,
    wait,
};

/// An upstream whose every octet is the test's.
struct Hand(TcpListener);

impl Hand {
    fn open() -> (Self, Edge) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let edge = Setup::over_address(listener.local_addr().unwrap()).start();
        (Self(listener), edge)
    }

    /// The next connection, with its request read up to `end`.
    fn asked(&self, end: &[u8]) -> TcpStream {
        let (mut stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let mut read = Vec::new();
        let mut octet = [0];
        while !read.ends_with(end) {
            stream.read_exact(&mut octet).unwrap();
            read.push(octet[0]);
        }
        stream
    }
}

/// Whether the edge closes the connection, and not only says nothing.
fn is_let_go(mut stream: TcpStream) -> bool {
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn fields(method: &str) -> [(&str, &str); 4] {
    [(":method", method), (":scheme", "https"), (":authority", "a"), (":path", "/")]
}

/// Both ways to leave: the stream alone, or the connection.
fn leave(frames: Frames, how: &str) -> Option<Frames> {
    let mut frames = frames;
    match how {
        "stream" => {
            frames.send(Kind::ResetStream, 0, 1, &8_u32.to_be_bytes());
            Some(frames)
        }
        _ => {
            drop(frames);
            None
        }
    }
}

#[test]
fn before_the_answers_head() {
    let (upstream, edge) = Hand::open();
    let mut raw: Raw = edge.raw();
    raw.send("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
    let asked = upstream.asked(b"\r\n\r\n");
    drop(raw);
    assert!(is_let_go(asked), "HTTP/1.1");
    for how in ["stream", "connection"] {
        let mut frames = edge.frames();
        frames.request(1, &fields("DELETE"));
        let asked = upstream.asked(b"\r\n\r\n");
        let _frames = leave(frames, how);
        assert!(is_let_go(asked), "HTTP/2, its {how}");
    }
}

#[test]
fn in_the_middle_of_an_answer() {
    const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 1000\r\n\r\nbegin";
    let (upstream, edge) = Hand::open();
    let mut raw: Raw = edge.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut asked = upstream.asked(b"\r\n\r\n");
    asked.write_all(BEGUN).unwrap();
    raw.read_until(b"begin");
    drop(raw);
    assert!(is_let_go(asked), "HTTP/1.1");
    for how in ["stream", "connection"] {
        let mut frames = edge.frames();
        frames.request(1, &fields("GET"));
        let mut asked = upstream.asked(b"\r\n\r\n");
        asked.write_all(BEGUN).unwrap();
        while frames.next().is_some_and(|frame| !frame.is(Kind::Data)) {}
        let _frames = leave(frames, how);
        assert!(is_let_go(asked), "HTTP/2, its {how}");
    }
}

#[test]
fn in_the_middle_of_an_upload() {
    let (upstream, edge) = Hand::open();
    let mut raw: Raw = edge.raw();
    // Of unknown length: what says that it is short is received first.
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n");
    let asked = upstream.asked(b"begin");
    drop(raw);
    assert!(is_let_go(asked), "HTTP/1.1");
    for how in ["stream", "connection"] {
        let mut frames = edge.frames();
        frames.send(Kind::Headers, END_HEADERS, 1, &head(&fields("POST")));
        frames.send(Kind::Data, 0, 1, b"begin");
        let asked = upstream.asked(b"begin");
        let _frames = leave(frames, how);
        assert!(is_let_go(asked), "HTTP/2, its {how}");
    }
}
