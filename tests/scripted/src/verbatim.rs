//! Who answers with octets as they are given.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::gate::Gate;

/// What is written, octet for octet, when a request's head has come.
#[derive(Debug, Default)]
pub struct Octets {
    steps: VecDeque<Step>,
    closes: bool,
}

#[derive(Debug)]
enum Step {
    Write(Bytes),
    Wait(Gate),
}

impl Octets {
    /// These.
    #[must_use]
    pub fn of(octets: impl Into<Bytes>) -> Self {
        Self::default().then(octets)
    }

    /// Then these.
    #[must_use]
    pub fn then(mut self, octets: impl Into<Bytes>) -> Self {
        self.steps.push_back(Step::Write(octets.into()));
        self
    }

    /// Then wait for the gate.
    #[must_use]
    pub fn then_wait(mut self, gate: &Gate) -> Self {
        self.steps.push_back(Step::Wait(gate.clone()));
        self
    }

    /// And then the connection closes. Otherwise the next head is waited for.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.closes = true;
        self
    }
}

/// An upstream that reads nothing but heads and writes exactly what its script says, early, late or malformed. It counts the
/// heads and remembers none, so that it bears any number. Clones are the same upstream.
#[derive(Clone)]
pub struct Verbatim(Arc<Inner>);

struct Inner {
    script: Box<dyn Fn(&str) -> Octets + Send + Sync>,
    asked: AtomicUsize,
}

impl fmt::Debug for Verbatim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verbatim").field("asked", &self.0.asked).finish_non_exhaustive()
    }
}

impl Verbatim {
    /// Answers by this script, which is given each head as it came, every line.
    #[must_use]
    pub fn new(script: impl Fn(&str) -> Octets + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { script: Box::new(script), asked: AtomicUsize::new(0) }))
    }

    /// How many heads came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Answers the heads of one connection until it ends. Dropped, the future drops the connection.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let upstream = Arc::clone(&self.0);
        async move {
            let mut stream = BufReader::new(stream);
            while let Some(head) = head(&mut stream).await {
                upstream.asked.fetch_add(1, Ordering::SeqCst);
                let Octets { steps, closes } = (upstream.script)(&head);
                for step in steps {
                    match step {
                        Step::Wait(gate) => gate.passed().await,
                        Step::Write(octets) => {
                            let written = stream.write_all(&octets).await;
                            if written.is_err() || stream.flush().await.is_err() {
                                return;
                            }
                        }
                    }
                }
                if closes {
                    return;
                }
            }
        }
    }
}

/// Every line up to the empty one, or `None` when the stream ends before.
async fn head(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    loop {
        let line = head.len();
        let read = stream.read_until(b'\n', &mut head).await.ok()?;
        match &head[line..] {
            _ if read == 0 => return None,
            // An empty line before a request's first is none of it (RFC 9112 §2.2).
            b"\r\n" | b"\n" if line == 0 => head.clear(),
            b"\r\n" | b"\n" => return Some(String::from_utf8_lossy(&head).into_owned()),
            _ => {}
        }
    }
}
