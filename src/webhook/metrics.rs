//! What Prometheus sees of the webhook.

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text::encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::runtime::admin::Exposition;

/// The upper ends of the buckets of durations, in seconds.
const SECONDS: [f64; 10] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    path: &'static str,
    result: &'static str,
}

/// Every metric of the webhook.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    reviews: Family<Review, Counter>,
    duration: Histogram,
    handshakes: Counter,
    expiry: Gauge,
    rotations: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("opensearch_access_webhook");
        let reviews = Family::default();
        let duration = Histogram::new(SECONDS);
        let (handshakes, rotations) = (Counter::default(), Counter::default());
        let expiry = Gauge::default();
        registry.register(
            "admissions",
            "Reviews by path and result",
            Family::clone(&reviews),
        );
        registry.register_with_unit(
            "admission_duration",
            "How long reviews take, from the request's last byte to the answer",
            Unit::Seconds,
            Histogram::clone(&duration),
        );
        registry.register(
            "failed_handshakes",
            "Connections on which no TLS session came about",
            Counter::clone(&handshakes),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate that is served ends",
            Unit::Seconds,
            Gauge::clone(&expiry),
        );
        registry.register(
            "certificate_changes",
            "Times that another certificate was served from then on",
            Counter::clone(&rotations),
        );
        Self {
            registry,
            reviews,
            duration,
            handshakes,
            expiry,
            rotations,
        }
    }

    /// Counts a review.
    pub(super) fn reviewed(&self, path: &'static str, result: &'static str, took: Duration) {
        self.reviews.get_or_create(&Review { path, result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a connection that did not come about.
    pub(super) fn no_handshake(&self) {
        self.handshakes.inc();
    }

    /// Shows the certificate that is served from now on.
    pub(super) fn serves(&self, ends: Timestamp) {
        self.expiry.set(ends.as_second());
        self.rotations.inc();
    }
}

impl Exposition for Metrics {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        encode_registry(text, &self.registry)
    }
}
