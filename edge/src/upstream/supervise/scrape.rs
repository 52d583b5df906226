//! The metrics of one instance, asked for at its own address.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{inquiry, place::MetricsPlace};

/// Bytes of one instance's metrics.
const LARGEST: usize = 4 * 1024 * 1024;

/// What an instance tells of itself, in the form that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scraped {
    pub content_type: Option<HeaderValue>,
    pub content: Bytes,
}

/// Why an instance has not told its metrics.
#[derive(Debug, thiserror::Error)]
pub enum NotScraped {
    #[error("there is no answer: {0}")]
    NoAnswer(#[from] io::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("they are coded as {0:?}, which nobody has asked for")]
    Coded(HeaderValue),
    /// It could be a page, which would act in the operator's name.
    #[error("{0:?} is no format of metrics")]
    NoFormat(HeaderValue),
    #[error("they are longer than 4 MiB")]
    Long,
    #[error("the answer breaks off: {0}")]
    BrokenOff(Box<dyn std::error::Error + Send + Sync>),
}

impl MetricsPlace {
    /// Asks for them; `accept` is what the one who wants them takes. Without an end of its own: bound it. Dropped, it asks
    /// no longer.
    ///
    /// # Errors
    /// When the instance does not answer, or something else than its metrics.
    pub async fn scrape(&self, accept: Option<&HeaderValue>) -> Result<Scraped, NotScraped> {
        let told = inquiry::get(&self.address, &self.path, accept).await?;
        let (head, body) = told.answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(NotScraped::Status(head.status));
        }
        if let Some(coding) = head.headers.get(header::CONTENT_ENCODING) {
            return Err(NotScraped::Coded(coding.clone()));
        }
        let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
        if let Some(other) = content_type.as_ref().filter(|content_type| !is_format(content_type)) {
            return Err(NotScraped::NoFormat(other.clone()));
        }
        let content = Limited::new(body, LARGEST).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { NotScraped::Long } else { NotScraped::BrokenOff(error) }
        })?;
        drop(told.connection);
        Ok(Scraped { content_type, content: content.to_bytes() })
    }
}

/// Whether it is one of the formats that Prometheus reads.
fn is_format(content_type: &HeaderValue) -> bool {
    const FORMATS: [&str; 3] =
        ["text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"];
    let kind = content_type.to_str().ok().and_then(|value| value.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| FORMATS.iter().any(|format| format.eq_ignore_ascii_case(kind)))
}
