//! A headless Chromium, driven over the DevTools protocol through a pipe (NUL-separated JSON): no port, no driver program.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::{folder::Folder, tool, wait};

/// A browser with one page open.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Value>,
    _profile: Folder,
}

/// A response that the page loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its URL.
    pub url: String,
    /// Status.
    pub status: u16,
    /// `h2`, `http/1.1`…
    pub protocol: String,
    /// `Document`, `Script`, `Image`…
    pub kind: String,
}

/// A line and a processor that are slower than this machine's.
#[derive(Clone, Copy, Debug)]
pub struct Slowness {
    /// Bits a second from the server.
    pub bits_per_second: u32,
    /// From a request to the first byte of its answer, at least.
    pub latency: Duration,
    /// How many times slower scripts and layout are.
    pub processor: u32,
}

impl Browser {
    /// Starts it with a profile of its own.
    ///
    /// # Panics
    /// When Chromium is not installed or does not start.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let program = tool::find(&["chromium", "google-chrome", "chromium-browser"], "chromium");
        let profile = Folder::new();
        // The protocol lives on descriptors 3 and 4; the shell gives it our pipes without help from unsafe code.
        let mut child = Command::new("/bin/sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#])
            .arg(program)
            .args(["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage"])
            // Root (containers) cannot use the sandbox, and the pages are our own.
            .args([
                "--no-sandbox",
                "--no-first-run",
                "--disable-background-networking",
                "--window-size=1280,900",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let commands = child.stdin.take().expect("stdin is piped");
        let mut stream = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while matches!(stream.read_until(0, &mut message), Ok(length) if length > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).expect("Chromium writes JSON");
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        browser.open_page();
        browser
    }

    fn open_page(&mut self) {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached =
            self.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        self.session = Some(attached["sessionId"].as_str().expect("attaching yields a session").into());
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        // Text goes to the focused field, also where no window of this machine ever has the focus.
        self.call("Emulation.setFocusEmulationEnabled", &json!({ "enabled": true }));
        // Whether the certificate holds is curl's test; Chromium would want it in the user's NSS database.
        self.call("Security.setIgnoreCertificateErrors", &json!({ "ignore": true }));
    }

    /// Opens a URL and waits for its load event.
    ///
    /// # Panics
    /// When the page cannot be loaded.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let seen = self.events.len();
        let answer = self.call("Page.navigate", &json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "cannot open {url}: {answer}");
        self.wait_for_event("Page.loadEventFired", seen);
    }

    /// Makes the window this large, in CSS pixels.
    ///
    /// # Panics
    /// When Chromium does not.
    #[track_caller]
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Slows down the line and the processor of the pages opened from now on.
    ///
    /// # Panics
    /// When Chromium does not.
    #[track_caller]
    pub fn slow_down(&mut self, slowness: Slowness) {
        let bytes = slowness.bits_per_second / 8;
        let line = json!({
            "offline": false, "latency": slowness.latency.as_millis(), "downloadThroughput": bytes, "uploadThroughput": bytes / 2,
        });
        self.call("Network.emulateNetworkConditions", &line);
        self.call("Emulation.setCPUThrottlingRate", &json!({ "rate": slowness.processor }));
    }

    /// When the largest text or picture of the page that is open was painted, from the beginning of its loading.
    ///
    /// # Panics
    /// When nothing was.
    #[track_caller]
    pub fn largest_paint(&mut self) -> Duration {
        // What comes within a second of the first still counts; what the visitor does ends it, and here nobody does anything.
        let at = self.evaluate(
            "new Promise((told) => {
                let last = null;
                const watch = (list) => {
                    if (last === null) setTimeout(() => told(last), 1000);
                    for (const { startTime } of list.getEntries()) last = startTime;
                };
                new PerformanceObserver(watch).observe({ type: 'largest-contentful-paint', buffered: true });
            })",
        );
        Duration::from_secs_f64(at.as_f64().expect("moments are numbers") / 1000.0)
    }

    /// Whether the pages opened from now on may run scripts of theirs.
    ///
    /// # Panics
    /// When Chromium does not.
    #[track_caller]
    pub fn allow_scripts(&mut self, allowed: bool) {
        self.call("Emulation.setScriptExecutionDisabled", &json!({ "value": !allowed }));
    }

    /// Clicks the first element that matches and waits for the page it leads to.
    ///
    /// # Panics
    /// When nothing matches, or no page loads.
    #[track_caller]
    pub fn follow(&mut self, selector: &str) {
        let seen = self.events.len();
        let found = self.evaluate(&format!(
            "(() => {{ const link = document.querySelector({}); link?.click(); return !!link }})()",
            json!(selector)
        ));
        assert_eq!(found, true, "nothing on the page matches {selector}");
        self.wait_for_event("Page.loadEventFired", seen);
    }

    /// Clicks the first element that matches, as soon as there is one, on the page that stays.
    ///
    /// # Panics
    /// When nothing comes to match.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.wait_until(&format!("document.querySelector({selector}) !== null"));
        self.evaluate(&format!("document.querySelector({selector}).click()"));
    }

    /// Puts text into the first field that matches, in place of what stands there, as a keyboard would.
    ///
    /// # Panics
    /// When nothing comes to match, or the field does not take it.
    #[track_caller]
    pub fn fill(&mut self, selector: &str, text: &str) {
        let (selector, wanted) = (json!(selector), json!(text));
        self.wait_until(&format!("document.querySelector({selector}) !== null"));
        self.evaluate(&format!("document.querySelector({selector}).select()"));
        self.call("Input.insertText", &json!({ "text": text }));
        self.wait_until(&format!("document.querySelector({selector}).value === {wanted}"));
    }

    /// Chooses a file in the first field for files that matches, as its dialog would.
    ///
    /// # Panics
    /// When nothing comes to match, or it takes no file.
    #[track_caller]
    pub fn choose(&mut self, selector: &str, file: &Path) {
        let selector = json!(selector);
        self.wait_until(&format!("document.querySelector({selector}) !== null"));
        let expression = format!("document.querySelector({selector})");
        let found = self.call("Runtime.evaluate", &json!({ "expression": expression }));
        let object = &found["result"]["objectId"];
        self.call(
            "DOM.setFileInputFiles",
            &json!({ "files": [file.display().to_string()], "objectId": object }),
        );
    }

    /// The text of the first element that matches; empty without one.
    ///
    /// # Panics
    /// When the selector is none.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let text =
            self.evaluate(&format!("document.querySelector({})?.textContent.trim() ?? ''", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Panics
    /// When it stays false.
    #[track_caller]
    pub fn wait_until(&mut self, expression: &str) {
        wait::until(expression, || (self.evaluate(expression) == true).then_some(()));
    }

    /// The value of a JavaScript expression.
    ///
    /// # Panics
    /// When it throws.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression} threw: {answer}");
        answer["result"]["value"].clone()
    }

    /// Every response so far.
    #[must_use]
    pub fn loaded(&self) -> Vec<Loaded> {
        let responses = self.events.iter().filter(|event| event["method"] == "Network.responseReceived");
        responses
            .map(|event| {
                let response = &event["params"]["response"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                Loaded {
                    url: text(&response["url"]),
                    status: response["status"]
                        .as_u64()
                        .and_then(|status| status.try_into().ok())
                        .unwrap_or_default(),
                    protocol: text(&response["protocol"]),
                    kind: text(&event["params"]["type"]),
                }
            })
            .collect()
    }

    /// Bytes received so far, heads and coded content.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        let finished = self.events.iter().filter(|event| event["method"] == "Network.loadingFinished");
        finished
            .filter_map(|event| event["params"]["encodedDataLength"].as_f64())
            .map(|bytes| bytes as u64)
            .sum()
    }

    /// Everything a user would call broken: console errors, exceptions, failed loads.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let is_complaint = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => event["params"]["type"] == "error",
            "Log.entryAdded" => event["params"]["entry"]["level"] == "error",
            // A page that is left cancels what it no longer wants.
            "Network.loadingFailed" => event["params"]["canceled"] != true,
            _ => false,
        };
        self.events.iter().filter(is_complaint).map(|event| event["params"].to_string()).collect()
    }

    /// Writes a picture of the page as PNG.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn screenshot(&mut self, path: &Path) {
        let answer = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let data = answer["data"].as_str().expect("a screenshot is text");
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("the build folder is writable");
        }
        let picture = BASE64_STANDARD.decode(data).expect("a screenshot is base64");
        std::fs::write(path, picture).expect("the build folder is writable");
    }

    /// Sends a command and waits for its result.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string();
        text.push('\0');
        self.commands.write_all(text.as_bytes()).expect("Chromium runs");
        loop {
            let message = self.next(method);
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    #[track_caller]
    fn wait_for_event(&mut self, method: &str, seen: usize) {
        if self.events[seen..].iter().any(|event| event["method"] == method) {
            return;
        }
        loop {
            let event = self.next(method);
            let arrived = event["method"] == method;
            self.events.push(event);
            if arrived {
                return;
            }
        }
    }

    #[track_caller]
    fn next(&mut self, what: &str) -> Value {
        match self.messages.recv_timeout(wait::PATIENCE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                panic!("Chromium did not answer: {what}; {}", self.last_events())
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("Chromium ended ({:?}) before {what}", self.child.try_wait())
            }
        }
    }

    fn last_events(&self) -> String {
        let last = self.events.iter().rev().take(5);
        last.fold(String::new(), |mut text, event| {
            let _ = write!(text, "\n{:.300}", event.to_string());
            text
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let close = json!({ "id": self.last_id + 1, "method": "Browser.close" });
        let _ = self.commands.write_all(format!("{close}\0").as_bytes());
        if wait::until_within(wait::PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
