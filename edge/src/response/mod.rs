//! What a client gets of a stored or arriving response: preconditions, a range, a coding, the last fields.

pub mod body;
pub mod coding;
pub mod fields;
pub mod known_length;
pub mod problem;
pub mod representation;
