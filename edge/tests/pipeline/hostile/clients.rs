//! The clients, and what they may be given.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use proptest::{prelude::*, test_runner::TestCaseResult};
use tokio::time::sleep;

use super::{
    RESOURCES,
    origin::{Gave, Origin},
};
use crate::front::Front;

/// What somebody asks.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub resource: u8,
    method: Method,
    fields: Vec<(&'static str, &'static str)>,
    content: Sent,
    leaves: Leaves,
}

/// The content of a request.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Nothing,
    Whole,
    /// Half of what was announced, and then the connection ends.
    Half,
    /// Half of what was announced, and then nothing more.
    Stalled,
}

/// When the client goes.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    AtTheEnd,
    /// With the head of the answer.
    AtTheHead,
    /// With its first piece.
    AtTheFirstPiece,
    /// It waits for seconds before it reads on.
    Late(u64),
}

pub(super) fn any() -> impl Strategy<Value = Ask> {
    let method = prop_oneof![
        8 => Just(Method::GET),
        1 => Just(Method::HEAD),
        1 => Just(Method::POST),
        1 => prop::sample::select(vec![Method::PUT, Method::DELETE, Method::OPTIONS]),
    ];
    // Of each kind one at most, or none.
    let one_of = |weight: f64, name: &'static str, values: Vec<&'static str>| {
        prop::option::weighted(weight, prop::sample::select(values).prop_map(move |value| (name, value)))
    };
    let fields = (
        one_of(0.5, "x-variant", vec!["1", "2"]),
        one_of(0.25, "cookie", vec!["session=alice", "session=bob"]),
        one_of(0.2, "authorization", vec!["Basic YWxpY2U=", "Basic Ym9i"]),
        one_of(
            0.25,
            "range",
            vec!["bytes=0-0", "bytes=10-49", "bytes=50-", "bytes=-20", "bytes=0-9,20-29", "bytes=9000-"],
        ),
        one_of(0.1, "if-none-match", vec!["*", "\"0||||200|0|all\"", "\"nobody's\""]),
        one_of(0.1, "if-range", vec!["\"0||||200|0|all\"", "\"nobody's\""]),
        one_of(0.05, "if-match", vec!["*", "\"nobody's\""]),
        one_of(
            0.15,
            "cache-control",
            vec!["no-cache", "no-store", "max-age=0", "max-stale", "only-if-cached", "min-fresh=30"],
        ),
    );
    let fields =
        fields.prop_map(|(a, b, c, d, e, f, g, h)| [a, b, c, d, e, f, g, h].into_iter().flatten().collect());
    let content = prop_oneof![
        6 => Just(Sent::Whole),
        1 => Just(Sent::Half),
        1 => Just(Sent::Stalled),
    ];
    let leaves = prop_oneof![
        8 => Just(Leaves::AtTheEnd),
        1 => Just(Leaves::AtTheHead),
        1 => Just(Leaves::AtTheFirstPiece),
        1 => prop::sample::select(vec![1, 10]).prop_map(Leaves::Late),
    ];
    (0..RESOURCES, method, fields, content, leaves).prop_map(|(resource, method, fields, content, leaves)| {
        let has_content = method == Method::POST || method == Method::PUT;
        let content = if has_content { content } else { Sent::Nothing };
        Ask { resource, method, fields, content, leaves }
    })
}

/// Asks as client `number`, and judges what comes: nothing from before `floor`.
pub(super) async fn ask(
    front: &Front,
    origin: &Origin,
    (ask, number): (Ask, usize),
    floor: usize,
) -> TestCaseResult {
    let Ok(response) = front.begin_with(request(&ask, number)).await else {
        // Who breaks off is not answered.
        prop_assert!(matches!(ask.content, Sent::Half), "no answer to {:?}", ask);
        return Ok(());
    };
    let is_own =
        response.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let (status, range) = (response.status().as_u16(), range(&response));
    let (content, is_whole) = read(response, ask.leaves).await;
    prop_assert!(origin.posts_of(number) <= 1, "a POST was sent twice: {:?}", ask);
    let is_unsafe = [Method::POST, Method::PUT, Method::DELETE].contains(&ask.method);
    if is_unsafe && !is_own && status < 400 {
        // RFC 9111 §4.4: what was stored before is no answer any more.
        let turns = origin.gave().into_iter().filter(|gave| gave.asker == number).map(|gave| gave.turn);
        origin.outdate_before(ask.resource, turns.max().unwrap_or(0));
    }
    if is_own {
        prop_assert!(status >= 400, "{} with {:?}", status, content);
        return Ok(());
    }
    if content.is_empty() || matches!(ask.method, Method::HEAD) {
        prop_assert!(ask.method != Method::HEAD || content.is_empty(), "HEAD was answered with content");
        return Ok(());
    }
    let answer = Answer { content, is_whole, range, is_in_parts: status == 206 && range.is_none() };
    let gave = origin.gave();
    let fits = |gave: &&Gave| gave.turn >= floor && may_have(&ask, number, gave) && answer.is_of(gave);
    if gave.iter().any(|gave| fits(&gave)) {
        return Ok(());
    }
    let whose: Vec<&Gave> = gave.iter().filter(|gave| answer.is_of(gave)).collect();
    let begin = String::from_utf8_lossy(&answer.content[..answer.content.len().min(80)]).into_owned();
    prop_assert!(
        false,
        "client {number} asked {ask:?} after turn {floor} and got {status} {begin:?} ({} bytes, whole: {is_whole}), which is of {whose:?}",
        answer.content.len(),
    );
    Ok(())
}

/// Whether this client may have that answer.
fn may_have(ask: &Ask, number: usize, gave: &Gave) -> bool {
    let sent = |name: &str| ask.fields.iter().find(|(its, _)| *its == name).map_or("", |(_, value)| value);
    let varies_by = |name: &str| gave.vary.split(", ").any(|its| its == name);
    let is_mine = gave.asker == number;
    let suits = (!varies_by("x-variant") || sent("x-variant") == gave.variant)
        && (!varies_by("cookie") || sent("cookie") == gave.cookie);
    ask.resource == gave.resource && (is_mine || gave.is_for_all && suits)
}

/// What came.
struct Answer {
    content: Vec<u8>,
    is_whole: bool,
    /// Where its first octet stands, of a part.
    range: Option<usize>,
    is_in_parts: bool,
}

impl Answer {
    /// Whether it is that answer, or what it says of itself: a part, or its begin where it broke off.
    fn is_of(&self, gave: &Gave) -> bool {
        if self.is_in_parts {
            // Each piece between the boundaries is a piece of it.
            let text = String::from_utf8_lossy(&self.content);
            let whole = String::from_utf8_lossy(&gave.content);
            let pieces = text.split("\r\n\r\n").skip(1);
            return pieces
                .filter_map(|piece| piece.split("\r\n--").next())
                .all(|piece| whole.contains(piece));
        }
        let from = self.range.unwrap_or(0);
        let Some(rest) = gave.content.get(from..) else { return false };
        let must_be_all = self.is_whole && self.range.is_none();
        rest.starts_with(&self.content) && (!must_be_all || rest.len() == self.content.len())
    }
}

fn range(response: &Response<Incoming>) -> Option<usize> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What came of the content, and whether that is all.
async fn read(response: Response<Incoming>, leaves: Leaves) -> (Vec<u8>, bool) {
    let mut body = response.into_body();
    let mut content = Vec::new();
    match leaves {
        Leaves::AtTheHead => return (content, false),
        Leaves::Late(seconds) => sleep(Duration::from_secs(seconds)).await,
        Leaves::AtTheEnd | Leaves::AtTheFirstPiece => {}
    }
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (content, false) };
        content.extend(frame.into_data().unwrap_or_default());
        if matches!(leaves, Leaves::AtTheFirstPiece) {
            return (content, false);
        }
    }
    (content, true)
}

fn request(
    ask: &Ask,
    number: usize,
) -> Request<StreamBody<impl futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + use<>>> {
    let mut request = Request::builder().method(ask.method.clone()).uri(format!("/{}", ask.resource));
    for (name, value) in &ask.fields {
        request = request.header(*name, *value);
    }
    request = request.header("x-asker", number);
    if !matches!(ask.content, Sent::Nothing) {
        request = request.header("content-length", 10);
    }
    let piece = || Ok(Frame::data(Bytes::from_static(b"12345")));
    let pieces: Vec<io::Result<Frame<Bytes>>> = match ask.content {
        Sent::Nothing => Vec::new(),
        Sent::Whole => vec![piece(), piece()],
        Sent::Stalled => vec![piece()],
        Sent::Half => vec![piece(), Err(io::ErrorKind::ConnectionReset.into())],
    };
    let stalls = matches!(ask.content, Sent::Stalled);
    let rest = stream::once(async move {
        if stalls {
            std::future::pending::<()>().await;
        }
    });
    let content = stream::iter(pieces).chain(rest.filter_map(async |()| None));
    request.body(StreamBody::new(Box::pin(content))).unwrap()
}
