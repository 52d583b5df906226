//! The access log, on standard output: lines of requests, each written whole. It neither blocks nor fails a request: see
//! [`Outlet`].

use std::{
    cell::RefCell,
    io,
    sync::atomic::{AtomicU8, Ordering},
};

use super::outlet::{Closing, Outlet};
use crate::settings::{LogFormat, LogSettings};

/// Where the lines of requests go.
#[derive(Debug)]
pub struct AccessLog {
    outlet: Outlet,
    format: AtomicU8,
}

impl AccessLog {
    /// Starts the writer; lines go to standard output.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(settings: &LogSettings) -> io::Result<Self> {
        let log = Self { outlet: Outlet::start("access-log", io::stdout())?, format: 0.into() };
        log.set_format(settings);
        Ok(log)
    }

    /// Changes how lines look from now on.
    pub fn set_format(&self, settings: &LogSettings) {
        self.format.store(settings.format_at(&io::stdout()) as u8, Ordering::Relaxed);
    }

    /// Lines that did not go out.
    pub fn dropped(&self) -> u64 {
        self.outlet.dropped()
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
            self.outlet.append(text.as_bytes());
        });
    }

    /// Writes what is pending when this is dropped, within a second, and takes nothing more.
    pub fn closing(&self) -> Closing<'_> {
        self.outlet.closing()
    }
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}
