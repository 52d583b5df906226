//! The output of instances, line by line under their names.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::launcher::Output;

/// Bytes of one line; what is longer goes on in the next.
const LINE_LIMIT: usize = 8 * 1024;

/// Passes an instance's output on. Writing waits on the blocking pool, never on the runtime: an output that is stuck holds
/// up the instance, as it would without the edge, and nothing else.
pub(super) async fn relay(mut source: impl AsyncRead + Unpin, mut lines: Lines, output: Output) {
    let mut chunk = vec![0; LINE_LIMIT];
    loop {
        let read = source.read(&mut chunk).await.unwrap_or(0);
        let whole = if read == 0 { lines.rest() } else { lines.take(&chunk[..read]) };
        if !whole.is_empty() {
            let output = Arc::clone(&output);
            let _ = tokio::task::spawn_blocking(move || output(&whole)).await;
        }
        if read == 0 {
            return;
        }
    }
}

/// Cuts output into lines and puts the instance's name before each.
pub(super) struct Lines {
    prefix: Vec<u8>,
    /// The line that has no end yet, shorter than [`LINE_LIMIT`].
    open: Vec<u8>,
}

impl Lines {
    pub(super) fn new(name: &str) -> Self {
        Self { prefix: format!("{name} | ").into_bytes(), open: Vec::new() }
    }

    /// The lines that `bytes` complete, each with prefix and newline.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while self.open.len() + text.len() > LINE_LIMIT {
                let (fits, more) = text.split_at(LINE_LIMIT - self.open.len());
                self.open.extend_from_slice(fits);
                self.close(&mut whole);
                text = more;
            }
            self.open.extend_from_slice(text);
            if ends {
                self.close(&mut whole);
            }
        }
        whole
    }

    /// The last line, when it never got an end.
    fn rest(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        if !self.open.is_empty() {
            self.close(&mut whole);
        }
        whole
    }

    fn close(&mut self, whole: &mut Vec<u8>) {
        whole.extend_from_slice(&self.prefix);
        whole.extend_from_slice(self.open.strip_suffix(b"\r").unwrap_or(&self.open));
        whole.push(b'\n');
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_name_before_it() {
        let mut lines = Lines::new("origin.1");
        assert_eq!(lines.take(b"first\nsec"), b"origin.1 | first\n");
        assert_eq!(lines.take(b"ond\r\n\nlast"), b"origin.1 | second\norigin.1 | \n");
        assert_eq!(lines.rest(), b"origin.1 | last\n");
        assert_eq!(lines.rest(), b"");
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = Lines::new("x");
        let out = lines.take(&vec![b'a'; 2 * LINE_LIMIT + 1]);
        assert_eq!(out.len(), 2 * (LINE_LIMIT + "x | \n".len()));
        assert_eq!(lines.rest(), b"x | a\n");
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_line() {
        let mut lines = Lines::new("x");
        let mut bytes = vec![b'a'; LINE_LIMIT];
        bytes.push(b'\n');
        let out = lines.take(&bytes);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
