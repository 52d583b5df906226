//! Dialling a server. A trait, so that tests can put a scripted server behind the real pipeline without a socket.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::net::{TcpStream, UnixStream};

use super::{address::Address, files, names::Names};
use crate::message::byte_stream::ByteStream;

/// A connection that is being made.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send + 'a>>;

/// Makes connections.
pub trait Dial: Send + Sync + 'static {
    /// Connects to an address. Dropping the future gives up. An error that holds [`NoAddress`] says that the name could not
    /// be resolved.
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a>;

    /// The addresses that a name stands for, as far as they are known; a look-up that is due is begun. None are known where
    /// names are not looked up.
    fn addresses(&self, _host: &Arc<str>) -> Option<Arc<[IpAddr]>> {
        None
    }

    /// Waits until a name has been found.
    ///
    /// # Errors
    /// When it is not found.
    fn look_up<'a>(&'a self, _host: &'a Arc<str>) -> NamesFound<'a> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

/// A wait for a name.
pub type NamesFound<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Dials by the system's sockets. All addresses of a name are tried.
pub struct Sockets {
    names: Arc<Names>,
    /// Each connection begins with another address of a name.
    next: AtomicUsize,
}

impl Sockets {
    /// Dials what `names` finds.
    pub fn new(names: Arc<Names>) -> Self {
        Self { names, next: AtomicUsize::new(0) }
    }
}

impl Dial for Sockets {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
        Box::pin(async move {
            let stream = match address {
                Address::Unix(path) => {
                    return Ok(Box::new(connect_unix(path, None).await?) as Box<dyn ByteStream>);
                }
                Address::UnixOf(path, user) => {
                    return Ok(Box::new(connect_unix(path, Some(*user)).await?) as Box<dyn ByteStream>);
                }
                Address::Files(folder) => return Ok(Box::new(files::connect(folder)) as Box<dyn ByteStream>),
                Address::Socket(address) => TcpStream::connect(*address).await?,
                Address::Name { host, port } => {
                    let found = self.names.addresses(host).await;
                    let found = found.map_err(|error| io::Error::other(NoAddress(error)))?;
                    let first = self.next.fetch_add(1, Ordering::Relaxed) % found.len().max(1);
                    let found = found.iter().cycle().skip(first).take(found.len());
                    let found = found.map(|address| SocketAddr::new(*address, *port));
                    first_to_connect(in_turn(found), TcpStream::connect).await?
                }
            };
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn addresses(&self, host: &Arc<str>) -> Option<Arc<[IpAddr]>> {
        self.names.now(host)
    }

    fn look_up<'a>(&'a self, host: &'a Arc<str>) -> NamesFound<'a> {
        Box::pin(async move { self.names.addresses(host).await.map(drop) })
    }
}

/// Connects to a Unix socket; to that of this user's process alone, if one is named.
///
/// # Errors
/// Those of the system, and when it is another user's.
pub async fn connect_unix(path: &Path, user: Option<u32>) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path).await?;
    if user.is_some_and(|user| stream.peer_cred().map(|peer| peer.uid()).ok() != Some(user)) {
        let what = "another user's process listens there";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(stream)
}

/// A name could not be resolved.
#[derive(Debug)]
pub struct NoAddress(io::Error);

impl fmt::Display for NoAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for NoAddress {}

/// The order in which addresses are tried: IPv6 and IPv4 in turn, IPv6 first, each in the resolver's order (RFC 8305 §4).
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = found.take(MOST_ADDRESSES).partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut ordered = Vec::new();
    loop {
        let (one, other) = (six.next(), four.next());
        if one.is_none() && other.is_none() {
            return ordered;
        }
        ordered.extend(one.into_iter().chain(other));
    }
}

/// Connects to whichever address answers first ("happy eyeballs", RFC 8305 §5): each is tried when the one before it has
/// failed or has been silent for [`STAGGER`], and those before it go on. Dropping the future gives up on all.
async fn first_to_connect<S, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<S>
where
    F: Future<Output = io::Result<S>>,
{
    let mut error = io::Error::new(io::ErrorKind::NotFound, NoAddress(io::ErrorKind::NotFound.into()));
    let mut waiting = addresses.into_iter();
    let mut trying = Vec::new();
    loop {
        trying.extend(waiting.next().map(|address| Box::pin(connect(address))));
        if trying.is_empty() {
            return Err(error);
        }
        let any = poll_fn(|context| {
            for (index, attempt) in trying.iter_mut().enumerate() {
                if let Poll::Ready(tried) = attempt.as_mut().poll(context) {
                    return Poll::Ready((index, tried));
                }
            }
            Poll::Pending
        });
        let tried = match waiting.len() {
            0 => Some(any.await),
            _ => tokio::time::timeout(STAGGER, any).await.ok(),
        };
        match tried {
            Some((_, Ok(stream))) => return Ok(stream),
            Some((index, Err(why))) => {
                drop(trying.swap_remove(index));
                error = why;
            }
            None => {}
        }
    }
}

/// How long an address may be silent before the next is tried beside it (RFC 8305 §8: the Connection Attempt Delay).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// What comes of trying 10.0.0.1, .2 and so on, how long it takes, and which were tried; each is silent (`.`), refuses
    /// (`x`) or accepts (`o`).
    async fn tried(script: &str) -> (Result<u8, io::ErrorKind>, u128, usize) {
        let all = (1..=script.len()).map(|last| format!("10.0.0.{last}:80").parse().unwrap()).collect();
        let (began, tried) = (Instant::now(), RefCell::new(0));
        let connect = |address: SocketAddr| {
            *tried.borrow_mut() += 1;
            let last = match address.ip() {
                std::net::IpAddr::V4(four) => four.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            };
            let kind = script.as_bytes()[usize::from(last) - 1];
            async move {
                match kind {
                    b'o' => Ok(last),
                    b'x' => Err(io::ErrorKind::ConnectionRefused.into()),
                    _ => pending().await,
                }
            }
        };
        let attempt = first_to_connect(all, connect);
        let result = tokio::time::timeout(Duration::from_secs(2), attempt).await;
        let result = result.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        (result.map_err(|error| error.kind()), began.elapsed().as_millis(), tried.into_inner())
    }

    /// A name with two addresses whose first is silent was a 504 for ever.
    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_by_a_quarter_of_a_second() {
        assert_eq!(tried(".o").await, (Ok(2), 250, 2));
        assert_eq!(tried("..o").await, (Ok(3), 500, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_delays_nothing() {
        assert_eq!(tried("xo").await, (Ok(2), 0, 2));
        assert_eq!(tried("o.").await, (Ok(1), 0, 1));
        assert_eq!(tried(".xo").await, (Ok(3), 250, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_refuse_the_last_error_is_told() {
        assert_eq!(tried("xx").await, (Err(io::ErrorKind::ConnectionRefused), 0, 2));
        assert_eq!(tried("x.").await.0, Err(io::ErrorKind::TimedOut));
        assert_eq!(tried("").await.0, Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn the_families_take_turns() {
        let found = addresses(&["1.1.1.1:80", "2.2.2.2:80", "[::1]:80", "3.3.3.3:80"]);
        let expected = addresses(&["[::1]:80", "1.1.1.1:80", "2.2.2.2:80", "3.3.3.3:80"]);
        assert_eq!(in_turn(found.into_iter()), expected);
    }
}
