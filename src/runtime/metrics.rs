//! What Prometheus sees.
//!
//! Labels are constants of the program: no object's name is one, so that the number of series does
//! not grow with the number of domains and grants. What is about one object is in its status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text::encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::admin::Exposition;

/// The upper ends of the buckets of durations, in seconds.
const SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    code: &'static str,
}

/// What is known of one domain, for the sums and extremes that are shown.
#[derive(Debug, Clone, Default)]
pub struct DomainFigures {
    /// Grants that are in place.
    pub applied: i64,
    /// Grants that wait.
    pub pending: i64,
    /// Grants that are refused, or cannot be decided, by reason.
    pub refused: BTreeMap<&'static str, i64>,
    /// The size of the access policy.
    pub policy_bytes: i64,
    /// Whether something that the operator wrote is missing from the policy.
    pub drifted: bool,
}

#[derive(Debug, Default)]
struct Known {
    domains: BTreeMap<String, DomainFigures>,
    /// Every reason that was ever shown: a series that was there goes to zero, it does not vanish.
    reasons: BTreeSet<&'static str>,
}

/// Every metric of the controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    duration: Histogram,
    writes: Family<Outcome, Counter>,
    drift: Counter,
    overdue: Counter,
    calls: Family<Call, Counter>,
    grants: Family<State, Gauge>,
    refused: Family<Reason, Gauge>,
    quarantined: Gauge,
    largest_policy: Gauge,
    last_success: Gauge<f64, AtomicU64>,
    leader: Gauge,
    known: Mutex<Known>,
}

impl Metrics {
    /// Registers every metric; `policy_budget` is how many bytes a policy is filled to.
    #[must_use]
    pub fn new(policy_budget: usize) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("opensearch_access"),
            reconciles: Family::default(),
            duration: Histogram::new(SECONDS),
            writes: Family::default(),
            drift: Counter::default(),
            overdue: Counter::default(),
            calls: Family::default(),
            grants: Family::default(),
            refused: Family::default(),
            quarantined: Gauge::default(),
            largest_policy: Gauge::default(),
            last_success: Gauge::default(),
            leader: Gauge::default(),
            known: Mutex::default(),
        };
        metrics.register(policy_budget);
        metrics
    }

    fn register(&mut self, policy_budget: usize) {
        let registry = &mut self.registry;
        registry.register(
            "reconciles",
            "Reconciles of a domain by outcome",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciles of a domain take",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "policy_writes",
            "Writes of a domain's access policy by outcome",
            self.writes.clone(),
        );
        registry.register(
            "drift",
            "Times that something the operator wrote was found gone from an access policy",
            self.drift.clone(),
        );
        registry.register(
            "revocations_overdue",
            "Deleted grants that were let go before they could be revoked",
            self.overdue.clone(),
        );
        registry.register(
            "aws_calls",
            "Calls to AWS by operation and code, the SDK's own retries not counted",
            self.calls.clone(),
        );
        registry.register("grants", "Grants by state", self.grants.clone());
        registry.register(
            "grants_refused",
            "Refused and undecided grants by reason",
            self.refused.clone(),
        );
        registry.register(
            "quarantined_principals",
            "Principals that are kept out since AWS may have refused a policy for them",
            self.quarantined.clone(),
        );
        registry.register_with_unit(
            "largest_policy",
            "The size of the largest access policy",
            Unit::Bytes,
            self.largest_policy.clone(),
        );
        let budget: Gauge = Gauge::default();
        budget.set(figure(policy_budget));
        registry.register_with_unit(
            "policy_budget",
            "The size up to which the operator fills an access policy",
            Unit::Bytes,
            budget,
        );
        registry.register_with_unit(
            "last_success_timestamp",
            "When a domain was last found, or brought, in order",
            Unit::Seconds,
            self.last_success.clone(),
        );
        registry.register("leader", "1 while this process leads", self.leader.clone());
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Notes that a domain is in order.
    pub fn succeeded(&self, now: Timestamp) {
        self.last_success.set(now.as_duration().as_secs_f64());
    }

    /// Counts a write.
    pub fn wrote(&self, outcome: &'static str) {
        self.writes.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a deleted grant that was let go before it could be revoked.
    pub fn overdue(&self) {
        self.overdue.inc();
    }

    /// Counts a call to AWS.
    pub fn called(&self, operation: &'static str, code: &'static str) {
        self.calls.get_or_create(&Call { operation, code }).inc();
    }

    /// Shows how many principals are quarantined.
    pub fn quarantined(&self, count: usize) {
        self.quarantined.set(figure(count));
    }

    /// Shows whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Shows what became of a domain's grants.
    pub fn domain(&self, name: &str, figures: DomainFigures) {
        let mut known = self.lock();
        let drifted = figures.drifted;
        let before = known.domains.insert(name.to_owned(), figures);
        // Counted once, however often it is looked at before it is put right.
        if drifted && !before.is_some_and(|before| before.drifted) {
            self.drift.inc();
        }
        self.show(&mut known);
    }

    /// Forgets a domain that is gone.
    pub fn forget(&self, name: &str) {
        let mut known = self.lock();
        if known.domains.remove(name).is_some() {
            self.show(&mut known);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, known: &mut Known) {
        let Known { domains, reasons } = known;
        let mut refused: BTreeMap<&'static str, i64> = BTreeMap::new();
        for (reason, count) in domains.values().flat_map(|domain| &domain.refused) {
            *refused.entry(reason).or_default() += count;
        }
        reasons.extend(refused.keys());
        for reason in reasons.iter() {
            let count = refused.get(reason).copied().unwrap_or_default();
            self.refused.get_or_create(&Reason { reason }).set(count);
        }
        let sum = |of: fn(&DomainFigures) -> i64| domains.values().map(of).sum();
        for (state, count) in [
            ("applied", sum(|domain| domain.applied)),
            ("pending", sum(|domain| domain.pending)),
            ("refused", refused.values().sum()),
        ] {
            self.grants.get_or_create(&State { state }).set(count);
        }
        let largest = domains.values().map(|domain| domain.policy_bytes).max();
        self.largest_policy.set(largest.unwrap_or_default());
    }
}

impl Exposition for Metrics {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        encode_registry(text, &self.registry)
    }
}

/// Returns a count as a gauge takes it.
#[must_use]
pub fn figure(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: &'static str) -> DomainFigures {
        DomainFigures {
            applied: 2,
            refused: BTreeMap::from([(reason, 3)]),
            policy_bytes: 70,
            ..DomainFigures::default()
        }
    }

    fn shows(metrics: &Metrics, series: &str) -> bool {
        let mut text = String::new();
        metrics.write(&mut text).unwrap();
        text.lines()
            .any(|line| line == format!("opensearch_access_{series}"))
    }

    #[test]
    fn domains_are_added_up_and_a_reason_that_ends_goes_to_zero() {
        let metrics = Metrics::new(100);
        metrics.domain("a", refused("Expired"));
        metrics.domain("b", refused("OverCeiling"));
        for series in [
            "grants{state=\"applied\"} 4",
            "grants{state=\"refused\"} 6",
            "grants_refused{reason=\"Expired\"} 3",
            "largest_policy_bytes 70",
            "policy_budget_bytes 100",
        ] {
            assert!(shows(&metrics, series), "{series}");
        }
        metrics.forget("a");
        assert!(shows(&metrics, "grants_refused{reason=\"Expired\"} 0"));
        assert!(shows(&metrics, "grants{state=\"refused\"} 3"));
    }

    #[test]
    fn a_drift_counts_once_however_often_it_is_seen() {
        let metrics = Metrics::new(100);
        let figures = |drifted| DomainFigures {
            drifted,
            ..DomainFigures::default()
        };
        for drifted in [true, true, false, true] {
            metrics.domain("a", figures(drifted));
        }
        assert!(shows(&metrics, "drift_total 2"));
    }
}
