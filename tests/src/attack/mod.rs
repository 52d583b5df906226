//! Attacks on what stands in front of a server, each bounded: in connections, in what each sends, and in how often they come back.
//!
//! An [`Assault`] runs on a thread of its own, which lets others go first where processors are scarce: what is measured beside it
//! is the program under attack, and not the machine that both share. Attackers come from 127.0.0.1.

mod over_http1;
mod over_http2;
mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::wait;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Heads that go on, a line after each pause, and never end (slowloris).
    SlowHeads,
    /// Connections that have asked once and are kept.
    IdleKeepAlives,
    /// Connections to the TLS listener that begin a ClientHello and say no more.
    SilentTls,
    /// Uploads over HTTP/2 that send 1.2 KB on each of many streams after each pause.
    SlowUploads,
    /// Answers that may not be stored, over HTTP/2, for which there is no window.
    ClosedWindows,
    /// Large answers over HTTP/2 with the widest of windows, of which nothing is read.
    UnreadAnswers,
    /// Streams that are reset as soon as they are begun (CVE-2023-44487).
    RapidResets,
    /// Streams that the server has to reset, by an increment of 0 (CVE-2025-8671).
    MadeResets,
    /// CONTINUATION frames that never end a head (CVE-2024-27316).
    EndlessHead,
    /// PING and SETTINGS in turn, whose answers are not awaited.
    Pings,
    /// DATA frames without content.
    EmptyData,
    /// Requests for a hundred ranges of a stored answer of 250 KB.
    Ranges,
    /// Heads just below 64 KiB, and above it in turn.
    BigHeads,
    /// Answers of 20 KB that may not be stored, each for another URL.
    UniqueUrls,
    /// One URL whose answers vary, each time by another value.
    UniqueVariants,
    /// TLS handshakes, and no request.
    Handshakes,
    /// ClientHellos that are refused: they ask by ALPN for what nobody speaks.
    RefusedHellos,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::SlowHeads,
        Self::IdleKeepAlives,
        Self::SilentTls,
        Self::SlowUploads,
        Self::ClosedWindows,
        Self::UnreadAnswers,
        Self::RapidResets,
        Self::MadeResets,
        Self::EndlessHead,
        Self::Pings,
        Self::EmptyData,
        Self::Ranges,
        Self::BigHeads,
        Self::UniqueUrls,
        Self::UniqueVariants,
        Self::Handshakes,
        Self::RefusedHellos,
    ];

    /// Its name, in a word or three.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowHeads => "slow heads",
            Self::IdleKeepAlives => "idle keep-alives",
            Self::SilentTls => "silent TLS",
            Self::SlowUploads => "slow uploads",
            Self::ClosedWindows => "window 0",
            Self::UnreadAnswers => "unread answers",
            Self::RapidResets => "rapid reset",
            Self::MadeResets => "made resets",
            Self::EndlessHead => "CONTINUATION",
            Self::Pings => "PING, SETTINGS",
            Self::EmptyData => "empty DATA",
            Self::Ranges => "many ranges",
            Self::BigHeads => "big heads",
            Self::UniqueUrls => "unique URLs",
            Self::UniqueVariants => "unique Vary",
            Self::Handshakes => "TLS handshakes",
            Self::RefusedHellos => "refused TLS",
        }
    }

    /// As much of it as two processors bear beside the program under attack, its server and a good client.
    #[must_use]
    pub fn full_force(self) -> Force {
        let pace = Duration::from_secs(1);
        let (connections, each, again) = match self {
            Self::SlowHeads => (500, 1_000, 2_000),
            Self::IdleKeepAlives => (100, 1, 2_000),
            Self::SilentTls => (100, 1, 2_000),
            // In all 264 uploads, and 258 answers.
            Self::SlowUploads => (3, 88, 30),
            Self::ClosedWindows => (3, 86, 30),
            Self::UnreadAnswers => (40, 128, 80),
            Self::RapidResets | Self::MadeResets => (4, 20_000, 400),
            Self::EndlessHead => (4, 10_000, 400),
            Self::Pings | Self::EmptyData => (4, 100_000, 400),
            Self::Ranges | Self::UniqueUrls | Self::UniqueVariants => (8, 5_000, 16),
            Self::BigHeads => (8, 1_000, 400),
            Self::Handshakes | Self::RefusedHellos => (4, 2_000, 8),
        };
        Force { connections, each, again, pace }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Force {
    /// Connections at once.
    pub connections: usize,
    /// What each of them sends: lines, streams, frames, requests or handshakes, as the attack has it.
    pub each: usize,
    /// How many connections in all: who is cut off comes again.
    pub again: usize,
    /// Between two pieces of what is slow.
    pub pace: Duration,
}

/// Whom to attack.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it speaks HTTP/1.1 in clear text.
    pub clear: SocketAddr,
    /// Where it speaks TLS.
    pub tls: SocketAddr,
    /// Who vouches for its certificate.
    pub authority: PathBuf,
}

/// What an attacker got for it: a connection, a stream or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// An answer with this status.
    Answered(u16),
    /// RST_STREAM with this code (RFC 9113 §7).
    StreamReset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection was closed.
    Closed,
    /// It was closed by a TCP reset.
    Reset,
    /// It did not come about.
    Refused,
    /// All that was to be sent was taken.
    Taken,
    /// It was there when the attack was over.
    Held,
}

impl How {
    /// Whether it is an end that the other side made.
    #[must_use]
    pub fn is_cut(self) -> bool {
        match self {
            Self::Answered(status) => status >= 400,
            Self::StreamReset(_) | Self::GoAway(_) | Self::Closed | Self::Reset | Self::Refused => true,
            Self::Taken | Self::Held => false,
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(formatter, "{status}"),
            Self::StreamReset(code) => write!(formatter, "RST_STREAM {code}"),
            Self::GoAway(code) => write!(formatter, "GOAWAY {code}"),
            Self::Closed => formatter.write_str("closed"),
            Self::Reset => formatter.write_str("TCP reset"),
            Self::Refused => formatter.write_str("refused"),
            Self::Taken => formatter.write_str("taken"),
            Self::Held => formatter.write_str("held"),
        }
    }
}

/// What attackers got, and after how long each time.
#[derive(Clone, Debug, Default)]
pub struct Ends(BTreeMap<How, Vec<Duration>>);

impl Ends {
    /// How often it was something of this kind.
    #[must_use]
    pub fn count(&self, is: impl Fn(How) -> bool) -> usize {
        self.0.iter().filter(|(how, _)| is(**how)).map(|(_, times)| times.len()).sum()
    }
}

/// The three most frequent, with the median of their times.
impl fmt::Display for Ends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<(&How, &Vec<Duration>)> = self.0.iter().collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(times.len()));
        for (place, (how, times)) in all.into_iter().take(3).enumerate() {
            let mut times = times.clone();
            times.sort();
            let median = times[times.len() / 2].as_secs_f64();
            let comma = if place == 0 { "" } else { ", " };
            write!(formatter, "{comma}{how} ×{} {median:.2} s", times.len())?;
        }
        Ok(())
    }
}

/// An attack under way. It stops when the value goes.
#[derive(Debug)]
pub struct Assault {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the attackers have in common.
#[derive(Debug)]
struct Shared {
    attack: Attack,
    target: Target,
    tls: wire::Tls,
    force: Force,
    ends: Mutex<Ends>,
    opened: AtomicUsize,
    /// For what has to be another each time.
    serial: AtomicUsize,
}

/// Who was cut off comes again after so long.
const PAUSE: Duration = Duration::from_millis(250);

impl Assault {
    /// Begins it.
    ///
    /// # Panics
    /// When there is no authority's certificate to read.
    #[must_use]
    pub fn start(attack: Attack, target: Target, force: Force) -> Self {
        let shared = Arc::new(Shared {
            attack,
            tls: wire::Tls::trusting(&target.authority, attack),
            target,
            force,
            ends: Mutex::default(),
            opened: AtomicUsize::new(0),
            serial: AtomicUsize::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let attackers = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            // Of this thread alone, on Linux; where it is refused, the attack is the fiercer.
            let _ = rustix::process::nice(10);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(async {
                let mut all = JoinSet::new();
                for _ in 0..force.connections {
                    all.spawn(come_again(Arc::clone(&attackers), stopped.clone()));
                }
                all.join_all().await;
            });
        });
        Self { shared, stop, thread: Some(thread) }
    }

    /// What the attackers have got so far.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it: what they got.
    ///
    /// # Panics
    /// When its thread did.
    #[must_use]
    pub fn stop(mut self) -> Ends {
        self.stop.send_replace(true);
        let thread = self.thread.take().expect("only the end takes it");
        thread.join().expect("the attackers do not panic");
        self.ends()
    }
}

impl Drop for Assault {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// One attacker: attacks until the end of the attack, or until there have been enough connections.
async fn come_again(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    while shared.opened.fetch_add(1, Ordering::Relaxed) < shared.force.again {
        let began = wait::now();
        let how = strike(&shared, &mut stop).await;
        shared.note(how, began);
        if how == How::Held {
            return;
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn strike(shared: &Shared, stop: &mut watch::Receiver<bool>) -> How {
    if shared.attack == Attack::UnreadAnswers {
        return over_http2::unread_answers(shared, stop).await;
    }
    let attack = async {
        match shared.attack {
            Attack::SlowHeads => over_http1::slow_head(shared).await,
            Attack::IdleKeepAlives => over_http1::idle_keep_alive(shared).await,
            Attack::SilentTls => over_http1::silent_tls(shared).await,
            Attack::SlowUploads => over_http2::slow_uploads(shared).await,
            Attack::ClosedWindows => over_http2::closed_windows(shared).await,
            Attack::RapidResets => over_http2::rapid_resets(shared).await,
            Attack::MadeResets => over_http2::made_resets(shared).await,
            Attack::EndlessHead => over_http2::endless_head(shared).await,
            Attack::Pings => over_http2::pings(shared).await,
            Attack::EmptyData => over_http2::empty_data(shared).await,
            Attack::Ranges => over_http1::ranges(shared).await,
            Attack::BigHeads => over_http1::big_heads(shared).await,
            Attack::UniqueUrls => over_http1::unique_urls(shared).await,
            Attack::UniqueVariants => over_http1::unique_variants(shared).await,
            Attack::Handshakes | Attack::RefusedHellos => wire::handshakes(shared).await,
            Attack::UnreadAnswers => unreachable!("it sees to its end itself"),
        }
    };
    tokio::select! {
        how = attack => how,
        _ = stop.wait_for(|stop| *stop) => How::Held,
    }
}

impl Shared {
    fn note(&self, how: How, since: Instant) {
        let took = wait::now().saturating_duration_since(since);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.0.entry(how).or_default().push(took);
    }

    fn next(&self) -> usize {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}
