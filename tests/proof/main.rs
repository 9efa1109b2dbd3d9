//! Proves the figures that the README names, on real parts, and prints them.
//!
//! `--full` measures everything, and takes a machine of its own: some bars are times. Without it, as
//! among other tests, the sweep takes a sample of its points, and nothing is held against a clock.
//! Names of parts (`sweep`, `scale`) choose some. The exit code says whether every bar was reached.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed proof"
)]

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod opensearch;
    pub(crate) mod operator;
    pub(crate) mod oracle;
    pub(crate) mod parts;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod flood;
mod lane;
mod report;
mod revoked;
mod scale;
mod snapshot;
mod sweep;
mod workload;

use std::future::Future;
use std::process::ExitCode;
use std::time::Instant;

use report::Report;
use tokio::task::LocalSet;

/// The parts, in the order in which they are measured; the last two at the same time.
const PARTS: [&str; 7] = [
    "scale", "burst", "poison", "flood", "revoked", "idle", "sweep",
];

#[tokio::main]
async fn main() -> ExitCode {
    LocalSet::new().run_until(Box::pin(run())).await
}

async fn run() -> ExitCode {
    let (mut chosen, mut full) = (Vec::new(), false);
    for argument in std::env::args().skip(1) {
        // A tool that asks which tests there are is told of none.
        if argument == "--list" {
            return ExitCode::SUCCESS;
        }
        full |= argument == "--full";
        // The rest of what cargo passes to every test program does not concern this one.
        if !argument.starts_with('-') {
            chosen.push(argument);
        }
    }
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|it| it == part);
    let [scale, burst, poison, flood, revoked, idle, sweep] =
        PARTS.map(|part| wanted(part).then_some(part));
    // A time says something only where nothing else runs, and the largest take the longest.
    let [scale, poison, flood, revoked] =
        [scale, poison, flood, revoked].map(|part| part.filter(|_| full || !chosen.is_empty()));
    let mut report = Report::default();
    report.append(measured(scale, scale::cold_start(full)).await);
    report.append(measured(burst, scale::burst()).await);
    report.append(measured(poison, scale::poison()).await);
    report.append(measured(flood, flood::run()).await);
    report.append(measured(revoked, revoked::run()).await);
    let (idle, sweep) = tokio::join!(
        measured(idle, scale::idle()),
        measured(sweep, sweep::run(full))
    );
    report.append(idle);
    report.append(sweep);
    report.print();
    if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Measures one part, if it is wanted; one that fails leaves the others their turn.
async fn measured(part: Option<&str>, run: impl Future<Output = Report> + 'static) -> Report {
    let Some(part) = part else {
        return Report::default();
    };
    eprintln!("==> {part}");
    let began = Instant::now();
    let done = tokio::task::spawn_local(run).await;
    let report = done.unwrap_or_else(|error| {
        let mut report = Report::default();
        report.failed(part, error);
        report
    });
    eprintln!("==> {part} took {} s", began.elapsed().as_secs());
    report
}
