//! From a response to the client's answer: preconditions, a range, a coding, the last fields.

pub mod body;
pub mod coding;
pub mod cross_origin;
pub mod fields;
pub mod known_length;
pub mod problem;
pub mod representation;
pub mod sliced;
pub mod stated;
