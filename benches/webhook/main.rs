//! What the webhook adds to making a pod, on a real API server.
//!
//! ```text
//! 200 pods a second ─► kube-apiserver ─TLS─► opensearch-access webhook
//! ```
//!
//! Pods that ask for a sidecar and pods that do not, in turns, as dry runs: nothing is stored, and everything
//! else is done. `cargo bench --bench webhook` prints the difference; the exit code says whether it is within
//! the bar. As a test, among others, it only shows that pods are made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed benchmark"
)]

#[path = "../../tests/common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

#[allow(dead_code, reason = "tests use another part of it")]
#[path = "../../tests/webhook/hook.rs"]
mod hook;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::interval;

use hook::{Hook, asking, plain};

/// How many pods a second.
const RATE: u32 = 200;

/// How long each kind is made.
const SPAN: Duration = Duration::from_secs(10);

/// What the webhook may add at the 99th percentile.
const BAR: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> ExitCode {
    let is_told = |what: &str| std::env::args().any(|argument| argument == what);
    if is_told("--list") {
        return ExitCode::SUCCESS;
    }
    let is_bench = is_told("--bench");
    let span = if is_bench {
        SPAN
    } else {
        Duration::from_secs(1)
    };
    let hook = Arc::new(Hook::start(&[]).await);
    hook.namespace("measured").await;
    // Connections and caches are there afterwards.
    measure(&hook, true, Duration::from_secs(1)).await;
    let without = measure(&hook, false, span).await;
    let with = measure(&hook, true, span).await;
    let shown = |what: &str, of: &[Duration]| {
        let [p50, p99] = [percentile(of, 50), percentile(of, 99)];
        println!("{what}: {} pods, p50 {p50:.1?}, p99 {p99:.1?}", of.len());
    };
    shown("without a sidecar", &without);
    shown("with a sidecar", &with);
    let added = percentile(&with, 99).saturating_sub(percentile(&without, 99));
    println!("the webhook adds {added:.1?} at p99 (bar {BAR:?}), at {RATE} pods a second");
    if is_bench && added > BAR {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Makes pods at the rate, however long each takes, and returns how long each took, sorted.
async fn measure(hook: &Arc<Hook>, asks: bool, span: Duration) -> Vec<Duration> {
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    let mut making = JoinSet::new();
    let client = hook.client();
    let total = u128::from(RATE) * span.as_millis() / 1000;
    for number in 0..total {
        ticks.tick().await;
        let name = format!("pod-{number}");
        let pod = if asks {
            asking(&name, "logs")
        } else {
            plain(&name)
        };
        let client = client.clone();
        making.spawn(async move {
            let began = Instant::now();
            let made = hook::try_out(&client, "measured", &pod).await.unwrap();
            let is_injected = made["spec"]["initContainers"].is_array();
            assert_eq!(is_injected, asks, "{made}");
            began.elapsed()
        });
    }
    let mut took = making.join_all().await;
    took.sort_unstable();
    took
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[at]
}
