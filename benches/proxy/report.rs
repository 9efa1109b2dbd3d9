//! The tables: what was measured, and the goals that it is held against.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::common::parts::part;
use super::load::{Load, Sample, float};
use super::memory::{Memory, UPLOADS};
use super::proxies::Kind;
use super::slow::Beside;

/// The medians of one load on one target.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) kind: Kind,
    pub(crate) sample: Sample,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) memory: Vec<Memory>,
    /// The seconds that a SHA-256 pass over 1 MiB takes.
    pub(crate) hashing: f64,
    /// What slow clients do to others of ours.
    pub(crate) beside: Beside,
    /// How long ours took from its start to its first answer.
    pub(crate) started: Duration,
}

/// A goal, and whether it is reached.
struct Goal {
    what: &'static str,
    bar: String,
    measured: String,
    holds: bool,
}

impl Report {
    /// Prints the tables; tells whether every goal is reached.
    pub(crate) fn print(&self) -> bool {
        let goals = self.goals();
        println!("| goal | bar | measured | |\n|---|---|---|---|");
        for Goal {
            what,
            bar,
            measured,
            holds,
        } in &goals
        {
            let verdict = if *holds { "reached" } else { "**missed**" };
            println!("| {what} | {bar} | {measured} | {verdict} |");
        }
        println!(
            "\n| memory, MiB | idle | peak of 16 uploads of 100 MiB | 10 s later |\n|---|--:|--:|--:|"
        );
        for memory in &self.memory {
            let [idle, peak, settled] = [memory.idle, memory.peak(), memory.settled].map(mebibytes);
            println!("| {} | {idle} | {peak} | {settled} |", memory.kind);
        }
        println!(
            "\n| body, connections | proxy | requests/s | p50, ms | p99, ms | CPU-s per 10,000 | peak, MiB |\n\
             |---|---|--:|--:|--:|--:|--:|"
        );
        for Row { load, kind, sample } in &self.rows {
            line(*load, *kind, sample);
        }
        for memory in &self.memory {
            line(UPLOADS, memory.kind, &memory.uploads);
        }
        goals.iter().all(|goal| goal.holds)
    }

    fn sample(&self, body: usize, connections: usize, kind: Kind) -> &Sample {
        let is_it = |row: &&Row| {
            let load = row.load;
            row.kind == kind && load.body == body && load.connections == connections
        };
        &self.rows.iter().find(is_it).expect("it is measured").sample
    }

    /// Returns the processor time of one request, in seconds.
    fn processor(&self, body: usize, connections: usize, kind: Kind) -> f64 {
        let sample = self.sample(body, connections, kind);
        sample.processor.expect("a proxy has a process")
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = self.goals_of_small_requests();
        goals.push(self.goal_of_bodies());
        goals.extend(self.goals_of_memory());
        goals.extend(self.goals_of_trouble());
        goals
    }

    fn goals_of_small_requests(&self) -> Vec<Goal> {
        let [ours, envoy] = [Kind::Ours, Kind::Envoy].map(|it| self.sample(0, 32, it).rate);
        let [own, floor] = [Kind::Ours, Kind::Haproxy].map(|it| self.processor(0, 32, it));
        let [slow, least] = [Kind::Ours, Kind::Haproxy].map(|it| self.sample(0, 1, it).p99);
        vec![
            Goal {
                what: "requests/s of 32 connections, beside Envoy",
                bar: format!("2.5 times {}", grouped(envoy)),
                measured: format!("{:.2} times: {}", ours / envoy, grouped(ours)),
                holds: ours >= 2.5 * envoy,
            },
            Goal {
                what: "processor time of 32 connections, beside haproxy",
                bar: format!("1.4 times {} s per 10,000", digits(floor * 1e4)),
                measured: format!("{:.2} times: {} s", own / floor, digits(own * 1e4)),
                holds: own <= 1.4 * floor,
            },
            Goal {
                what: "p99 of one connection, beside haproxy",
                bar: format!("{least:.3} ms + 0.05 ms"),
                measured: format!("{slow:.3} ms"),
                holds: slow <= least + 0.05,
            },
        ]
    }

    fn goal_of_bodies(&self) -> Goal {
        let [own, haproxy, nginx] = [Kind::Ours, Kind::Haproxy, Kind::Nginx]
            .map(|kind| self.processor(super::HASHED, 8, kind) * 1e3);
        let floor = haproxy.min(nginx);
        let hashing = self.hashing * 1e3;
        Goal {
            what: "processor time of a body of 1 MiB, beside the lower of haproxy and nginx",
            bar: format!("{floor:.2} ms + {hashing:.2} ms, a SHA-256 pass"),
            measured: format!("{own:.2} ms"),
            holds: own <= floor + hashing,
        }
    }

    fn goals_of_trouble(&self) -> [Goal; 2] {
        let Beside { alone, beside } = self.beside;
        [
            Goal {
                what: "p99 of one connection beside 1,000 slow clients",
                bar: format!("{alone:.3} ms, without them, + 10 ms"),
                measured: format!("{beside:.3} ms"),
                holds: beside <= alone + 10.0,
            },
            Goal {
                what: "from the start of the process to its first answer",
                bar: "1 s".to_owned(),
                measured: format!("{} ms", self.started.as_millis()),
                holds: self.started < Duration::from_secs(1),
            },
        ]
    }

    fn goals_of_memory(&self) -> [Goal; 3] {
        let is_ours = |memory: &&Memory| memory.kind == Kind::Ours;
        let ours = self.memory.iter().find(is_ours).expect("it is measured");
        let at_most = |what, bar: u64, measured: u64| Goal {
            what,
            bar: format!("{} MiB", mebibytes(bar)),
            measured: format!("{} MiB", mebibytes(measured)),
            holds: measured <= bar,
        };
        [
            at_most("memory, idle", 10 << 20, ours.idle),
            at_most(
                "peak of 16 uploads of 100 MiB at once: the budget",
                256 << 20,
                ours.peak(),
            ),
            at_most(
                "10 s later: idle + 8 MiB",
                ours.idle + (8 << 20),
                ours.settled,
            ),
        ]
    }
}

fn line(load: Load, kind: Kind, sample: &Sample) {
    let rate = grouped(sample.rate);
    let [p50, p99] = [sample.p50, sample.p99].map(digits);
    let processor = sample.processor.map(|it| digits(it * 1e4));
    let processor = processor.unwrap_or_default();
    let peak = sample.peak.map(mebibytes).unwrap_or_default();
    println!("| {load} | {kind} | {rate} | {p50} | {p99} | {processor} | {peak} |");
}

/// Returns what this was measured on and with.
pub(crate) fn machine() -> anyhow::Result<String> {
    let information = fs::read_to_string("/proc/cpuinfo")?;
    let mut models = information
        .lines()
        .filter_map(|it| it.strip_prefix("model name"));
    let cores = models.clone().count();
    let model = models.next_back().unwrap_or(": unknown");
    let mut lines = vec![format!("{cores} cores{}", model.replace('\t', ""))];
    for (name, option) in [
        ("envoy", "--version"),
        ("haproxy", "-v"),
        ("nginx", "-v"),
        ("wrk", "-v"),
    ] {
        let program = part(name);
        let output = Command::new(&program).arg(option).output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let line = said.lines().find(|line| !line.trim().is_empty());
        // Envoy's begins with where it is.
        let line = line
            .context(name)?
            .replace(&*program.to_string_lossy(), name);
        lines.push(line.trim().to_owned());
    }
    Ok(lines.join("\n"))
}

/// Spells bytes in MiB.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", float(bytes) / 1_048_576.0)
}

/// Spells a number with three digits that say something.
fn digits(number: f64) -> String {
    match number {
        _ if number >= 100.0 => format!("{number:.0}"),
        _ if number >= 10.0 => format!("{number:.1}"),
        _ if number >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// Spells a number with its thousands apart.
fn grouped(number: f64) -> String {
    if number < 1000.0 {
        return digits(number);
    }
    let plain = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
