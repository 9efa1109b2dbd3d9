//! `plan`: what each domain's access policy would be, from manifests and what is known beside them.
//!
//! The same pure functions decide here as in the reconciler, in the same order.
//!
//! # Caveats
//!
//! Without AWS, whether principals exist is not known, and whether a domain is inside a VPC; a
//! domain counts as having fine-grained access control where its manifest has `fineGrainedAccess`.
//! Without a cluster, a namespace has the labels that its manifest gives it, if it is there. With
//! both, one thing stays unknown: whom the operator keeps out at the moment since AWS refused a
//! policy that named them, which is in its memory alone. A service account has the role that its
//! manifest's annotation names, which is not proven.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::manifest::{Manifests, Sourced};
use crate::api::access::DomainAccess;
use crate::api::arn::EntityArn;
use crate::api::condition::Reason;
use crate::api::domain::{DeletionPolicy, OpenSearchDomain, PolicyMode};
use crate::policy::document::{Document, Statement};
use crate::policy::domain::Domain;
use crate::policy::fine_grained::definition::check::Rules;
use crate::policy::fine_grained::definition::plan::{
    AppliedDefinitions, DefinitionPlan, Outcome as DefinitionOutcome,
};
use crate::policy::fine_grained::definition::{self, Definition, DefinitionKey};
use crate::policy::fine_grained::entity::{Engine, SecurityConfig};
use crate::policy::fine_grained::mapping;
use crate::policy::ownership::LastApplied;
use crate::policy::plan::{self, Input, Outcome, Plan};
use crate::policy::service_account::{
    AccountName, Proof, ROLE_ANNOTATION, Resolution, Resolutions, annotated,
};
use crate::policy::validate::{DomainFacts, GrantKey, ServiceAccount, ValidatedGrant};
use crate::policy::verdict::{self, NamespaceLabels, Verdict};
use crate::policy::{Rejection, canonical, consent, evidence, guard};

mod report;

pub use self::report::{
    AttachedPolicy, Defined, DomainReport, Refused, RemovedPolicy, Report, Warning,
};

/// What is known beside the manifests; by the name of the `OpenSearchDomain`, unless it says
/// otherwise.
#[derive(Debug, Default)]
pub struct Current {
    /// The policy that a domain has now; none: the domain has no policy.
    pub policies: BTreeMap<String, Document>,
    /// What the operator wrote; none: the statements that say what the manifests ask for.
    pub applied: BTreeMap<String, LastApplied>,
    /// What the operator defined in the security plugin, where its record was read.
    pub defined: BTreeMap<String, AppliedDefinitions>,
    /// What AWS says of the domain; none: what its manifest says.
    pub facts: BTreeMap<String, DomainFacts>,
    /// The engine of a domain, where AWS was asked.
    pub engines: BTreeMap<String, Engine>,
    /// What the security plugin of a domain has, where it was read.
    pub security: BTreeMap<String, SecurityConfig>,
    /// Whether principals exist, as far as it was asked.
    pub principals: BTreeMap<EntityArn, evidence::Existence>,
    /// Grants of the cluster that cannot be parsed.
    pub unreadable: Vec<evidence::Unreadable>,
    /// Why a domain cannot be planned: its policy could not be read.
    pub failures: BTreeMap<String, String>,
}

/// Plans every domain of the manifests, as far as they can be used.
#[must_use]
pub fn plan(manifests: &Manifests, current: &Current, now: Timestamp) -> Report {
    let mut report = Report::default();
    for (name, sourced) in &manifests.domains {
        let planned = DomainReport {
            file: sourced.file.clone(),
            ..one(name, &sourced.object, manifests, current, now)
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
        let (reason, rule) = if domain.unplanned {
            continue;
        } else if domain.unusable {
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
    for definition in manifests.definitions.values() {
        let (name, key) = (&definition.object.domain, &definition.object.definition.key);
        if manifests.domains.contains_key(name) || manifests.unusable_domains.contains_key(name) {
            continue;
        }
        let rule = format!("no OpenSearchDomain {name:?} is among the manifests");
        let rejection = Rejection::new(Reason::DomainNotFound, "spec.domainRef.name", rule);
        let domain = report.domains.entry(name.clone()).or_default();
        let refused = refused_definition(key, &rejection, &definition.file);
        domain.refused.push(refused);
    }
    for unusable in &manifests.unusable_grants {
        let (namespace, name) = unusable.grant.clone();
        let refused = Refused {
            kind: "DomainAccess",
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

/// Plans one domain, as far as it can be used.
fn one(
    name: &str,
    object: &OpenSearchDomain,
    manifests: &Manifests,
    current: &Current,
    now: Timestamp,
) -> DomainReport {
    let domain = match Domain::parse(object) {
        Ok(domain) => domain,
        Err(broken) => return unusable_domain(name, &broken, current),
    };
    let others = manifests.domains.values().map(|it| &it.object);
    let mut standing = DomainReport {
        arn: Some(domain.arn.clone()),
        unusable: false,
        unplanned: true,
        ..unusable_domain(name, &[], current)
    };
    if let Some(failure) = current.failures.get(name) {
        standing.held = Some(failure.clone());
        return standing;
    }
    if let Some(older) = evidence::older_rival(object, others) {
        standing.held = Some(format!(
            "OpenSearchDomain {older:?} is about the same domain and is older, so it manages it alone: delete one of the two"
        ));
        return standing;
    }
    standing.held = None;
    let is_deleting = object.metadata.deletion_timestamp.is_some();
    if is_deleting && domain.deletion_policy == DeletionPolicy::Retain {
        let note =
            "the object is being deleted with deletionPolicy Retain: what is in the policy stays";
        standing.notes.push(note.to_owned());
        return standing;
    }
    let mut notes = Vec::new();
    if is_deleting {
        notes.push("the object is being deleted with deletionPolicy Revoke".to_owned());
    }
    if domain.mode == PolicyMode::Observe {
        let note = "accessPolicy.mode is Observe: the operator shows this in the status, and does not write it";
        notes.push(note.to_owned());
    }
    if domain.suspend {
        notes.push("suspend is set: the operator does not write this until it is unset".to_owned());
    }
    DomainReport {
        notes,
        ..domain_report(world(domain, manifests, current, now))
    }
}

/// Returns the labels of every namespace that a grant is in, with the one that Kubernetes itself
/// puts on it.
fn labels(manifests: &Manifests) -> NamespaceLabels {
    let mut labels = manifests.labels.clone();
    let grants = manifests.grants.keys().map(|(namespace, _)| namespace);
    let definitions = manifests.definitions.keys().map(|key| &key.namespace);
    for namespace in grants.chain(definitions) {
        let labels = labels.entry(namespace.clone()).or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.clone());
    }
    labels
}

/// Takes the annotation of each service account that is among the manifests for its role; what AWS
/// says of it is not known. What the operator applied a grant with counts for more: it has asked.
fn accounts(manifests: &Manifests, last: Option<&LastApplied>) -> Resolutions {
    let mut found: BTreeMap<_, _> = manifests.accounts.iter().map(|(account, role)| {
        let resolution = match role.as_deref().map(annotated) {
            None => Resolution::Denied(format!(
                "its manifest has no annotation {ROLE_ANNOTATION}, and whether a Pod Identity association gives it a role only AWS knows"
            )),
            Some(Ok(role)) => Resolution::Role(role, Proof::Unchecked),
            Some(Err(refused)) => refused,
        };
        (account.clone(), resolution)
    }).collect();
    found.extend(recorded(last));
    let otherwise = "its role is not known without a cluster and AWS: add its manifest, whose annotation then counts, or name the role by iamRole.arn";
    Resolutions::new(found, last, Reason::PrincipalUnknown, otherwise)
}

/// Returns the service accounts that grants were applied with as one role.
fn recorded(last: Option<&LastApplied>) -> BTreeMap<AccountName, Resolution> {
    let grants = last.into_iter().flat_map(|last| last.grants.values());
    let named = grants.flat_map(|grant| {
        let accounts = grant.service_accounts.iter();
        accounts.map(move |(name, roles)| (AccountName::new(&grant.namespace, name), roles))
    });
    named
        .filter_map(|(account, roles)| {
            let [role] = roles.as_slice() else {
                return None;
            };
            let role = annotated(role).ok()?;
            Some((account, Resolution::Role(role, Proof::Recorded)))
        })
        .collect()
}

/// Returns what the author of a grant should know of its service accounts.
pub fn unchecked<'a>(accounts: impl IntoIterator<Item = &'a ServiceAccount>) -> Option<String> {
    let unchecked = accounts
        .into_iter()
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
    /// What the grants ask for that the operator has let into the policy, whatever they have now.
    pub held: BTreeMap<GrantKey, ValidatedGrant>,
    /// The policy as it is.
    pub observed: Document,
    /// What the operator wrote, where that is known.
    pub last: Option<LastApplied>,
    /// What to do about the domain.
    pub plan: Plan,
    /// The files that grants came from.
    pub files: BTreeMap<GrantKey, String>,
    /// What the security plugin has, where it was read.
    pub security: Option<SecurityConfig>,
    /// What objects define in it; as if it had nothing else, where it was not read.
    pub definitions: DefinitionPlan,
    /// The files that those objects came from.
    pub definition_files: BTreeMap<DefinitionKey, String>,
}

/// Returns the grants that name a domain, with a UID, and where each came from.
fn grants_of<'a>(
    domain: &'a str,
    manifests: &'a Manifests,
) -> impl Iterator<Item = (DomainAccess, &'a str)> {
    let names_it =
        move |grant: &&Sourced<DomainAccess>| grant.object.spec.domain_ref.name == domain;
    manifests.grants.values().filter(names_it).map(|grant| {
        // Objects out of files have no UID; their place is as good.
        let mut object = grant.object.clone();
        object
            .metadata
            .uid
            .get_or_insert_with(|| GrantKey::of(&grant.object).to_string());
        (object, grant.file.as_str())
    })
}

/// Returns the IAM roles and users that AWS would be asked for before a domain's plan.
#[must_use]
pub fn entities(
    domain: &Domain,
    manifests: &Manifests,
    current: &Current,
    now: Timestamp,
) -> BTreeSet<EntityArn> {
    let grants = grants_of(&domain.name, manifests).map(|(object, _)| object);
    let facts = facts(domain, current);
    let accounts = accounts(manifests, current.applied.get(&domain.name));
    let labels = labels(manifests);
    let verdicts = verdict::of_all(grants, domain, facts, &accounts, &labels, now);
    let own = |arn: &EntityArn| arn.account() == domain.account;
    plan::entities(&verdicts).into_iter().filter(own).collect()
}

fn facts(domain: &Domain, current: &Current) -> DomainFacts {
    let told = current.facts.get(&domain.name).copied();
    told.unwrap_or(DomainFacts {
        fine_grained: domain.fine_grained,
        ..DomainFacts::default()
    })
}

/// Plans one domain with its grants out of the manifests.
#[must_use]
pub fn world(domain: Domain, manifests: &Manifests, current: &Current, now: Timestamp) -> World {
    let (objects, places): (Vec<DomainAccess>, Vec<&str>) =
        grants_of(&domain.name, manifests).unzip();
    let files = objects.iter().map(GrantKey::of);
    let files = files.zip(places.into_iter().map(ToOwned::to_owned));
    let facts = facts(&domain, current);
    let object = manifests.domains.get(&domain.name).map(|it| &it.object);
    let metadata = object.map(|it| &it.metadata);
    let last = current.applied.get(&domain.name);

    let accounts = accounts(manifests, last);
    let labels = labels(manifests);
    let mut verdicts = verdict::of_all(&objects, &domain, facts, &accounts, &labels, now);
    let recorded = |uid: &String| last.is_some_and(|last| last.grants.contains_key(uid));
    let unreadable = current.unreadable.iter().cloned();
    let unreadable = unreadable.filter(|grant| recorded(&grant.key.uid));
    evidence::add_unreadable(&mut verdicts, unreadable);
    if metadata.is_some_and(|it| it.deletion_timestamp.is_some()) {
        for verdict in verdicts.values_mut() {
            *verdict = Verdict::Deleting;
        }
    }
    evidence::judge_principals(&mut verdicts, &domain.account, &current.principals);

    let held = verdict::held(&objects, &domain, facts, &accounts);
    let security = current.security.get(&domain.name);
    let (definitions, definition_files) = definitions(&domain, facts, manifests, current, &labels);
    if let Some(config) = security.filter(|_| facts.fine_grained) {
        let ahead = definitions.ahead(config);
        mapping::judge_roles(&mut verdicts, &ahead, |grant, role| {
            let namespace = &grant.key.namespace;
            consent::names_role(&domain, namespace, labels.get(namespace), role)
        });
    }
    let observed = current.policies.get(&domain.name);
    let observed = observed.cloned().unwrap_or_default();
    let annotations = metadata.and_then(|it| it.annotations.as_ref());
    let plan = plan::plan(&Input {
        domain: &domain,
        facts,
        held: &held,
        grants: &verdicts,
        observed: &observed,
        last,
        acknowledged_revocation: annotations.map_or(0, guard::acknowledged),
    });
    World {
        files: files.collect(),
        definitions,
        definition_files,
        security: security.cloned(),
        facts,
        verdicts,
        held,
        observed,
        last: last.cloned(),
        plan,
        domain,
    }
}

/// Decides about everything that objects define on a domain. Where it is not known what the plugin
/// has beside, its own action groups are.
fn definitions(
    domain: &Domain,
    facts: DomainFacts,
    manifests: &Manifests,
    current: &Current,
    labels: &NamespaceLabels,
) -> (DefinitionPlan, BTreeMap<DefinitionKey, String>) {
    let of_domain = || {
        let all = manifests.definitions.values();
        all.filter(|it| it.object.domain == domain.name)
    };
    let all: Vec<Definition> = of_domain().map(|it| it.object.definition.clone()).collect();
    let nothing = SecurityConfig::default();
    let engine = current.engines.get(&domain.name).copied();
    let engine = engine.unwrap_or_default();
    let observed = current.security.get(&domain.name).unwrap_or(&nothing);
    let last = current.defined.get(&domain.name);
    let rules = Rules::new(domain, facts.fine_grained, engine, observed, labels, &all);
    let judged = all
        .iter()
        .map(|it| (it.key.clone(), rules.judge(it.clone())));
    let seen = definition::plan::Seen::default();
    let plan = definition::plan::plan(&judged.collect(), &rules, last, &seen);
    let files = of_domain().map(|it| (it.object.definition.key.clone(), it.file.clone()));
    (plan, files.collect())
}

fn domain_report(world: World) -> DomainReport {
    let World {
        domain,
        verdicts,
        files,
        observed,
        last,
        plan,
        definitions,
        definition_files,
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
        withheld: plan.withheld.map(|hold| hold.message),
        arn: Some(domain.arn.clone()),
        foreign: plan.foreign_statements,
        current: observed,
        planned,
        ..DomainReport::default()
    };
    for key in verdicts.keys() {
        if let Some(Verdict::Valid(grant)) = verdicts.get(key)
            && let Some(message) = unchecked(grant.service_accounts())
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
    add_definitions(&mut report, &definitions, &definition_files);
    let removals = plan.identity_removals.into_iter();
    report.identity_removals = removals
        .map(|(role_arn, policy_name)| RemovedPolicy {
            role_arn,
            policy_name,
        })
        .collect();
    for (key, policy) in plan.identity_policies {
        let on_record =
            |(role, name): &(String, String)| role == policy.role.as_str() && *name == policy.name;
        let record = last.as_ref().and_then(|last| last.grants.get(&key.uid));
        let recorded = record.is_some_and(|it| it.identity_policies.iter().any(on_record));
        report.identity_policies.push(AttachedPolicy {
            namespace: key.namespace,
            name: key.name,
            role_arn: policy.role.to_string(),
            policy_name: policy.name,
            policy: serde_json::from_str(&policy.document).unwrap_or_default(),
            recorded,
        });
    }
    report
}

/// Reports what objects define in the security plugin, and what of it is refused.
fn add_definitions(
    report: &mut DomainReport,
    definitions: &DefinitionPlan,
    files: &BTreeMap<DefinitionKey, String>,
) {
    for (key, outcome) in &definitions.outcomes {
        match outcome {
            DefinitionOutcome::Defined { entity, .. } => report.definitions.push(Defined {
                kind: key.object_kind(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                entity: entity.clone(),
            }),
            DefinitionOutcome::Refused(rejection, _) => {
                let file = files.get(key).map(String::as_str).unwrap_or_default();
                report
                    .refused
                    .push(refused_definition(key, rejection, file));
            }
            DefinitionOutcome::Deleting(_) => {}
        }
    }
}

fn refused_definition(key: &DefinitionKey, rejection: &Rejection, file: &str) -> Refused {
    Refused {
        kind: key.object_kind(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        reason: rejection.reason.as_str(),
        message: rejection.to_string(),
        file: file.to_owned(),
    }
}

/// Returns the statements of unknown meaning, or of none, that are not in the planned policy any more.
fn dropped<'a>(
    observed: &'a Document,
    planned: &Document,
    domain: &Domain,
) -> impl Iterator<Item = &'a Statement> {
    let arn = domain.arn.clone();
    let kept = planned.statements().iter();
    let kept: BTreeSet<String> = kept.map(canonical::spelling).collect();
    observed.statements().iter().filter(move |statement| {
        let meaning = canonical::permissions(statement, &arn);
        meaning.is_none_or(|meaning| meaning.is_empty())
            && !kept.contains(&canonical::spelling(statement))
    })
}

fn refused(key: &GrantKey, rejection: &Rejection, file: &str) -> Refused {
    Refused {
        kind: "DomainAccess",
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        reason: rejection.reason.as_str(),
        message: rejection.to_string(),
        file: file.to_owned(),
    }
}
