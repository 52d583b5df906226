//! The sending end of a connection to a server.

use std::ops::{Deref, DerefMut};

use hyper::client::conn::http1::SendRequest;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::RequestBody;

/// Sends requests on a connection. Dropped, it closes the connection at once: hyper by itself would go on sending the
/// content of a request that has been answered, to a server that may never read it.
pub struct Sender {
    requests: SendRequest<RequestBody>,
    _task: AbortOnDropHandle<()>,
}

impl Sender {
    /// A sender, and the task that drives its connection.
    pub fn new(requests: SendRequest<RequestBody>, task: JoinHandle<()>) -> Self {
        Self { requests, _task: AbortOnDropHandle::new(task) }
    }
}

impl Deref for Sender {
    type Target = SendRequest<RequestBody>;

    fn deref(&self) -> &Self::Target {
        &self.requests
    }
}

impl DerefMut for Sender {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.requests
    }
}
