//! What is told of the edge: a request's log line and counts, the header lines that a verdict rests on, the edge's own
//! log, and what its commands say.

pub mod access_log;
pub mod evidence;
pub mod metrics;
pub mod outlet;
pub mod own_log;
pub mod record;
pub mod say;
pub mod verdict;
pub mod visible;
