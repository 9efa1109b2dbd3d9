//! `plan`: what each domain's access policy would be, from manifests alone.
//!
//! # Caveats
//!
//! Without AWS, whether principals exist is not known, and whether a domain is inside a VPC; a
//! domain counts as having fine-grained access control where its manifest has `fineGrainedAccess`.
//! Without a cluster, a namespace has the labels that its manifest gives it, if it is there, and a
//! service account the role that its manifest's annotation names, which is not proven.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::manifest::{Manifests, Sourced};
use crate::api::access::DomainAccess;
use crate::api::condition::Reason;
use crate::policy::document::{Document, Statement};
use crate::policy::domain::Domain;
use crate::policy::ownership::LastApplied;
use crate::policy::plan::{self, Input, Outcome, Plan};
use crate::policy::service_account::{Proof, ROLE_ANNOTATION, Resolution, Resolutions, annotated};
use crate::policy::validate::{DomainFacts, GrantKey, ValidatedGrant};
use crate::policy::verdict::{self, NamespaceLabels, Verdict};
use crate::policy::{Rejection, canonical};

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
    /// Whether the policy would be written.
    #[serde(skip)]
    pub writes: bool,
    /// Whether the domain's manifest breaks rules, so that nothing could be planned.
    #[serde(skip)]
    pub unusable: bool,
    /// The file that the domain came from; empty without one.
    #[serde(skip)]
    pub file: String,
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
        self.domains.values().any(|domain| domain.writes)
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

/// Plans every domain of the manifests, as far as they can be used.
#[must_use]
pub fn plan(manifests: &Manifests, current: &Current, now: Timestamp) -> Report {
    let mut report = Report::default();
    for (name, sourced) in &manifests.domains {
        let planned = match Domain::parse(&sourced.object) {
            Ok(domain) => domain_report(world(domain, manifests, current, now)),
            Err(broken) => unusable_domain(name, &broken, current),
        };
        let planned = DomainReport {
            file: sourced.file.clone(),
            ..planned
        };
        report.domains.insert(name.clone(), planned);
    }
    for (name, broken) in &manifests.unusable_domains {
        let unusable = unusable_domain(name, &broken.object, current);
        let unusable = DomainReport {
            file: broken.file.clone(),
            ..unusable
        };
        report.domains.insert(name.clone(), unusable);
    }
    for grant in manifests.grants.values() {
        let name = &grant.object.spec.domain_ref.name;
        let domain = report.domains.entry(name.clone()).or_default();
        let (reason, rule) = if domain.unusable {
            (
                Reason::InvalidSpec,
                format!("the manifest of OpenSearchDomain {name:?} breaks rules"),
            )
        } else if !manifests.domains.contains_key(name) {
            let rule = format!("no OpenSearchDomain {name:?} is among the manifests");
            (Reason::DomainNotFound, rule)
        } else {
            continue;
        };
        let rejection = Rejection::new(reason, "spec.domainRef.name", rule);
        let refused = refused(&GrantKey::of(&grant.object), &rejection, &grant.file);
        domain.refused.push(refused);
    }
    for unusable in &manifests.unusable_grants {
        let (namespace, name) = unusable.grant.clone();
        let refused = Refused {
            namespace,
            name,
            reason: Reason::InvalidSpec.as_str(),
            message: joined(&unusable.broken.object),
            file: unusable.broken.file.clone(),
        };
        let domain = report.domains.entry(unusable.domain.clone()).or_default();
        domain.refused.push(refused);
    }
    for domain in report.domains.values_mut() {
        let place = |refused: &Refused| (refused.namespace.clone(), refused.name.clone());
        domain.refused.sort_by_cached_key(place);
    }
    report
}

/// Returns the labels of every namespace that a grant is in, with the one that Kubernetes itself
/// puts on it.
fn labels(manifests: &Manifests) -> NamespaceLabels {
    let mut labels = manifests.labels.clone();
    for (namespace, _) in manifests.grants.keys() {
        let labels = labels.entry(namespace.clone()).or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.clone());
    }
    labels
}

/// Takes the annotation of each service account that is among the manifests for its role; what AWS
/// says of it is not known.
fn accounts(manifests: &Manifests) -> Resolutions {
    let found = manifests.accounts.iter().map(|(account, role)| {
        let resolution = match role.as_deref().map(annotated) {
            None => Resolution::Denied(format!(
                "its manifest has no annotation {ROLE_ANNOTATION}, and whether a Pod Identity association gives it a role only AWS knows"
            )),
            Some(Ok(role)) => Resolution::Role(role, Proof::Unchecked),
            Some(Err(refused)) => refused,
        };
        (account.clone(), resolution)
    });
    let otherwise = "its role is not known without a cluster and AWS: add its manifest, whose annotation then counts, or name the role by iamRole.arn";
    Resolutions::new(found.collect(), None, Reason::PrincipalUnknown, otherwise)
}

/// Returns what the author of a grant should know of its service accounts.
fn unchecked(grant: &ValidatedGrant) -> Option<String> {
    let unchecked = grant
        .service_accounts()
        .filter(|it| it.proof == Some(Proof::Unchecked));
    let said: Vec<String> = unchecked
        .flat_map(|it| it.roles.iter().map(|role| format!("{} is {role}", it.name)))
        .collect();
    (!said.is_empty()).then(|| {
        format!(
            "service accounts are taken by their annotation ({}), which is not proven without AWS: the operator grants by it only if no Pod Identity association names another role and the role's trust policy lets the service account in",
            said.join(", ")
        )
    })
}

/// Reports a domain whose manifest breaks rules: what is in its policy stays.
fn unusable_domain(name: &str, broken: &[Rejection], current: &Current) -> DomainReport {
    let observed = current.policies.get(name).cloned().unwrap_or_default();
    DomainReport {
        access_policy: observed.to_value(),
        held: Some(joined(broken)),
        unusable: true,
        current: observed.clone(),
        planned: observed,
        ..DomainReport::default()
    }
}

fn joined(broken: &[Rejection]) -> String {
    let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
    broken.join("; ")
}

/// One domain with its grants, and what the plan for them is.
#[derive(Debug)]
pub struct World {
    /// The domain's manifest, parsed.
    pub domain: Domain,
    /// What is known of the domain beside it.
    pub facts: DomainFacts,
    /// What validation made of every grant that names the domain.
    pub verdicts: BTreeMap<GrantKey, Verdict>,
    /// The policy as it is.
    pub observed: Document,
    /// What to do about the domain.
    pub plan: Plan,
    /// The files that grants came from.
    pub files: BTreeMap<GrantKey, String>,
}

/// Plans one domain with its grants out of the manifests.
#[must_use]
pub fn world(domain: Domain, manifests: &Manifests, current: &Current, now: Timestamp) -> World {
    let names_it =
        |grant: &&Sourced<DomainAccess>| grant.object.spec.domain_ref.name == domain.name;
    let grants = manifests.grants.values().filter(names_it);
    let facts = DomainFacts {
        fine_grained: domain.fine_grained,
        ..DomainFacts::default()
    };
    let mut files = BTreeMap::new();
    let verdicts = verdict::of_all(
        grants.map(|grant| {
            // Objects out of files have no UID; their place is as good.
            let mut object = grant.object.clone();
            object
                .metadata
                .uid
                .get_or_insert_with(|| GrantKey::of(&grant.object).to_string());
            files.insert(GrantKey::of(&object), grant.file.clone());
            object
        }),
        &domain,
        facts,
        &accounts(manifests),
        &labels(manifests),
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
        domain: &domain,
        facts,
        held: &BTreeMap::new(),
        grants: &verdicts,
        observed: &observed,
        last: last.as_ref(),
        acknowledged_revocation: 0,
    });
    World {
        domain,
        facts,
        verdicts,
        observed,
        plan,
        files,
    }
}

fn domain_report(world: World) -> DomainReport {
    let World {
        domain,
        verdicts,
        files,
        observed,
        plan,
        ..
    } = world;
    let writes = plan.policy.is_some();
    let planned = plan.policy.unwrap_or_else(|| observed.clone());
    let dropped = dropped(&observed, &planned, &domain);
    let mut report = DomainReport {
        access_policy: planned.to_value(),
        added: plan.added.iter().map(Statement::to_value).collect(),
        removed: plan
            .removed
            .iter()
            .chain(dropped)
            .map(Statement::to_value)
            .collect(),
        writes,
        held: plan.hold.map(|hold| hold.message),
        foreign: plan.foreign_statements,
        current: observed,
        planned,
        ..DomainReport::default()
    };
    for key in verdicts.keys() {
        if let Some(Verdict::Valid(grant)) = verdicts.get(key)
            && let Some(message) = unchecked(grant)
        {
            report.warnings.push(Warning {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                message,
            });
        }
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
                    message: (*message).to_owned(),
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

/// Returns the statements of unknown meaning that are not in the planned policy any more.
fn dropped<'a>(
    observed: &'a Document,
    planned: &Document,
    domain: &Domain,
) -> impl Iterator<Item = &'a Statement> {
    let kept: BTreeSet<String> = planned
        .statements()
        .iter()
        .map(canonical::spelling)
        .collect();
    let arn = domain.arn.clone();
    observed.statements().iter().filter(move |statement| {
        canonical::permissions(statement, &arn).is_none()
            && !kept.contains(&canonical::spelling(statement))
    })
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
