//! The output of instances, line by line under their names.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of one line; what is longer goes on in the next.
const LINE_LIMIT: usize = 8 * 1024;

/// Passes an instance's output on, line by line and each without its end, until it ends.
pub(super) async fn relay(mut source: impl AsyncRead + Unpin, mut print: impl FnMut(&[u8])) {
    let mut lines = LineCutter::default();
    let mut chunk = vec![0; LINE_LIMIT];
    loop {
        let read = source.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return lines.rest(print);
        }
        lines.take(&chunk[..read], &mut print);
    }
}

/// Cuts output into lines.
#[derive(Default)]
struct LineCutter {
    /// The line that has no end yet, not longer than [`LINE_LIMIT`].
    open: Vec<u8>,
}

impl LineCutter {
    /// Passes on the lines that `bytes` complete, each without its end.
    fn take(&mut self, bytes: &[u8], mut whole: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
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
    }

    /// The last line, when it never got an end.
    fn rest(&mut self, mut whole: impl FnMut(&[u8])) {
        if !self.open.is_empty() {
            self.close(&mut whole);
        }
    }

    fn close(&mut self, whole: &mut impl FnMut(&[u8])) {
        whole(self.open.strip_suffix(b"\r").unwrap_or(&self.open));
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &mut LineCutter, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        lines.take(bytes, |line| whole.push(String::from_utf8_lossy(line).into_owned()));
        whole
    }

    fn rest(lines: &mut LineCutter) -> Vec<String> {
        let mut whole = Vec::new();
        lines.rest(|line| whole.push(String::from_utf8_lossy(line).into_owned()));
        whole
    }

    #[test]
    fn output_is_cut_where_lines_end() {
        let mut lines = LineCutter::default();
        assert_eq!(taken(&mut lines, b"first\nsec"), ["first"]);
        assert_eq!(taken(&mut lines, b"ond\r\n\nlast"), ["second", ""]);
        assert_eq!(rest(&mut lines), ["last"]);
        assert!(rest(&mut lines).is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = LineCutter::default();
        let cut = taken(&mut lines, &vec![b'a'; 2 * LINE_LIMIT + 1]);
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [LINE_LIMIT, LINE_LIMIT]);
        assert_eq!(rest(&mut lines), ["a"]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_line() {
        let mut lines = LineCutter::default();
        let mut bytes = vec![b'a'; LINE_LIMIT];
        bytes.push(b'\n');
        assert_eq!(taken(&mut lines, &bytes).len(), 1);
    }
}
