//! The origin: true in what it says that it has, and false in how.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use edge::{
    message::byte_stream::ByteStream,
    upstream::{
        address::Address,
        connect::{Dial, Dialling},
    },
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    sync::Barrier,
    time::sleep,
};

use super::{Fault, RESOURCES};

/// How it answers one request.
#[derive(Clone, Debug)]
pub(super) struct Habit {
    status: u16,
    directives: &'static str,
    vary: &'static str,
    sets_cookie: bool,
    framing: Framing,
    /// Seconds before the head; longer than any deadline stands for never.
    late: u64,
    /// Whether it says nothing more in the middle of the content.
    stalls: bool,
    obeys_ranges: bool,
    obeys_conditions: bool,
}

/// What becomes of the content, or of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    /// Half of what is announced comes; then the connection closes.
    Short,
    /// More comes than is announced.
    Long,
    Chunked,
    /// The last chunk does not come; then the connection closes.
    CutChunks,
    ToTheClose,
    /// A second answer follows that nobody has asked for.
    Twice,
    /// An interim answer goes before.
    Interim,
    /// No answer: the connection closes.
    HangsUp,
    /// What is no HTTP.
    Garbage,
    /// A head beyond all bounds.
    Endless,
}

pub(super) fn any() -> impl Strategy<Value = Habit> {
    use Framing::{
        Chunked, CutChunks, Endless, Garbage, HangsUp, Interim, Length, Long, Short, ToTheClose, Twice,
    };
    let status =
        prop_oneof![6 => Just(200_u16), 1 => prop::sample::select(vec![201, 204, 301, 404, 500, 503])];
    let directives = prop::sample::select(vec![
        "public, max-age=60",
        "max-age=60",
        "private, max-age=60",
        "no-store",
        "no-cache",
        "s-maxage=60, max-age=1",
        "max-age=0",
        "max-age=5, stale-while-revalidate=60, stale-if-error=600",
        "public, max-age=5, must-revalidate",
        "max-age=60, immutable",
        "",
    ]);
    let vary =
        prop_oneof![3 => Just(""), 2 => Just("x-variant"), 1 => Just("x-variant, cookie"), 1 => Just("*")];
    let framing = prop_oneof![
        6 => Just(Length),
        3 => Just(Chunked),
        3 => prop::sample::select(vec![Short, Long, CutChunks, ToTheClose, Twice, Interim, HangsUp, Garbage, Endless]),
    ];
    let late = prop_oneof![6 => Just(0_u64), 1 => Just(1), 1 => Just(4), 1 => Just(100_000)];
    let rarely = || prop::bool::weighted(0.15);
    let mostly = || prop::bool::weighted(0.7);
    let content = (status, directives, vary, rarely());
    (content, framing, late, rarely(), mostly(), mostly()).prop_map(
        |(content, framing, late, stalls, obeys_ranges, obeys_conditions)| {
            let (status, directives, vary, sets_cookie) = content;
            Habit {
                status,
                directives,
                vary,
                sets_cookie,
                framing,
                late,
                stalls,
                obeys_ranges,
                obeys_conditions,
            }
        },
    )
}

/// An answer as it was given, whole.
#[derive(Clone, Debug)]
pub(super) struct Gave {
    pub resource: u8,
    /// The request that it was given to.
    pub asker: usize,
    pub variant: String,
    pub cookie: String,
    pub vary: &'static str,
    /// Whether others may have it.
    pub is_for_all: bool,
    /// Its place in the order of all that was asked.
    pub turn: usize,
    pub content: Vec<u8>,
}

/// Clones are the same origin.
#[derive(Clone)]
pub(super) struct Origin(Arc<Inner>);

struct Inner {
    habits: Vec<Habit>,
    behaves: AtomicBool,
    /// How much was asked so far.
    turn: AtomicUsize,
    /// For each resource: which it is by now, and the turn before which answers are outdated.
    resources: Mutex<[(usize, usize); RESOURCES as usize]>,
    gave: Mutex<Vec<Gave>>,
    /// Who asked by a method that must not be repeated.
    posts: Mutex<Vec<usize>>,
    together: Barrier,
    fault: Fault,
}

impl Origin {
    pub(super) fn new(habits: Vec<Habit>, together: usize, fault: Fault) -> Self {
        Self(Arc::new(Inner {
            habits,
            behaves: AtomicBool::new(false),
            turn: AtomicUsize::new(1),
            resources: Mutex::default(),
            gave: Mutex::default(),
            posts: Mutex::default(),
            together: Barrier::new(together),
            fault,
        }))
    }

    /// It does what it ought to from now on.
    pub(super) fn behave(&self) {
        self.0.behaves.store(true, Ordering::Relaxed);
    }

    pub(super) fn change(&self, resource: u8) {
        self.0.resources.lock().unwrap()[usize::from(resource)].0 += 1;
    }

    /// What was asked for until now is no answer to what is asked from now on.
    pub(super) fn outdate(&self, resource: u8) {
        self.outdate_before(resource, self.0.turn.load(Ordering::Relaxed));
    }

    /// What was asked for before this turn is no answer to what is asked from now on.
    pub(super) fn outdate_before(&self, resource: u8, turn: usize) {
        let floor = &mut self.0.resources.lock().unwrap()[usize::from(resource)].1;
        *floor = turn.max(*floor);
    }

    /// The turn before which answers are outdated.
    pub(super) fn floor(&self, resource: u8) -> usize {
        self.0.resources.lock().unwrap()[usize::from(resource)].1
    }

    pub(super) fn gave(&self) -> Vec<Gave> {
        self.0.gave.lock().unwrap().clone()
    }

    /// How often it got a request by a method that must not be repeated.
    pub(super) fn posts_of(&self, asker: usize) -> usize {
        self.0.posts.lock().unwrap().iter().filter(|of| **of == asker).count()
    }

    async fn serve(&self, stream: DuplexStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let Some(head) = Head::read(&mut stream).await? else { return Ok(()) };
            let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
            if head.method == "POST" {
                self.0.posts.lock().unwrap().push(head.asker());
            }
            head.read_content(&mut stream).await?;
            if head.target == "/together" {
                self.0.together.wait().await;
                let answer = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await?;
                continue;
            }
            let habit = &self.0.habits[turn % self.0.habits.len()];
            let is_over = self.answer(&mut stream, &head, habit, turn).await?;
            if is_over || self.0.behaves.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Whether the connection is to close.
    async fn answer(
        &self,
        stream: &mut BufReader<DuplexStream>,
        head: &Head,
        habit: &Habit,
        turn: usize,
    ) -> io::Result<bool> {
        sleep(Duration::from_secs(habit.late)).await;
        match habit.framing {
            Framing::HangsUp => return Ok(true),
            Framing::Garbage => {
                stream.write_all(b"\x16\x03\x01 no HTTP \xff\r\n\r\n").await?;
                return Ok(true);
            }
            Framing::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                for _ in 0..1_000 {
                    stream.write_all(format!("X: {}\r\n", "x".repeat(1_000)).as_bytes()).await?;
                }
                return Ok(true);
            }
            Framing::Interim => stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?,
            _ => {}
        }
        let answer = self.compose(head, habit, turn);
        let times = if habit.framing == Framing::Twice { 2 } else { 1 };
        for _ in 0..times {
            let (begin, end) = answer.split_at(answer.len() / 2);
            stream.write_all(begin).await?;
            if habit.stalls {
                std::future::pending::<()>().await;
            }
            stream.write_all(end).await?;
        }
        Ok(matches!(habit.framing, Framing::Short | Framing::CutChunks | Framing::ToTheClose))
    }

    /// The answer's octets; what they say is noted.
    fn compose(&self, head: &Head, habit: &Habit, turn: usize) -> Vec<u8> {
        let resource = head.target.trim_start_matches('/').parse::<u8>().unwrap_or_default() % RESOURCES;
        let version = self.0.resources.lock().unwrap()[usize::from(resource)].0;
        let (variant, cookie, credentials) =
            (head.field("x-variant"), head.field("cookie"), head.field("authorization"));
        let is_for_all = self.0.fault != Fault::StoresWhatIsPrivate && is_for_all(habit, head);
        // What is for one alone is like nothing else.
        let whose = if is_for_all { "all".to_owned() } else { head.asker().to_string() };
        let tag = format!("{resource}|{variant}|{cookie}|{credentials}|{}|{version}|{whose}", habit.status);
        let length = [0, 1, 100, 3_000, 70_000][(version + usize::from(resource) * 2 + 3) % 5];
        let length = if matches!(habit.status, 204) { 0 } else { length };
        let content: Vec<u8> = format!("{tag}\n").bytes().cycle().take(length).collect();
        let etag = format!("\"{}\"", tag.replace(['"', ' '], ""));
        self.0.gave.lock().unwrap().push(Gave {
            resource,
            asker: head.asker(),
            variant: variant.to_owned(),
            cookie: cookie.to_owned(),
            vary: habit.vary,
            is_for_all,
            turn,
            content: content.clone(),
        });
        let mut fields = format!("ETag: {etag}\r\n");
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                fields += &format!("{name}: {value}\r\n");
            }
        };
        add("Cache-Control", habit.directives);
        add("Vary", habit.vary);
        add("Set-Cookie", if habit.sets_cookie { "session=1" } else { "" });
        add("Location", if habit.status == 301 { "/elsewhere" } else { "" });
        let is_read = matches!(head.method.as_str(), "GET" | "HEAD");
        if habit.obeys_conditions && is_read && head.field("if-none-match").split(", ").any(|tag| tag == etag)
        {
            return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes();
        }
        let range = head.range(content.len()).filter(|_| {
            let condition = head.field("if-range");
            let holds = condition.is_empty() || condition == etag;
            habit.obeys_ranges && is_read && habit.status == 200 && holds
        });
        let (status, content) = match range {
            Some((first, last)) => {
                fields += &format!("Content-Range: bytes {first}-{last}/{}\r\n", content.len());
                (206, &content[first..=last])
            }
            None => (habit.status, content.as_slice()),
        };
        let has_content = head.method != "HEAD" && status != 204;
        let body: &[u8] = if has_content { content } else { b"" };
        let length = match habit.framing {
            _ if status == 204 => String::new(),
            Framing::Chunked | Framing::CutChunks => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::ToTheClose => "Connection: close\r\n".to_owned(),
            _ => format!("Content-Length: {}\r\n", content.len()),
        };
        let mut answer = format!("HTTP/1.1 {status} Said\r\n{fields}{length}\r\n").into_bytes();
        if has_content && matches!(habit.framing, Framing::Chunked | Framing::CutChunks) {
            for piece in body.chunks(1_000) {
                answer.extend(format!("{:x}\r\n", piece.len()).as_bytes());
                answer.extend(piece);
                answer.extend(b"\r\n");
            }
            let end: &[u8] = if habit.framing == Framing::Chunked { b"0\r\n\r\n" } else { b"" };
            answer.extend(end);
        } else {
            let comes = if habit.framing == Framing::Short { body.len() / 2 } else { body.len() };
            answer.extend(&body[..comes]);
        }
        if habit.framing == Framing::Long {
            answer.extend(b"and more of it");
        }
        answer
    }
}

/// Whether RFC 9111 lets others have it (§3.5, and for cookies what `cookies = "origin"` says).
fn is_for_all(habit: &Habit, head: &Head) -> bool {
    let says = |directive: &str| habit.directives.split(", ").any(|said| said.starts_with(directive));
    let has = |name: &str| !head.field(name).is_empty();
    let shares = |more: &str| says("public") || says("s-maxage") || says(more);
    !says("private")
        && !says("no-store")
        && (!has("authorization") || shares("must-revalidate"))
        && (!has("cookie") || shares("immutable"))
}

impl Dial for Origin {
    fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(16 * 1024);
            let origin = self.clone();
            tokio::spawn(async move {
                // Whatever the edge does to its connection is its own affair.
                let _ = origin.serve(far).await;
            });
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}

/// A request's head as it came.
struct Head {
    method: String,
    target: String,
    lines: Vec<String>,
}

impl Head {
    async fn read(stream: &mut BufReader<DuplexStream>) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Some(Self { method, target, lines }))
    }

    fn field(&self, name: &str) -> &str {
        let mut fields = self.lines.iter().filter_map(|line| line.split_once(": "));
        fields.find(|(its, _)| its.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn asker(&self) -> usize {
        self.field("x-asker").parse().unwrap_or(usize::MAX)
    }

    /// One range, if there is one and it can be satisfied.
    fn range(&self, length: usize) -> Option<(usize, usize)> {
        let (first, last) = self.field("range").strip_prefix("bytes=")?.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last = if last.is_empty() { length.checked_sub(1)? } else { last.parse().ok()? };
        let last = last.min(length.checked_sub(1)?);
        (first <= last).then_some((first, last))
    }

    async fn read_content(&self, stream: &mut BufReader<DuplexStream>) -> io::Result<()> {
        if self.field("transfer-encoding").is_empty() {
            let length = self.field("content-length").parse().unwrap_or_default();
            stream.read_exact(&mut vec![0; length]).await?;
            return Ok(());
        }
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            stream.read_exact(&mut vec![0; length + 2]).await?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}
