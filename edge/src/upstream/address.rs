//! Where a server is reached.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc};

use crate::settings::{FilesFolder, ServerProtocol};

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A name that stands for one address or several, and a port.
    Name {
        /// In lower case.
        host: Arc<str>,
        port: u16,
    },
    /// An address and a port.
    Socket(SocketAddr),
    /// A Unix socket's file.
    Unix(Arc<Path>),
    /// A Unix socket's file at which a process of this user listens. What else may be found there, through a link that
    /// this user has made, is not connected to: the edge may be allowed more than the user is.
    UnixOf(Arc<Path>, u32),
    /// The files of a folder, within the process.
    Files(Arc<FilesFolder>),
}

impl Address {
    /// A name, or an address without brackets, and a port.
    pub fn new(host: &Arc<str>, port: u16) -> Self {
        match host.parse() {
            Ok(ip) => Self::Socket(SocketAddr::new(ip, port)),
            Err(_) => Self::Name { host: Arc::clone(host), port },
        }
    }

    /// The address and port, where it is neither a name nor a file.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Name { .. } | Self::Unix(_) | Self::UnixOf(..) | Self::Files(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port } => write!(formatter, "{host}:{port}"),
            Self::Socket(address) => address.fmt(formatter),
            Self::Unix(path) | Self::UnixOf(path, _) => write!(formatter, "unix:{}", path.display()),
            Self::Files(folder) => write!(formatter, "files:{}", folder.root.display()),
        }
    }
}

/// One server, as connections to it are made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub protocol: ServerProtocol,
    pub address: Address,
    /// The host that the settings call it by: what its certificate must be for, and the Host of checks.
    pub host: Arc<str>,
}

impl Endpoint {
    /// A server that speaks HTTP/1.1 in clear text at this address.
    pub fn plain(address: Address) -> Self {
        let host = match &address {
            Address::Name { host, .. } => Arc::clone(host),
            Address::Socket(address) => address.ip().to_string().into(),
            Address::Unix(_) | Address::UnixOf(..) | Address::Files(_) => "localhost".into(),
        };
        Self { protocol: ServerProtocol::Http1, address, host }
    }

    /// The Host of a request of the edge's own (RFC 9110 §7.2).
    pub fn authority(&self) -> String {
        let usual = match self.protocol {
            ServerProtocol::Http1 | ServerProtocol::H2c => 80,
            ServerProtocol::Tls => 443,
        };
        let port = match &self.address {
            Address::Name { port, .. } => *port,
            Address::Socket(address) => address.port(),
            Address::Unix(_) | Address::UnixOf(..) | Address::Files(_) => usual,
        };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        if port == usual { host } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.protocol {
            ServerProtocol::Http1 => "",
            ServerProtocol::H2c => "h2c://",
            ServerProtocol::Tls => "https://",
        })?;
        self.address.fmt(formatter)
    }
}
