//! Files of a folder, answered over HTTP/1.1 within the process: to the cache they are an upstream like any other.
//!
//! Promises: nothing outside the folder is answered, whatever links lie in it, and nothing whose name begins with a dot but
//! what is below `/.well-known/`. Reads happen on the runtime's threads for files, a piece at a time.

use std::{convert::Infallible, io::ErrorKind, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tower_http::services::ServeDir;

use crate::{message::target::route_path, settings::FilesFolder};

type FileBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why a file cannot be opened that, to clients, is not there.
const IS_MISSING: [ErrorKind; 5] = [
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::NotADirectory,
    ErrorKind::IsADirectory,
    ErrorKind::InvalidFilename,
];
/// Octets on their way between the pool and the files.
const IN_FLIGHT: usize = 64 << 10;
/// The largest page for what is not there.
const LARGEST_PAGE: u64 = 256 << 10;

/// A connection to the files of a folder. It ends when what is returned is dropped.
pub fn connect(folder: &Arc<FilesFolder>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(IN_FLIGHT);
    let folder = Arc::clone(folder);
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let folder = Arc::clone(&folder);
            async move { Ok::<_, Infallible>(answer(&folder, request).await) }
        });
        // Whoever reads at the other end has gone: nothing is left to be done.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
    });
    near
}

async fn answer(folder: &FilesFolder, request: Request<Incoming>) -> Response<FileBody> {
    let path = route_path(request.uri().path()).into_owned();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = match reads && !is_inside(folder, &path).await {
        true => not_found(),
        false => from_folder(folder, &request, request.uri()).await,
    };
    if response.status() == StatusCode::NOT_FOUND && reads {
        response = match &folder.fallback {
            // What names a kind of file is a file that is missing, and no page of the app.
            Some(page) if !last_segment(&path).contains('.') => {
                from_folder(folder, &request, &page.parse().unwrap_or_default()).await
            }
            _ => page_for_missing(folder).await,
        };
    }
    if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED) {
        let headers = response.headers_mut();
        if folder.immutable.iter().any(|pattern| pattern.holds(&path)) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(FOR_A_YEAR));
        } else {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));
            headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
        }
        if let Some(text) = headers.get(header::CONTENT_TYPE).and_then(with_charset) {
            headers.insert(header::CONTENT_TYPE, text);
        }
        if request.headers().contains_key(header::ACCEPT_ENCODING) {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
    }
    response
}

async fn from_folder(folder: &FilesFolder, request: &Request<Incoming>, uri: &Uri) -> Response<FileBody> {
    let mut asked = Request::new(http_body_util::Empty::<Bytes>::new());
    *asked.method_mut() = request.method().clone();
    *asked.uri_mut() = uri.path().parse().unwrap_or_default();
    *asked.headers_mut() = request.headers().clone();
    let mut files = ServeDir::new(&folder.root)
        .redirect_path_prefix(folder.mounted_at.as_deref().unwrap_or_default())
        .precompressed_br()
        .precompressed_zstd()
        .precompressed_gzip();
    match files.try_call(asked).await {
        Ok(response) => response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()),
        Err(error) if IS_MISSING.contains(&error.kind()) => not_found(),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.root.display(), "a file cannot be read");
            let mut response = empty();
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// Text without a charset: it is taken for UTF-8, as whatever writes such files does.
fn with_charset(kind: &HeaderValue) -> Option<HeaderValue> {
    let kind = kind.to_str().ok().filter(|kind| kind.starts_with("text/") && !kind.contains(';'))?;
    HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok()
}

/// Whether a path may lead to a file of the folder: by its name, and by where its links end.
async fn is_inside(folder: &FilesFolder, path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let hidden = |segment: &str| {
        segment.starts_with('.') || segment.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2e"))
    };
    if segments.clone().next() == Some(".well-known") {
        segments.next();
    }
    if segments.any(hidden) {
        return false;
    }
    let Some(named) = decoded(path) else { return false };
    match tokio::fs::canonicalize(folder.root.join(named)).await {
        Ok(real) => real.starts_with(&folder.root),
        // It is not there, as `ServeDir` will find.
        Err(_) => true,
    }
}

/// The path below the folder; `None` where a slash or what ends a name stands in it encoded.
fn decoded(path: &str) -> Option<PathBuf> {
    let mut octets = Vec::with_capacity(path.len());
    let mut rest = path.trim_start_matches('/').bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                match u8::from_str_radix(digits, 16).ok()? {
                    0 | b'/' | b'\\' => return None,
                    octet => octet,
                }
            }
            octet => octet,
        });
    }
    String::from_utf8(octets).ok().map(PathBuf::from)
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The folder's own `404.html`, where it has one.
async fn page_for_missing(folder: &FilesFolder) -> Response<FileBody> {
    let page = folder.root.join("404.html");
    let small = tokio::fs::metadata(&page).await.is_ok_and(|file| file.len() <= LARGEST_PAGE);
    let mut response = not_found();
    if small && let Ok(content) = tokio::fs::read(&page).await {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        *response.body_mut() =
            Full::new(content.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    }
    response
}

fn not_found() -> Response<FileBody> {
    let mut response = empty();
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn empty() -> Response<FileBody> {
    Response::new(http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync())
}

/// Of files whose names change with their content.
const FOR_A_YEAR: &str = "public, max-age=31536000, immutable";
/// For this cache alone (RFC 9213): browsers ask each time, and the folder is looked at once a second.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_encoding_hides_where_a_path_leads() {
        assert_eq!(decoded("/a%20b/c.txt"), Some("a b/c.txt".into()));
        assert_eq!(decoded("/caf%C3%A9"), Some("café".into()));
        for bad in ["/a%2Fb", "/a%5Cb", "/a%00", "/%zz", "/%4", "/%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
