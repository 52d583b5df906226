//! The observation of a request: its log line, its counts, and the header lines that a verdict rests on.

pub mod access_log;
pub mod evidence;
pub mod metrics;
pub mod record;
pub mod verdict;
