//! How the cache took part in an answer.

/// How the cache took part in an answer. One word in logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Stored and fresh.
    Hit,
    /// Stored and stale, served as policy permits.
    Stale,
    /// Stored, validated upstream with a 304.
    Revalidated,
    /// Fetched, for the cache.
    Miss,
    /// Fetched by another request at the same time.
    Collapsed,
    /// Fetched, for this client alone.
    Pass,
    /// Answered by the edge itself, as the settings state: a redirect, a fixed answer.
    Stated,
    /// Refused by the edge itself.
    Refused,
    /// The client left before an answer began.
    #[default]
    Vanished,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 9] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Miss,
        Self::Collapsed,
        Self::Pass,
        Self::Stated,
        Self::Refused,
        Self::Vanished,
    ];

    /// As it stands in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Pass => "pass",
            Self::Stated => "stated",
            Self::Refused => "refused",
            Self::Vanished => "vanished",
        }
    }
}
