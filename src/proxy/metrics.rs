//! What Prometheus sees of a proxy. No label says which path, client or identity.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::refusal::Refusal;
use super::reply::Cause;

/// The upper ends of the buckets of durations, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
];

/// The classes of statuses, by their first digit.
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    cause: &'static str,
}

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// By the first digit of the status.
    requests: [Counter; 5],
    seconds: Histogram,
    refusals: Family<Class, Counter>,
    refused: Family<Because, Counter>,
    retries: Family<Because, Counter>,
    connections: Gauge,
    taken: Gauge,
    expiry: Gauge<f64, AtomicU64>,
    ahead: Gauge,
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("opensearch_access_proxy");
        let requests = Family::<Status, Counter>::default();
        registry.register(
            "requests",
            "Requests by the class of their answer's status",
            requests.clone(),
        );
        let requests = STATUSES.map(|status| requests.get_or_create(&Status { status }).clone());
        let seconds = Histogram::new(SECONDS);
        let help = "From the head of a request to the head of its answer";
        registry.register_with_unit("request", help, Unit::Seconds, seconds.clone());
        let refusals = Family::<Class, Counter>::default();
        let help = "Requests that the proxy answered itself, by class";
        registry.register("refusals", help, refusals.clone());
        let refused = Family::<Because, Counter>::default();
        let help = "Requests that the domain refused, by cause";
        registry.register("refused_by_domain", help, refused.clone());
        let retries = Family::<Because, Counter>::default();
        registry.register(
            "retries",
            "Requests that were signed and sent again",
            retries.clone(),
        );
        let connections = Gauge::default();
        registry.register(
            "connections",
            "Open connections of clients",
            connections.clone(),
        );
        let taken = Gauge::default();
        let help = "Room that is taken for bodies";
        registry.register_with_unit("body_held", help, Unit::Bytes, taken.clone());
        let expiry = Gauge::<f64, AtomicU64>::default();
        let help = "When the credentials expire, in seconds since 1970; 0 without any, 9e9 where they never do";
        registry.register("credentials_expiry_timestamp", help, expiry.clone());
        let ahead = Gauge::default();
        let help = "How far the domain's clock is ahead of this machine's";
        registry.register_with_unit("clock_ahead", help, Unit::Seconds, ahead.clone());
        Self {
            registry,
            requests,
            seconds,
            refusals,
            refused,
            retries,
            connections,
            taken,
            expiry,
            ahead,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, status: http::StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUSES.len());
        if let Some(counter) = self.requests.get(class - 1) {
            counter.inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a refusal of the proxy.
    pub fn refusal(&self, refusal: &Refusal) {
        let class = refusal.class();
        self.refusals.get_or_create(&Class { class }).inc();
    }

    /// Counts a refusal of the domain.
    pub fn refused(&self, cause: &Cause) {
        let cause = cause.name();
        self.refused.get_or_create(&Because { cause }).inc();
    }

    /// Counts another try.
    pub fn retried(&self, cause: &'static str) {
        self.retries.get_or_create(&Because { cause }).inc();
    }

    /// Returns how many connections are open.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }

    /// Counts connections.
    pub fn connected(&self, by: i64) {
        self.connections.inc_by(by);
    }

    /// Renders the text that Prometheus reads, with what is known only at the moment.
    #[must_use]
    pub fn render(&self, taken: u64, expiry: f64, ahead: i64) -> String {
        self.taken.set(i64::try_from(taken).unwrap_or(i64::MAX));
        self.expiry.set(expiry);
        self.ahead.set(ahead);
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
