//! The file to which a command's output goes where the settings name one.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::observe::outlet::Outlet;

/// The file of one command, once it is open, with a thread that writes. Lines that cannot be written are dropped and
/// counted.
#[derive(Debug, Default)]
pub(super) struct OutputFile {
    open: Mutex<Option<(PathBuf, Outlet)>>,
    /// Lines that came when no file was open, and those that earlier files did not take.
    dropped: AtomicU64,
}

impl OutputFile {
    /// Opens the file for appending, or opens it anew: what has been renamed meanwhile gets no more lines.
    ///
    /// # Errors
    /// Those of the system. A file of the same name that is open stays in use.
    pub(super) fn open(&self, path: &Path) -> io::Result<()> {
        let file = open(path)?;
        let mut open = self.open.lock();
        match &*open {
            Some((current, outlet)) if current == path => outlet.replace(file.into()),
            _ => {
                let outlet = Outlet::start("command-output", file)?;
                self.retire(open.replace((path.to_owned(), outlet)));
            }
        }
        Ok(())
    }

    /// As [`open`](Self::open), for the file that is open, if one is.
    pub(super) fn reopen(&self) {
        let path = self.open.lock().as_ref().map(|(path, _)| path.clone());
        if let Some(path) = path
            && let Err(error) = self.open(&path)
        {
            tracing::error!("{} cannot be opened again: {error}", path.display());
        }
    }

    /// Takes one line with its end.
    pub(super) fn append(&self, line: &[u8]) {
        match &*self.open.lock() {
            Some((_, outlet)) => outlet.append(line),
            None => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lines that were not written.
    pub(super) fn dropped(&self) -> u64 {
        let open = self.open.lock();
        let now = open.as_ref().map_or(0, |(_, outlet)| outlet.dropped());
        self.dropped.load(Ordering::Relaxed) + now
    }

    /// Writes what is pending and closes it. May block for a second.
    pub(super) fn close(&self) {
        let taken = self.open.lock().take();
        if let Some((_, outlet)) = &taken {
            outlet.close();
        }
        self.retire(taken);
    }

    fn retire(&self, former: Option<(PathBuf, Outlet)>) {
        if let Some((_, outlet)) = former {
            outlet.finish();
            self.dropped.fetch_add(outlet.dropped(), Ordering::Relaxed);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe without a reader is an error, and nothing to wait for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_renamed_gets_no_more_lines_once_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("app.log"), folder.path().join("app.log.1"));
        fs::write(&path, "before\n").unwrap();
        let output = OutputFile::default();
        output.append(b"lost\n");
        output.open(&path).unwrap();
        output.append(b"one\n");
        fs::rename(&path, &old).unwrap();
        output.reopen();
        output.append(b"two\n");
        output.close();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        assert!(read(&old).starts_with("before\n"));
        assert_eq!(read(&old) + &read(&path), "before\none\ntwo\n");
        assert!(read(&path).ends_with("two\n"));
        assert_eq!(output.dropped(), 1);
    }

    #[test]
    fn what_cannot_be_opened_or_written_is_told_or_counted() {
        let folder = tempfile::tempdir().unwrap();
        let output = OutputFile::default();
        output.open(&folder.path().join("no/such/folder.log")).unwrap_err();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        output.open(&pipe).unwrap_err();
        output.open(Path::new("/dev/full")).unwrap();
        output.append(b"one\n");
        output.close();
        assert_eq!(output.dropped(), 1);
    }
}
