//! What was measured, beside the targets and the predictions, as tables: for a terminal and for `docs/capacity.md`.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    DEPLOYMENTS, Results, Run,
    model::{Model, Servers},
    programs::Cpu,
    visitor::Step,
};
use crate::browser::Slowness;

/// What the document keeps between these lines is written anew.
const FROM: &str = "<!-- make load writes what follows -->\n";
const TO: &str = "<!-- make load has written what precedes -->\n";
/// Of the guide's commands: requests a second at least, milliseconds and percent of failures at most.
const GUIDE: (f64, f64, f64) = (100.0, 300.0, 0.5);
/// Processors of a server for which the model is asked.
const CORES: [u32; 3] = [2, 4, 8];
/// Of all visitors those who buy: the measured crowds, and a busy shop's.
const BUYERS: [f64; 2] = [1.0, 0.1];

/// One of the six targets, beside what was measured.
#[derive(Debug)]
pub struct Verdict {
    /// The target, in words.
    pub target: &'static str,
    /// With its unit.
    pub measured: String,
    /// Whether it is met.
    pub met: bool,
}

/// The six targets of the capacity guide.
pub const TARGETS: [&str; 6] = [
    "response (p95) < 200 ms",
    "database (p95) < 50 ms",
    "errors < 0.1 %",
    "processors < 70 %",
    "memory < 1 GB",
    "connections < 30",
];

impl Run {
    /// In the order of [`TARGETS`].
    #[must_use]
    pub fn verdicts(&self, cores: u32) -> [Verdict; 6] {
        let (response, errors) = (self.account.latency(0.95), self.account.fault_share() * 100.0);
        let busy = self.cpu.all() / f64::from(cores) * 100.0;
        let database = match &self.slowest {
            Some((query, longest)) => {
                (format!("{} ms ({query})", milliseconds(*longest)), *longest < Duration::from_millis(50))
            }
            // Nothing was promised of what was not seen.
            None => ("too few queries".to_owned(), false),
        };
        let all = [
            (format!("{} ms", milliseconds(response)), response < Duration::from_millis(200)),
            database,
            (format!("{errors:.2} %"), errors < 0.1),
            (format!("{busy:.0} %"), busy < 70.0),
            (format!("{} MB", self.seen.kib * 1024 / 1_000_000), self.seen.kib * 1024 < 1_000_000_000),
            (self.seen.in_use.to_string(), self.seen.in_use < 30),
        ];
        let mut targets = TARGETS.into_iter();
        all.map(|(measured, met)| Verdict { target: targets.next().unwrap_or_default(), measured, met })
    }
}

impl Results {
    /// All tables, as Markdown.
    #[must_use]
    pub fn tables(&self) -> String {
        let first = DEPLOYMENTS[0].name;
        let think = (self.scale.think.start + self.scale.think.end) / 2;
        let smallest = self.runs.iter().find(|run| run.deployment.name == first);
        let mut text = self.crowds();
        text += &self.guide();
        text += &self.paints();
        if let Some(smallest) = smallest {
            let model = Model::new(&self.costs, &smallest.account, think);
            text += &self.steps(&model);
            text += &self.predictions(&model);
            text += &Self::capacity(&model);
        }
        text
    }

    fn crowds(&self) -> String {
        let Self { cores, load_before, scale, .. } = self;
        let mut text = format!(
            "### Crowds\n\n{cores} processors, which the visitors use as well; load average before the run: {load_before}. Each crowd was \
             measured for {} s, with {} to {} s of thinking between two steps, and every visitor buys. Processors, memory and connections are \
             those of edge, origin and PostgreSQL together.\n\n",
            scale.measure.as_secs(),
            scale.think.start.as_secs_f64(),
            scale.think.end.as_secs_f64(),
        );
        let _ = writeln!(
            text,
            "| servers | users | visits/min | requests/s | {} | edge / origin / PostgreSQL / visitors |",
            TARGETS.join(" | ")
        );
        text += &rule(5 + TARGETS.len());
        for run in &self.runs {
            let verdicts: Vec<String> = run
                .verdicts(*cores)
                .iter()
                .map(|verdict| format!("{}, {}", verdict.measured, passed(verdict.met)))
                .collect();
            let seconds = run.account.during.as_secs_f64();
            let Cpu { edge, origin, postgres } = run.cpu;
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {:.0} | {} | {edge:.2} / {origin:.2} / {postgres:.2} / {:.2} |",
                run.deployment.name,
                run.users,
                run.account.visits() as f64 / seconds * 60.0,
                run.account.asked().count() as f64 / seconds,
                verdicts.join(" | "),
                run.visitors,
            );
        }
        text += "\n";
        for run in &self.runs {
            let faults = run.account.faults();
            if let Some(first) = faults.first() {
                let _ = writeln!(
                    text,
                    "{}, {} users: {} requests failed, such as: {first}\n",
                    run.deployment.name,
                    run.users,
                    faults.len()
                );
            }
        }
        text
    }

    fn guide(&self) -> String {
        let (least, longest, most) = GUIDE;
        let mut text = format!(
            "### The guide's commands\n\n| command | answered | errors < {most} % | requests/s > {least:.0} | p95 < {longest:.0} ms |\n{}",
            rule(5)
        );
        for guide in &self.guide {
            let load = guide.load;
            let failures = (load.failed + load.not_2xx) as f64 / (load.complete.max(1)) as f64 * 100.0;
            let p95 = load.p95.unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "| `{}` | {} | {failures:.2} %, {} | {:.0}, {} | {p95:.0} ms, {} |",
                guide.command,
                load.complete,
                passed(failures < most),
                load.per_second,
                passed(load.per_second > least),
                passed(p95 < longest),
            );
        }
        text + "\n"
    }

    fn paints(&self) -> String {
        let Slowness { bits_per_second, latency, processor } = self.scale.slowness;
        let mut text = format!(
            "### The largest paint\n\nChromium, {} Mbit/s, {} ms, a processor {processor} times slower than this machine's; nothing kept of an \
             earlier visit; median of {}.\n\n| page | screen | measured | aim |\n{}",
            f64::from(bits_per_second) / 1e6,
            latency.as_millis(),
            self.scale.paints,
            rule(4)
        );
        for paint in &self.paints {
            let (at, aim) = (paint.at.as_secs_f64(), paint.aim.as_secs_f64());
            let met = passed(paint.at < paint.aim);
            let _ = writeln!(text, "| {} | {} | {at:.2} s, {met} | {aim:.1} s |", paint.page, paint.screen);
        }
        text + "\n"
    }

    fn steps(&self, model: &Model<'_>) -> String {
        let mut text = format!(
            "### What a step costs\n\nMilliseconds of processor time, edge / origin / PostgreSQL, with everything that belongs to the step; at rest the \
             programs use {:.3} processors.\n\n\
             | step | caches answer what they may | they ask the origin | share of hits with {} users |\n{}",
            self.costs.rest.all(),
            self.scale.crowds.first().copied().unwrap_or_default(),
            rule(4)
        );
        let each =
            |cpu: Cpu| format!("{:.2} / {:.2} / {:.2}", cpu.edge * 1e3, cpu.origin * 1e3, cpu.postgres * 1e3);
        for cost in &self.costs.steps {
            let share = match cost.step {
                Step::SignIn => "–".to_owned(),
                step => format!("{:.0} %", model.hit_share(step) * 100.0),
            };
            let (hit, miss) = (each(cost.hit), each(cost.miss));
            let _ = writeln!(text, "| {} | {hit} | {miss} | {share} |", cost.step.name());
        }
        let visit = model.visit(1.0);
        let _ = writeln!(
            text,
            "\nA visit with an order: {} ms, {:.1} s long.\n",
            each(visit),
            model.visit_seconds(1.0)
        );
        text
    }

    fn predictions(&self, model: &Model<'_>) -> String {
        let mut text = format!(
            "### Predicted and measured\n\n| servers | users | steps/s predicted | measured | processors predicted | measured | measured/predicted |\n{}",
            rule(7)
        );
        for run in &self.runs {
            let (predicted, measured) = (model.cpu(run.users).all(), run.cpu.all());
            let _ = writeln!(
                text,
                "| {} | {} | {:.1} | {:.1} | {predicted:.2} | {measured:.2} | {:.2} |",
                run.deployment.name,
                run.users,
                model.steps_per_second(run.users),
                run.account.steps_per_second(),
                measured / predicted,
            );
        }
        text + "\n"
    }

    fn capacity(model: &Model<'_>) -> String {
        let mut text = format!(
            "### Users at 70 % of the processors, by the model\n\n| servers | processors each | every visitor buys | one in ten buys |\n{}",
            rule(4)
        );
        let one: fn(u32) -> Servers = |cores| Servers::One { cores };
        let three: fn(u32) -> Servers = |cores| Servers::Three { cores };
        let kinds = [("one for everything", one), ("one for edge and database, three for the origin", three)];
        for (name, servers) in kinds {
            for cores in CORES {
                let [all, few] = BUYERS.map(|buyers| rounded(model.users(servers(cores), buyers)));
                let _ = writeln!(text, "| {name} | {cores} | {all} | {few} |");
            }
        }
        text + "\n"
    }
}

/// The document with these tables in place of those that it had.
///
/// # Errors
/// When it has no place for them.
pub fn placed(document: &str, tables: &str) -> Result<String> {
    let (before, rest) = document.split_once(FROM).with_context(|| format!("no line {FROM}"))?;
    let (_, after) = rest.split_once(TO).with_context(|| format!("no line {TO}"))?;
    Ok(format!("{before}{FROM}\n{}\n\n{TO}{after}", tables.trim_end()))
}

fn passed(met: bool) -> &'static str {
    if met { "pass" } else { "**fail**" }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

/// Two digits: more would promise what no model holds.
fn rounded(users: f64) -> u64 {
    if !users.is_finite() || users < 10.0 {
        return 0;
    }
    let unit = 10_f64.powf(users.log10().floor() - 1.0);
    ((users / unit).floor() * unit) as u64
}

fn rule(columns: usize) -> String {
    format!("|{}\n", " --- |".repeat(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_keeps_what_is_around_its_tables() {
        let document = format!("before\n{FROM}old\n{TO}after\n");
        let once = placed(&document, "new\n").unwrap();
        assert_eq!(once, format!("before\n{FROM}\nnew\n\n{TO}after\n"));
        assert_eq!(placed(&once, "new").unwrap(), once);
        assert!(placed("nothing", "new").is_err());
    }

    #[test]
    fn promises_have_two_digits() {
        assert_eq!([1_234.0, 987.6, 45_678.0, 9.0, f64::NAN].map(rounded), [1_200, 980, 45_000, 0, 0]);
    }
}
