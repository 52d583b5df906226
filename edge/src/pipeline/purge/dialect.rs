//! Purges as plugins of content systems send them: to Varnish (`PURGE`, `BAN`, `PURGEKEYS`), Fastly and Cloudflare.
//!
//! Promises: what is purged is never less than what is asked for. Expressions match anywhere, as Varnish has them, unless they say
//! `^` and `$`. Where one is more than a list of words or the beginning of a path, everything goes that it could mean: all of the
//! host, or everything. (Some are taken as they are meant: a point in a list of host names is a point, old FOSHttpCache's tags are
//! whole, and Cloudflare's tags count with their case.)
//!
//! | sent by | as |
//! |---|---|
//! | most plugins, for one URL | `PURGE /path`, Host |
//! | WordPress (Proxy Cache Purge), by expressions | `PURGE /path/.*`, `X-Purge-Method: regex` |
//! | WordPress (W3 Total Cache), by expressions | `PURGE /.*` |
//! | FOSHttpCache, Shopware, Drupal, for tags | `PURGE`, `PURGEKEYS` or `BAN` with `xkey-purge`, `xkey-softpurge`, `xkey`, `Surrogate-Key`, `Cache-Tags`, `Purge-Cache-Tags` or `Cache-Tag` |
//! | FOSHttpCache, TYPO3, by expressions | `BAN` with `X-Host`, `X-Url`, `X-Cache-Tags` |
//! | API Platform | `BAN` with `ApiPlatform-Ban-Regex` |
//! | Drupal (Varnish Purger), by expressions | `BAN /expression` |
//! | Magento | `PURGE` with `X-Magento-Tags-Pattern` |
//! | Fastly's clients | `PURGE /path`; `POST /purge/HOST/PATH`, `/service/ID/purge/KEY`, `/service/ID/purge` with Surrogate-Key or JSON, `/service/ID/purge_all`; `Fastly-Soft-Purge: 1` |
//! | Cloudflare's clients | `POST /client/v4/zones/ID/purge_cache` with JSON |

use cache_policy::{LONGEST_TAG, text_of_field};
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use serde::Deserialize;

use super::PurgeRequest;
use crate::settings::Listen;

/// Whose words a purge is sent in, and so answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Varnish,
    Fastly,
    Cloudflare,
}

impl Dialect {
    /// The dialect of a request; `None` for one that is no purge.
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        if Self::is_method(method) {
            return Some(Self::Varnish);
        }
        if method == Method::POST && path.strip_prefix(SINGLE_URL).is_some_and(|url| !url.is_empty()) {
            return Some(Self::Fastly);
        }
        let mut parts = path.trim_matches('/').split('/').skip_while(|part| matches!(*part, "client" | "v4"));
        match (method, parts.next()?, parts.next().is_some(), parts.next()?) {
            (&Method::POST, "service", true, "purge" | "purge_all") => Some(Self::Fastly),
            (&Method::POST, "zones", true, "purge_cache") => Some(Self::Cloudflare),
            _ => None,
        }
    }

    /// Whether a method means nothing but a purge.
    pub fn is_method(method: &Method) -> bool {
        matches!(method.as_str(), "PURGE" | "BAN" | "PURGEKEYS")
    }

    /// What the client is told of a purge that is done; `id` is the request's.
    pub fn done(self, purged: usize, id: &str) -> serde_json::Value {
        match self {
            Self::Varnish => serde_json::json!({ "purged": purged }),
            Self::Fastly => serde_json::json!({ "status": "ok", "id": id }),
            Self::Cloudflare => {
                serde_json::json!({ "success": true, "errors": [], "messages": [], "result": { "id": id } })
            }
        }
    }
}

/// A purge as a plugin sends it.
pub struct ForeignPurge<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub content: &'a [u8],
    /// Where clients reach what is stored: plugins ask by clear text for what is stored for TLS, and the reverse.
    pub listeners: &'a [Listen],
}

impl ForeignPurge<'_> {
    /// What is to be purged.
    ///
    /// # Errors
    /// What is wrong with it, for whoever runs the plugin.
    pub fn read(&self, dialect: Dialect) -> Result<PurgeRequest, String> {
        let mut purge = match dialect {
            Dialect::Varnish => self.varnish()?,
            Dialect::Fastly => self.fastly()?,
            Dialect::Cloudflare => return self.cloudflare(),
        };
        purge.soft |= self.text("fastly-soft-purge").is_some_and(|value| value.trim() == "1");
        Ok(purge)
    }

    fn varnish(&self) -> Result<PurgeRequest, String> {
        let mut purge = PurgeRequest::default();
        let is_ban = self.method.as_str() == "BAN";
        let lines = |name| self.headers.get_all(name).iter();
        let mut patterns: Vec<_> = TAG_PATTERNS.into_iter().flat_map(lines).collect();
        // What is named in both ways is gone.
        let (mut names_soft, mut names_hard) = (false, !patterns.is_empty());
        for name in TAG_WORDS {
            // A ban compares them with the field of answers, where they may be expressions: each line by itself.
            let (expressions, lists): (Vec<_>, Vec<_>) = lines(name)
                .partition(|line| is_ban && line.as_bytes().iter().any(|octet| b"^$([*+?\\".contains(octet)));
            let tags = words(lists);
            let names_any = !tags.is_empty() || !expressions.is_empty();
            names_soft |= names_any && name == SOFT_KEYS;
            names_hard |= names_any && name != SOFT_KEYS;
            patterns.extend(expressions);
            purge.tags.extend(tags);
        }
        purge.soft |= names_soft && !names_hard;
        for pattern in patterns {
            match words_of_pattern(&text_of_field(pattern.as_bytes())) {
                Some(tags) => purge.tags.extend(tags),
                None => purge.everything = true,
            }
        }
        if !purge.tags.is_empty() || purge.everything {
            return Ok(purge);
        }
        if self.method.as_str() == "PURGEKEYS" {
            return Err("PURGEKEYS names no tag: send xkey-purge or xkey-softpurge".to_owned());
        }
        let expressions = (self.text("x-host"), self.text("x-url").or_else(|| self.text("x-ban-url")));
        if expressions != (None, None) {
            self.by_expressions(expressions, &mut purge);
            return Ok(purge);
        }
        let host = self.host()?;
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        if is_ban {
            // It matches anywhere in a path; who asks by the proxy's own address means the paths of every host.
            match is_address(&host) {
                true => purge.everything = true,
                false => purge.hosts.push(without_port(&host).to_owned()),
            }
            return Ok(purge);
        }
        let is_expression =
            self.text("x-purge-method").is_some_and(|method| method.eq_ignore_ascii_case("regex"))
                || self.text("x-purge-regex").is_some()
                || is_no_url(target);
        match is_expression {
            true => purge.hosts.push(without_port(&host).to_owned()),
            false => purge.urls = self.sites(&host).map(|site| format!("{site}{target}")).collect(),
        }
        Ok(purge)
    }

    /// `X-Host` and `X-Url` of a ban.
    fn by_expressions(&self, (host, url): (Option<String>, Option<String>), purge: &mut PurgeRequest) {
        let hosts = match host {
            None => self.host().ok().filter(|host| !is_address(host)).map(|host| vec![host]),
            Some(pattern) => hosts_of_pattern(&pattern),
        };
        // Without the names of the hosts nothing less can be named than everything.
        let Some(hosts) = hosts else {
            purge.everything = true;
            return;
        };
        let start = url.and_then(|url| beginning_of_path(&url)).unwrap_or_default();
        let sites = hosts.iter().flat_map(|host| self.sites(host).collect::<Vec<_>>());
        match start.is_empty() {
            true => purge.hosts = hosts.iter().map(|host| without_port(host).to_owned()).collect(),
            false => purge.prefixes = sites.map(|site| format!("{site}{start}")).collect(),
        }
    }

    fn fastly(&self) -> Result<PurgeRequest, String> {
        let mut purge =
            PurgeRequest { tags: words(self.headers.get_all("surrogate-key")), ..PurgeRequest::default() };
        if let Some(url) = self.uri.path().strip_prefix(SINGLE_URL) {
            // Some clients encode all of it as one segment.
            let url = if url.contains('/') { url.to_owned() } else { decoded(url)? };
            let query = self.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            purge.urls.extend(self.everywhere(bare(&format!("{url}{query}"))));
            return Ok(purge);
        }
        let mut parts = self.uri.path().trim_matches('/').split('/').skip(2);
        match (parts.next(), parts.next()) {
            (Some("purge_all"), _) => purge.everything = true,
            (_, Some(key)) => purge.tags.push(decoded(key)?),
            _ if !self.content.is_empty() => {
                let asked: FastlyPurge =
                    serde_json::from_slice(self.content).map_err(|error| error.to_string())?;
                purge.tags.extend(asked.surrogate_keys);
            }
            _ => {}
        }
        Ok(purge)
    }

    fn cloudflare(&self) -> Result<PurgeRequest, String> {
        let asked: CloudflarePurge =
            serde_json::from_slice(self.content).map_err(|error| error.to_string())?;
        let mut purge = PurgeRequest {
            tags: asked.tags,
            hosts: asked.hosts,
            everything: asked.purge_everything,
            ..PurgeRequest::default()
        };
        for file in asked.files {
            let (CloudflareFile::Url(url) | CloudflareFile::WithFields { url }) = file;
            purge.urls.extend(self.everywhere(bare(&url)));
        }
        for prefix in &asked.prefixes {
            purge.prefixes.extend(self.everywhere(bare(prefix)));
        }
        Ok(purge)
    }

    /// `host/path` on all sites of the host.
    fn everywhere(&self, text: &str) -> Vec<String> {
        let (host, path) = text.split_at(text.find(['/', '?']).unwrap_or(text.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        self.sites(host).map(|site| format!("{site}{path}")).collect()
    }

    /// Each scheme and port at which a host may be asked for.
    fn sites<'h>(&'h self, host: &'h str) -> impl Iterator<Item = String> + 'h {
        let name = without_port(host);
        let own = host[name.len()..].strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
        let mut ports: Vec<(bool, u16)> = vec![(false, 80), (true, 443)];
        ports.extend(own.into_iter().flat_map(|port| [(false, port), (true, port)]));
        ports.extend(self.listeners.iter().map(|listen| (listen.tls.is_some(), listen.address.port())));
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().map(move |(tls, port)| {
            let scheme = if tls { "https" } else { "http" };
            format!("{scheme}://{name}:{port}")
        })
    }

    fn host(&self) -> Result<String, String> {
        let named = self.uri.authority().map(|authority| authority.as_str().to_owned());
        let host = named.or_else(|| self.text(header::HOST.as_str()));
        host.filter(|host| !host.is_empty()).ok_or_else(|| "the purge names no Host".to_owned())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|line| text_of_field(line.as_bytes()).into())
    }
}

/// The words of lines of a field, however an app may set them off: what stands between commas, between white space, between bars,
/// and between any of these. Which of them its answers carry depends on the field that they have.
fn words<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for line in lines {
        for separators in [&b","[..], b" \t", b" \t,|"] {
            let parts = line.as_bytes().split(|octet| separators.contains(octet)).map(<[u8]>::trim_ascii);
            // What holds both a comma and white space, or is longer, no answer carries.
            let is_word = |part: &&[u8]| {
                let holds_both = part.contains(&b',') && part.iter().any(u8::is_ascii_whitespace);
                !part.is_empty() && part.len() <= LONGEST_TAG && !holds_both
            };
            words.extend(parts.filter(is_word).map(|part| text_of_field(part).into()));
        }
    }
    words.sort_unstable();
    words.dedup();
    words
}

/// Fields whose words are tags.
const TAG_WORDS: [&str; 7] =
    ["xkey-purge", SOFT_KEYS, "xkey", "surrogate-key", "cache-tags", "purge-cache-tags", "cache-tag"];
/// Fields whose expressions match tags.
const TAG_PATTERNS: [&str; 3] = ["x-magento-tags-pattern", "x-cache-tags", "apiplatform-ban-regex"];
/// What has one of these is stale from now on, and not gone.
const SOFT_KEYS: &str = "xkey-softpurge";

/// Before one URL that Fastly's clients purge.
const SINGLE_URL: &str = "/purge/";

#[derive(Default, Deserialize)]
#[serde(default)]
struct FastlyPurge {
    surrogate_keys: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CloudflarePurge {
    files: Vec<CloudflareFile>,
    tags: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    purge_everything: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CloudflareFile {
    Url(String),
    /// All variants go, whatever fields it names.
    WithFields {
        url: String,
    },
}

/// A URL without its scheme, which may be left out.
fn bare(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

/// A segment of a path with its percent-encoded octets as they are meant.
fn decoded(segment: &str) -> Result<String, String> {
    let mut octets = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hexadecimal = (first == b'%').then(|| after.get(..2)).flatten();
        let octet =
            hexadecimal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        octets.push(octet.unwrap_or(first));
        rest = if octet.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(octets).map_err(|_| format!("{segment:?} is no UTF-8"))
}

/// The host without its port.
fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').unwrap_or(0) } else { 0 };
    &host[..host[end..].find(':').map_or(host.len(), |colon| end + colon)]
}

/// Whether a host is the address of a machine, or its name in a network of its own, and so none that visitors ask for.
fn is_address(host: &str) -> bool {
    let name = without_port(host).trim_matches(['[', ']']);
    name.parse::<std::net::IpAddr>().is_ok() || !name.contains('.')
}

/// Whether a target has what no URL has unless it is encoded, or hardly any: it is an expression.
fn is_no_url(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.contains(['[', ']', '\\', '^', '{', '}', '|']) || target.contains(".*") || target.contains("(?")
}

/// The tags of which an expression matches any, as plugins join them: `((^|,)a(,|$))|((^|,)b(,|$))`, `(^|,)(a|b)(,|$)`. `None` where
/// it may match more: each has to begin and end where its tag does.
fn words_of_pattern(pattern: &str) -> Option<Vec<String>> {
    let mut marked = pattern.to_owned();
    for (frame, mark) in FRAMES {
        marked = marked.replace(frame, mark);
    }
    let mut words = Vec::new();
    read_words(&marked, (false, false), DEEPEST, &mut words)?;
    // In a field whose words white space parts too, an answer carries each part.
    let parts: Vec<String> =
        words.iter().filter_map(|word| word.split(' ').next()).map(str::to_owned).collect();
    words.extend(parts);
    words.sort_unstable();
    words.dedup();
    (!words.is_empty()).then_some(words)
}

/// What stands before and behind a tag in a list of them, and the marks that stand for it here. The last is FOSHttpCache's of old, which
/// had nothing before its tags and meant them whole.
const FRAMES: [(&str, &str); 9] = [
    ("(^|,)", "\u{1}"),
    ("(^|\\s|,)", "\u{1}"),
    ("(^|\\s)", "\u{1}"),
    ("(^|\\,)", "\u{1}"),
    ("(,|$)", "\u{2}"),
    ("(\\s|,|$)", "\u{2}"),
    ("($|\\s)", "\u{2}"),
    ("($|\\,)", "\u{2}"),
    ("(,.+)?$", "\u{3}"),
];

/// Alternatives and brackets within each other that are followed.
const DEEPEST: usize = 16;

/// Reads an expression that is made of words, alternatives and brackets, within what has begun and ends in any case. `None` where
/// it is more.
fn read_words(
    pattern: &str,
    (mut begins, mut ends): (bool, bool),
    deepest: usize,
    words: &mut Vec<String>,
) -> Option<()> {
    let deeper = deepest.checked_sub(1)?;
    let all = alternatives(pattern);
    if all.len() > 1 {
        return all.into_iter().try_for_each(|one| read_words(one, (begins, ends), deeper, words));
    }
    let mut rest = pattern;
    if let Some(behind) = rest.strip_prefix(['\u{1}', '^']) {
        (begins, rest) = (true, behind);
    }
    if let Some(before) = rest.strip_suffix('\u{3}') {
        (begins, ends, rest) = (true, true, before);
    } else if let Some(before) = rest.strip_suffix(['\u{2}', '$']) {
        (ends, rest) = (true, before);
    }
    if let Some(inside) = in_brackets(rest) {
        return read_words(inside, (begins, ends), deeper, words);
    }
    let word = literal(rest).filter(|word| begins && ends && !word.is_empty() && !word.contains(','))?;
    words.push(word);
    Some(())
}

/// What stands in brackets that hold all of it.
fn in_brackets(pattern: &str) -> Option<&str> {
    let inside = pattern.strip_prefix('(')?.strip_suffix(')')?;
    let mut depth = 0_usize;
    for letter in inside.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    (depth == 0).then_some(inside)
}

/// The text that an expression matches to the letter; `None` where it matches others too.
fn literal(pattern: &str) -> Option<String> {
    let mut text = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(letters.next().filter(|letter| !letter.is_ascii_alphanumeric())?),
            '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '*'
            | '+'
            | '?'
            | '.'
            | '^'
            | '$'
            | '|'
            | '\u{1}'..='\u{3}' => {
                return None;
            }
            letter => text.push(letter),
        }
    }
    Some(text)
}

/// The alternatives of an expression that stand in no brackets.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut all) = (0_usize, 0, Vec::new());
    for (at, letter) in pattern.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                all.push(&pattern[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    all.push(&pattern[begin..]);
    all
}

/// The hosts of which an expression matches any; `None` where it may match more than these names, whole.
fn hosts_of_pattern(pattern: &str) -> Option<Vec<String>> {
    let whole = pattern.strip_prefix('^')?.strip_suffix('$')?.replace("\\.", ".");
    // Plugins join names as they are: a point that nothing repeats is meant as one.
    if [".*", ".+", ".?", ".{"].iter().any(|repeated| whole.contains(repeated))
        || alternatives(&whole).len() > 1
    {
        return None;
    }
    let mut hosts = Vec::new();
    read_words(&whole.replace('.', "\\."), (true, true), DEEPEST, &mut hosts)?;
    Some(hosts)
}

/// The text with which every path begins that an expression matches; `None` where it may match in the middle of a path.
fn beginning_of_path(pattern: &str) -> Option<String> {
    let rest = pattern.strip_prefix('^')?;
    if rest.contains('|') {
        return None;
    }
    let mut start = String::new();
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        match letter {
            // The letter before may be missing.
            '?' | '*' | '{' => {
                start.pop();
                break;
            }
            '\\' => match letters.next().filter(|letter| !letter.is_ascii_alphanumeric()) {
                Some(letter) => start.push(letter),
                None => break,
            },
            '.' | '(' | ')' | '[' | ']' | '}' | '+' | '^' | '$' => break,
            letter => start.push(letter),
        }
    }
    start.starts_with('/').then_some(start)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn read(
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        content: &str,
    ) -> Result<PurgeRequest, String> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let dialect = Dialect::of(&head.method, head.uri.path()).expect("a purge");
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        ForeignPurge { method, uri, headers, content: content.as_bytes(), listeners: &[] }.read(dialect)
    }

    /// What is named, in one line: `u` URLs, `p` prefixes, `h` hosts, `t` tags; of sites those with TLS at 443.
    fn gist(purge: &PurgeRequest) -> String {
        let of = |mark: &str, named: &[String]| {
            let named: Vec<&str> = named
                .iter()
                .filter(|it| !it.starts_with("http:"))
                .map(|it| it.trim_start_matches("https://"))
                .collect();
            if named.is_empty() { String::new() } else { format!("{mark} {} ", named.join(" ")) }
        };
        let everything = if purge.everything { "everything " } else { "" };
        let soft = if purge.soft { "soft" } else { "" };
        let named = [("u", &purge.urls), ("p", &purge.prefixes), ("h", &purge.hosts), ("t", &purge.tags)];
        let named: String = named.map(|(mark, named)| of(mark, named)).concat();
        format!("{everything}{named}{soft}").trim_end().to_owned()
    }

    #[test]
    fn plugins_are_understood_and_never_given_less_than_they_ask_for() {
        let host = ("host", "a.test");
        for (method, target, fields, named) in [
            ("PURGE", "/x?y", &[host][..], "u a.test:443/x?y"),
            ("PURGE", "/blog/.*", &[host, ("x-purge-method", "regex")], "h a.test"),
            ("PURGE", "/.*", &[host, ("x-purge-method", "regex")], "h a.test"),
            ("PURGE", "/", &[host, ("xkey", "a b")], "t a a b b"),
            ("PURGE", "/", &[host, ("xkey-softpurge", "a,b")], "t a a,b b soft"),
            ("PURGE", "/", &[host, ("xkey-softpurge", "a"), ("xkey", "b")], "t a b"),
            (
                "PURGE",
                "/",
                &[host, ("xkey-softpurge", "a"), ("x-magento-tags-pattern", ".*")],
                "everything t a",
            ),
            ("BAN", "/", &[host, ("xkey-softpurge", "a"), ("xkey-softpurge", "b.*")], "everything t a soft"),
            ("PURGE", "/x", &[host, ("fastly-soft-purge", "1")], "u a.test:443/x soft"),
            ("PURGEKEYS", "/", &[host, ("xkey-purge", "a b")], "t a a b b"),
            ("PURGE", "/", &[host, ("surrogate-key", "a,b")], "t a a,b b"),
            ("PURGE", "/", &[host, ("xkey", "t1 k\u{e4}se")], "t käse t1 t1 käse"),
            ("PURGE", "/.*", &[host], "h a.test"),
            ("PURGE", "/([a-z0-9_\\-]*?)sitemap\\.(?:xml|xsl)", &[host], "h a.test"),
            ("PURGE", "/wiki/Kettle_(blue)", &[host], "u a.test:443/wiki/Kettle_(blue)"),
            ("BAN", "/", &[host, ("cache-tags", "node:1|node_list")], "t node:1 node:1|node_list node_list"),
            ("BAN", "/", &[host, ("purge-cache-tags", "node:1")], "t node:1"),
            ("BAN", "/", &[host, ("apiplatform-ban-regex", "(^|\\,)/books/1($|\\,)")], "t /books/1"),
            ("BAN", "/", &[host, ("x-cache-tags", "(^|,)(my tag)(,|$)")], "t my my tag"),
            ("BAN", "/", &[host, ("x-cache-tags", "t1")], "everything"),
            ("BAN", "/", &[host, ("x-cache-tags", "(^|,)a(,|$)|b")], "everything"),
            ("BAN", "/", &[host, ("x-cache-tags", "a,b")], "everything"),
            ("BAN", "/", &[host, ("x-cache-tags", "(^|,)a,b(,|$)")], "everything"),
            ("BAN", "/", &[host, ("x-cache-tags", "-product(,|$)")], "everything"),
            ("BAN", "/", &[host, ("x-cache-tags", "(^|,)a(^|,)b(,|$)")], "everything"),
            ("PURGE", "/", &[host, ("x-magento-tags-pattern", "((^|,)cat_p_|(^|,)b(,|$))")], "everything"),
            ("BAN", "/", &[host, ("cache-tags", "(^|\\s)node:1($|\\s)")], "t node:1"),
            ("BAN", "/", &[host, ("cache-tags", "node:.*")], "everything"),
            ("BAN", "/", &[host, ("cache-tags", "a"), ("cache-tags", "node:.*")], "everything t a"),
            ("BAN", "/", &[host, ("cache-tags", "(^|,)a(,|$)"), ("cache-tags", "b")], "t b a"),
            (
                "PURGE",
                "/",
                &[host, ("x-magento-tags-pattern", "(^|,)a(,|$)"), ("x-magento-tags-pattern", ".*")],
                "everything t a",
            ),
            ("BAN", "/news", &[("host", "varnish:6081")], "everything"),
            ("PURGE", "/x?filter[a]=1", &[host], "u a.test:443/x?filter[a]=1"),
            ("BAN", "/", &[host, ("x-host", "a\\.test")], "everything"),
            ("BAN", "/", &[host, ("x-host", "^a\\.test$"), ("x-url", "/news/")], "h a.test"),
            (
                "BAN",
                "/",
                &[host, ("x-host", "^(a.test|b.test)$"), ("x-url", "^/x$")],
                "p a.test:443/x b.test:443/x",
            ),
            ("BAN", "/", &[host, ("x-host", "^(a|b).*$")], "everything"),
            ("BAN", "/", &[("host", "127.0.0.1:6081"), ("x-url", "^/x")], "everything"),
            ("BAN", "/.*", &[("host", "[::1]:6081")], "everything"),
            ("BAN", "/", &[host, ("cache-tags", "node:1 node_list")], "t node:1 node:1 node_list node_list"),
            ("BAN", "/", &[host, ("x-cache-tags", "(tag\\-1|b)(,.+)?$")], "t b tag-1"),
            ("BAN", "/", &[host, ("x-cache-tags", "a.*")], "everything"),
            ("BAN", "/", &[host, ("x-host", ".*"), ("x-url", "/news/.*")], "everything"),
            (
                "BAN",
                "/",
                &[host, ("x-host", "^(www\\.a\\.test|b\\.test)$"), ("x-url", "^/news/[0-9]+$")],
                "p www.a.test:443/news/ b.test:443/news/",
            ),
            ("BAN", "/", &[host, ("x-url", "\\.png$")], "h a.test"),
            ("BAN", "/", &[host, ("x-url", "^/ab?c")], "p a.test:443/a"),
            ("BAN", "/", &[host, ("x-url", "^/a|^/b")], "h a.test"),
            ("BAN", "/shop/.*", &[host], "h a.test"),
            (
                "PURGE",
                "/",
                &[host, ("x-magento-tags-pattern", "((^|,)cat_p_1(,|$))|((^|,)cms_b(,|$))")],
                "t cat_p_1 cms_b",
            ),
            ("PURGE", "/", &[host, ("x-magento-tags-pattern", ".*")], "everything"),
            ("POST", "/service/ID/purge_all", &[host], "everything"),
            ("POST", "/service/ID/purge/one", &[host, ("fastly-soft-purge", "1")], "t one soft"),
            ("POST", "/service/ID/purge", &[host, ("surrogate-key", "a b")], "t a a b b"),
        ] {
            let purge =
                read(method, target, fields, "").unwrap_or_else(|error| panic!("{fields:?}: {error}"));
            assert_eq!(gist(&purge), named, "{method} {target} {fields:?}");
        }
        // All of a long list is longer than a tag may be.
        let many: Vec<String> = (0..300).map(|number| format!("product-{number}")).collect();
        for between in [" ", ",", "|"] {
            let purge = read("BAN", "/", &[host, ("cache-tags", &many.join(between))], "").unwrap();
            assert_eq!(purge.tags.len(), many.len(), "{between:?}");
        }
        let deep = "(".repeat(20_000);
        assert!(read("BAN", "/", &[host, ("x-cache-tags", &deep)], "").unwrap().everything);
        // A tag with a colon reached the edge as `product%3A1`, which nothing carries.
        for (target, content, named) in [
            ("/purge/a.test/x?y", "", "u a.test:443/x?y"),
            ("/purge/https:%2F%2Fa.test%2Fx", "", "u a.test:443/x"),
            ("/service/ID/purge/product%3A1", "", "t product:1"),
            ("/service/ID/purge", r#"{"surrogate_keys": ["a", "b c"]}"#, "t a b c"),
        ] {
            assert_eq!(gist(&read("POST", target, &[host], content).unwrap()), named, "{target} {content}");
        }
        assert!(read("POST", "/service/ID/purge", &[host], "{").is_err());
        assert!(read("PURGE", "/", &[], "").unwrap_err().contains("no Host"));
        assert!(read("PURGEKEYS", "/", &[host], "").unwrap_err().contains("xkey-purge"));
    }

    #[test]
    fn cloudflares_clients_name_files_tags_prefixes_and_hosts() {
        let purge =
            |content: &str| read("POST", "/client/v4/zones/ID/purge_cache", &[("host", "edge")], content);
        for (content, named) in [
            (r#"{"purge_everything": true}"#, "everything"),
            (
                r#"{"files": ["http://a.test/x?y", "a.test?q", {"url": "https://a.test", "headers": {"Origin": "b"}}]}"#,
                "u a.test:443/x?y a.test:443/?q a.test:443/",
            ),
            (
                r#"{"prefixes": ["a.test/img/"], "hosts": ["b.test"], "tags": ["t1"]}"#,
                "p a.test:443/img/ h b.test t t1",
            ),
        ] {
            assert_eq!(gist(&purge(content).unwrap()), named);
        }
        assert!(purge("{").is_err());
    }

    #[test]
    fn one_url_is_purged_for_every_scheme_and_port_at_which_it_may_be_stored() {
        let fields = [("host", "a.test:8080")];
        let purge = read("PURGE", "/x", &fields, "").unwrap();
        let sites = ["http://a.test:80", "http://a.test:8080", "https://a.test:443", "https://a.test:8080"];
        assert_eq!(purge.urls, sites.map(|site| format!("{site}/x")));
        assert_eq!(without_port("[::1]:80"), "[::1]");
    }

    #[test]
    fn other_requests_are_no_purges() {
        for (method, path) in
            [("POST", "/zones"), ("GET", "/service/a/purge"), ("POST", "/service/a/x"), ("DELETE", "/")]
        {
            assert_eq!(Dialect::of(&method.parse().unwrap(), path), None, "{method} {path}");
        }
    }
}
