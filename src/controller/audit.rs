//! What is on record of each write: a line in the log, and an Event of its own on the domain. A write
//! whose answer was lost is told once it was read back.
//!
//! The log is the audit trail: Events are gone within hours. Both name the grants that the write is
//! about by UID, so that the API server's own audit log says who asked for them; the operator sees
//! no requester that could be trusted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::apply::{publish, spelled};
use super::context::Context;
use super::observe::Observed;
use crate::api::domain::OpenSearchDomain;
use crate::api::name::FIELD_MANAGER;
use crate::policy::canonical::Canonical;
use crate::policy::document::Document;
use crate::policy::domain::Domain;
use crate::policy::ownership::{self, LastApplied};
use crate::policy::permission::Permissions;
use crate::policy::plan::{Outcome, Plan};
use crate::runtime::said::Said;

/// So many grants are named by a line of the log.
const GRANTS_IN_LOG: usize = 1_000;

/// So many grants are named by an Event, whose note has 1 kB.
const GRANTS_IN_NOTE: usize = 10;

/// A write that AWS took.
pub(super) struct Write<'a> {
    /// What was written, and for whom.
    pub(super) plan: &'a Plan,
    /// The policy before it.
    pub(super) before: &'a str,
    /// What was on record before it.
    pub(super) last: Option<&'a LastApplied>,
    /// AWS's count of the policy's changes, before it and after it.
    pub(super) versions: (Option<i32>, Option<i32>),
}

/// A write whose answer was lost, so that only the next look at the domain tells what became of it.
#[derive(Debug)]
pub(super) struct Unanswered {
    plan: Plan,
    before: String,
    last: Option<LastApplied>,
    version: Option<i32>,
}

impl Write<'_> {
    /// Keeps what is to be told of the write, should it turn out to have been made.
    pub(super) fn unanswered(&self) -> Unanswered {
        Unanswered {
            plan: self.plan.clone(),
            before: self.before.to_owned(),
            last: self.last.cloned(),
            version: self.versions.0,
        }
    }

    /// Returns the UIDs of the grants that the write gives something to, or takes something from.
    fn grants(&self) -> BTreeSet<&str> {
        let comes = self.plan.outcomes.iter().filter_map(|(key, outcome)| {
            let new = matches!(outcome, Outcome::Granted { in_place, .. } if !in_place);
            new.then_some(key.uid.as_str())
        });
        let next = &self.plan.next.grants;
        let known = self.last.into_iter().flat_map(|last| last.grants.keys());
        let goes = known.filter(|uid| !next.contains_key(*uid));
        comes.chain(goes.map(String::as_str)).collect()
    }

    /// Says what was written, with as many grants by name as there is room for.
    fn note(&self, after: &Document) -> String {
        let (grants, version) = (self.grants(), counted(self.versions.1));
        let named: Vec<&str> = grants.iter().take(GRANTS_IN_NOTE).copied().collect();
        let named = named.join(" ");
        let more = match grants.len().saturating_sub(GRANTS_IN_NOTE) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "wrote the access policy: {} statements added, {} removed, {} characters; version {version}, sha256 {} before and {} after; grants {named}{more}",
            self.plan.added.len(),
            self.plan.removed.len(),
            after.to_text().chars().count(),
            fingerprint_of(self.before),
            fingerprint(after),
        )
    }
}

/// Tells of a write that AWS took.
pub(super) async fn written(
    context: &Context,
    domain: &Domain,
    object: &OpenSearchDomain,
    write: &Write<'_>,
) {
    let after = write.plan.policy.clone().unwrap_or_default();
    let grants: Vec<&str> = write.grants().into_iter().take(GRANTS_IN_LOG).collect();
    info!(
        domain = %domain.name,
        arn = %domain.arn,
        added = write.plan.added.len(),
        removed = write.plan.removed.len(),
        before = %fingerprint_of(write.before),
        after = %fingerprint(&after),
        version = %counted(write.versions.1),
        grants = %grants.join(","),
        "wrote the access policy"
    );
    let write_of = (write.versions.1, fingerprint(&after));
    tell(context, object, write_of, write.note(&after)).await;
}

/// Tells of a write that a process made which is gone: it may have had no time to.
///
/// The record announces each write before it is made. Once a process has looked at a domain for the
/// first time, what is announced is its own.
async fn inherited(
    context: &Context,
    domain: &Domain,
    object: &OpenSearchDomain,
    observed: &Observed,
) {
    if !context.inherits(&domain.name) {
        return;
    }
    let Some(last) = &observed.kept.state else {
        return;
    };
    let Some(pending) = &last.pending else { return };
    let announced = LastApplied {
        applied: pending.clone(),
        ..LastApplied::default()
    };
    let nothing = Permissions::default();
    let ours = ownership::split(&observed.policy, &domain.arn, Some(last), &nothing).ours;
    if *pending == last.applied || ours != announced.claim(&domain.arn) {
        return;
    }
    let (after, version) = (
        fingerprint(&observed.policy),
        observed.domain.policy_version,
    );
    let grants: Vec<&str> = last
        .grants
        .keys()
        .take(GRANTS_IN_LOG)
        .map(String::as_str)
        .collect();
    info!(
        domain = %domain.name,
        arn = %domain.arn,
        after = %after,
        version = %counted(version),
        grants = %grants.join(","),
        "an earlier process wrote the access policy"
    );
    let note = format!(
        "wrote the access policy, in a process that was gone before it could tell more; version {}, sha256 {after} after; grants by the operator's hand: {}",
        counted(version),
        grants
            .iter()
            .take(GRANTS_IN_NOTE)
            .copied()
            .collect::<Vec<_>>()
            .join(",")
    );
    tell(context, object, (version, after), note).await;
}

/// Tells of an earlier write whose answer was lost, once the policy that was read is that one's.
pub(super) async fn read_back(
    context: &Context,
    domain: &Domain,
    object: &OpenSearchDomain,
    observed: &Observed,
) {
    let meaning = |document: &Document| Canonical::of(document, &domain.arn);
    let version = observed.domain.policy_version;
    let made = |lost: &Unanswered| {
        let sent = lost.plan.policy.clone().unwrap_or_default();
        version != lost.version && meaning(&sent) == meaning(&observed.policy)
    };
    let Some(lost) = context.unanswered.take_if(&domain.name, made) else {
        inherited(context, domain, object, observed).await;
        return;
    };
    let write = Write {
        plan: &lost.plan,
        before: &lost.before,
        last: lost.last.as_ref(),
        versions: (lost.version, version),
    };
    written(context, domain, object, &write).await;
}

/// The writes whose answer was lost, by domain; at most one each.
#[derive(Debug, Default)]
pub(super) struct UnansweredWrites(Mutex<HashMap<String, Unanswered>>);

impl UnansweredWrites {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Unanswered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a write.
    pub(super) fn insert(&self, domain: &str, write: Unanswered) {
        self.lock().insert(domain.to_owned(), write);
    }

    /// Forgets the write of a domain.
    pub(super) fn remove(&self, domain: &str) {
        self.lock().remove(domain);
    }

    fn take_if(&self, domain: &str, is: impl Fn(&Unanswered) -> bool) -> Option<Unanswered> {
        let mut writes = self.lock();
        writes.get(domain).filter(|write| is(write))?;
        writes.remove(domain)
    }
}

/// Tells of a write that may have replaced what another writer had written a moment before.
pub(super) async fn foreign_write_lost(
    context: &Context,
    domain: &Domain,
    object: &OpenSearchDomain,
    versions: (Option<i32>, Option<i32>),
) {
    let (before, after) = (counted(versions.0), counted(versions.1));
    warn!(domain = %domain.name, %before, %after, "the write may have replaced another writer's");
    context.metrics.wrote("over_another");
    let note = format!(
        "the access policy was version {before} when it was read, and {after} after it was written: another writer changed it in between, and that change may be lost. Look for UpdateDomainConfig in CloudTrail, and have it made again"
    );
    publish(
        context,
        object,
        EventType::Warning,
        "ForeignWriteLost",
        "Write",
        note,
    )
    .await;
}

/// Publishes an Event of its own: a recorder would count a second write as the first one again.
///
/// It is named after the write, where AWS counts those: whoever tells of it again tells nothing new.
async fn tell(
    context: &Context,
    object: &OpenSearchDomain,
    (version, after): (Option<i32>, String),
    note: String,
) {
    let of_policy = ("PolicyWritten", "Write");
    tell_as(context, object, of_policy, (version, after), note).await;
}

/// Publishes that mappings of a domain's security plugin were changed.
pub(super) async fn mapped(context: &Context, object: &OpenSearchDomain, note: String) {
    let of_roles = ("RolesMapped", "Map");
    tell_as(context, object, of_roles, (None, "roles".to_owned()), note).await;
}

async fn tell_as(
    context: &Context,
    object: &OpenSearchDomain,
    (reason, action): (&str, &str),
    (version, after): (Option<i32>, String),
    note: String,
) {
    /// The API server refuses a longer note.
    const NOTE_LIMIT: usize = 1_000;
    let note = note.chars().take(NOTE_LIMIT).collect();
    let now = Timestamp::now();
    let text = |text: &str| Some(text.to_owned());
    let count = version.map_or_else(|| format!("{:x}", now.as_nanosecond()), |it| it.to_string());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{count}.{after}", object.name_any())),
            ..ObjectMeta::default()
        },
        action: text(action),
        reason: text(reason),
        type_: text("Normal"),
        note: Some(note),
        event_time: Some(MicroTime(now)),
        regarding: Some(object.object_ref(&())),
        reporting_controller: text(FIELD_MANAGER),
        reporting_instance: text(FIELD_MANAGER),
        ..Event::default()
    };
    // Events of what has no namespace are there by convention.
    let events: Api<Event> = Api::namespaced(context.client.clone(), "default");
    match events.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => warn!(error = %Said(&error), "failed to publish an Event"),
        Ok(_) => {}
    }
}

fn counted(version: Option<i32>) -> String {
    version.map_or_else(|| "unknown".to_owned(), |version| version.to_string())
}

/// Returns a short hash of what a policy says: the same for every order and spelling in which AWS
/// gives it back, so that what one write left and the next one found can be compared.
fn fingerprint(document: &Document) -> String {
    let digest = Sha256::digest(spelled(document).join("\n"));
    let start = digest.first_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(start))
}

fn fingerprint_of(text: &str) -> String {
    Document::parse(text).map_or_else(|_| "none".to_owned(), |it| fingerprint(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_what_a_policy_says() {
        let sent = r#"{"Version":"2012-10-17","Statement":[{"Sid":"x","Effect":"Allow","Principal":{"AWS":["a","b"]},"Action":["es:*"]},{"Effect":"Deny"}]}"#;
        let read = r#"{"Statement":[{"Effect":"Deny"},{"Action":"es:*","Principal":{"AWS":["b","a"]},"Effect":"Allow"}],"Version":"2012-10-17"}"#;
        assert_eq!(fingerprint_of(sent), fingerprint_of(read));
        assert_eq!(fingerprint_of(sent).len(), 16);
        assert_ne!(fingerprint_of(sent), fingerprint_of(""));
    }
}
