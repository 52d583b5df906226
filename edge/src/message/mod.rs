//! The words that all rooms share. Nothing here imports any of them.

pub mod content;
pub mod failure;
pub mod interim;
