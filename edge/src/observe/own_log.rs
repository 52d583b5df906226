//! The edge's own log, on standard error: what it does and what goes wrong, and the output of the commands it runs.
//!
//! Owns how such lines look: JSON where the access log is, text for people otherwise. Promises that writing one neither
//! blocks nor fails ([`Outlet`]); a panic is a line like any other.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal as _, Write},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::{
    outlet::{Closing, Outlet},
    record::timestamp,
    visible,
};
use crate::{
    clock::Clock,
    settings::{LogFormat, LogSettings},
};

/// The log of the process itself.
#[derive(Debug)]
pub struct OwnLog {
    outlet: Outlet,
    json: AtomicBool,
    clock: Clock,
}

impl OwnLog {
    /// Starts it and makes it the place of all events and panics. `RUST_LOG` says which events; without it those from
    /// `info` up.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(settings: &LogSettings, clock: Clock) -> io::Result<Arc<Self>> {
        let outlet = Outlet::start("own-log", io::stderr())?;
        let log = Arc::new(Self { outlet, json: AtomicBool::new(false), clock });
        log.set_format(settings);
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (look, lines) = (Look::of(&log), Arc::clone(&log));
        let events = tracing_subscriber::fmt::layer()
            .with_ansi(colours)
            .event_format(look)
            .with_writer(move || EventWriter(Arc::clone(&lines)))
            // They would be told with `eprintln!`.
            .log_internal_errors(false);
        // Fails only when a log has been set up before, which then stays.
        let _ = tracing_subscriber::registry().with(filter).with(events).try_init();
        // std's hook writes to standard error itself, and waits while that is full.
        panic::set_hook(Box::new(|panic| {
            let thread = thread::current();
            let thread = thread.name().unwrap_or("unnamed");
            let trace = Backtrace::capture();
            match trace.status() {
                BacktraceStatus::Captured => tracing::error!("thread {thread} {panic}\n{trace}"),
                _ => tracing::error!("thread {thread} {panic}"),
            }
        }));
        Ok(log)
    }

    /// Changes how lines look from now on.
    pub fn set_format(&self, settings: &LogSettings) {
        self.json.store(settings.format_at(&io::stderr()) == LogFormat::Json, Ordering::Relaxed);
    }

    /// A line that an instance of a command has written.
    pub fn instance(&self, name: &str, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if !self.json.load(Ordering::Relaxed) {
            return self.outlet.append([name.as_bytes(), b" | ", line, b"\n"].concat().as_slice());
        }
        let mut json = String::new();
        // Writing to a String cannot fail.
        let _ = begin(&mut json, &self.clock, "INFO")
            .and_then(|()| member(&mut json, "command", &name.into()))
            .and_then(|()| member(&mut json, "message", &text.into()));
        json.push_str("}\n");
        self.outlet.append(visible::line(&json).as_bytes());
    }

    /// Lines that did not go out.
    pub fn dropped(&self) -> u64 {
        self.outlet.dropped()
    }

    /// Writes what is pending when this is dropped, within a second, and takes nothing more.
    pub fn closing(&self) -> Closing<'_> {
        self.outlet.closing()
    }
}

/// Where events are written: each comes whole, in one call.
struct EventWriter(Arc<OwnLog>);

impl Write for EventWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.outlet.append(visible::line(text).as_bytes()),
            Err(_) => self.0.outlet.append(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How events look.
struct Look {
    log: Arc<OwnLog>,
    text: Format<Full>,
}

impl Look {
    fn of(log: &Arc<OwnLog>) -> Self {
        Self { log: Arc::clone(log), text: Format::default().with_target(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Look
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !self.log.json.load(Ordering::Relaxed) {
            return self.text.format_event(context, writer, event);
        }
        let mut line = String::new();
        begin(&mut line, &self.log.clock, event.metadata().level().as_str())?;
        event.record(&mut Members(&mut line));
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// The fields of an event, as members of an object that has begun.
struct Members<'a>(&'a mut String);

impl Members<'_> {
    fn add(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        // Writing to a String cannot fail.
        let _ = member(self.0, field.name(), &value.into());
    }
}

impl Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A value that cannot be shown is shown as far as it can.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{value:?}"));
        self.add(field, text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string());
    }
}

fn begin(line: &mut String, clock: &Clock, level: &str) -> fmt::Result {
    line.push_str("{\"time\":\"");
    timestamp(line, clock.wall())?;
    line.push_str("\",\"level\":\"");
    line.push_str(level);
    line.push('"');
    Ok(())
}

fn member(line: &mut String, name: &str, value: &serde_json::Value) -> fmt::Result {
    use fmt::Write as _;
    write!(line, ",\"{name}\":{value}")
}
