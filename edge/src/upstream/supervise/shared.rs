//! One socket for all instances of a command, as Node's cluster mode has it: the edge listens and never accepts, instances accept
//! and never listen. While they come and go no connection is refused: it waits in the socket's queue for the next who takes it.
//!
//! An instance finds the socket as descriptor 3, as services of systemd do (sd_listen_fds(3)).

use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::memory::MemoryReadings;

/// The number of the descriptor by which an instance has the socket.
pub const SHARED_DESCRIPTOR: i32 = 3;

/// How long an instance has that does not wait for connections by epoll(7), and so cannot be seen to.
const UNSEEN: Duration = Duration::from_secs(3);
/// Between two looks at an instance that starts.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Bytes that are read of what the system says of one descriptor.
const MOST_READ: u64 = 64 << 10;

/// The socket of a command: bound when the first instance needs it, closed when this and all instances are gone.
#[derive(Debug, Default)]
pub(super) struct SharedSocket(Mutex<Option<Arc<SharedListener>>>);

impl SharedSocket {
    pub(super) fn claim(&self) -> io::Result<Arc<SharedListener>> {
        let mut bound = self.0.lock();
        let listener = match &*bound {
            Some(listener) => Arc::clone(listener),
            None => Arc::clone(bound.insert(Arc::new(SharedListener::bind()?))),
        };
        Ok(listener)
    }
}

/// A socket that listens on a port of 127.0.0.1.
#[derive(Debug)]
pub(super) struct SharedListener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    /// By which the system names it.
    inode: u64,
}

impl SharedListener {
    fn bind() -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let inode = fs::File::from(OwnedFd::from(socket.try_clone()?)).metadata()?.ino();
        Ok(Self { socket, address, inode })
    }

    /// One for an instance.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone().map(OwnedFd::from)
    }

    /// Waits until an instance waits for connections: a connection alone says nothing, since another instance may answer it.
    pub(super) async fn taken_up(&self, group: rustix::process::Pid, readings: &MemoryReadings) {
        let since = Instant::now();
        while since.elapsed() < UNSEEN {
            if readings.processes_of(group).into_iter().any(|process| self.is_watched_by(process)) {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether a process waits for connections by epoll: see proc_pid_fdinfo(5).
    fn is_watched_by(&self, process: u32) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fdinfo")) else { return false };
        let named = format!(" ino:{:x} ", self.inode);
        descriptors.flatten().any(|descriptor| {
            let mut told = String::new();
            let read = fs::File::open(descriptor.path())
                .and_then(|file| file.take(MOST_READ).read_to_string(&mut told));
            read.is_ok() && told.lines().any(|line| line.starts_with("tfd:") && line.contains(&named))
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::epoll;

    use super::*;

    #[test]
    fn who_waits_for_connections_is_seen_to() {
        let shared = SharedSocket::default();
        let listener = shared.claim().unwrap();
        assert!(Arc::ptr_eq(&listener, &shared.claim().unwrap()));
        let own = std::process::id();
        assert!(!listener.is_watched_by(own));
        let waits = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(0);
        epoll::add(&waits, listener.descriptor().unwrap(), data, epoll::EventFlags::IN).ok();
        // The system forgets a descriptor that is closed, unless the socket is still open elsewhere.
        assert!(listener.is_watched_by(own));
    }
}
