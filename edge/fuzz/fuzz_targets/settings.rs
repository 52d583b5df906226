//! The operator's file. No input panics; whatever is wrong with it is said with its place.
#![no_main]

use edge::settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = settings::parse(text, "fuzz.toml") {
        assert!(error.to_string().contains("fuzz.toml"), "{error}");
    }
});
