//! An upstream whose side of each connection the test plays itself, octet by octet.

use std::{
    io,
    sync::{Arc, Mutex},
};

use edge::{
    message::byte_stream::ByteStream,
    upstream::{
        address::Address,
        connect::{Dial, Dialling},
    },
};
use tokio::{
    io::{AsyncReadExt as _, DuplexStream},
    sync::mpsc,
};

/// A server whose side of each connection the test plays itself.
pub(crate) struct Played(Mutex<mpsc::UnboundedSender<DuplexStream>>);

/// The upstream's connections as they are dialled.
pub(crate) struct Dialled(pub mpsc::UnboundedReceiver<DuplexStream>);

pub(crate) fn played() -> (Arc<Played>, Dialled) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(Played(Mutex::new(sender))), Dialled(receiver))
}

impl Dial for Played {
    fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(16 * 1024);
            self.0.lock().unwrap().send(far).map_err(io::Error::other)?;
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}

impl Dialled {
    /// The next connection, once a request's head has come on it.
    pub(crate) async fn asked(&mut self) -> (DuplexStream, String) {
        let mut stream = self.0.recv().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        (stream, head)
    }
}

pub(crate) async fn read_until(stream: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(char::from(byte));
    }
    text
}
