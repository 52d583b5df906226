//! What a reply waits for.

use tokio::sync::watch;

/// Something a reply waits for until the test lets it go on. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns once it is open.
    ///
    /// # Panics
    /// Never: a gate that somebody waits for is there.
    pub async fn passed(self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("this gate holds its own sender");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::closed()
    }
}
