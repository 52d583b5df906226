//! A client's connection to the edge, on a socket of this machine. The client allocates nothing, so that what is counted
//! is the edge's.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use edge::{
    downstream::{
        connection::{self, Entrance},
        deadlines::{Deadlines, Protocol},
        http2,
        places::Places,
        socket::{ConnectionPermit, Watched},
    },
    observe::metrics::ListenerKind,
    state::Edge,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

use crate::page;

/// A client that speaks HTTP/1.1.
pub(crate) struct Http1 {
    stream: TcpStream,
    request: String,
    buffer: Box<[u8]>,
}

impl Http1 {
    pub(crate) async fn open(edge: &Arc<Edge>) -> Self {
        let (stream, accepted, address) = pair().await;
        let entrance = Entrance { leave: edge.drain.clone(), ..Entrance::default() };
        tokio::spawn(connection::serve(Arc::clone(edge), accepted, address, entrance, permit(edge)));
        let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", page::TARGET, page::HOST);
        for (name, value) in page::FIELDS {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        Self { stream, request, buffer: vec![0; BUFFER].into() }
    }

    /// Asks for the page and reads it to its end.
    pub(crate) async fn hit(&mut self) {
        self.stream.write_all(self.request.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert_ne!(read, 0, "the edge closes");
            filled += read;
            let answer = &self.buffer[..filled];
            if let Some(end) = find(answer, b"\r\n\r\n")
                && filled - end - 4 >= page::CODED
            {
                assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && find(answer, b"; hit;").is_some());
                assert_eq!(filled - end - 4, page::CODED);
                return;
            }
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// A client that speaks HTTP/2 (RFC 9113), in frames written beforehand.
pub(crate) struct Http2 {
    stream: TcpStream,
    /// The frame of a request; of the first at first, then of all others.
    request: Vec<u8>,
    next: u32,
    buffer: Box<[u8]>,
}

impl Http2 {
    pub(crate) async fn open(edge: &Arc<Edge>) -> Self {
        let (mut stream, accepted, _) = pair().await;
        let deadlines =
            Deadlines::new(&edge.clock, Protocol::Http2, edge.state.load().settings.timeouts.total);
        let socket = Watched::new(accepted, Arc::clone(&deadlines), Arc::default(), permit(edge));
        let bounds = edge.state.load().settings.bounds.clone();
        let edge = Arc::clone(edge);
        let met = http2::Met { peer: page::PEER, acquaintance: None, hsts: None };
        let shared = http2::ConnectionShared::new(edge, met, deadlines);
        let mut connection = http2::Connection::new(socket, &bounds, shared);
        tokio::spawn(async move { poll_fn(|context| connection.poll(context)).await });
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
        // Room for all that will come: no further window is given.
        stream.write_all(&frame(WINDOW_UPDATE, 0, &0x7000_0000_u32.to_be_bytes())).await.unwrap();
        let mut client = Self { stream, request: first_request(), next: 1, buffer: vec![0; BUFFER].into() };
        client.hit().await;
        client.request = further_request();
        client
    }

    /// Asks for the page and reads it to its end.
    pub(crate) async fn hit(&mut self) {
        self.request[5..9].copy_from_slice(&self.next.to_be_bytes());
        self.stream.write_all(&self.request).await.unwrap();
        let mut octets = 0;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let payload = &mut self.buffer[..length];
            self.stream.read_exact(payload).await.unwrap();
            match (head[3], head[4]) {
                (SETTINGS, 0) => self.stream.write_all(&frame(SETTINGS, ACK, &[])).await.unwrap(),
                (HEADERS, END_HEADERS) => assert!(payload.contains(&STATUS_200), "{payload:?}"),
                (DATA, flags) => {
                    octets += length;
                    if flags == END_STREAM {
                        break;
                    }
                }
                (SETTINGS | WINDOW_UPDATE, _) => {}
                other => panic!("a frame of kind and flags {other:?}"),
            }
        }
        assert_eq!(octets, page::CODED);
        self.next += 2;
    }
}

/// The first request puts its fields into the connection's dynamic table (RFC 7541 §6.2.1).
fn first_request() -> Vec<u8> {
    let mut block = vec![METHOD_GET, SCHEME_HTTP];
    let [user_agent, accept, accept_encoding] = page::FIELDS.map(|(_, value)| value);
    for (name, value) in [
        (AUTHORITY, page::HOST),
        (PATH, page::TARGET),
        (USER_AGENT, user_agent),
        (ACCEPT, accept),
        (ACCEPT_ENCODING, accept_encoding),
    ] {
        block.push(0x40 | name);
        block.push(u8::try_from(value.len()).ok().filter(|length| *length < 0x7f).unwrap());
        block.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, END_STREAM | END_HEADERS, &block)
}

/// Each further one names them by their places in it, the newest first.
fn further_request() -> Vec<u8> {
    let newest = 0x80 | 62;
    let fields = [METHOD_GET, SCHEME_HTTP, newest + 4, newest + 3, newest + 2, newest + 1, newest];
    frame(HEADERS, END_STREAM | END_HEADERS, &fields)
}

/// A frame of stream 0.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![0, length[0], length[1], kind, flags, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, address) = listener.accept().await.unwrap();
    for end in [&client, &accepted] {
        end.set_nodelay(true).unwrap();
    }
    (client, accepted, address)
}

fn permit(edge: &Edge) -> ConnectionPermit {
    ConnectionPermit {
        share: None,
        place: Places::new(1).try_take().unwrap(),
        open: edge.metrics.for_listener(ListenerKind::Clear).accepted(),
        token: TaskTracker::new().token(),
    }
}

/// More than the head and the content of an answer.
const BUFFER: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

// Places in the static table (RFC 7541 appendix A); a field that is there as a whole has the high bit set.
const AUTHORITY: u8 = 1;
const METHOD_GET: u8 = 0x80 | 2;
const PATH: u8 = 4;
const SCHEME_HTTP: u8 = 0x80 | 6;
const STATUS_200: u8 = 0x80 | 8;
const ACCEPT_ENCODING: u8 = 16;
const ACCEPT: u8 = 19;
const USER_AGENT: u8 = 58;
