//! The loads, and how one is put on a target and measured.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::common::parts::part;
use super::common::process::Process;
use super::proxies::Target;
use super::uploads;

/// How long `wrk` may take beyond the time that it is to run.
const PATIENCE: Duration = Duration::from_mins(2);

/// Requests of one kind, from several connections at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The length of the body in bytes; `GET` without one.
    pub(crate) body: usize,
    pub(crate) connections: usize,
    pub(crate) amount: Amount,
}

/// How many requests there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// As many as `wrk` gets answered in so many seconds.
    Seconds(u64),
    /// So many.
    Uploads(usize),
}

impl Load {
    pub(crate) const fn for_a_second(body: usize, connections: usize) -> Self {
        Self {
            body,
            connections,
            amount: Amount::Seconds(1),
        }
    }

    pub(crate) const fn uploads(body: usize, connections: usize, total: usize) -> Self {
        Self {
            body,
            connections,
            amount: Amount::Uploads(total),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, c={}", size(self.body), self.connections)
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0 => "none".to_owned(),
        _ if bytes < 1 << 20 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// What the clients saw; times in milliseconds.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Processor time of one request, in seconds; none where no process is measured.
    pub(crate) processor: Option<f64>,
    /// The most resident memory meanwhile, in bytes.
    pub(crate) peak: Option<u64>,
}

/// Puts a load on a target.
///
/// # Errors
///
/// Fails unless every request was answered by the upstream, and nothing else was sent to it.
pub(crate) fn measure(target: &Target, load: Load) -> anyhow::Result<Sample> {
    let told = || format!("{load}, through {}: {}", target.kind, target.log());
    target.forget_peak()?;
    let (before, answered) = (target.processor_time()?, target.upstream.answered());
    let outcome = match load.amount {
        Amount::Seconds(seconds) => wrk(target, load, seconds),
        Amount::Uploads(total) => {
            uploads::upload(target.address, load.body, load.connections, total)
        }
    };
    let outcome = outcome.with_context(told)?;
    let answered = target.upstream.answered() - answered;
    let after = target.processor_time()?;
    // The requests that were on their way when the time was over.
    let cut_off = u64::try_from(load.connections)?;
    ensure!(
        (outcome.requests..=outcome.requests + cut_off).contains(&answered),
        "{} answers to the clients, {answered} of the upstream: {}",
        outcome.requests,
        told()
    );
    let spent = after
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    Ok(Sample {
        rate: float(outcome.requests) / outcome.seconds,
        p50: outcome.p50,
        p99: outcome.p99,
        processor: spent.map(|it| it.as_secs_f64() / float(answered)),
        peak: target.peak()?,
    })
}

/// What `load.lua` says.
#[derive(Debug, Deserialize)]
struct Said {
    requests: u64,
    microseconds: u64,
    p50: u64,
    p99: u64,
    errors: u64,
}

fn wrk(target: &Target, load: Load, seconds: u64) -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/proxy/load.lua");
    let path = if load.body == 0 { "_search" } else { "_bulk" };
    let mut command = Command::new(part("wrk"));
    command.args([
        "--threads",
        "1",
        "--connections",
        &load.connections.to_string(),
    ]);
    command.args(["--duration", &format!("{seconds}s"), "--timeout", "60s"]);
    command.arg("--script").arg(script);
    command.arg(format!("http://{}/logs/{path}", target.address));
    command.args(["--", &load.body.to_string()]);
    let mut process = Process::spawn("wrk", &command, &log)?;
    let deadline = Instant::now() + Duration::from_secs(seconds) + PATIENCE;
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        ensure!(Instant::now() < deadline, "wrk does not end");
        thread::sleep(Duration::from_millis(10));
    };
    let text = fs::read_to_string(&log)?;
    ensure!(status.success(), "wrk ended with {status}: {text}");
    let line = text.lines().find(|line| line.starts_with('{'));
    let said: Said = serde_json::from_str(line.context(text.clone())?)?;
    ensure!(said.requests > 0 && said.errors == 0, "{text}");
    Ok(Outcome {
        requests: said.requests,
        seconds: float(said.microseconds) / 1e6,
        p50: float(said.p50) / 1e3,
        p99: float(said.p99) / 1e3,
    })
}

#[expect(clippy::cast_precision_loss, reason = "no count here is near 2^52")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}
