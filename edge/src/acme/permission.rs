//! Whether a name may have a certificate: the operator's own program is asked over HTTP, and its 200 is a yes.
//!
//! Promises: an answer is waited for within a bound; nothing but its status is read; no redirect is followed.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::upstream::{
    address::Address,
    connect::Dial,
    tls::{ClientTls, Offer},
};

/// Who is asked.
pub(super) struct Permission {
    pub(super) url: Uri,
    pub(super) dial: Arc<dyn Dial>,
    /// Of an https URL.
    pub(super) tls: Option<Arc<ClientTls>>,
}

type AnyError = Box<dyn StdError + Send + Sync>;

impl Permission {
    /// Whether a name may have a certificate. Dropping the future closes the connection.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(super) async fn is_given(&self, name: &str) -> Result<bool, AnyError> {
        let asked = tokio::time::timeout(LONGEST, self.ask(name)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {LONGEST:?}").into()))
    }

    async fn ask(&self, name: &str) -> Result<bool, AnyError> {
        let host: Arc<str> = self.url.host().unwrap_or_default().trim_matches(['[', ']']).into();
        let port = self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let mut stream = self.dial.dial(&Address::new(&host, port)).await?;
        if let Some(tls) = &self.tls {
            stream = tls.connect(&host, Offer::Http1, stream).await?.0;
        }
        let authority = self.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let question = Request::get(target(&self.url, name))
            .header(header::HOST, HeaderValue::from_str(authority)?)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut answer = std::pin::pin!(sender.send_request(question));
        tokio::select! {
            biased;
            answer = &mut answer => Ok(answer?.status() == StatusCode::OK),
            ended = connection => {
                ended?;
                Ok(answer.await?.status() == StatusCode::OK)
            }
        }
    }
}

/// The path and query by which a name is asked about.
fn target(url: &Uri, name: &str) -> String {
    match url.query() {
        Some(query) if !query.is_empty() => format!("{}?{query}&domain={name}", url.path()),
        _ => format!("{}?domain={name}", url.path()),
    }
}

/// From the connection to the answer's head.
const LONGEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_beside_what_the_url_has() {
        for (url, told) in [
            ("http://a.test", "/?domain=x.test"),
            ("http://a.test/may-have?", "/may-have?domain=x.test"),
            ("https://a.test:8443/may?token=1", "/may?token=1&domain=x.test"),
        ] {
            assert_eq!(target(&url.parse().unwrap(), "x.test"), told);
        }
    }
}
