//! What every reconcile shares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

use super::Config;
use super::orphan::Orphans;
use super::quarantine::Quarantine;
use super::queue::{Bursts, Stores};
use crate::api::arn::EntityArn;
use crate::api::name::FIELD_MANAGER;
use crate::aws::session::Sessions;
use crate::aws::supervisor::Supervisor;
use crate::runtime::lease::Leadership;
use crate::runtime::metrics::Metrics;

/// How long it is believed that a principal exists.
const FOUND_FOR: Duration = Duration::from_mins(5);

/// How long it is believed that a principal does not exist: short, since the usual reason is that
/// it is about to.
pub(super) const MISSING_FOR: Duration = Duration::from_secs(15);

/// The shortest wait before another try.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait before another try: AWS asks for no more than a call in half a minute while it
/// throttles.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What every reconcile shares.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// What the controller was told at its start.
    pub config: Config,
    /// The cluster's objects, as they were last seen.
    pub stores: Stores,
    /// AWS.
    pub sessions: Sessions,
    /// Kubernetes Events.
    pub recorder: Recorder,
    /// Changes that wait for more to come.
    pub bursts: Arc<Bursts>,
    /// The domains whose orphans are about to be looked after.
    pub orphans: Orphans,
    /// Principals that AWS may have refused a policy for.
    pub quarantine: Quarantine,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    draining: AtomicBool,
    principals: Mutex<HashMap<EntityArn, (bool, Instant)>>,
    tries: Mutex<HashMap<String, u32>>,
}

/// What supervises the calls to AWS: this process's metrics, and its right to write.
#[derive(Debug)]
struct Process {
    metrics: Arc<Metrics>,
    leadership: Leadership,
}

impl Supervisor for Process {
    fn may_write(&self) -> bool {
        self.leadership.holds()
    }

    fn called(&self, operation: &'static str, code: &'static str) {
        self.metrics.called(operation, code);
    }
}

impl Context {
    /// Builds the context.
    pub async fn new(
        client: Client,
        config: Config,
        stores: Stores,
        metrics: Arc<Metrics>,
        leadership: Leadership,
    ) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            config,
            stores,
            sessions: Sessions::load(Arc::new(Process {
                metrics: Arc::clone(&metrics),
                leadership,
            }))
            .await,
            bursts: Arc::default(),
            orphans: Orphans::default(),
            quarantine: Quarantine::default(),
            metrics,
            draining: AtomicBool::new(false),
            principals: Mutex::default(),
            tries: Mutex::default(),
        }
    }

    /// Lets no reconcile begin any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Tells whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Forgets a domain that is gone.
    pub fn forget(&self, domain: &str) {
        self.reset_tries(domain);
        self.quarantine.forget(domain);
        self.metrics.forget(domain);
        self.metrics.quarantined(self.quarantine.count());
    }

    /// Returns what is believed about a principal, if it was asked recently.
    pub fn principal(&self, arn: &EntityArn) -> Option<bool> {
        let known = self
            .principals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (exists, asked) = known.get(arn)?;
        let believed = if *exists { FOUND_FOR } else { MISSING_FOR };
        (asked.elapsed() < believed).then_some(*exists)
    }

    /// Remembers whether a principal exists.
    pub fn remember_principal(&self, arn: &EntityArn, exists: bool) {
        let mut known = self
            .principals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, asked)| asked.elapsed() < FOUND_FOR);
        known.insert(arn.clone(), (exists, Instant::now()));
    }

    /// Forgets what is believed about every principal, after AWS refused one of them.
    pub fn forget_principals(&self) {
        self.principals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Returns how long to wait before the next try on a domain: doubled with each, with jitter.
    pub fn next_try(&self, domain: &str) -> Duration {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let count = tries.entry(domain.to_owned()).or_default();
        let wait = FIRST_RETRY
            .saturating_mul(1 << (*count).min(5))
            .min(LAST_RETRY);
        *count += 1;
        wait.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// Forgets the tries on a domain, once one has succeeded.
    pub fn reset_tries(&self, domain: &str) {
        self.tries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(domain);
    }
}
