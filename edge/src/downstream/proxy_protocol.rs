//! The PROXY protocol of HAProxy, versions 1 and 2, as a load balancer speaks it to us: a header before everything else on a
//! connection, TLS included, that names the client's own address.
//!
//! Promises: only who may introduce clients is read and believed; the header is bounded in bytes and in time; of what
//! follows it nothing is taken. A listener that wants headers takes no connection without one: else whoever leaves it away
//! would be taken for the load balancer.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cache_policy::Moment;
use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{message::target::Scheme, state::Edge, upstream::introduction::Ends};

/// Whose connections to a listener begin with a header.
#[derive(Debug)]
pub struct Introducers {
    from: Vec<IpNet>,
    /// When a refusal may be told again, in seconds since the clock's epoch.
    quiet_until: AtomicU64,
}

/// What a header says of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// Of the client's connection; `None` where this one is the load balancer's own, as for its health checks.
    pub ends: Option<Ends>,
    /// Whether the client's own connection is encrypted, where that is said.
    pub scheme: Option<Scheme>,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIntroduced {
    #[error("its address is not among those that may send PROXY headers")]
    Stranger,
    #[error("it does not begin with a PROXY header")]
    Malformed,
    #[error("its PROXY header is too long")]
    TooLong,
    #[error("its PROXY header did not come within timeouts.header")]
    Late,
    /// It closed without a word: many load balancers look so whether the port is open.
    #[error("it closed before its PROXY header")]
    Gone,
}

impl NotIntroduced {
    /// One word for metrics.
    const fn word(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::Late => "late",
            Self::Gone => "gone",
        }
    }
}

impl Introducers {
    /// Who may introduce clients; `None` where the listener wants no headers.
    pub fn new(from: &[IpNet]) -> Option<Self> {
        (!from.is_empty()).then(|| Self { from: from.to_vec(), quiet_until: AtomicU64::new(0) })
    }

    /// Takes the header from a connection's beginning. What is wrong is counted and told.
    ///
    /// # Errors
    /// [`NotIntroduced`]: the connection is to be closed.
    pub async fn meet(
        &self,
        edge: &Edge,
        stream: &mut TcpStream,
        peer: SocketAddr,
        patience: Duration,
    ) -> Result<Introduced, NotIntroduced> {
        let address = peer.ip().to_canonical();
        let met = if self.from.iter().any(|network| network.contains(&address)) {
            tokio::time::timeout(patience, read(stream)).await.unwrap_or(Err(NotIntroduced::Late))
        } else {
            Err(NotIntroduced::Stranger)
        };
        if let Err(why) = met {
            self.tell(edge, address, why);
        }
        met
    }

    /// Counts each, and tells the operator now and then: strangers must not be able to fill the log.
    fn tell(&self, edge: &Edge, peer: IpAddr, why: NotIntroduced) {
        edge.metrics.not_introduced(why.word());
        let now = edge.clock.now().since(Moment::from_epoch(Duration::ZERO)).as_secs();
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        let telling = |now| (now >= quiet_until).then_some(now + QUIET_SECONDS);
        if why != NotIntroduced::Gone
            && let Some(next) = telling(now)
            && self
                .quiet_until
                .compare_exchange(quiet_until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            tracing::warn!(%peer, "a connection was closed: {why}; further ones are told in {QUIET_SECONDS} s at the earliest");
        } else {
            tracing::debug!(%peer, "a connection was closed: {why}");
        }
    }
}

/// Reads a header and nothing of what follows it: octets are looked at first, and taken when they are known to be its own.
async fn read(stream: &mut TcpStream) -> Result<Introduced, NotIntroduced> {
    let mut header = Vec::new();
    let mut seen = [0; LOOK];
    loop {
        let count = match stream.peek(&mut seen).await {
            Ok(0) | Err(_) if header.is_empty() => return Err(NotIntroduced::Gone),
            Ok(0) | Err(_) => return Err(NotIntroduced::Malformed),
            Ok(count) => count,
        };
        let before = header.len();
        header.extend_from_slice(&seen[..count]);
        let parsed = parse(&header)?;
        // A header that has not ended yet is all there is.
        let own = parsed.map_or(count, |(_, length)| length - before);
        let taken = stream.read_exact(&mut seen[..own]).await;
        taken.map_err(|_: io::Error| NotIntroduced::Gone)?;
        if let Some((introduced, _)) = parsed {
            return Ok(introduced);
        }
    }
}

/// The header at the beginning of these octets and its length; `None` where more must come to tell.
fn parse(octets: &[u8]) -> Result<Option<(Introduced, usize)>, NotIntroduced> {
    let is_version_1 = octets.first() == Some(&b'P');
    let begins = |signature: &[u8]| octets.iter().zip(signature).all(|(octet, wanted)| octet == wanted);
    if !begins(if is_version_1 { b"PROXY " } else { SIGNATURE_OF_2 }) {
        return Err(NotIntroduced::Malformed);
    }
    let longest = if is_version_1 { LONGEST_OF_1 } else { LONGEST_OF_2 };
    let stated = match octets.get(FIXED_OF_2 - 2..FIXED_OF_2) {
        Some(&[high, low]) if !is_version_1 => FIXED_OF_2 + usize::from(u16::from_be_bytes([high, low])),
        _ => longest,
    };
    if stated > longest && octets.starts_with(b"\r\n") {
        return Err(NotIntroduced::TooLong);
    }
    match ProxyHeader::parse(octets, ParseConfig::default()) {
        Ok((_, length)) if length > longest => Err(NotIntroduced::TooLong),
        Ok((header, length)) => {
            let ends = header.proxied_address().map(|proxied| {
                let source = SocketAddr::new(proxied.source.ip().to_canonical(), proxied.source.port());
                Ends { source, destination: proxied.destination }
            });
            let encrypted = |tls: proxy_header::SslInfo<'_>| match tls.client_ssl() {
                true => Scheme::Https,
                false => Scheme::Http,
            };
            let scheme = ends.and_then(|_| header.ssl().map(encrypted));
            Ok(Some((Introduced { ends, scheme }, length)))
        }
        // A line that has ended gets no longer.
        Err(_) if is_version_1 && octets.windows(2).any(|two| two == b"\r\n") => {
            Err(NotIntroduced::Malformed)
        }
        Err(proxy_header::Error::BufferTooShort) if octets.len() < stated => Ok(None),
        Err(_) => Err(NotIntroduced::Malformed),
    }
}

const SIGNATURE_OF_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets that are looked at in one go.
const LOOK: usize = 512;
/// The whole line of version 1, as the specification bounds it.
const LONGEST_OF_1: usize = 107;
/// What comes before the addresses in version 2: its last two octets are the length of the rest.
const FIXED_OF_2: usize = 16;
/// With addresses some 50 octets; the rest are the sender's own remarks.
const LONGEST_OF_2: usize = 4096;
/// Between two refusals that are told.
const QUIET_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, SslInfo, Tlv};

    use super::*;

    fn proxied(source: &str, destination: &str) -> ProxiedAddress {
        ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap())
    }

    fn in_version_2(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut octets = Vec::new();
        header.encode_v2(&mut octets).unwrap();
        octets
    }

    fn v4() -> ProxiedAddress {
        proxied("192.0.2.9:1234", "10.0.0.1:443")
    }

    /// Headers, with what they say.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>, Option<Scheme>)> {
        let tls = |client| Tlv::Ssl(SslInfo::new(client, false, false, 1));
        let remark = || Tlv::Custom(0xe0, vec![b'P'; 600].into());
        let with = |tlvs: Vec<Tlv<'_>>| in_version_2(&ProxyHeader::with_tlvs(Some(v4()), tlvs));
        let v6 = proxied("[2001:db8::9]:1", "[2001:db8::1]:2");
        let mapped = proxied("[::ffff:192.0.2.9]:1", "[::1]:2");
        vec![
            (b"PROXY TCP4 192.0.2.9 10.0.0.1 1234 443\r\n".to_vec(), Some("192.0.2.9:1234"), None),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n".to_vec(), Some("[2001:db8::9]:1"), None),
            (b"PROXY UNKNOWN\r\n".to_vec(), None, None),
            (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n".to_vec(), None, None),
            (in_version_2(&ProxyHeader::with_address(v4())), Some("192.0.2.9:1234"), None),
            (in_version_2(&ProxyHeader::with_address(v6)), Some("[2001:db8::9]:1"), None),
            (in_version_2(&ProxyHeader::with_address(mapped)), Some("192.0.2.9:1"), None),
            (in_version_2(&ProxyHeader::with_local()), None, None),
            (with(vec![remark(), tls(true), remark()]), Some("192.0.2.9:1234"), Some(Scheme::Https)),
            (with(vec![tls(false)]), Some("192.0.2.9:1234"), Some(Scheme::Http)),
        ]
    }

    #[test]
    fn a_header_is_read_to_its_last_octet_however_it_comes() {
        for (octets, source, scheme) in headers() {
            let source = source.map(|source| source.parse::<SocketAddr>().unwrap());
            let followed = [&octets[..], b"GET / HTTP/1.1\r\n"].concat();
            for end in 1..=followed.len() {
                let parsed = parse(&followed[..end]).unwrap();
                let said =
                    parsed.map(|(said, length)| (said.ends.map(|ends| ends.source), said.scheme, length));
                let expected = (end >= octets.len()).then_some((source, scheme, octets.len()));
                assert_eq!(said, expected, "{end} of {octets:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_known() {
        for octets in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"POST /order HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROXY TCP4 192.0.2.9 10.0.0.1 1234 99999\r\n",
            b"PROXY TCP4 2001:db8::9 2001:db8::1 1 2\r\n",
            b"PROXY TCP4 unix 10.0.0.1 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c123456789012",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\xc0\0\x02\x09",
        ] {
            assert_eq!(parse(octets), Err(NotIntroduced::Malformed), "{octets:?}");
        }
    }

    #[test]
    fn a_header_has_a_bound() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(LONGEST_OF_1 - 1, b'x');
        assert_eq!(parse(&line), Ok(None));
        line.extend_from_slice(b"\r\n");
        assert_eq!(parse(&line), Err(NotIntroduced::TooLong));
        let mut declared = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        declared.extend_from_slice(&4080_u16.to_be_bytes());
        assert_eq!(parse(&declared), Ok(None));
        declared.splice(14.., 4081_u16.to_be_bytes());
        assert_eq!(parse(&declared), Err(NotIntroduced::TooLong), "before any of it is read");
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(
            begins in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"]),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let octets = [begins, &rest].concat();
            if let Ok(Some((_, length))) = parse(&octets) {
                prop_assert!(length <= octets.len());
            }
        }
    }
}
