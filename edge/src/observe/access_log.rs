//! The access log: lines are gathered in a bounded buffer and written by one thread, so that a slow terminal or disk
//! never slows a request. What does not fit is dropped and counted.

use std::{
    cell::RefCell,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::settings::LogFormat;

/// Where the lines of requests go.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Buffer>,
    format: std::sync::atomic::AtomicU8,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Buffer {
    pending: Mutex<Pending>,
    wake: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    lines: String,
    closed: bool,
}

impl AccessLog {
    /// Starts the writer; lines go to standard output.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(format: LogFormat) -> std::io::Result<Self> {
        let shared = Arc::<Buffer>::default();
        let writer = thread::Builder::new().name("access-log".into()).spawn({
            let shared = Arc::clone(&shared);
            move || write_lines(&shared)
        })?;
        let log = Self { shared, format: 0.into(), writer: Mutex::new(Some(writer)) };
        log.set_format(format);
        Ok(log)
    }

    /// Changes how lines look from now on.
    pub fn set_format(&self, format: LogFormat) {
        self.format.store(format as u8, Ordering::Relaxed);
    }

    /// Lines dropped because the writer did not keep up.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn format(&self) -> LogFormat {
        match self.format.load(Ordering::Relaxed) {
            json if json == LogFormat::Json as u8 => LogFormat::Json,
            pretty if pretty == LogFormat::Pretty as u8 => LogFormat::Pretty,
            _ => LogFormat::Off,
        }
    }

    /// Writes a line, unless there is no access log.
    pub fn write(&self, line: impl FnOnce(&mut String, LogFormat)) {
        let format = self.format();
        if format == LogFormat::Off {
            return;
        }
        // Written beside the lock that all threads share, and copied under it.
        LINE.with_borrow_mut(|text| {
            text.clear();
            line(text, format);
            self.append(text);
        });
    }

    fn append(&self, text: &str) {
        let mut pending = self.shared.pending.lock();
        if pending.lines.len() > LOG_BUFFER {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = pending.lines.is_empty();
        pending.lines.push_str(text);
        drop(pending);
        if was_empty {
            self.shared.wake.notify_one();
        }
    }

    /// Writes what is pending and ends the writer.
    pub fn close(&self) {
        self.shared.pending.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.lock().take() {
            // The result of a writer that panicked is of no further use.
            let _ = writer.join();
        }
    }
}

fn write_lines(shared: &Buffer) {
    let mut lines = String::new();
    loop {
        let closed = {
            let mut pending = shared.pending.lock();
            while pending.lines.is_empty() && !pending.closed {
                shared.wake.wait(&mut pending);
            }
            if !pending.closed {
                // Lines that come together are written together: one system call for many requests.
                let _ = shared.wake.wait_for(&mut pending, GATHER);
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            pending.closed
        };
        let mut output = std::io::stdout().lock();
        // The log has no reader any more, or its disk is full: requests go on.
        let _ = output.write_all(lines.as_bytes()).and_then(|()| output.flush());
        lines.clear();
        if closed {
            return;
        }
    }
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

const GATHER: Duration = Duration::from_millis(20);
const LOG_BUFFER: usize = 4 * 1024 * 1024;
