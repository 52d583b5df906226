//! One reading of every message (RFC 9112, RFC 9113): tables of octets, each of which is passed on with exactly one meaning, or
//! refused and its connection closed.

mod answers;
mod frames;
mod paths;
mod requests;
