//! curl as a client: one request, its answer as curl saw it.

use std::{
    ffi::OsString,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::NamedTempFile;

use crate::tool;

/// A request that curl is about to make.
#[derive(Debug)]
pub struct Curl {
    arguments: Vec<OsString>,
    body: Option<Vec<u8>>,
}

/// A request that curl is making.
#[derive(Debug)]
pub struct Running {
    child: Child,
    heads: NamedTempFile,
}

/// What came back.
pub struct Answer {
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub version: String,
    /// Status of the final response.
    pub status: u16,
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
    /// Its header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its trailer fields, names in lower case.
    pub trailers: Vec<(String, String)>,
    /// Its content, content codings undone only if [`Curl::coding`] was asked for.
    pub body: Vec<u8>,
}

impl Curl {
    /// A GET of `path` over clear text and HTTP/1.1.
    #[must_use]
    pub fn clear(address: SocketAddr, path: &str) -> Self {
        Self::new(["--http1.1"], &format!("http://{address}{path}"))
    }

    /// A GET of `path` from `localhost` over TLS; the certificate must hold against the authority in `ca`.
    #[must_use]
    pub fn tls(address: SocketAddr, ca: &Path, path: &str) -> Self {
        Self::tls_to("localhost", address, ca, path)
    }

    /// As [`tls`](Self::tls), from a host of another name.
    #[must_use]
    pub fn tls_to(name: &str, address: SocketAddr, ca: &Path, path: &str) -> Self {
        let port = address.port();
        Self::new(["--http1.1"], &format!("https://{name}:{port}{path}"))
            .argument("--cacert")
            .argument(ca)
            .argument("--connect-to")
            .argument(format!("{name}:{port}:{}:{port}", address.ip()))
    }

    fn new<const N: usize>(first: [&str; N], url: &str) -> Self {
        let curl = Self { arguments: Vec::new(), body: None };
        // A deadline for hangs only: far longer than any answer takes.
        let curl = curl
            .argument("-sS")
            .argument("--globoff")
            .argument("--path-as-is")
            .argument("--max-time")
            .argument("60");
        first.into_iter().fold(curl, Self::argument).argument(url)
    }

    /// With one more argument of curl's own.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Over HTTP/2.
    #[must_use]
    pub fn h2(self) -> Self {
        self.argument("--http2")
    }

    /// Over HTTP/1.0.
    #[must_use]
    pub fn http10(self) -> Self {
        self.argument("--http1.0")
    }

    /// With a header line, `Name: value`.
    #[must_use]
    pub fn header(self, line: &str) -> Self {
        self.argument("-H").argument(line)
    }

    /// Accepting exactly this content coding, and undoing it.
    #[must_use]
    pub fn coding(self, coding: &str) -> Self {
        self.argument("--compressed").header(&format!("Accept-Encoding: {coding}"))
    }

    /// HEAD.
    #[must_use]
    pub fn head(self) -> Self {
        // curl prints the head of an answer to HEAD as if it were content.
        self.argument("--head").argument("--output").argument("/dev/null")
    }

    /// Another method, with content.
    #[must_use]
    pub fn post(mut self, method: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.argument("-X").argument(method).argument("--data-binary").argument("@-")
    }

    /// Another method, without content.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        self.argument("-X").argument(method)
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// When curl is not installed.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Running {
        let heads = NamedTempFile::new().expect("a temporary file can be made");
        let mut child = Command::new(tool::find(&["curl"], "curl"))
            .args(&self.arguments)
            .arg("--dump-header")
            .arg(heads.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl was found, so it starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        if let Some(body) = self.body {
            // On its own thread: a large content and a large answer must not wait for each other.
            std::thread::spawn(move || stdin.write_all(&body));
        }
        Running { child, heads }
    }

    /// Makes the request.
    ///
    /// # Panics
    /// When curl gets no complete answer.
    #[track_caller]
    #[must_use]
    pub fn send(self) -> Answer {
        self.start().answer()
    }

    /// Makes the request, which must not get a complete answer, and returns curl's message.
    ///
    /// # Panics
    /// When it gets one.
    #[track_caller]
    #[must_use]
    pub fn fail(self) -> String {
        match self.start().result() {
            Ok(answer) => panic!("no complete answer was expected: {answer:#?}"),
            Err(message) => message,
        }
    }
}

impl Running {
    /// Waits for the answer.
    ///
    /// # Panics
    /// When curl gets no complete one.
    #[track_caller]
    #[must_use]
    pub fn answer(self) -> Answer {
        match self.result() {
            Ok(answer) => answer,
            Err(message) => panic!("{message}"),
        }
    }

    /// Waits for the answer, or curl's message why there is none.
    ///
    /// # Errors
    /// curl's message when there was no complete answer.
    pub fn result(self) -> Result<Answer, String> {
        let output = self.child.wait_with_output().expect("the child is ours to wait for");
        if !output.status.success() {
            return Err(format!(
                "curl ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let heads = std::fs::read(self.heads.path()).expect("curl wrote the heads");
        Ok(parse(&String::from_utf8_lossy(&heads), output.stdout))
    }

    /// Whether it has its answer, or has given up.
    ///
    /// # Panics
    /// Never: the child is ours to wait for.
    pub fn is_finished(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours to wait for").is_some()
    }

    /// Goes away, as a user does who closes the page.
    pub fn leave(mut self) {
        self.child.kill().expect("the child has not been waited for");
        let _ = self.child.wait();
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, status, interim, headers, trailers, body } = self;
        writeln!(formatter, "{version} {status} after {interim:?}")?;
        for (name, value) in headers {
            writeln!(formatter, "  {name}: {value}")?;
        }
        writeln!(formatter, "  {} bytes of content: {:.300}", body.len(), self.text())?;
        write!(formatter, "  trailers: {trailers:?}")
    }
}

impl Answer {
    /// A header field's only or first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A header field's value.
    ///
    /// # Panics
    /// When the field is absent.
    #[track_caller]
    #[must_use]
    pub fn must(&self, name: &str) -> &str {
        match self.header(name) {
            Some(value) => value,
            None => panic!("the answer has no {name}: {self:#?}"),
        }
    }

    /// Every value of a header field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {}", self.text()),
        }
    }

    /// Whether the edge says that it answered from its cache (RFC 9211 §2.1).
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.cache_status().iter().any(|parameter| parameter == "hit")
    }

    /// Why the edge asked upstream (`fwd=`, RFC 9211 §2.2), or "".
    #[must_use]
    pub fn forwarded(&self) -> String {
        let status = self.cache_status();
        status.iter().find_map(|parameter| parameter.strip_prefix("fwd=")).unwrap_or_default().to_owned()
    }

    /// Parameters of the edge's member of `Cache-Status`.
    fn cache_status(&self) -> Vec<String> {
        let all = self.all("cache-status").join(",");
        let member = all.split(',').map(str::trim).find(|member| member.starts_with("gatehouse"));
        member.unwrap_or_default().split(';').skip(1).map(|parameter| parameter.trim().to_owned()).collect()
    }

    /// Asserts that this is an error in the edge's own words (RFC 9457).
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:#?}");
        assert_eq!(self.must("content-type"), "application/problem+json", "{self:#?}");
        assert_eq!(self.json()["status"], status, "{self:#?}");
        assert_eq!(
            self.must("cache-control"),
            "no-store",
            "an error must not be stored by anybody: {self:#?}"
        );
    }
}

/// Reads what `--dump-header` wrote: interim heads, the final head, then trailers, each line by line.
fn parse(heads: &str, body: Vec<u8>) -> Answer {
    let mut answer = Answer {
        version: String::new(),
        status: 0,
        interim: Vec::new(),
        headers: Vec::new(),
        trailers: Vec::new(),
        body,
    };
    let mut head_is_over = false;
    for line in heads.lines() {
        if let Some(("HTTP", version_and_status)) = line.split_once('/') {
            if answer.status != 0 {
                answer.interim.push(answer.status);
                answer.headers.clear();
            }
            let mut words = version_and_status.split(' ');
            answer.version = format!("HTTP/{}", words.next().unwrap_or_default());
            answer.status = words.next().and_then(|status| status.parse().ok()).unwrap_or_default();
            head_is_over = false;
        } else if line.is_empty() {
            head_is_over = true;
        } else if let Some((name, value)) = line.split_once(':') {
            let field = (name.to_ascii_lowercase(), value.trim().to_owned());
            if head_is_over { answer.trailers.push(field) } else { answer.headers.push(field) }
        }
    }
    answer
}
