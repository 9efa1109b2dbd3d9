//! `plan`: what each domain's access policy would be, from manifests alone.
//!
//! # Caveats
//!
//! Without AWS, whether principals exist is not known, and whether a domain is inside a VPC; a
//! domain counts as having fine-grained access control where its manifest has `fineGrainedAccess`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::manifest::{Manifests, Sourced};
use crate::api::access::DomainAccess;
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::document::{Document, Statement};
use crate::policy::domain::Domain;
use crate::policy::ownership::LastApplied;
use crate::policy::plan::{self, Input, Outcome, Plan};
use crate::policy::validate::{DomainFacts, GrantKey};
use crate::policy::verdict::{self, Verdict};

/// What the plan of all domains says; the JSON output is this.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// By the name of the `OpenSearchDomain`.
    pub domains: BTreeMap<String, DomainReport>,
}

/// What the plan of one domain says.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainReport {
    /// The whole access policy as it would be; `null` for no policy at all.
    pub access_policy: Option<Value>,
    /// The statements that the write would add, by meaning.
    pub added: Vec<Value>,
    /// The statements that the write would remove, by meaning.
    pub removed: Vec<Value>,
    /// The grants that are not in it, and why.
    pub refused: Vec<Refused>,
    /// What grants' authors should know although nothing is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The inline policies that grants attach to IAM roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identity_policies: Vec<AttachedPolicy>,
    /// Why nothing would be written, where a guard fired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The policy as it is; for the diff.
    #[serde(skip)]
    pub current: Document,
    /// The policy as it would be; for the diff.
    #[serde(skip)]
    pub planned: Document,
    /// The number of statements that stay because others wrote them.
    #[serde(skip)]
    pub foreign: usize,
}

/// A grant that is refused.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The reason, as the grant's `Ready` condition would carry it.
    pub reason: &'static str,
    /// The field, the rule, and what to do.
    pub message: String,
    /// The file that it came from; for the error output.
    #[serde(skip)]
    pub file: String,
}

/// Something that a grant's author should know.
#[derive(Debug, Serialize)]
pub struct Warning {
    /// The grant's namespace.
    pub namespace: String,
    /// The grant's name.
    pub name: String,
    /// What to know.
    pub message: String,
}

/// An inline policy on an IAM role.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedPolicy {
    /// The grant's namespace.
    pub namespace: String,
    /// The grant's name.
    pub name: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The inline policy's name.
    pub policy_name: String,
    /// The inline policy.
    pub policy: Value,
}

impl Report {
    /// Tells whether the plan would write anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.domains
            .values()
            .any(|domain| !domain.added.is_empty() || !domain.removed.is_empty())
    }

    /// Tells whether anything is refused or held.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.domains
            .values()
            .any(|domain| !domain.refused.is_empty() || domain.held.is_some())
    }
}

/// The policies that domains have now.
#[derive(Debug, Default)]
pub struct Current {
    /// The policy by the name of the `OpenSearchDomain`; none: the domain has no policy.
    pub policies: BTreeMap<String, Document>,
    /// The statements that the operator wrote, by the name of the `OpenSearchDomain`; none: those
    /// that say what the manifests ask for.
    pub applied: BTreeMap<String, Document>,
}

/// Plans every domain of the manifests.
///
/// # Errors
///
/// Gives each domain whose manifest breaks a rule, with its file, field and rule: a grant cannot be
/// held against a domain that is not understood.
pub fn plan(
    manifests: &Manifests,
    current: &Current,
    now: Timestamp,
) -> Result<Report, Vec<super::manifest::Error>> {
    let mut errors = Vec::new();
    let mut report = Report::default();
    for (name, sourced) in &manifests.domains {
        match Domain::parse(&sourced.object) {
            Ok(domain) => {
                let grants: Vec<&Sourced<DomainAccess>> = manifests
                    .grants
                    .values()
                    .filter(|grant| grant.object.spec.domain_ref.name == *name)
                    .collect();
                report
                    .domains
                    .insert(name.clone(), plan_domain(&domain, &grants, current, now));
            }
            Err(broken) => {
                errors.extend(broken.into_iter().map(|rejection| super::manifest::Error {
                    file: sourced.file.clone(),
                    object: format!("OpenSearchDomain {name}"),
                    field: rejection.field,
                    rule: rejection.rule,
                }));
            }
        }
    }
    for grant in manifests.grants.values() {
        let name = &grant.object.spec.domain_ref.name;
        if !manifests.domains.contains_key(name) {
            let rejection = Rejection::new(
                Reason::DomainNotFound,
                "spec.domainRef.name",
                format!("no OpenSearchDomain {name:?} is among the manifests"),
            );
            let key = GrantKey::of(&grant.object);
            let refused = refused(&key, &rejection, &grant.file);
            report
                .domains
                .entry(name.clone())
                .or_default()
                .refused
                .push(refused);
        }
    }
    if errors.is_empty() {
        Ok(report)
    } else {
        Err(errors)
    }
}

fn plan_domain(
    domain: &Domain,
    grants: &[&Sourced<DomainAccess>],
    current: &Current,
    now: Timestamp,
) -> DomainReport {
    let facts = DomainFacts {
        fine_grained: domain.fine_grained,
        ..DomainFacts::default()
    };
    let mut files = BTreeMap::new();
    let verdicts = verdict::of_all(
        grants.iter().map(|grant| {
            // Objects out of files have no UID; their place is as good.
            let mut object = grant.object.clone();
            object
                .metadata
                .uid
                .get_or_insert_with(|| GrantKey::of(&grant.object).to_string());
            files.insert(GrantKey::of(&object), grant.file.clone());
            object
        }),
        domain,
        facts,
        &BTreeMap::new(),
        now,
    );
    let observed = current
        .policies
        .get(&domain.name)
        .cloned()
        .unwrap_or_default();
    let last = current
        .applied
        .get(&domain.name)
        .map(|document| LastApplied {
            applied: document
                .statements()
                .iter()
                .map(Statement::to_value)
                .collect(),
            ..LastApplied::default()
        });
    let plan = plan::plan(&Input {
        domain,
        facts,
        grants: &verdicts,
        observed: &observed,
        last: last.as_ref(),
        acknowledged_revocation: 0,
    });
    domain_report(&verdicts, &files, observed, plan)
}

fn domain_report(
    verdicts: &BTreeMap<GrantKey, Verdict>,
    files: &BTreeMap<GrantKey, String>,
    observed: Document,
    plan: Plan,
) -> DomainReport {
    let planned = plan.policy.unwrap_or_else(|| observed.clone());
    let mut report = DomainReport {
        access_policy: planned.to_value(),
        added: plan.added.iter().map(Statement::to_value).collect(),
        removed: plan.removed.iter().map(Statement::to_value).collect(),
        held: plan.hold.map(|hold| hold.message),
        foreign: plan.foreign_statements,
        current: observed,
        planned,
        ..DomainReport::default()
    };
    for key in verdicts.keys() {
        match plan.outcomes.get(key) {
            Some(Outcome::Refused(rejection) | Outcome::Undecided(rejection)) => {
                let file = files.get(key).map(String::as_str).unwrap_or_default();
                report.refused.push(refused(key, rejection, file));
            }
            Some(Outcome::Granted {
                warning: Some(message),
                ..
            }) => {
                report.warnings.push(Warning {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    message: message.clone(),
                });
            }
            _ => {}
        }
    }
    for (key, policy) in plan.identity_policies {
        report.identity_policies.push(AttachedPolicy {
            namespace: key.namespace,
            name: key.name,
            role_arn: policy.role.to_string(),
            policy_name: policy.name,
            policy: serde_json::from_str(&policy.document).unwrap_or_default(),
        });
    }
    report
}

fn refused(key: &GrantKey, rejection: &Rejection, file: &str) -> Refused {
    Refused {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        reason: rejection.reason.as_str(),
        message: rejection.to_string(),
        file: file.to_owned(),
    }
}
