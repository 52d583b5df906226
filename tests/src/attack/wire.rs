//! Attackers' connections.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Attack, How, Shared};
use crate::wait;

/// How they speak TLS: HTTP/2, and a whole handshake each time.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls")
    }
}

impl Tls {
    pub(super) fn trusting(authority: &Path, attack: Attack) -> Self {
        let mut roots = RootCertStore::empty();
        let authority =
            CertificateDer::from_pem_file(authority).expect("the authority's certificate is there");
        roots.add(authority).expect("the authority is a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider knows TLS 1.2 and 1.3");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        let protocol: &[u8] = if attack == Attack::RefusedHellos { b"nobody-speaks-this/1" } else { b"h2" };
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        Self(TlsConnector::from(Arc::new(config)))
    }
}

impl Shared {
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        if self.attack == Attack::UnreadAnswers {
            // What is not read waits in the program under attack, and not here.
            socket.set_recv_buffer_size(16 * 1024)?;
        }
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        socket.connect(address).await
    }

    pub(super) async fn connect_tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.connect(self.target.tls).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        self.tls.0.connect(name, stream).await
    }
}

/// A handshake after the other.
pub(super) async fn handshakes(shared: &Shared) -> How {
    for _ in 0..shared.force.each {
        let began = wait::now();
        let how = if shared.connect_tls().await.is_ok() { How::Taken } else { How::Refused };
        shared.note(how, began);
    }
    How::Taken
}

/// The end of a connection, by the error that told of it.
pub(super) fn end(error: &io::Error) -> How {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => How::Reset,
        _ => How::Closed,
    }
}
