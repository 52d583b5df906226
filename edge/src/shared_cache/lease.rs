//! How long an edge is trusted to be there, on either side.

use std::time::Duration;

/// For how long an edge that says nothing is waited for, by the clock of whoever purges.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// For how long this edge trusts in that, from before it said something. The clocks of two machines do not differ by a tenth in
/// their rates.
pub(super) const OWN_LEASE: Duration = Duration::from_millis(1800);
/// An edge says that it lives at least this often.
pub(super) const WAIT: Duration = Duration::from_millis(400);
