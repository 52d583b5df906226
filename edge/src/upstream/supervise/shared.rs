//! One socket for all instances of a command, as Node's cluster mode has it: the edge listens and never accepts, instances accept
//! and never listen. While they come and go no connection is refused: it waits in the socket's queue for the next who takes it.
//!
//! An instance finds the socket as descriptor 3, as services of systemd do (sd_listen_fds(3)).

use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Pid;
use tokio::time::{Instant, sleep};

use super::memory::MemoryReadings;

/// The number of the descriptor by which an instance has the socket.
pub const SHARED_DESCRIPTOR: i32 = 3;

/// How long an instance has that does not wait for connections by epoll(7), and so cannot be seen to.
const UNSEEN: Duration = Duration::from_secs(3);
/// Between two looks at an instance that starts, and at one that is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long one that cannot be seen to wait is taken to accept connections after it was told to stop.
const LEAVES_UNSEEN: Duration = Duration::from_millis(100);
/// Bytes that are read of what the system says of one descriptor: some 10,000 connections that one epoll looks after.
const MOST_READ: u64 = 1 << 20;

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
    pub(super) async fn taken_up(&self, group: Pid, readings: &MemoryReadings) {
        let since = Instant::now();
        while since.elapsed() < UNSEEN && self.watches(group, readings).is_empty() {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The descriptors by which an instance waits for connections now, by their paths in proc_pid_fdinfo(5): those of epoll.
    pub(super) fn watches(&self, group: Pid, readings: &MemoryReadings) -> Vec<PathBuf> {
        readings.processes_of(group).into_iter().flat_map(|process| self.watches_of(process)).collect()
    }

    /// Waits until an instance that was told to stop no longer takes connections by any of these descriptors.
    pub(super) async fn left(&self, mut watches: Vec<PathBuf>) {
        if watches.is_empty() {
            return sleep(LEAVES_UNSEEN).await;
        }
        while !watches.is_empty() {
            sleep(LOOK_AGAIN).await;
            watches.retain(|path| self.is_watched_at(path));
        }
    }

    fn watches_of(&self, process: u32) -> Vec<PathBuf> {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fdinfo")) else { return Vec::new() };
        let paths = descriptors.flatten().map(|descriptor| descriptor.path());
        paths.filter(|path| self.is_watched_at(path)).collect()
    }

    fn is_watched_at(&self, path: &Path) -> bool {
        let named = format!(" ino:{:x} ", self.inode);
        let mut told = String::new();
        let read = fs::File::open(path).and_then(|file| file.take(MOST_READ).read_to_string(&mut told));
        read.is_ok() && told.lines().any(|line| line.starts_with("tfd:") && line.contains(&named))
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::epoll;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_connections_is_seen_to() {
        let shared = SharedSocket::default();
        let listener = shared.claim().unwrap();
        assert!(Arc::ptr_eq(&listener, &shared.claim().unwrap()));
        let own = std::process::id();
        assert_eq!(listener.watches_of(own), [] as [PathBuf; 0]);
        let waits = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(0);
        let descriptor = listener.descriptor().unwrap();
        epoll::add(&waits, &descriptor, data, epoll::EventFlags::IN).unwrap();
        let watches = listener.watches_of(own);
        assert_eq!(watches.len(), 1);
        let mut left = Box::pin(listener.left(watches));
        assert!(timeout(2 * LOOK_AGAIN, &mut left).await.is_err(), "it waits still");
        epoll::delete(&waits, &descriptor).unwrap();
        left.await;
        assert_eq!(listener.watches_of(own), [] as [PathBuf; 0]);
    }
}
