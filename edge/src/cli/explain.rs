//! `edge explain URL`: why a running edge answers a request as it does, or what it would make of a given response.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::admin::ask;
use crate::{
    clock::Clock,
    explain::{Explanation, Question, dry},
    settings,
};

/// What to explain, and of which edge.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Absolute URL of the request
    url: String,
    /// The settings of the edge: its admin address and token are read from them
    #[arg(long, value_name = "FILE", default_value = "config/edge.toml")]
    config: PathBuf,
    /// A header line of the request, as curl takes it: 'Name: value'
    #[arg(short = 'H', long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// Method of the request
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// Ask no edge: say what would become of the response whose head is in this file (as `curl -i` prints it)
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
}

/// Prints the explanation.
pub fn run(arguments: Arguments) -> ExitCode {
    match explain(arguments) {
        Ok(explanation) => {
            print!("{}", text(&explanation));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn explain(arguments: Arguments) -> anyhow::Result<Explanation> {
    let Arguments { url, config, headers, method, response } = arguments;
    let headers = headers.iter().map(|line| field(line)).collect::<anyhow::Result<_>>()?;
    let question = Question { url, method, headers };
    let settings = settings::load(&config)?;
    let Some(file) = response else {
        return ask(&config, &settings, "/explain", &question);
    };
    let head = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let (status, fields) =
        parse(&head).with_context(|| format!("{} is no response's head", file.display()))?;
    dry(&settings, &question, status, &fields, Clock::system().wall()).map_err(anyhow::Error::msg)
}

fn field(line: &str) -> anyhow::Result<(String, String)> {
    let (name, value) =
        line.split_once(':').with_context(|| format!("{line:?}: write it as 'Name: value'"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A status line and header lines, up to the first empty line.
fn parse(head: &str) -> anyhow::Result<(StatusCode, HeaderMap)> {
    let mut lines = head.lines().map(str::trim_end).take_while(|line| !line.is_empty());
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/")?.split(' ').nth(1));
    let status: StatusCode =
        status.context("it does not begin with a status line such as HTTP/1.1 200 OK")?.parse()?;
    let fields = lines.map(|line| {
        let (name, value) = field(line)?;
        Ok((name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?))
    });
    let fields: Vec<(HeaderName, HeaderValue)> = fields.collect::<anyhow::Result<_>>()?;
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value);
    }
    Ok((status, headers))
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| text.push_str(&format!("{name:<10} {value}\n"));
    row("key", &explanation.key);
    row("route", &explanation.route);
    if let Some(variant) = &explanation.variant {
        row("variant", variant);
    }
    let reason = explanation.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    row("verdict", &format!("{}{reason}", explanation.verdict));
    if let Some(meaning) = &explanation.meaning {
        row("", meaning);
    }
    for line in &explanation.lines {
        row("decided by", line);
    }
    if let Some(freshness) = &explanation.freshness {
        let how = if freshness.left >= 0 { "fresh for" } else { "stale since" };
        row("lifetime", &format!("{} s by {}", freshness.lifetime, freshness.lifetime_from));
        row("age", &format!("{} s ({} s when it came)", freshness.age, freshness.age_at_arrival));
        row("left", &format!("{how} {} s", freshness.left.abs()));
        for (name, window) in [
            ("while refreshed", freshness.stale_while_revalidate),
            ("in place of an error", freshness.stale_if_error),
        ] {
            if let Some(window) = window {
                row("stale", &format!("for {window} s {name}"));
            }
        }
    }
    if !explanation.tags.is_empty() {
        row("tags", &explanation.tags.join(" "));
    }
    if let Some(remedy) = &explanation.remedy {
        row("remedy", remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_curl_prints_it() {
        let (status, fields) =
            parse("HTTP/2 200 \r\ncache-control: max-age=60\r\nvary: a\r\nvary: b\r\n\r\nbody: no\r\n")
                .unwrap();
        assert_eq!((status, fields.len()), (StatusCode::OK, 3));
        assert!(parse("cache-control: max-age=60").is_err());
    }
}
