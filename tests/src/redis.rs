//! A Redis of the test's own, which can be stopped, killed, flushed and started again; and a way to it that can be slow, or cut.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    account::{self, Account},
    address,
    folder::Folder,
    process::Process,
    tool, wait,
};

/// A running Redis; it is gone when the value goes.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: SocketAddr,
    folder: Folder,
    settings: Vec<String>,
    account: Option<Account>,
}

impl Redis {
    /// An empty one that writes nothing to disk.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// An empty one that takes no more than a quarter of a gigabyte, and is not run by root.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start_bounded() -> Self {
        let settings = ["--maxmemory", "256mb", "--maxmemory-policy", "volatile-lfu"];
        Self::start_as(account::lent(&["redis", "nobody"]), &settings)
    }

    /// As [`start`](Self::start), with more settings, as on its command line.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_as(None, settings)
    }

    #[track_caller]
    fn start_as(account: Option<Account>, settings: &[&str]) -> Self {
        let (address, folder) = (address::own(), Folder::new());
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let process = run(address, &folder, &settings, account);
        let mut redis = Self { process, address, folder, settings, account };
        redis.wait();
        redis
    }

    /// One that speaks TLS as well, as `localhost` with the certificate of this folder; and the port for that.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start_with_tls(certificates: &Path) -> (Self, u16) {
        // `localhost` is one address for all tests, so the system says which port of it is free.
        let free = TcpListener::bind("127.0.0.1:0").expect("the system has a port");
        let port = free.local_addr().expect("it listens").port();
        drop(free);
        let (address, tls_port) = (address::own(), port.to_string());
        let host = address.ip().to_string();
        let file = |name: &str| certificates.join(name).display().to_string();
        let (certificate, key, authority) = (file("localhost.pem"), file("localhost.key"), file("ca.pem"));
        let settings = ["--bind", &host, "127.0.0.1", "--tls-port", &tls_port, "--tls-auth-clients", "no"];
        let files =
            ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &authority];
        let settings: Vec<String> = settings.iter().chain(&files).map(ToString::to_string).collect();
        let folder = Folder::new();
        let process = run(address, &folder, &settings, None);
        let mut redis = Self { process, address, folder, settings, account: None };
        redis.wait();
        (redis, port)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the settings of an edge say of it, with more patience than a machine that does nothing else needs.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{}look_up_timeout = \"1s\"\n", table(self.address))
    }

    /// Has it follow another, and waits until it has what that one has.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn follow(&self, leader: &Self) {
        let (host, port) = (leader.address.ip().to_string(), leader.address.port().to_string());
        // As the address that it connects from is not the one at which it listens.
        self.ask(&["CONFIG", "SET", "replica-announce-ip", &self.address.ip().to_string()]);
        self.ask(&["REPLICAOF", &host, &port]);
        wait::until("the replica has it all", || {
            self.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
    }

    /// Sends a command, and returns the raw beginning of the answer.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> String {
        ask(self.address, command).expect("Redis answers")
    }

    /// Stops its process where it stands.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills it.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again where it was, empty.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = run(self.address, &self.folder, &self.settings, self.account);
        self.wait();
    }

    #[track_caller]
    fn wait(&mut self) {
        wait::until("Redis answers", || {
            assert!(self.process.ended().is_none(), "Redis has ended: {:?}", self.process.lines());
            ask(self.address, &["PING"]).ok().filter(|answer| answer.starts_with("+PONG"))
        });
    }
}

/// A Sentinel, alone: what it says is so. It is gone when the value goes.
#[derive(Debug)]
pub struct Sentinel {
    _process: Process,
    address: SocketAddr,
    _folder: Folder,
}

impl Sentinel {
    /// One that watches this server under a name.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn of(name: &str, redis: &Redis) -> Self {
        let (address, folder) = (address::own(), Folder::new());
        let watched = redis.address;
        let settings = format!(
            "port {}\nbind {}\nprotected-mode no\nsentinel monitor {name} {} {} 1\nsentinel down-after-milliseconds {name} 60000\n",
            address.port(),
            address.ip(),
            watched.ip(),
            watched.port(),
        );
        folder.write("sentinel.conf", &settings);
        let mut command = Command::new(tool::find(&["redis-server"], "redis-server"));
        command.args(["sentinel.conf", "--sentinel"]).current_dir(folder.path());
        let mut process = Process::start("redis-sentinel", &mut command);
        wait::until("the sentinel answers", || {
            assert!(process.ended().is_none(), "it has ended: {:?}", process.lines());
            ask(address, &["PING"]).ok().filter(|answer| answer.starts_with("+PONG"))
        });
        Self { _process: process, address, _folder: folder }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a command, and returns the raw beginning of the answer.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> String {
        ask(self.address, command).expect("the sentinel answers")
    }
}

/// What the settings of an edge say of a Redis at this address.
#[must_use]
pub fn table(address: SocketAddr) -> String {
    format!("[redis]\nurl = \"redis://{address}\"\n")
}

#[track_caller]
fn run(address: SocketAddr, folder: &Folder, settings: &[String], account: Option<Account>) -> Process {
    let mut command = Command::new(tool::find(&["redis-server"], "redis-server"));
    let port = address.port().to_string();
    command.args(["--port", &port, "--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    if !settings.iter().any(|setting| setting == "--bind") {
        command.args(["--bind", &address.ip().to_string()]);
    }
    command.args(settings).current_dir(folder.path());
    account::run_as(&mut command, account);
    Process::start("redis-server", &mut command)
}

fn ask(address: SocketAddr, command: &[&str]) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        // A text says its length first; everything else that is asked here is a line.
        let whole = match text.strip_prefix('$').and_then(|rest| rest.split_once("\r\n")) {
            Some((length, rest)) => length.parse::<i64>().is_ok_and(|length| rest.len() as i64 >= length),
            None => text.contains("\r\n"),
        };
        if whole || read == 0 {
            return Ok(text.into_owned());
        }
    }
}

/// A way from an edge to a Redis, which can be made slow, or cut.
#[derive(Debug)]
pub struct Way {
    address: SocketAddr,
    state: Arc<WayState>,
}

#[derive(Debug)]
struct WayState {
    to: Mutex<SocketAddr>,
    cut: AtomicBool,
    delay: AtomicU64,
    over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Way {
    /// A way that is neither slow nor cut.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn to(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(WayState {
            to: Mutex::new(redis),
            cut: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepts = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if accepts.over.load(SeqCst) {
                    return;
                }
                accepts.join(near);
            }
        });
        Self { address, state }
    }

    /// Its near end.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the settings of an edge say of it.
    #[must_use]
    pub fn table(&self) -> String {
        table(self.address)
    }

    /// Closes what is open, and refuses what is opened.
    ///
    /// # Panics
    /// When a thread of its own has panicked.
    pub fn cut(&self) {
        self.state.cut.store(true, SeqCst);
        self.close();
    }

    /// Lets through what is opened from now on.
    pub fn mend(&self) {
        self.state.cut.store(false, SeqCst);
    }

    /// Leads to another server from now on; what is open is closed.
    ///
    /// # Panics
    /// When a thread of its own has panicked.
    pub fn lead_to(&self, redis: SocketAddr) {
        *self.state.to.lock().expect("no thread has panicked") = redis;
        self.close();
    }

    /// Delays everything that passes in either direction by so much.
    pub fn delay(&self, by: Duration) {
        self.state.delay.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), SeqCst);
    }

    fn close(&self) {
        for stream in self.state.open.lock().expect("no thread has panicked").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.state.over.store(true, SeqCst);
        self.close();
        let _ = TcpStream::connect(self.address);
    }
}

impl WayState {
    fn join(self: &Arc<Self>, near: TcpStream) {
        if self.cut.load(SeqCst) {
            return;
        }
        let to = *self.to.lock().expect("no thread has panicked");
        let Ok(far) = TcpStream::connect(to) else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let state = Arc::clone(self);
            thread::spawn(move || state.pass(from, to));
        }
        self.open.lock().expect("no thread has panicked").extend([near, far]);
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 65_536];
        while let Ok(read) = from.read(&mut buffer)
            && read > 0
        {
            wait::pass(Duration::from_millis(self.delay.load(SeqCst)));
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
