//! The last lines that the instances of a command have printed, for whoever asks later or reads along.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// Lines that are kept for each command, and their bytes.
const LINES: usize = 1000;
const BYTES: usize = 256 * 1024;
/// Lines by which one who reads along may fall behind.
const BEHIND: usize = 256;

/// The end of a command's output.
#[derive(Debug)]
pub struct Tail {
    kept: Mutex<KeptLines>,
    along: broadcast::Sender<Bytes>,
}

#[derive(Debug, Default)]
struct KeptLines {
    lines: VecDeque<Bytes>,
    bytes: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { kept: Mutex::default(), along: broadcast::Sender::new(BEHIND) }
    }
}

impl Tail {
    /// Takes a line of the instance of this name. Never waits for one who reads.
    pub(super) fn append(&self, name: &str, line: &[u8]) {
        let line = Bytes::from([name.as_bytes(), b" | ", line, b"\n"].concat());
        let mut kept = self.kept.lock();
        kept.bytes += line.len();
        kept.lines.push_back(line.clone());
        while kept.lines.len() > LINES || kept.bytes > BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
        // Under the lock, so that one who begins to read misses no line and gets none twice. Without readers it is an
        // error that means nothing.
        let _ = self.along.send(line);
    }

    /// The last `most` lines, each as `origin.1 | text` with its end, and what comes after them.
    #[must_use]
    pub fn read(&self, most: usize) -> (Vec<Bytes>, broadcast::Receiver<Bytes>) {
        let kept = self.kept.lock();
        let skipped = kept.lines.len().saturating_sub(most);
        (kept.lines.iter().skip(skipped).cloned().collect(), self.along.subscribe())
    }

    /// The last lines of one instance, at most `most`.
    pub(super) fn last_of(&self, name: &str, most: usize) -> Vec<Bytes> {
        let prefix = format!("{name} | ");
        let kept = self.kept.lock();
        let of_it = kept.lines.iter().rev().filter(|line| line.starts_with(prefix.as_bytes()));
        let mut last: Vec<Bytes> = of_it.take(most).cloned().collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Bytes]) -> Vec<&str> {
        lines.iter().map(|line| std::str::from_utf8(line).unwrap().trim_end()).collect()
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_the_next_ones_follow_without_a_gap() {
        let tail = Tail::default();
        for line in ["one", "two", "three"] {
            tail.append("app.1", line.as_bytes());
        }
        tail.append("app.10", b"other");
        let (last, mut next) = tail.read(2);
        assert_eq!(texts(&last), ["app.1 | three", "app.10 | other"]);
        tail.append("app.1", b"four");
        assert_eq!(texts(&[next.recv().await.unwrap()]), ["app.1 | four"]);
        assert_eq!(texts(&tail.last_of("app.1", 2)), ["app.1 | three", "app.1 | four"]);
    }

    #[test]
    fn lines_and_bytes_are_bounded() {
        let tail = Tail::default();
        for number in 0..2 * LINES {
            tail.append("app.1", number.to_string().as_bytes());
        }
        let (kept, _) = tail.read(usize::MAX);
        assert_eq!(kept.len(), LINES);
        assert_eq!(texts(&kept[LINES - 1..]), [format!("app.1 | {}", 2 * LINES - 1)]);
        let long = vec![b'x'; 8 * 1024];
        for _ in 0..100 {
            tail.append("app.1", &long);
        }
        let (kept, _) = tail.read(usize::MAX);
        assert!(kept.iter().map(Bytes::len).sum::<usize>() <= BYTES && kept.len() > 10);
    }

    #[tokio::test]
    async fn one_who_does_not_read_holds_up_nobody_and_learns_how_much_was_missed() {
        let tail = Tail::default();
        let (_, mut slow) = tail.read(0);
        for number in 0..BEHIND + 10 {
            tail.append("app.1", number.to_string().as_bytes());
        }
        assert!(matches!(slow.recv().await, Err(broadcast::error::RecvError::Lagged(10))));
        assert_eq!(texts(&[slow.recv().await.unwrap()]), ["app.1 | 10"]);
    }
}
