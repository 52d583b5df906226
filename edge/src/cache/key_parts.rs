//! What a route makes part of the key beside the URL: fields, cookies, and where the client is.
//!
//! Promises that what is part of a key is what the upstream is asked with for it: fields are read through [`AsSent`], and of
//! cookies a fetch for the cache brings those alone that are part of the key.

use std::fmt::Write as _;

use cache_policy::{SentFields, variant_key};
use sha2::{Digest as _, Sha256};

use super::Key;
use crate::request::as_sent::{AsSent, cookie_values};

impl Key {
    /// The key of a request on its route.
    pub fn of_request(sent: &AsSent<'_>) -> Self {
        let key = Self::on_route(sent.target, &sent.route.query);
        if sent.route.key.is_nothing() { key } else { key.with_parts(&parts(sent)) }
    }
}

/// One after the other, with a space between: `name=value`, or the name alone where the request has none.
fn parts(sent: &AsSent<'_>) -> String {
    let mut text = String::new();
    for name in sent.route.key.fields() {
        begin(&mut text, name.as_str());
        if sent.lines(name).iter().next().is_some() {
            let value = variant_key(std::slice::from_ref(name), sent);
            add(&mut text, value.strip_suffix('\n').unwrap_or(&value).as_bytes());
        }
    }
    for name in &sent.route.key.cookies {
        begin(&mut text, "cookie:");
        text.push_str(name);
        for value in cookie_values(&sent.head.headers, name) {
            add(&mut text, value);
        }
    }
    text
}

fn begin(text: &mut String, name: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(name);
}

/// Adds a value: visible ASCII as it is, all else by its octets; a long one by its digest.
fn add(text: &mut String, value: &[u8]) {
    text.push('=');
    if value.len() > LONGEST {
        text.push('#');
        for octet in Sha256::digest(value) {
            write!(text, "{octet:02x}").expect("a String takes everything");
        }
        return;
    }
    for &octet in value {
        match octet {
            b'%' | b'=' | b'#' | b' ' => write!(text, "%{octet:02X}").expect("a String takes everything"),
            octet if octet.is_ascii_graphic() => text.push(char::from(octet)),
            octet => write!(text, "%{octet:02X}").expect("a String takes everything"),
        }
    }
}

/// Octets of a value that stand in a key as they are.
const LONGEST: usize = 128;
