//! What the proxy costs beside Envoy, which signs as well, and beside haproxy and nginx, which do not.
//!
//! `make costs` installs those and prints the tables of the README; the exit code says whether every
//! goal is reached. By hand, once they are there: `cargo bench --bench proxy -- --quick` takes one
//! round only, and `--binary FILE` another build of the proxy.
//!
//! ```text
//!  core 1: load -> core 0: one of the proxies -> core 1: upstream
//! ```
//!
//! All proxies run all the time, with one thread for requests each, and are measured in turns: what
//! else happens on the machine meets all of them alike. Where the table says that there is no proxy,
//! the load goes to the upstream itself: what is near those figures was held up by them. As a test,
//! among others, it only shows that the proxy takes a load.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed benchmark"
)]

#[path = "../../tests/common"]
mod common {
    pub(crate) mod parts;
    pub(crate) mod process;
}

mod head;
mod load;
mod memory;
mod proxies;
mod report;
mod slow;
mod uploads;
mod upstream;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use opensearch_access::sigv4::Payload;

use self::load::{Load, Sample, measure};
use self::proxies::{Kind, Target};
use self::report::{Report, Row};

/// The core of everything but the proxies.
const CORE: &str = "1";

/// How often each load is put on each target; the medians count.
const ROUNDS: usize = 5;

/// The body whose costs are held against those of hashing it.
const HASHED: usize = 1 << 20;

const LOADS: [Load; 10] = [
    Load::for_a_second(0, 1),
    Load::for_a_second(0, 32),
    Load::for_a_second(0, 128),
    Load::for_a_second(10 << 10, 1),
    Load::for_a_second(10 << 10, 32),
    Load::for_a_second(10 << 10, 128),
    Load::uploads(HASHED, 1, 200),
    Load::uploads(HASHED, 8, 400),
    Load::uploads(20 << 20, 4, 12),
    Load::uploads(100 << 20, 1, 3),
];

/// Measures the proxy beside Envoy, haproxy and nginx.
#[derive(Debug, Parser)]
struct Options {
    /// One round instead of five: to see that it works, and about what comes out.
    #[arg(long)]
    quick: bool,
    /// The proxy's program, instead of the one that cargo built along with this.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_opensearch-access-proxy"))]
    binary: PathBuf,
    /// What cargo says to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let is_told = |what: &str| std::env::args().any(|argument| argument == what);
    if is_told("--bench") || is_told("--help") {
        return run(&Options::parse());
    }
    // A tool that asks which tests there are is told of none.
    if !is_told("--list") {
        show()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows that the proxy takes a load, with nothing installed and no times.
fn show() -> anyhow::Result<()> {
    let binary = Path::new(env!("CARGO_BIN_EXE_opensearch-access-proxy"));
    let target = Target::start(Kind::Ours, binary, false)?;
    measure(&target, Load::uploads(HASHED, 4, 16))?;
    println!("16 bodies of 1 MiB went through the proxy, signed");
    Ok(())
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    keep_to_core()?;
    let start = Instant::now();
    eprintln!("{}", report::machine()?);
    eprintln!("16 uploads of 100 MiB at once");
    let memory = memory::measure_all(&options.binary)?;
    let mut targets = vec![Target::direct()?];
    for kind in Kind::PROXIES {
        targets.push(Target::start(kind, &options.binary, true)?);
    }
    for target in &targets {
        measure(target, Load::for_a_second(0, 32))?;
    }
    let rounds = if options.quick { 1 } else { ROUNDS };
    let mut samples = vec![vec![Vec::new(); targets.len()]; LOADS.len()];
    let mut hashing = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        hashing.push(hashing_time()?);
        for (load, samples) in LOADS.into_iter().zip(&mut samples) {
            // Each comes first in some round.
            for turn in 0..targets.len() {
                let at = (turn + round) % targets.len();
                samples[at].push(measure(&targets[at], load)?);
            }
        }
    }
    let ours = targets.iter().find(|it| it.kind == Kind::Ours);
    let ours = ours.context("it is among them")?;
    let beside = slow::measure_beside(ours)?;
    let started = ours.started().context("it has a process")?;
    let mut rows = Vec::new();
    for (load, samples) in LOADS.into_iter().zip(&samples) {
        for (target, samples) in targets.iter().zip(samples) {
            rows.push(Row {
                load,
                kind: target.kind,
                sample: medians(samples),
            });
        }
    }
    let report = Report {
        rows,
        memory,
        hashing: median(hashing),
        beside,
        started,
    };
    let holds = report.print();
    eprintln!("\nmeasured in {} s", start.elapsed().as_secs());
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Keeps this program, and whatever it starts that is not told otherwise, off the proxies' core.
fn keep_to_core() -> anyhow::Result<()> {
    let own = std::process::id().to_string();
    let pinned = Command::new("taskset")
        .args(["-c", "-p", CORE, &own])
        .output()
        .context("failed to run taskset (util-linux)")?;
    let told = String::from_utf8_lossy(&pinned.stderr);
    ensure!(pinned.status.success(), "two cores are needed: {told}");
    Ok(())
}

/// Returns the seconds of processor time that a SHA-256 pass over a body takes.
fn hashing_time() -> anyhow::Result<f64> {
    const PASSES: u32 = 200;
    let body = vec![b'x'; HASHED];
    let before = proxies::processor_time(std::process::id())?;
    for _ in 0..PASSES {
        black_box(Payload::of(black_box(&body)));
    }
    let after = proxies::processor_time(std::process::id())?;
    Ok(after.saturating_sub(before).as_secs_f64() / f64::from(PASSES))
}

fn medians(samples: &[Sample]) -> Sample {
    let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value).collect());
    let processor: Vec<f64> = samples.iter().filter_map(|it| it.processor).collect();
    Sample {
        rate: of(|it| it.rate),
        p50: of(|it| it.p50),
        p99: of(|it| it.p99),
        processor: (!processor.is_empty()).then(|| median(processor)),
        peak: samples.iter().filter_map(|it| it.peak).max(),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
