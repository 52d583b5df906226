//! Who asks for what, where it goes, and how often: what a request's head says before anything is looked up.

pub mod client;
pub mod inbound;
pub mod limit;
pub mod refusal;
pub mod route;
