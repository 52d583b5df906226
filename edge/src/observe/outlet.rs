//! An output of the process, or a file that a command's output goes to: a bounded buffer, and a thread that writes.
//!
//! Whoever appends a line never waits and never fails, whatever has become of the reader: a pipe that is full or closed,
//! a full disk, a terminal that is stopped. Lines that cannot go out are dropped and counted. Nothing else of the edge
//! writes to the process's outputs while it serves; a program that could block or die by its log would be its reader's hostage.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

/// An output of the process. Its thread ends at [`Outlet::close`], or with the process.
#[derive(Debug)]
pub struct Outlet(Arc<Buffer>);

#[derive(Debug, Default)]
struct Buffer {
    pending: Mutex<Pending>,
    /// There is something to write, or nothing more will come.
    wake: Condvar,
    /// The writer has ended.
    ended: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    state: OutletState,
    /// Where lines go from now on.
    replaced: Option<OwnedFd>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum OutletState {
    #[default]
    Open,
    /// What is pending is written, and nothing more is taken.
    Closing,
    Ended,
}

impl Outlet {
    /// Starts the writer of this output, on a descriptor of its own.
    ///
    /// # Errors
    /// When the system gives no descriptor or no thread.
    pub fn start(name: &str, output: impl AsFd) -> io::Result<Self> {
        // Not std's handle: its lock would be held by a thread that may never come back.
        let output = output.as_fd().try_clone_to_owned()?;
        let shared = Arc::<Buffer>::default();
        thread::Builder::new().name(name.into()).spawn({
            let shared = Arc::clone(&shared);
            move || write_pending(&shared, output)
        })?;
        Ok(Self(shared))
    }

    /// Takes one or more whole lines, or drops and counts them.
    pub fn append(&self, lines: &[u8]) {
        let mut pending = self.0.pending.lock();
        if pending.lines.len() > BUFFER || pending.state != OutletState::Open {
            drop(pending);
            self.0.dropped.fetch_add(count(lines), Ordering::Relaxed);
            return;
        }
        let was_empty = pending.lines.is_empty();
        pending.lines.extend_from_slice(lines);
        drop(pending);
        if was_empty {
            self.0.wake.notify_one();
        }
    }

    /// Writes to this one from now on.
    pub fn replace(&self, output: OwnedFd) {
        self.0.pending.lock().replaced = Some(output);
    }

    /// As [`close`](Self::close), without waiting for the last lines.
    pub fn finish(&self) {
        let mut pending = self.0.pending.lock();
        if pending.state == OutletState::Open {
            pending.state = OutletState::Closing;
        }
        drop(pending);
        self.0.wake.notify_one();
    }

    /// Lines that did not go out.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Closes it when it is dropped: also where a panic unwinds, whose last lines say why.
    pub fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    /// Writes what is pending and takes nothing more. An output that is stuck is waited for a second: its thread then
    /// ends with the process.
    pub fn close(&self) {
        let mut pending = self.0.pending.lock();
        if pending.state == OutletState::Open {
            pending.state = OutletState::Closing;
        }
        self.0.wake.notify_one();
        self.0.ended.wait_while_for(&mut pending, |pending| pending.state != OutletState::Ended, LAST_LINES);
    }
}

/// See [`Outlet::closing`].
#[derive(Debug)]
#[must_use]
pub struct Closing<'a>(&'a Outlet);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn write_pending(shared: &Buffer, output: OwnedFd) {
    let mut output = File::from(output);
    let mut lines = Vec::new();
    loop {
        let closing = {
            let mut pending = shared.pending.lock();
            while pending.lines.is_empty() && pending.state == OutletState::Open {
                shared.wake.wait(&mut pending);
            }
            if pending.state == OutletState::Open {
                // Lines that come together are written together: one system call for many requests.
                let _ = shared.wake.wait_for(&mut pending, GATHER);
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            if let Some(replaced) = pending.replaced.take() {
                output = File::from(replaced);
            }
            pending.state == OutletState::Closing
        };
        let lost = write_all(&mut output, &lines);
        shared.dropped.fetch_add(lost, Ordering::Relaxed);
        lines.clear();
        if closing {
            shared.pending.lock().state = OutletState::Ended;
            shared.ended.notify_all();
            return;
        }
    }
}

/// Writes as much as goes out; returns how many lines did not.
fn write_all(output: &mut File, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match output.write(lines) {
            Ok(0) => break,
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever started the edge may have left its end of the pipe in that mode, for both.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if poll(&mut [PollFd::new(output, PollFlags::OUT)], None).is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    count(lines)
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// How long lines wait for others.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that wait for the writer.
const BUFFER: usize = 4 * 1024 * 1024;
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_appended_is_written_by_the_close() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        outlet.append(b"one\n");
        outlet.append(b"two\n");
        outlet.close();
        outlet.append(b"late\n");
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!((read.as_str(), outlet.dropped()), ("one\ntwo\n", 1));
    }

    /// The line that tells of a panic of the main thread was lost with the process: it waited for others to come.
    #[test]
    fn what_is_appended_is_written_though_a_panic_unwinds() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _closing = outlet.closing();
            outlet.append(b"why\n");
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "why\n");
    }

    #[test]
    fn lines_without_a_reader_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outlet = Outlet::start("test", writer).unwrap();
        outlet.append(b"one\ntwo\n");
        outlet.close();
        assert_eq!(outlet.dropped(), 2);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let outlet = Outlet::start("test", full).unwrap();
        outlet.append(b"one\n");
        outlet.close();
        assert_eq!(outlet.dropped(), 1);
    }

    #[test]
    fn a_reader_that_does_not_read_bounds_the_buffer_and_holds_up_no_close() {
        let (_reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        // More than the pipe, the writer's hands and the buffer hold together.
        for _ in 0..3 * BUFFER / line.len() {
            outlet.append(&line);
        }
        assert!(outlet.dropped() > 0);
        outlet.close();
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        let lines = b"a line\n".repeat(40_000);
        outlet.append(&lines);
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read.len()
        });
        outlet.close();
        assert_eq!((reading.join().unwrap(), outlet.dropped()), (lines.len(), 0));
    }
}
