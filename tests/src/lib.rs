//! The harness of Gatehouse's whole-system tests: real binaries, real sockets, real clients.
//!
//! It promises that a test starts from nothing (temporary folders, ports the system chooses), waits for events and
//! never for time to pass, prints the programs' output when it fails, and leaves no process behind, also when it
//! panics. A program that is missing fails the test and is named with the package that holds it.
//!
//! A scenario reads: an [`upstream::Upstream`] with a script (or [`faulty`] servers, a [`recorder`] for the [`readings`], or the real [`shop`]), an
//! [`edge::Edge`] over it (several over a [`redis`]), clients ([`curl`], [`raw`], [`load`], [`steady`], [`browser`]), attackers
//! ([`attack`]), and what must be true of the answers. [`capacity`] measures how many users the shop bears. [`three`] of each
//! are what `make run-three` starts.

pub mod account;
pub mod address;
pub mod attack;
pub mod authority;
pub mod besieged;
pub mod binaries;
pub mod browser;
pub mod capacity;
pub mod curl;
pub mod edge;
pub mod faulty;
pub mod folder;
pub mod frames;
pub mod load;
pub mod metrics;
pub mod npm;
pub mod origin;
pub mod pebble;
pub mod postgres;
pub mod process;
pub mod python;
pub mod raw;
pub mod readings;
pub mod recipe;
pub mod recorder;
pub mod redis;
pub mod shop;
pub mod steady;
pub mod stub_authority;
pub mod three;
pub mod tool;
pub mod upstream;
pub mod wait;
