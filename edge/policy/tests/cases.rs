//! Runs the tables under `cases/`: short stories of (what was stored, how much later, the next request) and the
//! decision they must lead to. `cases/README.md` describes the format.

use cache_policy::{
    Admitted, Arrival, ClientDirectives, ContentRange, Cookies, Decision, IgnoredCookies, Moment, Newer,
    PartAnswer, Parts, RangeAnswer, Reason, RequestFacts, Rules, SetCookie, Ttl, UpstreamError, admit,
    decide, format_date, freshen, freshen_by_head, stale_on_error,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall clock at moment zero of every story: a quarter of a second past a full one, as real clocks are.
const WALL: Duration = Duration::from_millis(1_790_000_000_250);
/// The moment at which the first request of every story is sent.
const START: Duration = Duration::from_secs(1_000_000);

#[test]
fn every_case_is_decided_as_its_table_says() {
    let mut failures = String::new();
    let mut count = 0;
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("a case file is readable");
        for case in cases(&text) {
            count += 1;
            if let Err(problem) = Story::new().tell(&case) {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                writeln!(failures, "{name}:{}: {}: {problem}", case.line, case.name)
                    .expect("a String takes all");
            }
        }
    }
    assert!(failures.is_empty(), "of {count} cases these failed:\n{failures}");
    assert!(count > 100, "only {count} cases were found: are the tables still in place?");
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = std::fs::read_dir(folder).expect("the folder of cases exists");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "case"))
        .collect();
    files.sort();
    files
}

struct Case<'a> {
    name: &'a str,
    line: usize,
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    verb: &'a str,
    rest: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

/// Splits a table: `case` begins a story, an indented line a step, a further indented one a field of that step.
fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let (verb, rest) = content.split_once(' ').unwrap_or((content, ""));
        match indent {
            0 => {
                assert_eq!(verb, "case", "line {}: a story begins with `case`", index + 1);
                cases.push(Case { name: rest, line: index + 1, steps: Vec::new() });
            }
            1..=2 => {
                let case = cases.last_mut().expect("a step follows a `case` line");
                case.steps.push(Step { verb, rest, fields: Vec::new() });
            }
            _ => {
                let step =
                    cases.last_mut().and_then(|case| case.steps.last_mut()).expect("a field follows a step");
                let (name, value) = content.split_once(':').expect("a field has a colon");
                step.fields.push((name, value.trim()));
            }
        }
    }
    cases
}

/// As Content-Range has them.
fn octets(ranges: &[std::ops::Range<u64>]) -> String {
    let ranges: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
    ranges.join(" ")
}

struct Story {
    now: Duration,
    delay: Duration,
    rules: Rules,
    first: Option<RequestFacts>,
    stored: Option<Admitted>,
    request: Option<RequestFacts>,
    parts: Parts,
    outcome: Option<String>,
}

impl Story {
    fn new() -> Story {
        Story {
            now: Duration::ZERO,
            delay: Duration::ZERO,
            rules: Rules::default(),
            first: None,
            stored: None,
            request: None,
            parts: Parts::default(),
            outcome: None,
        }
    }

    fn tell(mut self, case: &Case<'_>) -> Result<(), String> {
        for step in &case.steps {
            self.take(step)?;
        }
        if self.outcome.is_some() {
            return Err("the last step's outcome is not checked".to_owned());
        }
        Ok(())
    }

    fn part(&mut self, place: &str) {
        let place = ContentRange::parse(place.as_bytes());
        let added = place.is_some_and(|place| self.parts.add(&place));
        self.outcome =
            Some(if added { format!("held {}", octets(self.parts.held())) } else { "refused".to_owned() });
    }

    fn range(&mut self, field: &str) {
        let field = (!field.is_empty()).then(|| HeaderValue::from_str(field).expect("a field value"));
        let request = field.into_iter().map(|field| (http::header::RANGE, field)).collect();
        self.outcome = Some(match self.parts.answer(&request) {
            PartAnswer::Held(RangeAnswer::Whole) => "answered whole".to_owned(),
            PartAnswer::Held(RangeAnswer::NotSatisfiable) => "answered 416".to_owned(),
            PartAnswer::Held(RangeAnswer::Single(range)) => format!("answered {}", octets(&[range])),
            PartAnswer::Held(RangeAnswer::Several(ranges)) => format!("answered {}", octets(&ranges)),
            PartAnswer::Missing(fields) => {
                let fields: Vec<_> = fields.iter().map(|field| field.to_str().expect("ASCII")).collect();
                format!("missing {}", fields.join(" "))
            }
            PartAnswer::Unknown => "unknown".to_owned(),
        });
    }

    fn take(&mut self, step: &Step<'_>) -> Result<(), String> {
        match step.verb {
            "rules" => step.rest.split_whitespace().for_each(|rule| set(&mut self.rules, rule)),
            "delay" => self.delay = seconds(step.rest),
            "after" => self.now += seconds(step.rest),
            "first" => self.first = Some(self.facts(step)),
            "stored" => self.store(step),
            "freshened" => self.freshen(step),
            "request" => self.request(step),
            "failure" => self.fail(step.rest),
            "part" => self.part(step.rest),
            "range" => self.range(step.rest),
            "->" => return self.expect(step.rest),
            "head" => return self.expect_head(step.rest),
            "age" => return self.expect_age(step.rest),
            other => panic!("unknown step {other}"),
        }
        Ok(())
    }

    fn store(&mut self, step: &Step<'_>) {
        if step.rest == "nothing" {
            return;
        }
        let first =
            self.first.unwrap_or_else(|| RequestFacts::read(&Method::GET, &HeaderMap::new(), &self.rules));
        let status = step.rest.parse().expect("a stored response has a status");
        let arrival = self.arrive();
        match admit(&first, status, &self.head(step), arrival, &self.rules) {
            Ok(admitted) => self.stored = Some(admitted),
            Err(reason) => self.outcome = Some(format!("refused {reason}")),
        }
    }

    fn freshen(&mut self, step: &Step<'_>) {
        let request = self.facts(&Step { verb: "", rest: "GET", fields: Vec::new() });
        let arrival = self.arrive();
        let stored = self.stored.as_ref().expect("something is stored that can be freshened");
        let head = self.head(step);
        let newer = Newer { request: &request, head: &head, arrival, rules: &self.rules };
        let freshened = match step.rest {
            "304" => freshen(&stored.meta, &stored.head, &newer),
            "HEAD" => freshen_by_head(&stored.meta, &stored.head, &newer),
            other => panic!("freshened by 304 or HEAD, not {other}"),
        };
        match freshened {
            Ok(admitted) => self.stored = Some(admitted),
            Err(reason) => self.outcome = Some(format!("refused {reason}")),
        }
    }

    fn request(&mut self, step: &Step<'_>) {
        let facts = self.facts(step);
        let meta = self.stored.as_ref().map(|stored| &stored.meta);
        self.outcome = Some(match decide(&facts, meta, &self.rules, self.moment()) {
            Decision::Serve { stale: None } => "serve".to_owned(),
            Decision::Serve { stale: Some(reason) } => format!("serve {reason}"),
            Decision::ServeAndRefresh { reason } => format!("serve-and-refresh {reason}"),
            Decision::Fetch(plan) if plan.validate => format!("validate {}", plan.reason),
            Decision::Fetch(plan) => format!("fetch {}", plan.reason),
            Decision::Pass(reason) => format!("pass {reason}"),
            Decision::OnlyIfCached => "only-if-cached".to_owned(),
        });
        self.request = Some(facts);
    }

    fn fail(&mut self, how: &str) {
        let failure = match how {
            "disconnected" => UpstreamError::Disconnected,
            status => UpstreamError::Status(status.parse().expect("a failure is `disconnected` or a status")),
        };
        let stored = self.stored.as_ref().expect("something is stored that may stand in");
        let request = self.request.expect("a failure follows a request");
        self.outcome =
            Some(match stale_on_error(&request, &stored.meta, &self.rules, failure, self.moment()) {
                Ok(reason) => format!("serve {reason}"),
                Err(reason) => format!("fail {reason}"),
            });
    }

    fn expect(&mut self, expected: &str) -> Result<(), String> {
        let outcome = self.outcome.take().unwrap_or_else(|| "stored".to_owned());
        let mut words = expected.split_whitespace();
        // What is said of parts is said in octets.
        let reasoned = words.next().is_some_and(|verb| !matches!(verb, "held" | "answered" | "missing"));
        assert!(
            words
                .next()
                .filter(|_| reasoned)
                .is_none_or(|token| Reason::ALL.iter().any(|known| known.as_str() == token)),
            "{expected}: no such reason"
        );
        if outcome == expected { Ok(()) } else { Err(format!("expected `{expected}`, got `{outcome}`")) }
    }

    /// `head Name: value`, or `head Name` for a field that must be absent.
    fn expect_head(&mut self, expected: &str) -> Result<(), String> {
        let head = &self.stored.as_ref().ok_or("nothing is stored")?.head;
        let (name, wanted) =
            expected.split_once(':').map_or((expected, None), |(name, value)| (name, Some(value.trim())));
        let lines: Vec<_> = head.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        let found = (!lines.is_empty()).then(|| lines.join(", "));
        let wanted = wanted.map(|value| self.dated(value));
        if found == wanted { Ok(()) } else { Err(format!("{name}: expected {wanted:?}, found {found:?}")) }
    }

    fn expect_age(&mut self, expected: &str) -> Result<(), String> {
        let age = self.stored.as_ref().ok_or("nothing is stored")?.meta.age(self.moment());
        if age.as_secs() == seconds(expected).as_secs() { Ok(()) } else { Err(format!("the age is {age:?}")) }
    }

    fn facts(&self, step: &Step<'_>) -> RequestFacts {
        let method = Method::from_bytes(step.rest.as_bytes()).expect("a request has a method");
        RequestFacts::read(&method, &self.head(step), &self.rules)
    }

    fn head(&self, step: &Step<'_>) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in &step.fields {
            let value = HeaderValue::from_str(&self.dated(value)).expect("a field value");
            head.append(HeaderName::from_bytes(name.as_bytes()).expect("a field name"), value);
        }
        head
    }

    /// Replaces `{-60}` by the date that many seconds from the wall clock's now.
    fn dated(&self, value: &str) -> String {
        match value.strip_prefix('{').and_then(|value| value.strip_suffix('}')) {
            Some(offset) => {
                let offset: i64 = offset.parse().expect("an offset in seconds");
                let now = i64::try_from((WALL + self.now).as_secs()).expect("a time of this century");
                let date =
                    UNIX_EPOCH + Duration::from_secs(u64::try_from(now + offset).expect("a time after 1970"));
                format_date(date).to_str().expect("a date is ASCII").to_owned()
            }
            None => value.to_owned(),
        }
    }

    fn arrive(&mut self) -> Arrival {
        let requested_at = self.moment();
        self.now += std::mem::take(&mut self.delay);
        Arrival { requested_at, received_at: self.moment(), wall: self.wall() }
    }

    fn moment(&self) -> Moment {
        Moment::from_epoch(START + self.now)
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + WALL + self.now
    }
}

fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').expect("a duration ends in s");
    Duration::from_secs_f64(number.parse().expect("a duration is a number of seconds"))
}

/// `60s` for answers, or `200:60s+404:10s`.
fn ttl(value: &str) -> Ttl {
    if !value.contains(':') {
        return Ttl::of_answers(seconds(value));
    }
    let by_status = value.split('+').map(|pair| {
        let (status, lifetime) = pair.split_once(':').expect("a status and a lifetime");
        (status.parse().expect("a status"), seconds(lifetime))
    });
    Ttl::by_status(by_status.collect())
}

fn set(rules: &mut Rules, rule: &str) {
    let (name, value) = rule.split_once('=').expect("a rule is name=value");
    match name {
        "ttl" => rules.ttl = Some(ttl(value)),
        "default_ttl" => rules.default_ttl = Some(seconds(value)),
        "min_ttl" => rules.min_ttl = Some(seconds(value)),
        "max_ttl" => rules.max_ttl = Some(seconds(value)),
        "stale_while_revalidate" => rules.stale_while_revalidate = Some(seconds(value)),
        "stale_if_error" => rules.stale_if_error = Some(seconds(value)),
        "stale_on_disconnect" => rules.stale_on_disconnect = seconds(value),
        "stale_on_status" => rules.stale_on_status = value == "yes",
        "heuristic" => rules.heuristic = value == "yes",
        "edge_codes" => rules.edge_codes = value == "yes",
        "set_cookie" => {
            rules.set_cookie = match value {
                "strip" => SetCookie::Strip,
                "store" => SetCookie::Store,
                other => panic!("unknown rule for Set-Cookie {other}"),
            }
        }
        "cookies" => {
            rules.cookies = match value {
                "bypass" => Cookies::Bypass,
                "origin" => Cookies::Origin,
                other => panic!("unknown rule for cookies {other}"),
            }
        }
        "ignore_cookies" => {
            rules.ignored_cookies = match value {
                "all" => IgnoredCookies::All,
                names => IgnoredCookies::Named(names.split('+').map(str::to_owned).collect()),
            }
        }
        "client_directives" => {
            rules.client_directives = match value {
                "ignore-reloads" => ClientDirectives::IgnoreReloads,
                "ignore-relaxations" => ClientDirectives::IgnoreRelaxations,
                "ignore-all" => ClientDirectives::IgnoreAll,
                other => panic!("unknown choice of client directives {other}"),
            }
        }
        other => panic!("unknown rule {other}"),
    }
}
