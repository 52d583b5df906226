#![no_main]
#![expect(dead_code, reason = "each target is a program, and has all of them")]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::answer(octets));
