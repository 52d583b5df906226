//! What is done over HTTP/1.1 in clear text, and to a TLS listener without TLS.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1, header, http::request::Builder};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    time::sleep,
};

use super::{How, Shared, wire};
use crate::wait;

pub(super) async fn slow_head(shared: &Shared) -> How {
    let Ok(stream) = shared.connect(shared.target.clear).await else { return How::Refused };
    let (mut read, mut write) = stream.into_split();
    let drip = async {
        let mut piece = "GET /hit/0 HTTP/1.1\r\nHost: localhost\r\n".to_owned();
        for number in 0..shared.force.each {
            if write.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
            sleep(shared.force.pace).await;
            piece = format!("X-{number}: a\r\n");
        }
        std::future::pending().await
    };
    tokio::select! {
        how = end(&mut read) => how,
        how = drip => how,
    }
}

pub(super) async fn idle_keep_alive(shared: &Shared) -> How {
    begin(shared, shared.target.clear, b"GET /hit/0 HTTP/1.1\r\nHost: localhost\r\n\r\n").await
}

pub(super) async fn silent_tls(shared: &Shared) -> How {
    // A record of 512 octets, a handshake's, whose ClientHello is to follow.
    begin(shared, shared.target.tls, b"\x16\x03\x01\x02\x00\x01").await
}

/// Sends so much and waits for the end.
async fn begin(shared: &Shared, address: std::net::SocketAddr, bytes: &[u8]) -> How {
    let Ok(mut stream) = shared.connect(address).await else { return How::Refused };
    if let Err(error) = stream.write_all(bytes).await {
        return wire::end(&error);
    }
    end(&mut stream).await
}

/// Waits for the end of a connection. An error that is answered first is the end.
async fn end(stream: &mut (impl AsyncRead + Unpin)) -> How {
    let mut begin = Vec::new();
    let mut buffer = [0; 4096];
    let how = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break How::Closed,
            Ok(length) if begin.len() < 16 => begin.extend_from_slice(&buffer[..length]),
            Ok(_) => {}
            Err(error) => break wire::end(&error),
        }
    };
    let status = begin.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    match status {
        Some(status @ 400..=599) if begin.starts_with(b"HTTP/1.1 ") => How::Answered(status),
        _ => how,
    }
}

pub(super) async fn ranges(shared: &Shared) -> How {
    let ranges: Vec<String> =
        (0..100).map(|number| format!("{}-{}", number * 2_000, number * 2_000)).collect();
    let ranges = format!("bytes={}", ranges.join(","));
    requests(shared, |_| Request::get("/large-hit").header(header::RANGE, &ranges)).await
}

pub(super) async fn big_heads(shared: &Shared) -> How {
    let values = ["x".repeat(60_000), "x".repeat(70_000)];
    requests(shared, |number| Request::get("/hit/0").header("x-big", &values[number % 2])).await
}

pub(super) async fn unique_urls(shared: &Shared) -> How {
    requests(shared, |number| Request::get(format!("/unique/{number}"))).await
}

pub(super) async fn unique_variants(shared: &Shared) -> How {
    requests(shared, |number| Request::get("/varied").header("x-variant", number.to_string())).await
}

/// One request after the other, each as soon as the one before is answered.
async fn requests(shared: &Shared, request: impl Fn(usize) -> Builder) -> How {
    let Ok(stream) = shared.connect(shared.target.clear).await else { return How::Refused };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return How::Refused;
    };
    // Ends with its sender; its errors reach the sender.
    tokio::spawn(connection);
    for _ in 0..shared.force.each {
        let began = wait::now();
        let request = request(shared.next()).header(header::HOST, "localhost").body(Empty::<Bytes>::new());
        if sender.ready().await.is_err() {
            return How::Closed;
        }
        let Ok(response) = sender.send_request(request.expect("requests are plain")).await else {
            return How::Closed;
        };
        let status = response.status().as_u16();
        if response.into_body().collect().await.is_err() {
            return How::Closed;
        }
        shared.note(How::Answered(status), began);
    }
    How::Taken
}
