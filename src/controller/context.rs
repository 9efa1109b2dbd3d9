//! What every reconcile shares.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::Config;
use super::accounts::Accounts;
use super::audit::UnansweredWrites;
use super::observe::session_name;
use super::orphan::Orphans;
use super::quarantine::Quarantine;
use super::queue::{Bursts, Stores};
use crate::api::arn::EntityArn;
use crate::api::name::FIELD_MANAGER;
use crate::aws::session::Sessions;
use crate::aws::supervisor::Supervisor;
use crate::runtime::lease::Leadership;
use crate::runtime::metrics::Metrics;
use crate::security::client::Connections;

/// How long it is believed that a principal exists.
pub(super) const FOUND_FOR: Duration = Duration::from_mins(5);

/// How long it is believed that a principal does not exist: short, since the usual reason is that
/// it is about to.
pub(super) const MISSING_FOR: Duration = Duration::from_secs(15);

/// The shortest wait before another try.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait before another try: AWS asks for no more than a call in half a minute while it
/// throttles.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// So often the same text is written without having been read back before it is called contested.
const SAME_WRITES: u32 = 3;

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
    /// The connections to domains, or why there can be none.
    pub connections: Result<Connections, String>,
    /// What AWS said of service accounts.
    pub accounts: Accounts,
    /// Kubernetes Events.
    pub recorder: Recorder,
    /// Changes that wait for more to come.
    pub bursts: Arc<Bursts>,
    /// The domains whose orphans are about to be looked after.
    pub orphans: Orphans,
    /// Principals that AWS may have refused a policy for.
    pub quarantine: Quarantine,
    /// Writes whose answer was lost.
    pub(super) unanswered: UnansweredWrites,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
    looks: Mutex<HashMap<String, Instant>>,
    inherited: Mutex<BTreeSet<String>>,
    principals: Mutex<HashMap<EntityArn, (bool, Instant)>>,
    tries: Mutex<HashMap<String, u32>>,
    writes: Mutex<HashMap<String, Writes>>,
}

/// The writes of a domain since its policy was last in force.
#[derive(Debug)]
struct Writes {
    /// How many there were.
    count: u32,
    /// How many of them, at the end, were of the same text.
    same: u32,
    text: String,
    last: Instant,
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
        connections: Result<Connections, String>,
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
            connections,
            client,
            config,
            stores,
            sessions: Sessions::load(Arc::new(Process {
                metrics: Arc::clone(&metrics),
                leadership,
            }))
            .await,
            accounts: Accounts::default(),
            bursts: Arc::default(),
            orphans: Orphans::default(),
            quarantine: Quarantine::default(),
            unanswered: UnansweredWrites::default(),
            metrics,
            draining: watch::Sender::new(false),
            looks: Mutex::default(),
            inherited: Mutex::default(),
            principals: Mutex::default(),
            tries: Mutex::default(),
            writes: Mutex::default(),
        }
    }

    /// Lets no reconcile begin any more.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Tells whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits, but not longer than until the process is about to end.
    pub async fn pause(&self, wait: Duration) {
        let mut draining = self.draining.subscribe();
        let _ended = tokio::time::timeout(wait, draining.wait_for(|it| *it)).await;
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

    /// Forgets what is believed about principals, after AWS refused one of them.
    pub fn forget_principals(&self, refused: &BTreeSet<String>) {
        self.principals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|arn, _| !refused.contains(arn.as_str()));
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

    /// Forgets the writes of a domain, once its policy is in force.
    pub fn settled(&self, domain: &str) {
        self.writes().remove(domain);
    }

    fn writes(&self) -> MutexGuard<'_, HashMap<String, Writes>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that a domain's policy was written; tells whether it may be read back soon: later
    /// with each write that did not come into force, unless the next one has to wait anyhow.
    pub fn wrote(&self, domain: &str, text: &str) -> bool {
        let mut writes = self.writes();
        let now = Instant::now();
        let known = writes.entry(domain.to_owned()).or_insert_with(|| Writes {
            count: 0,
            same: 0,
            text: text.to_owned(),
            last: now,
        });
        known.count += 1;
        known.last = now;
        if known.text == text {
            known.same += 1;
        } else {
            known.same = 1;
            text.clone_into(&mut known.text);
        }
        known.count == 1 || known.same >= SAME_WRITES
    }

    /// Returns how long a text is not to be written again, that was written time and again and
    /// never read back: somebody undoes it, and would not be impressed by haste.
    pub fn contested(&self, domain: &str, text: &str, interval: Duration) -> Option<Duration> {
        let writes = self.writes();
        let known = writes.get(domain)?;
        if known.same < SAME_WRITES || known.text != text {
            return None;
        }
        let left = interval.saturating_sub(known.last.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// Tells whether this process looks at a domain for the first time, and so at what an earlier one
    /// left.
    pub fn inherits(&self, domain: &str) -> bool {
        let mut seen = self
            .inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.insert(domain.to_owned())
    }

    /// Tells whether a domain's grants were not read past every cache for as long: a watch may have
    /// lost an event, and nothing else would ever tell.
    pub fn is_to_be_read(&self, domain: &str, interval: Duration) -> bool {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks
            .get(domain)
            .is_none_or(|last| last.elapsed() >= interval)
    }

    /// Takes note that a domain's grants were read past every cache.
    pub fn was_read(&self, domain: &str) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.insert(domain.to_owned(), Instant::now());
    }

    /// Forgets everything about a domain that is gone.
    pub fn forget_domain(&self, domain: &str) {
        self.looks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(domain);
        self.reset_tries(domain);
        self.settled(domain);
        self.quarantine.forget(domain);
        self.unanswered.remove(domain);
        self.metrics.forget(domain);
        self.metrics.quarantined(self.quarantine.count());
        let domains = self.stores.domains.state();
        let in_use: BTreeSet<String> = domains
            .iter()
            .filter(|object| object.name_any() != domain)
            .filter_map(|object| object.0.as_ref().ok())
            .map(|object| session_name(&object.spec.domain_name))
            .collect();
        self.sessions.retain(|name| in_use.contains(name));
    }
}
