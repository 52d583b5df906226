//! `faulty_server NAME ADDRESS CONTROL FILE`: a small HTTP/1.1 server that misbehaves as it is told.
//!
//! On `CONTROL` it takes a word a connection, one of [`Behaviour`]'s, and says `ok` once it holds. Requests are written to `FILE`
//! when they have been read whole. A request takes it two milliseconds.

use std::{
    fs::File,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::faulty::{Asked, Behaviour, HEALTH, answer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

const USAGE: &str = "usage: faulty_server NAME ADDRESS CONTROL FILE";
/// What a request takes.
const WORK: Duration = Duration::from_millis(2);
/// What it takes when the server is slow.
const SLOW: Duration = Duration::from_secs(3);
/// The longest head, and the longest content.
const LONGEST: u64 = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, address, control, file] = arguments.as_slice() else { bail!(USAGE) };
    let address: SocketAddr = address.parse().context(USAGE)?;
    let asked = File::options().append(true).create(true).open(file)?;
    let server = Arc::new(Server { name: name.clone(), asked });
    let control = TcpListener::bind(control.as_str()).await?;
    let mut listener = Some(TcpListener::bind(address).await?);
    println!("listening on http://{address}");
    let behaviour = watch::Sender::new(Behaviour::Good);
    loop {
        tokio::select! {
            accepted = accept(listener.as_ref()) => {
                let server = Arc::clone(&server);
                let connection = Connection { told: behaviour.subscribe(), stream: BufReader::new(accepted?) };
                // Whatever a client does to its connection is its own affair.
                tokio::spawn(async move { connection.serve(&server).await });
            }
            told = control.accept() => {
                let mut stream = BufReader::new(told?.0);
                let mut word = String::new();
                stream.read_line(&mut word).await?;
                let told: Behaviour = word.trim().parse().map_err(anyhow::Error::msg)?;
                if told == Behaviour::Refusing {
                    listener = None;
                } else if listener.is_none() {
                    listener = Some(TcpListener::bind(address).await?);
                }
                behaviour.send_replace(told);
                stream.write_all(b"ok\n").await?;
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

struct Server {
    name: String,
    asked: File,
}

impl Server {
    /// At once, and in one piece: it stands in the file whatever becomes of the server.
    fn note(&self, asked: &Asked) -> io::Result<()> {
        let Asked { method, target, .. } = asked;
        (&self.asked).write_all(format!("{method} {target}\n").as_bytes())
    }
}

struct Connection {
    told: watch::Receiver<Behaviour>,
    stream: BufReader<TcpStream>,
}

/// Whether a further request may come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Closes,
}

impl Connection {
    async fn serve(mut self, server: &Server) -> io::Result<()> {
        let _ = self.stream.get_ref().set_nodelay(true);
        loop {
            let mut told = self.told.clone();
            let (asked, then) = tokio::select! {
                asked = read(&mut self.stream) => asked?,
                _ = told.wait_for(|told| *told == Behaviour::Refusing) => return Ok(()),
            };
            let behaviour = *self.told.borrow();
            let asks_health = asked.target == HEALTH;
            if !asks_health {
                server.note(&asked)?;
            }
            sleep(if behaviour == Behaviour::Slow { SLOW } else { WORK }).await;
            let well = ("200 OK", answer(&server.name, &asked));
            let (status, content) = match behaviour {
                Behaviour::Garbage => {
                    return self.stream.write_all(b"\x16\x03\x01 no HTTP \xff\r\n\r\n").await;
                }
                Behaviour::Resetting if !asks_health => return self.reset(&well.1).await,
                Behaviour::Overloaded => ("503 Service Unavailable", "too much\n".to_owned()),
                Behaviour::Erring if !asks_health => ("503 Service Unavailable", "an error\n".to_owned()),
                Behaviour::Unwell if asks_health => ("500 Internal Server Error", "not well\n".to_owned()),
                _ => well,
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n",
                content.len()
            );
            self.stream.write_all(format!("{head}{content}").as_bytes()).await?;
            if then == Then::Closes {
                return Ok(());
            }
        }
    }

    /// Sends the head and half of the content, and resets the connection.
    async fn reset(mut self, content: &str) -> io::Result<()> {
        let half = &content[..content.len() / 2];
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        self.stream.write_all(format!("{head}{half}").as_bytes()).await?;
        // What has not been read is lost with a reset: a while, so that it arrives.
        sleep(WORK).await;
        self.stream.get_ref().set_zero_linger()
    }
}

/// A whole request.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<(Asked, Then)> {
    let mut lines = Vec::new();
    let mut head = (&mut *stream).take(LONGEST);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (method, target, version) = (word(), word(), word());
    let field = |name: &str| {
        lines.iter().find_map(|line| {
            let (its, value) = line.split_once(':')?;
            its.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0).min(LONGEST);
    let mut content = String::new();
    if (stream.take(length).read_to_string(&mut content).await? as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let closes =
        version == "HTTP/1.0" || field("connection").is_some_and(|said| said.eq_ignore_ascii_case("close"));
    Ok((Asked { method, target, content }, if closes { Then::Closes } else { Then::GoesOn }))
}
