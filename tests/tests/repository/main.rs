//! What must hold of the repository itself.

mod rooms;
mod versions;
