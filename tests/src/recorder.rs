//! An upstream that records what it is sent, and reads it as RFC 9112 has it and no other way: a message that could be read
//! otherwise is a message that it says is unclear.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::wait;

/// A running recorder. Its threads end with its connections, and with the process.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Result<Heard, String>>>>,
}

/// One request, complete and clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Method, target and version.
    pub line: String,
    /// Its fields, in their order, with the names in lower case.
    pub fields: Vec<(String, String)>,
    /// Its content, framing undone.
    pub content: Vec<u8>,
    /// Its trailer fields.
    pub trailers: Vec<(String, String)>,
    /// On which connection it came, by their order.
    pub connection: usize,
}

impl Heard {
    /// The values of a field, one a line.
    pub fn field<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> + 'h {
        let of_name = move |(field, _): &&(String, String)| field == name;
        self.fields.iter().filter(of_name).map(|(_, value)| value.as_str())
    }
}

impl Recorder {
    /// Starts on a port that the system chooses, and answers every request with a 200 that nobody may store.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start() -> Self {
        Self::answering(|_| ANSWER.to_vec())
    }

    /// Starts on a port that the system chooses, and answers every request with these octets. Connections stay open.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn answering(answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let recorder = Self { address, heard: Arc::clone(&heard) };
        thread::spawn(move || {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept() else { return };
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                thread::spawn(move || record(stream, connection, &heard, &*answer));
            }
        });
        recorder
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that came whole since this was last asked, and what was unclear.
    #[must_use]
    pub fn take(&self) -> Vec<Result<Heard, String>> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn record(
    mut stream: TcpStream,
    connection: usize,
    heard: &Mutex<Vec<Result<Heard, String>>>,
    answer: &dyn Fn(&Heard) -> Vec<u8>,
) {
    let keep = |message| heard.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    let _ = stream.set_read_timeout(Some(wait::PATIENCE));
    let (mut octets, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        loop {
            match read(&octets) {
                Ok(None) => break,
                Ok(Some((message, length))) => {
                    octets.drain(..length);
                    let message = Heard { connection, ..message };
                    let answer = answer(&message);
                    keep(Ok(message));
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
                Err(why) => {
                    let shown = String::from_utf8_lossy(&octets).into_owned();
                    keep(Err(format!("{why}: {shown:?}")));
                    return;
                }
            }
        }
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => octets.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
}

/// The first message of these octets and its length, once it is complete.
fn read(octets: &[u8]) -> Result<Option<(Heard, usize)>, &'static str> {
    let Some(end) = find(octets, b"\r\n\r\n") else { return Ok(None) };
    let head = &octets[..end];
    let mut lines = split(head)?.into_iter();
    let line = lines.next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err("the request line has another form") };
    if !is_token(method) || target.is_empty() || !target.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err("the request line is malformed");
    }
    let fields = lines.map(|line| field(&line)).collect::<Result<Vec<_>, _>>()?;
    let mut message = Heard { line: line.clone(), fields, ..Heard::default() };
    let at = end + 4;
    let lengths: Vec<&str> = message.field("content-length").collect();
    let codings: Vec<&str> = message.field("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some((message, at))),
        ([length], []) if !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| "the length is too large")?;
            let Some(content) = octets.get(at..at + length) else { return Ok(None) };
            message.content = content.to_vec();
            Ok(Some((message, at + length)))
        }
        ([], ["chunked"]) => Ok(chunks(octets, at, &mut message)?.map(|length| (message, length))),
        _ => Err("the framing is unclear"),
    }
}

/// Reads chunks from `at` on; where the message ends, once it does.
fn chunks(octets: &[u8], mut at: usize, message: &mut Heard) -> Result<Option<usize>, &'static str> {
    loop {
        let Some(end) = find(&octets[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&octets[at..at + end]).map_err(|_| "a chunk's size is no text")?;
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("a chunk's size is malformed");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "a chunk's size is malformed")?;
        at += end + 2;
        if size == 0 {
            if octets[at..].starts_with(b"\r\n") {
                return Ok(Some(at + 2));
            }
            let Some(end) = find(&octets[at..], b"\r\n\r\n") else { return Ok(None) };
            message.trailers = split(&octets[at..at + end])?
                .into_iter()
                .map(|line| field(&line))
                .collect::<Result<_, _>>()?;
            return Ok(Some(at + end + 4));
        }
        let Some(chunk) = octets.get(at..at + size + 2) else { return Ok(None) };
        let Some(data) = chunk.strip_suffix(b"\r\n") else { return Err("a chunk does not end as it should") };
        message.content.extend_from_slice(data);
        at += size + 2;
    }
}

/// Lines of visible characters, tabs and octets beyond ASCII, each of which stands for a character: no CR or LF stands alone.
fn split(head: &[u8]) -> Result<Vec<String>, &'static str> {
    let head: String = head.iter().copied().map(char::from).collect();
    let is_plain = |line: &String| line.bytes().all(|octet| octet == b'\t' || !octet.is_ascii_control());
    let lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
    if lines.iter().all(is_plain) { Ok(lines) } else { Err("a line has control characters") }
}

fn field(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
    if !is_token(name) {
        return Err("a name is malformed");
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(text: &str) -> bool {
    let is_one = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    !text.is_empty() && text.bytes().all(is_one)
}

fn find(octets: &[u8], what: &[u8]) -> Option<usize> {
    octets.windows(what.len()).position(|window| window == what)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok";
