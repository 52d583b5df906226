//! Reads files for a reload on a thread of its own: a file system that hangs, or a lock that nobody releases, keeps neither
//! the operator's listener nor a signal waiting.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// Reads for one reload at a time.
pub(super) struct FileReader(Arc<Semaphore>);

impl FileReader {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// What a function returns that reads files.
    ///
    /// # Errors
    /// It takes too long, and goes on by itself; or an earlier one still does.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        self.read_within(LONGEST, read).await
    }

    async fn read_within<T: Send + 'static>(
        &self,
        longest: Duration,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return Err(
                "files that an earlier reload asked for are still being read: is their file system away, or \
                        a lock not released?"
                    .to_owned(),
            );
        };
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            read()
        });
        match tokio::time::timeout(longest, reading).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(failed)) => Err(format!("the files could not be read: {failed}")),
            Err(_) => Err(format!(
                "the files are not read after {longest:?}: is their file system away, or a lock not released?"
            )),
        }
    }
}

/// How long a reload waits for files: signals wait with it.
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_given_up_and_nothing_more_is_begun_before_it_ends() {
        let reader = FileReader::new();
        let (released, lock) = mpsc::channel::<()>();
        let hangs = reader.read_within(Duration::from_millis(1), move || lock.recv()).await.unwrap_err();
        assert!(hangs.contains("not read after 1ms"), "{hangs}");
        let busy = reader.read(|| ()).await.unwrap_err();
        assert!(busy.contains("still being read"), "{busy}");
        drop(released);
        let place = Arc::clone(&reader.0).acquire_owned().await.unwrap();
        drop(place);
        assert_eq!(reader.read(|| 1).await, Ok(1));
    }
}
