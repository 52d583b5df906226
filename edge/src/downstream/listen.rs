//! Listening sockets, one for each worker thread on each public address.
//!
//! Owns: how a listening socket is made. Promises: the kernel spreads connections over the workers (`SO_REUSEPORT`); an
//! address another process listens on is refused, never silently shared; a failure names the address and the remedy.
//! What is accepted, and what it carries, is not its concern.
//!
//! `SO_REUSEPORT` alone would let a second edge of the same user join the first one's port and take half its clients. So
//! the first socket of an address binds and listens without it, which fails when anybody else listens there, and only then
//! opens the port to its siblings. Listening is what claims the port: of two edges that bind at once, one is refused.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds for one worker before it accepts them. Linux caps it at `net.core.somaxconn` (4096).
pub const BACKLOG: u16 = 4096;

/// Why an address could not be listened on. The message ends with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", remedy(*address, source))]
pub struct ListenError {
    /// The address as the settings name it.
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Listens on `address` with one non-blocking socket for each of `threads` workers (at least one).
///
/// Port 0 lets the system choose once; all sockets share the choice, which `local_addr` returns. `[::]` takes IPv4 as
/// well. Accepted streams have `TCP_NODELAY`: they inherit it from these sockets.
///
/// # Errors
/// [`ListenError`] when the address is taken, not permitted or not there.
pub fn bind(address: SocketAddr, threads: usize) -> Result<Vec<TcpListener>, ListenError> {
    bind_all(address, threads.max(1), Claim::Alone).map_err(|source| ListenError { address, source })
}

/// As [`bind`], while sockets of this process still hold some of the same addresses: `[::]:80` before `127.0.0.1:80` goes.
///
/// # Errors
/// As [`bind`].
pub fn bind_beside_own(address: SocketAddr, threads: usize) -> Result<Vec<TcpListener>, ListenError> {
    bind_all(address, threads.max(1), Claim::BesideOwn).map_err(|source| ListenError { address, source })
}

/// Who may hold an address that is bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    Alone,
    /// This process, whose sockets keep others away meanwhile.
    BesideOwn,
}

fn bind_all(address: SocketAddr, threads: usize, claim: Claim) -> io::Result<Vec<TcpListener>> {
    let first = open(address)?;
    first.set_reuse_port(claim == Claim::BesideOwn)?;
    first.bind(&address.into())?;
    first.listen(BACKLOG.into())?;
    let chosen = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the system bound an address that is not IP"))?;
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        let sibling = open(address)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&chosen.into())?;
        sibling.listen(BACKLOG.into())?;
        sockets.push(sibling);
    }
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the last run's connections in TIME_WAIT; a listening socket still refuses the bind.
    socket.set_reuse_address(true)?;
    // Linux copies this to every accepted stream, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn remedy(address: SocketAddr, source: &io::Error) -> String {
    let port = address.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another process holds it (`ss -ltnp 'sport = :{port}'` tells which): stop it or choose another port"
            )
        }
        io::ErrorKind::PermissionDenied if port < 1024 => {
            "ports below 1024 need the capability: `setcap cap_net_bind_service=+ep` on the program, or \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit, or a port from 1024 up"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: name one that `ip address` lists, or 0.0.0.0 or [::] for all"
                .to_owned()
        }
        _ if address.is_ipv6() => {
            let every = if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
                "0.0.0.0"
            } else {
                "127.0.0.1"
            };
            format!("if this machine has no IPv6, write {every}:{port}")
        }
        _ => "check the address in [[listen]]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, SocketAddr, TcpStream},
    };

    use super::*;

    const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn port_0_is_chosen_once_and_shared_by_all_workers() {
        let sockets = bind(ANY_PORT, 4).unwrap();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 4);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_refused_although_the_holder_shares_it() {
        let held = bind(ANY_PORT, 2).unwrap();
        let address = held[0].local_addr().unwrap();
        let error = bind(address, 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        let message = error.to_string();
        assert!(message.contains(&address.to_string()) && message.contains("ss -ltnp"), "{message}");
    }

    #[test]
    fn a_wider_or_narrower_address_is_bound_beside_the_own_one_that_goes() {
        let narrow = bind(ANY_PORT, 2).unwrap();
        let port = narrow[0].local_addr().unwrap().port();
        let wide = bind_beside_own(SocketAddr::from(([0, 0, 0, 0], port)), 2).unwrap();
        drop(narrow);
        let again = bind_beside_own(SocketAddr::from(([127, 0, 0, 1], port)), 2).unwrap();
        drop(wide);
        TcpStream::connect(again[0].local_addr().unwrap()).unwrap();
        assert!(bind(SocketAddr::from(([127, 0, 0, 1], port)), 1).is_err(), "others are kept away");
    }

    #[test]
    fn a_port_is_free_again_while_its_connections_linger() {
        let held = bind(ANY_PORT, 1).unwrap();
        let address = held[0].local_addr().unwrap();
        held[0].set_nonblocking(false).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (server, _) = held[0].accept().unwrap();
        drop(server); // The listener's side closes first: it is the one that keeps TIME_WAIT.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        drop(held);
        bind(address, 2).unwrap();
    }

    #[test]
    fn accepted_streams_have_nodelay() {
        let sockets = bind(ANY_PORT, 1).unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        assert!(sockets[0].accept().unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn connections_are_spread_over_the_workers() {
        let sockets = bind(ANY_PORT, 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        for (worker, socket) in (0_u8..).zip(sockets) {
            socket.set_nonblocking(false).unwrap();
            std::thread::spawn(move || {
                while let Ok((mut stream, _)) = socket.accept() {
                    stream.write_all(&[worker]).unwrap();
                }
            });
        }
        let mut served = [0; 3];
        for _ in 0..300 {
            let mut worker = [0];
            TcpStream::connect(address).unwrap().read_exact(&mut worker).unwrap();
            served[usize::from(worker[0])] += 1;
        }
        // An even spread misses a worker once in 10^52 runs.
        assert!(served.iter().all(|connections| *connections > 0), "{served:?}");
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_too() {
        let every: SocketAddr = "[::]:0".parse().unwrap();
        match bind(every, 2) {
            Ok(sockets) => {
                let port = sockets[0].local_addr().unwrap().port();
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            }
            // On a machine without IPv6 the error must at least name the address to write instead.
            Err(error) => assert!(error.to_string().contains("0.0.0.0:0"), "{error}"),
        }
    }

    #[test]
    fn an_address_of_another_machine_says_so() {
        let error = bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(
            error.to_string().contains("192.0.2.1:0: ") && error.to_string().contains("ip address"),
            "{error}"
        );
    }
}
