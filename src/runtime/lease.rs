//! Which of several processes leads, by a `Lease` of Kubernetes.
//!
//! ```text
//! candidate ──free, released, or unmoved for its duration──► leader ──renewed five times a duration──┐
//!     ▲                                                        │  ▲                                  │
//!     └──────────── a new process ◄── the process ends ◄── lost│  └──────────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - Time is what this process's own monotonic clock measured: another machine's clock is never
//!   believed. A candidate waits until it has itself seen the lease unmoved for all of its duration.
//! - A leader's right ends after two thirds of the duration, counted from before it asked for the
//!   last renewal that succeeded, whether or not anybody is left to notice: see [`Leadership::holds`].
//! - Every write names the version that was read, so that of two takers one fails.
//!
//! # Caveats
//!
//! A machine that is suspended as a whole stops its monotonic clock, too.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::said::Said;
use crate::api::name::FIELD_MANAGER;

/// The shortest duration that a busy API server lets a leader keep.
pub const SHORTEST: Duration = Duration::from_secs(3);

/// What a candidate is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace of the lease.
    pub namespace: String,
    /// The name of the lease.
    pub name: String,
    /// Who this process is, unlike any other.
    pub identity: String,
    /// How long the lease lasts without a renewal.
    pub duration: Duration,
}

/// The leader has lost its lease.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process took it.
    #[error("{holder} took the lease {lease}")]
    Taken {
        /// The lease.
        lease: String,
        /// Who leads now.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("the lease {lease} was not renewed in time")]
    Late {
        /// The lease.
        lease: String,
    },
}

/// Whether this process leads; every copy tells the same.
#[derive(Debug, Clone)]
pub struct Leadership(Right);

#[derive(Debug, Clone)]
enum Right {
    /// Nobody else is there.
    Alone,
    /// As the candidate says.
    Candidate(watch::Receiver<Standing>),
}

/// What a candidate knows of its lease.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// Whether the API server ever told whose it is.
    asked: bool,
    /// Until when it is this process's; `None` while it is not.
    until: Option<Instant>,
}

impl Leadership {
    /// Returns the leadership of a process that runs without a lease.
    #[must_use]
    pub fn alone() -> Self {
        Self(Right::Alone)
    }

    /// Tells whether this process leads at this moment; to be asked right before each write.
    #[must_use]
    pub fn holds(&self) -> bool {
        match &self.0 {
            Right::Alone => true,
            Right::Candidate(standing) => {
                let until = standing.borrow().until;
                until.is_some_and(|until| Instant::now() < until)
            }
        }
    }

    /// Waits until this process leads; forever where it never does.
    pub async fn gained(&mut self) {
        self.reached(|standing| standing.until.is_some()).await;
    }

    /// Waits until this process knows who leads; forever where nobody can tell.
    pub async fn known(&mut self) {
        self.reached(|standing| standing.asked).await;
    }

    async fn reached(&mut self, wanted: impl FnMut(&Standing) -> bool) {
        let Right::Candidate(standing) = &mut self.0 else {
            return;
        };
        if standing.wait_for(wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A process that wants to lead.
#[derive(Debug)]
pub struct Candidate {
    leases: Api<Lease>,
    parameters: PostParams,
    config: Config,
    standing: watch::Sender<Standing>,
    /// The lease as another process held it when it last moved, and when that was seen.
    seen: Option<(LeaseSpec, Instant)>,
}

/// What came of one try for the lease.
enum Attempt {
    /// It is ours, as it was written.
    Ours(Box<Lease>),
    /// It is another's.
    Held(String),
}

impl Candidate {
    /// Prepares a candidate, and what tells whether it leads.
    #[must_use]
    pub fn new(client: Client, config: Config) -> (Self, Leadership) {
        let (standing, right) = watch::channel(Standing::default());
        let candidate = Self {
            leases: Api::namespaced(client, &config.namespace),
            parameters: PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            },
            config,
            standing,
            seen: None,
        };
        (candidate, Leadership(Right::Candidate(right)))
    }

    /// Waits for the lease, keeps it, and gives it back once it is asked to.
    ///
    /// # Errors
    ///
    /// Fails where the lease is lost; whoever may have written must then end.
    pub async fn run(mut self, mut release: oneshot::Receiver<()>) -> Result<(), Error> {
        let mut told = String::new();
        let mut ours = loop {
            tokio::select! {
                // Whoever holds the other end is gone, or wants the lease no more.
                _ = &mut release => return Ok(()),
                attempt = self.attempt() => {
                    let now = match &attempt {
                        Ok(Attempt::Ours(_)) => String::new(),
                        Ok(Attempt::Held(holder)) => format!("{holder} leads"),
                        Err(kube::Error::Api(status)) if is_homeless(status) => format!(
                            "namespace {} does not exist: create it, or name another with --namespace",
                            self.config.namespace
                        ),
                        Err(error) => format!("the lease cannot be asked for: {}", Said(error)),
                    };
                    if attempt.is_ok() {
                        self.standing.send_modify(|standing| standing.asked = true);
                    }
                    let news = told != now;
                    told = now;
                    match attempt {
                        Ok(Attempt::Ours(lease)) => break lease,
                        Ok(_) if news => info!(lease = %self.config.name, "standing by: {told}"),
                        Err(_) if news => warn!(lease = %self.config.name, "standing by: {told}"),
                        _ => {}
                    }
                }
            }
            tokio::select! {
                _ = &mut release => return Ok(()),
                () = tokio::time::sleep(self.pause()) => {}
            }
        };
        info!(lease = %self.config.name, identity = %self.config.identity, "this process leads");
        loop {
            tokio::select! {
                _ = &mut release => break,
                () = tokio::time::sleep(self.pause()) => {}
            }
            ours = match self.renew(ours).await {
                Ok(ours) => ours,
                Err(lost) => {
                    self.until(None);
                    return Err(lost);
                }
            };
        }
        self.until(None);
        self.give_back(*ours).await;
        Ok(())
    }

    /// How long to wait between two looks, and for one answer.
    fn pause(&self) -> Duration {
        self.config.duration / 5
    }

    /// Takes the lease if it is to be had.
    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let name = self.config.name.clone();
        let began = Instant::now();
        let Some(found) = bounded(self.pause(), self.leases.get_opt(&name)).await? else {
            let new = Lease {
                metadata: ObjectMeta {
                    name: Some(name),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            let created = self.leases.create(&self.parameters, &new);
            let created = bounded(self.pause(), created).await?;
            return Ok(self.lead(created, began));
        };
        let spec = found.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        // It is ours already where the answer to an earlier try was lost.
        let free = holder.is_empty() || holder == self.config.identity;
        if !free && !self.is_abandoned(&spec) {
            return Ok(Attempt::Held(holder));
        }
        let mut taken = found;
        taken.spec = Some(self.spec(Some(&spec)));
        let began = Instant::now();
        let written = self.leases.replace(&name, &self.parameters, &taken);
        let written = bounded(self.pause(), written).await?;
        Ok(self.lead(written, began))
    }

    /// Tells whether its holder has not moved the lease for all of its duration, as seen from here.
    fn is_abandoned(&mut self, spec: &LeaseSpec) -> bool {
        let lasts = spec.lease_duration_seconds.unwrap_or_default();
        let lasts = Duration::from_secs(lasts.max(0).unsigned_abs().into());
        match &self.seen {
            Some((before, since)) if before == spec => {
                since.elapsed() >= lasts.max(self.config.duration)
            }
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    /// Describes the lease as this process holds it, after another's.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let seconds = i32::try_from(self.config.duration.as_secs()).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(before.map_or(0, |before| {
                before
                    .lease_transitions
                    .unwrap_or_default()
                    .saturating_add(1)
            })),
            ..LeaseSpec::default()
        }
    }

    fn lead(&self, lease: Lease, began: Instant) -> Attempt {
        self.extend(began);
        Attempt::Ours(Box::new(lease))
    }

    fn extend(&self, began: Instant) {
        // A third is left for what is under way when the right ends.
        let until = began + self.config.duration * 2 / 3;
        self.until(Some(until));
    }

    fn until(&self, until: Option<Instant>) {
        self.standing.send_modify(|standing| standing.until = until);
    }

    /// Renews the lease, as often as the right lasts.
    async fn renew(&self, mut ours: Box<Lease>) -> Result<Box<Lease>, Error> {
        loop {
            let until = self.standing.borrow().until.unwrap_or_else(Instant::now);
            let began = Instant::now();
            // A process that slept past its right has lost it, even if nobody took the lease.
            if began >= until {
                let lease = self.config.name.clone();
                return Err(Error::Late { lease });
            }
            if let Some(spec) = &mut ours.spec {
                spec.renew_time = Some(MicroTime(Timestamp::now()));
            }
            let name = &self.config.name;
            let written = self.leases.replace(name, &self.parameters, &ours);
            match bounded(self.pause(), written).await {
                Ok(written) => {
                    self.extend(began);
                    return Ok(Box::new(written));
                }
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                    // The answer to an earlier renewal was lost, or somebody else wrote.
                    if let Ok(found) = bounded(self.pause(), self.leases.get(name)).await {
                        let holder = found.spec.as_ref();
                        let holder = holder.and_then(|spec| spec.holder_identity.clone());
                        if holder.as_ref() != Some(&self.config.identity) {
                            return Err(Error::Taken {
                                lease: name.clone(),
                                holder: holder.unwrap_or_else(|| "somebody".to_owned()),
                            });
                        }
                        *ours = found;
                        continue;
                    }
                }
                Err(error) => {
                    warn!(lease = %name, error = %Said(&error), "the lease was not renewed");
                }
            }
            tokio::time::sleep(self.pause() / 4).await;
        }
    }

    /// Lets the next candidate lead at once; without an answer it waits for the lease to run out.
    async fn give_back(&self, mut ours: Lease) {
        if let Some(spec) = &mut ours.spec {
            spec.holder_identity = None;
            spec.acquire_time = None;
            spec.renew_time = None;
        }
        let name = &self.config.name;
        let written = self.leases.replace(name, &self.parameters, &ours);
        match bounded(self.pause(), written).await {
            Ok(_) => info!(lease = %name, "the lease is released"),
            Err(error) => warn!(lease = %name, error = %Said(&error), "the lease was not released"),
        }
    }
}

/// Tells whether there is no namespace to keep the lease in.
fn is_homeless(status: &Status) -> bool {
    status.is_not_found() && status.message.starts_with("namespaces ")
}

/// Waits for an answer, but not for long: kube's own retries alone could outlast a lease.
async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}
