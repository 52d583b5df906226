//! Everything has a bound: what is slow, large or too much is held to it, and the others do not notice.

mod flood;
mod memory;
mod overload;
mod slowness;
