//! One record a request: gathered on its way, written as a log line and as metrics when its response has ended *or the
//! client has vanished*, whichever comes first. That is why it travels in the response's body.

use std::{
    fmt::Write as _,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cache_policy::Moment;
use http::{Method, Response, StatusCode, Version, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    clock::Clock,
    message::{body_error::BodyError, client_shares::ClientShare, request_id::RequestId, target::Scheme},
    observe::{
        access_log::AccessLog,
        metrics::{Metrics, RouteMetrics},
        verdict::Verdict,
        visible,
    },
    settings::LogFormat,
};

/// What is known of a request so far. Dropped without an answer, it is written as a request whose client has vanished.
#[derive(Debug)]
pub struct Record(Option<Box<RequestSoFar>>);

#[derive(Debug)]
struct RequestSoFar {
    began: Moment,
    id: RequestId,
    method: Method,
    target: Box<str>,
    host: Box<str>,
    version: Version,
    scheme: Scheme,
    peer: IpAddr,
    client: Option<IpAddr>,
    route: Option<(Arc<str>, Arc<RouteMetrics>)>,
    verdict: Verdict,
    detail: Option<&'static str>,
    /// How far the upstream's part had come when it failed.
    phase: Option<&'static str>,
    upstream: Option<Duration>,
    /// Its places among the requests of its route and of its client, which it has until its answer has ended.
    places: RequestPlaces,
    /// Where it goes when it is complete.
    sink: Arc<Sink>,
}

/// What a request that needs an upstream has, where that is bounded. Whoever drops it gives it back.
#[derive(Debug, Default)]
pub struct RequestPlaces {
    /// Among the requests of its route.
    pub of_route: Option<OwnedSemaphorePermit>,
    /// Among those of its client.
    pub of_client: Option<ClientShare>,
    /// Among those of its client on its route.
    pub of_client_on_route: Option<ClientShare>,
}

impl Record {
    /// The head of the request of this id has arrived at `now`.
    pub fn begin(
        head: &request::Parts,
        id: &RequestId,
        (peer, scheme): (IpAddr, Scheme),
        now: Moment,
        sink: &Arc<Sink>,
    ) -> Self {
        // In HTTP/1.1 the target is in origin form and the host a field; in HTTP/2 both are in the URI.
        let target = head.uri.path_and_query().map_or("*", http::uri::PathAndQuery::as_str);
        let host = head.uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| head.headers.get(http::header::HOST)?.to_str().ok()).unwrap_or_default();
        Self(Some(Box::new(RequestSoFar {
            began: now,
            id: id.clone(),
            method: head.method.clone(),
            target: target.into(),
            host: host.into(),
            version: head.version,
            scheme,
            peer,
            client: None,
            route: None,
            verdict: Verdict::Vanished,
            detail: None,
            phase: None,
            upstream: None,
            places: RequestPlaces::default(),
            sink: Arc::clone(sink),
        })))
    }

    fn facts(&mut self) -> &mut RequestSoFar {
        self.0.as_mut().expect("only `travel`, which consumes the record, takes its facts")
    }

    /// Sets the client's address, and the scheme of its own connection.
    pub fn client(&mut self, client: IpAddr, scheme: Scheme) {
        let facts = self.facts();
        (facts.client, facts.scheme) = (Some(client), scheme);
    }

    /// Sets the route.
    pub fn route(&mut self, name: &Arc<str>, metrics: &Arc<RouteMetrics>) {
        self.facts().route = Some((Arc::clone(name), Arc::clone(metrics)));
    }

    /// When the request's head arrived.
    pub fn began(&self) -> Moment {
        self.0.as_ref().map_or_else(Moment::default, |facts| facts.began)
    }

    /// Sets how the cache took part in the answer, the reason's one word, and how long the upstream took to its head.
    pub fn answered(&mut self, verdict: Verdict, detail: Option<&'static str>, upstream: Option<Duration>) {
        let facts = self.facts();
        (facts.verdict, facts.detail, facts.upstream) = (verdict, detail, upstream);
    }

    /// The request has places among those of its route and of its client, until its answer has ended.
    pub fn occupies(&mut self, places: RequestPlaces) {
        self.facts().places = places;
    }

    /// Sets in which phase the upstream failed.
    pub fn failed_in(&mut self, phase: &'static str) {
        self.facts().phase = Some(phase);
    }

    /// Puts the record into the response, to be written at its end.
    pub fn travel<B>(mut self, response: Response<B>) -> Response<Recorded<B>>
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
    {
        let status = response.status();
        let travel = self.0.take().map(|record| Travel::begin(record, status));
        response.map(|body| Recorded { body, travel, breaks: None })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(record) = self.0.take() {
            Travel { broke: true, ..Travel::begin(record, CLIENT_CLOSED_REQUEST) }.write();
        }
    }
}

/// A record on its way with its response.
#[derive(Debug)]
struct Travel {
    record: Box<RequestSoFar>,
    status: StatusCode,
    head_at: Duration,
    bytes: u64,
    broke: bool,
    /// Why the edge gave it up, where it did.
    cut: Option<&'static str>,
}

/// A response's body, with the record of its request.
#[derive(Debug)]
pub struct Recorded<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    body: B,
    travel: Option<Travel>,
    /// Why it breaks off, held until the data before the error has had its chance to be sent.
    breaks: Option<BodyError>,
}

impl<B> Recorded<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    /// Notes that the answer is given up before its client has all of it, for a reason of one word.
    pub fn cut_off(&mut self, why: &'static str) {
        if let Some(travel) = &mut self.travel {
            (travel.broke, travel.cut) = (true, Some(why));
        }
    }
}

impl<B> HttpBody for Recorded<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.breaks.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            // A connection drops unwritten data when a body breaks. So the error is returned one turn later.
            Some(Err(error)) => {
                if let Some(travel) = &mut self.travel {
                    travel.broke = true;
                    travel.record.phase = error.phase().or(travel.record.phase);
                }
                self.breaks = Some(error);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => return Poll::Ready(None),
        };
        if let (Some(travel), Some(data)) = (&mut self.travel, frame.data_ref()) {
            travel.bytes += data.len() as u64;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Recorded<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    fn drop(&mut self) {
        if let Some(mut travel) = self.travel.take() {
            // HEAD and 304 responses have no content to read; any other body dropped before its end has lost its
            // reader.
            let headless = travel.record.method == Method::HEAD || travel.status == StatusCode::NOT_MODIFIED;
            // A body of unknown length may have been read to its end.
            let unread = self.body.size_hint().exact().is_some_and(|left| left > 0);
            travel.broke |= !headless && !self.body.is_end_stream() && unread;
            travel.write();
        }
    }
}

impl Travel {
    fn begin(record: Box<RequestSoFar>, status: StatusCode) -> Self {
        let head_at = record.sink.clock.now().since(record.began);
        Self { record, status, head_at, bytes: 0, broke: false, cut: None }
    }

    fn write(self) {
        let sink = Arc::clone(&self.record.sink);
        let now = sink.clock.now();
        let took = now.since(self.record.began);
        if let Some((_, metrics)) = &self.record.route {
            metrics.observe(self.status, self.record.verdict, took, self.bytes);
        } else {
            sink.metrics.unrouted(self.status, self.bytes);
        }
        if let Some(reason) = self.record.detail {
            let route = self.record.route.as_ref().map(|(_, metrics)| &**metrics);
            sink.metrics.reasoned(route, reason);
        }
        sink.log.write(|line, format| self.line(line, format, sink.clock.wall_at(self.record.began), took));
    }

    fn line(&self, line: &mut String, format: LogFormat, wall: SystemTime, took: Duration) {
        // Writing to a String cannot fail.
        let _ = match format {
            LogFormat::Json => self.json(line, wall, took),
            LogFormat::Pretty => self.pretty(line, wall, took),
            LogFormat::Off => Ok(()),
        };
    }

    /// The comments that begin with a field's name are what the book says of it.
    fn json(&self, line: &mut String, wall: SystemTime, took: Duration) -> std::fmt::Result {
        let record = &self.record;
        // time: when the request's head arrived, in UTC, to the millisecond.
        line.push_str("{\"time\":\"");
        timestamp(line, wall)?;
        // client: the client's address: the peer's own, or what a trusted proxy or a PROXY header says.
        write!(line, "\",\"client\":\"{}\"", record.client.unwrap_or(record.peer))?;
        if record.client.is_some_and(|client| client != record.peer) {
            // peer: the address of the connection, where that is not the client's.
            write!(line, ",\"peer\":\"{}\"", record.peer)?;
        }
        // method: of the request.
        // scheme: `https` or `http`: the client's own connection, as far as trusted proxies tell.
        // host: as the client asked for it, with its port.
        write!(
            line,
            ",\"method\":\"{}\",\"scheme\":\"{}\",\"host\":\"",
            record.method,
            record.scheme.as_str()
        )?;
        escape(line, &record.host);
        // target: path and query as the client sent them.
        line.push_str("\",\"target\":\"");
        escape(line, &record.target);
        // version: of HTTP, between the client and the edge: `1.0`, `1.1` or `2`.
        // status: of the answer; 499 where the client left before one began.
        write!(line, "\",\"version\":\"{}\",\"status\":{}", version(record.version), self.status.as_u16())?;
        // bytes: of the answer's content, as sent.
        // cache: how the cache took part; one of the words of [the page of reasons](reasons.md#what-the-cache-did).
        write!(line, ",\"bytes\":{},\"cache\":\"{}\"", self.bytes, record.verdict.as_str())?;
        if let Some(detail) = record.detail {
            // detail: why, in [one word](reasons.md), where it was no plain hit.
            write!(line, ",\"detail\":\"{detail}\"")?;
        }
        if let Some(phase) = record.phase {
            // phase: [how far the request to an upstream had come](reasons.md#phases-of-a-request-to-an-upstream), where it failed.
            write!(line, ",\"phase\":\"{phase}\"")?;
        }
        if let Some((route, _)) = &record.route {
            // route: the name of the route, where one took the request.
            line.push_str(",\"route\":\"");
            escape(line, route);
            line.push('"');
        }
        // head_ms: milliseconds from the request's head to the head of its answer.
        line.push_str(",\"head_ms\":");
        milliseconds(line, self.head_at)?;
        // total_ms: milliseconds from the request's head to the end of its answer.
        line.push_str(",\"total_ms\":");
        milliseconds(line, took)?;
        if let Some(upstream) = record.upstream {
            // upstream_ms: milliseconds that the upstream took to the head of its answer, where it was asked.
            line.push_str(",\"upstream_ms\":");
            milliseconds(line, upstream)?;
        }
        if self.broke {
            // broke: `true` where the answer did not reach its end, at the client's will or for the upstream's failure.
            line.push_str(",\"broke\":true");
        }
        if let Some(cut) = self.cut {
            // cut: why the edge gave the answer up, where it did: [a word](reasons.md#what-is-cut-off).
            write!(line, ",\"cut\":\"{cut}\"")?;
        }
        // request_id: the request's id: a trusted proxy's, or a new one; it goes upstream as X-Request-Id.
        write!(line, ",\"request_id\":\"{}\"", record.id)?;
        line.push_str("}\n");
        Ok(())
    }

    fn pretty(&self, line: &mut String, wall: SystemTime, took: Duration) -> std::fmt::Result {
        let record = &self.record;
        let start = line.len();
        timestamp(line, wall)?;
        // The time of day is enough for people: drop the date.
        line.replace_range(start..start + 11, "");
        let milliseconds = took.as_secs_f64() * 1000.0;
        write!(
            line,
            " {} {:<11} {:>8.2} ms {:>8} B  {} {}://",
            self.status.as_u16(),
            record.verdict.as_str(),
            milliseconds,
            self.bytes,
            record.method,
            record.scheme.as_str()
        )?;
        escape(line, &record.host);
        escape(line, &record.target);
        write!(line, "  {} {}", version(record.version), record.client.unwrap_or(record.peer))?;
        if let Some(detail) = record.detail {
            write!(line, " ({detail})")?;
        }
        if let Some(phase) = record.phase {
            write!(line, " in {phase}")?;
        }
        if self.broke {
            line.push_str(" broke off");
        }
        if let Some(cut) = self.cut {
            write!(line, ": {cut}")?;
        }
        line.push('\n');
        Ok(())
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn timestamp(line: &mut String, wall: SystemTime) -> std::fmt::Result {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a civil date, by the era algorithm of Howard Hinnant (400-year eras that begin on 1 March).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

fn milliseconds(line: &mut String, duration: Duration) -> std::fmt::Result {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write!(line, "{}.{:03}", micros / 1000, micros % 1000)
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// JSON string content (RFC 8259 §7). Also keeps terminals and readers safe: see [`visible`].
fn escape(line: &mut String, text: &str) {
    let special = |character: char| matches!(character, '"' | '\\') || visible::is_hidden(character);
    let mut rest = text;
    while let Some(at) = rest.find(special) {
        let (plain, from) = rest.split_at(at);
        line.push_str(plain);
        let mut characters = from.chars();
        match characters.next() {
            Some('"') => line.push_str("\\\""),
            Some('\\') => line.push_str("\\\\"),
            hidden => visible::escape(line, hidden.unwrap_or_default()),
        }
        rest = characters.as_str();
    }
    line.push_str(rest);
}

/// nginx's number for it; no RFC has one.
const CLIENT_CLOSED_REQUEST: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => unreachable!(),
};

/// Where records end: the log and the metrics.
#[derive(Debug)]
pub struct Sink {
    /// For the time a response ended.
    pub clock: Clock,
    /// For requests without a route.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub log: AccessLog,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        let mut line = String::new();
        timestamp(&mut line, SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_007)).unwrap();
        assert_eq!(line, "2024-02-29T12:34:56.007Z");
    }

    #[test]
    fn control_bytes_never_reach_a_terminal() {
        let mut line = String::new();
        escape(&mut line, "a\u{1b}[31m\"\\\n/\u{202e}gnp.x\u{e0001}");
        assert_eq!(line, "a\\u001b[31m\\\"\\\\\\u000a/\\u202egnp.x\\udb40\\udc01");
    }
}
