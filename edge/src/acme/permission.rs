//! Whether a name may have a certificate: the operator's own program is asked over HTTP, and its 200 is a yes.
//!
//! Promises: an answer is waited for within a bound; nothing but its status is read; no redirect is followed; a program that says that
//! it cannot answer has not answered.

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
    /// When there is no answer in time, or one that is none.
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
            answer = &mut answer => said_by(answer?.status()),
            ended = connection => {
                ended?;
                said_by(answer.await?.status())
            }
        }
    }
}

/// What a status says of the name. One about the program itself, or about how often it is asked, says nothing of it.
fn said_by(status: StatusCode) -> Result<bool, AnyError> {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(format!("answers {}", status.as_u16()).into());
    }
    Ok(status == StatusCode::OK)
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

    /// A program that was broken for a while had said no, silently, to all names.
    #[test]
    fn a_status_about_the_program_itself_is_no_answer() {
        let said =
            |status: u16| said_by(StatusCode::from_u16(status).unwrap()).map_err(|error| error.to_string());
        assert_eq!(said(200), Ok(true));
        for no in [204, 302, 400, 403, 404, 410] {
            assert_eq!(said(no), Ok(false), "{no}");
        }
        for none in [429, 500, 502, 503, 504, 599] {
            assert_eq!(said(none), Err(format!("answers {none}")));
        }
    }

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
