//! A client's request head. No input panics; what is taken has one host and a path without dot segments, in every spelling
//! that a route or an upstream could read it in.
#![no_main]

use edge::{cache::Key, message::target::Scheme, request::inbound};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use libfuzzer_sys::fuzz_target;

const FIELDS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fuzz_target!(|input: (&[u8], &[u8], bool, bool, Vec<(u8, &[u8])>)| {
    let (method, target, http2, encrypted, lines) = input;
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else { return };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    for (name, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.headers_mut().append(FIELDS[usize::from(name) % FIELDS.len()].clone(), value);
        }
    }
    let scheme = if encrypted { Scheme::Https } else { Scheme::Http };
    let Ok(inbound) = inbound::read(&request.into_parts().0, scheme) else { return };
    assert!(!inbound.host.is_empty() && *inbound.host == inbound.host.to_ascii_lowercase());
    let path = inbound.route_path();
    assert!(path.starts_with('/') || path == "*", "{path}");
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
    let key = Key::new(&inbound);
    assert!(key.as_str().starts_with(scheme.as_str()));
});
