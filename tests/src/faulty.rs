//! A server in a process of its own that misbehaves as it is told: what stands behind a proxy when things go wrong.
//!
//! [`Faulty`] is the harness's side of `faulty_server`. What the two agree upon stands here: the words for its
//! [`Behaviour`], and [`answer`], by which a client sees whether an answer is the one to its own request. What the server was
//! asked it writes to a file line by line, so that it is known also after it was killed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    str::FromStr,
};

use rustix::process::Signal;

use crate::{address, binaries, folder::Folder, process::Process, wait};

/// Where it says whether it is well. Not among what it was asked.
pub const HEALTH: &str = "/health";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// As it ought to.
    Good,
    /// Everything three seconds late.
    Slow,
    /// It closes its port, and each connection once it is idle.
    Refusing,
    /// It resets the connection in the middle of an answer's content. It says that it is well.
    Resetting,
    /// With what is no HTTP, and closes.
    Garbage,
    /// With 503.
    Overloaded,
    /// With 503, and it says that it is well.
    Erring,
    /// As it ought to, but it says that it is not well.
    Unwell,
}

impl Behaviour {
    const ALL: [(&'static str, Self); 8] = [
        ("good", Self::Good),
        ("slow", Self::Slow),
        ("refusing", Self::Refusing),
        ("resetting", Self::Resetting),
        ("garbage", Self::Garbage),
        ("overloaded", Self::Overloaded),
        ("erring", Self::Erring),
        ("unwell", Self::Unwell),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, behaviour)| *behaviour == self).expect("all have a word").0
    }
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(its, _)| *its == word);
        found.map(|(_, behaviour)| *behaviour).ok_or_else(|| format!("no behaviour is called {word:?}"))
    }
}

/// What a server of this name answers to a request: nobody else's answer, and no other request's, is the same. Some 2 KiB.
#[must_use]
pub fn answer(server: &str, request: &Asked) -> String {
    let Asked { method, target, content } = request;
    let line = format!("{method} {target} {content}\n");
    let times = 2048 / line.len() + 1;
    format!("{server}\n{}", line.repeat(times))
}

/// A request, as far as answers depend upon it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// GET or POST.
    pub method: String,
    /// Its path and query.
    pub target: String,
    /// Its content.
    pub content: String,
}

/// Such a server, running.
#[derive(Debug)]
pub struct Faulty {
    name: &'static str,
    address: SocketAddr,
    control: SocketAddr,
    folder: Folder,
    process: Process,
}

/// What it was asked, a request a line.
const ASKED: &str = "asked";

impl Faulty {
    /// Starts it, behaving well.
    #[track_caller]
    #[must_use]
    pub fn start(name: &'static str) -> Self {
        let (address, control, folder) = (address::own(), address::own(), Folder::new());
        let process = run(name, address, control, &folder);
        Self { name, address, control, folder, process }
    }

    /// Where it listens, also once it has started again.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells it how to answer from now on; returns when it does.
    ///
    /// # Panics
    /// When it does not obey.
    #[track_caller]
    pub fn behave(&self, behaviour: Behaviour) {
        let mut control = TcpStream::connect(self.control).expect("it listens for what it is told");
        control.set_read_timeout(Some(wait::PATIENCE)).expect("the deadline is not zero");
        control.write_all(format!("{}\n", behaviour.word()).as_bytes()).expect("it reads what it is told");
        let mut said = String::new();
        BufReader::new(control).read_line(&mut said).expect("it says that it obeys");
        assert_eq!(said, "ok\n", "{} was told to be {behaviour:?}", self.name);
    }

    /// Stops it in the middle of whatever it does: the kernel goes on accepting connections for it, and nothing is answered.
    pub fn hang(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Ends that.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills it, as the kernel does when memory runs out.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again where it was, behaving well.
    ///
    /// # Panics
    /// When it still runs.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "{} runs", self.name);
        self.process = run(self.name, self.address, self.control, &self.folder);
    }

    /// The method and target of each request it has been asked, in order.
    ///
    /// # Panics
    /// When somebody took the file away.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.folder.path().join(ASKED)).expect("it makes the file first");
        asked.lines().map(str::to_owned).collect()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // Whoever hangs does not hear that it is to stop.
        if self.process.ended().is_none() {
            self.go_on();
        }
    }
}

#[track_caller]
fn run(name: &str, address: SocketAddr, control: SocketAddr, folder: &Folder) -> Process {
    let mut command = Command::new(binaries::faulty_server());
    command.args([name, &address.to_string(), &control.to_string()]).arg(folder.path().join(ASKED));
    let mut process = Process::start(name, &mut command);
    process.wait_for_line("that it listens", |line| line.starts_with("listening").then_some(()));
    process
}
