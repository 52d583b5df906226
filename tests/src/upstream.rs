//! A scripted upstream on a port of its own: it answers as its script says and remembers what it was asked.
//!
//! [`Upstream`] speaks through hyper and so cannot say anything malformed; [`RawUpstream`] writes the bytes it is given. The
//! scripts' language is that of `scripted_upstream`, which serves pipes in memory as well.

use std::{
    net::{SocketAddr, TcpStream as BlockingStream},
    ops::Deref,
};

pub use scripted_upstream::{Gate, Octets, Reply, Seen, first};
use scripted_upstream::{Scripted, Verbatim};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::{AbortHandle, JoinSet},
};

use crate::wait;

/// A running upstream; what it was asked is read from the [`Scripted`] inside. It stops when the value goes.
#[derive(Debug)]
pub struct Upstream {
    listening: Listening,
    scripted: Scripted,
}

impl Upstream {
    /// Starts answering with `script` on a port the system chooses.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let scripted = Scripted::new(script);
        let serves = scripted.clone();
        Self { listening: Listening::start(move |stream| serves.serve(stream)), scripted }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// Waits until it has been asked so many times.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait::until(&format!("the upstream was asked {count} times"), || {
            (self.count() >= count).then_some(())
        });
    }

    /// Closes its port and every connection: from now on it refuses.
    pub fn stop(&mut self) {
        self.listening.stop();
    }

    /// Listens again where it did, once it has been stopped.
    pub fn start_again(&mut self) {
        let serves = self.scripted.clone();
        self.listening.start_again(move |stream| serves.serve(stream));
    }
}

impl Deref for Upstream {
    type Target = Scripted;

    fn deref(&self) -> &Scripted {
        &self.scripted
    }
}

/// A running upstream that writes exactly the bytes it is given; how often it was asked is read from the [`Verbatim`] inside.
/// It stops when the value goes.
#[derive(Debug)]
pub struct RawUpstream {
    listening: Listening,
    verbatim: Verbatim,
}

impl RawUpstream {
    /// Starts answering every request head with `bytes`, one a connection, and then closes.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(bytes: &'static [u8]) -> Self {
        Self::scripted(move |_| Octets::of(bytes).then_close())
    }

    /// Starts answering every request head with `before`, and with `after` once the gate is open; then it closes.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn pausing(before: &'static [u8], gate: &Gate, after: &'static [u8]) -> Self {
        let gate = gate.clone();
        Self::scripted(move |_| Octets::of(before).then_wait(&gate).then(after).then_close())
    }

    /// Starts answering every request head as `script` says.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn scripted(script: impl Fn(&str) -> Octets + Send + Sync + 'static) -> Self {
        let verbatim = Verbatim::new(script);
        let serves = verbatim.clone();
        Self { listening: Listening::start(move |stream| serves.serve(stream)), verbatim }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }
}

impl Deref for RawUpstream {
    type Target = Verbatim;

    fn deref(&self) -> &Verbatim {
        &self.verbatim
    }
}

/// A port, and whoever serves what connects to it, on a thread of its own: tests block theirs.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    accepting: AbortHandle,
    runtime: Option<Runtime>,
}

impl Listening {
    fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let accepting = runtime.spawn(accept(listener, serve)).abort_handle();
        Self { address, accepting, runtime: Some(runtime) }
    }

    fn stop(&self) {
        self.accepting.abort();
        wait::until("the upstream's port is closed", || BlockingStream::connect(self.address).err());
    }

    fn start_again<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) {
        let runtime = self.runtime.as_ref().expect("only the end takes the runtime");
        let listener =
            wait::until("the port is free again", || runtime.block_on(TcpListener::bind(self.address)).ok());
        self.accepting = runtime.spawn(accept(listener, serve)).abort_handle();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) {
    // Aborted with this task: a stopped upstream drops its connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // What a script says apart goes out apart and at once: small writes would wait for the edge's delayed acknowledgements.
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream));
        while connections.try_join_next().is_some() {}
    }
}
