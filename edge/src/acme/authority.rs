//! Asking a certificate authority over HTTPS, by the edge's own means.

use std::{error::Error as StdError, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::upstream::{
    address::Address,
    connect::Dial,
    tls::{ClientTls, Offer},
};

/// A client of one authority. Each request has a connection of its own: there are few.
#[derive(Clone)]
pub(super) struct AuthorityClient {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) tls: Arc<ClientTls>,
}

type AnyError = Box<dyn StdError + Send + Sync>;

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answered = tokio::time::timeout(LONGEST, client.ask(request)).await;
            let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {LONGEST:?}").into()));
            answered.map(BytesResponse::from).map_err(Error::Other)
        })
    }
}

impl AuthorityClient {
    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, AnyError> {
        let (mut head, body) = request.into_parts();
        let (host, port) = match (head.uri.scheme_str(), head.uri.host()) {
            (Some("https"), Some(host)) => (host.to_owned(), head.uri.port_u16().unwrap_or(443)),
            _ => return Err(format!("{} is no https URL", head.uri).into()),
        };
        let authority = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
        head.headers.insert(header::HOST, authority.unwrap_or_else(|| HeaderValue::from_str(&host))?);
        head.uri = head
            .uri
            .path_and_query()
            .map_or_else(|| Ok(Uri::from_static("/")), |path| path.as_str().parse())?;
        let host: Arc<str> = host.trim_matches(['[', ']']).into();
        let stream = self.dial.dial(&Address::new(&host, port)).await?;
        let (stream, _) = self.tls.connect(&host, Offer::Http1, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async move {
            let response = sender.send_request(Request::from_parts(head, body)).await?;
            let (head, content) = response.into_parts();
            let content = Limited::new(content, LARGEST).collect().await?.to_bytes();
            Ok::<_, AnyError>(Response::from_parts(head, Full::new(content)))
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answered = &mut exchange => answered,
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(io::Error::other(error).into()),
            }
        }
    }
}

/// One request and its answer.
const LONGEST: Duration = Duration::from_secs(30);
/// Of an answer, in bytes: a directory, an order, or a chain of certificates.
const LARGEST: usize = 256 << 10;
