//! A client that writes exactly the bytes it is given: malformed requests, slow ones, half ones.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::net;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::wait;

/// A connection over clear text or TLS.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
    // Over TLS: the same socket, encrypted.
    tls: Option<Box<StreamOwned<ClientConnection, TcpStream>>>,
    read: Vec<u8>,
}

/// A response as it stood on the wire.
#[derive(Debug)]
pub struct RawAnswer {
    /// Its status.
    pub status: u16,
    /// Its head, every line.
    pub head: String,
    /// Its content, chunked framing undone.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// Whether it came from the cache.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.header("cache-status").unwrap_or_default().contains("; hit")
    }

    /// A header field's first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens there.
    #[track_caller]
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the edge listens")
    }

    /// Connects from an address of this machine.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket =
            net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).expect("there are sockets");
        net::bind(&socket, &SocketAddr::from((source, 0))).expect("the address is this machine's");
        net::connect(&socket, &address).expect("the edge listens");
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("the deadline is not zero");
        Self { socket, tls: None, read: Vec::new() }
    }

    /// Connects if somebody listens there.
    #[must_use]
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("the deadline is not zero");
        Some(Self { socket: stream, tls: None, read: Vec::new() })
    }

    /// Connects over TLS to `localhost`, offering this protocol by ALPN; the certificate must hold against `authority`.
    ///
    /// # Panics
    /// When nobody listens there, or the edge does not agree.
    #[track_caller]
    #[must_use]
    pub fn connect_tls(address: SocketAddr, authority: &Path, protocol: &str) -> Self {
        let config = client_config(authority, protocol);
        let raw = Self::connect_tls_as(address, &Arc::new(config)).expect("the edge completes the handshake");
        let session = raw.tls.as_ref().map(|tls| tls.conn.alpn_protocol());
        assert_eq!(session, Some(Some(protocol.as_bytes())), "ALPN");
        raw
    }

    /// Connects over TLS to `localhost` by settings that remember sessions; none where the handshake fails.
    ///
    /// # Panics
    /// When nobody listens there.
    #[track_caller]
    #[must_use]
    pub fn connect_tls_as(address: SocketAddr, config: &Arc<ClientConfig>) -> Option<Self> {
        let clear = Self::connect(address);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = ClientConnection::new(Arc::clone(config), name).expect("the settings are valid");
        let mut socket = clear.socket.try_clone().expect("sockets can be shared");
        while session.is_handshaking() {
            session.complete_io(&mut socket).ok()?;
        }
        Some(Self { tls: Some(Box::new(StreamOwned::new(session, socket))), ..clear })
    }

    /// Whether its session is one that was begun before.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.conn.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// When the other side has closed.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.write(bytes.as_ref()).expect("the connection is open");
        self
    }

    /// Sends these bytes if the other side still takes them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) -> &mut Self {
        let _ = self.socket.shutdown(Shutdown::Write);
        self
    }

    /// Reads one response.
    ///
    /// # Panics
    /// When the connection ends before the response does.
    #[track_caller]
    pub fn answer(&mut self) -> RawAnswer {
        match self.next_answer(false) {
            Some(answer) => answer,
            None => {
                panic!("the connection ended before the answer: {:?}", String::from_utf8_lossy(&self.read))
            }
        }
    }

    /// Reads one response to HEAD.
    ///
    /// # Panics
    /// When the connection ends before the response does.
    #[track_caller]
    pub fn answer_to_head(&mut self) -> RawAnswer {
        self.next_answer(true).expect("the connection ended before the answer")
    }

    /// Reads one response, or `None` when the connection closed before its first byte.
    ///
    /// # Panics
    /// When it ends in the middle of one.
    #[track_caller]
    pub fn answer_unless_closed(&mut self) -> Option<RawAnswer> {
        let answer = self.next_answer(false);
        assert!(
            answer.is_some() || self.read.is_empty(),
            "the connection ended in the middle of an answer: {:?}",
            String::from_utf8_lossy(&self.read)
        );
        answer
    }

    /// Reads one response over clear text, or `None` when nothing of it has come within this time, or the connection ends.
    ///
    /// # Panics
    /// When the time is zero.
    pub fn answer_within(&mut self, patience: Duration) -> Option<RawAnswer> {
        let until = |time| self.socket.set_read_timeout(Some(time)).expect("the deadline is not zero");
        until(patience);
        let begins = self.socket.peek(&mut [0]).is_ok_and(|read| read > 0);
        until(wait::PATIENCE);
        if begins { self.next_answer(false) } else { None }
    }

    /// Reads bytes up to and including `end`.
    ///
    /// # Panics
    /// When the connection ends before.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.read, end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(
                self.fill(),
                "the connection ended before {:?}: {:?}",
                end,
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Reads exactly so many bytes, or `None` when the connection ends before.
    #[track_caller]
    pub fn read_exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.read.drain(..count).collect())
    }

    /// Reads until the other side closes and returns what came.
    ///
    /// # Panics
    /// When it does not close.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.read)
    }

    /// Reads until the other side closes, or is silent for so long: what came, and whether it has closed.
    pub fn read_until_silent(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        let _ = self.socket.set_read_timeout(Some(silence));
        let mut buffer = [0; 64 << 10];
        loop {
            let read = match &mut self.tls {
                Some(tls) => tls.read(&mut buffer),
                None => self.socket.read(&mut buffer),
            };
            let closed = match read {
                Ok(0) => true,
                Ok(length) => {
                    self.read.extend_from_slice(&buffer[..length]);
                    continue;
                }
                Err(error) => is_end(error.kind()),
            };
            return (std::mem::take(&mut self.read), closed);
        }
    }

    fn next_answer(&mut self, to_head: bool) -> Option<RawAnswer> {
        while find(&self.read, b"\r\n\r\n").is_none() {
            if !self.fill() {
                return None;
            }
        }
        let head = String::from_utf8_lossy(&self.read_until(b"\r\n\r\n")).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        let mut answer = RawAnswer { status, head, body: Vec::new() };
        let bodiless = to_head || matches!(status, 100..=199 | 204 | 304);
        let length = answer.header("content-length").map(|text| text.parse().expect("a length is a number"));
        if bodiless {
        } else if answer.header("transfer-encoding").is_some() {
            answer.body = self.read_chunks()?;
        } else if let Some(length) = length {
            answer.body = self.read_exactly(length)?;
        } else {
            answer.body = self.read_to_close();
        }
        Some(answer)
    }

    fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8_lossy(&self.read_until(b"\r\n")).into_owned();
            let size = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
            if size == 0 {
                // Trailer lines up to the empty one.
                while self.read_until(b"\r\n") != b"\r\n" {}
                return Some(body);
            }
            body.extend(self.read_exactly(size)?);
            self.read_exactly(2)?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            None => self.socket.write_all(bytes),
        }
    }

    /// Reads what there is; false when the other side has closed.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        let read = match &mut self.tls {
            Some(tls) => read_although_nothing_can_be_written(tls, &mut buffer),
            None => self.socket.read(&mut buffer),
        };
        match read {
            Ok(length) => {
                self.read.extend_from_slice(&buffer[..length]);
                length > 0
            }
            // A reset, or an end without TLS's own goodbye: over either way.
            Err(error) if is_end(error.kind()) => false,
            Err(error) => panic!("nothing came and the connection stayed open: {error}"),
        }
    }
}

/// What came before the other side closed, while this one was still sending: the stream's own reading sends first, and fails.
fn read_although_nothing_can_be_written(
    tls: &mut StreamOwned<ClientConnection, TcpStream>,
    buffer: &mut [u8],
) -> std::io::Result<usize> {
    loop {
        match tls.conn.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        tls.conn.read_tls(&mut tls.sock)?;
        tls.conn.process_new_packets().map_err(std::io::Error::other)?;
    }
}

/// How a client speaks TLS that trusts this authority and offers this protocol by ALPN.
///
/// # Panics
/// When there is no such authority.
#[must_use]
pub fn client_config(authority: &Path, protocol: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(authority).expect("the edge wrote its authority");
    roots.add(authority).expect("the authority is a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider knows TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    config
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
