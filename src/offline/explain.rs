//! `explain`: who may do what on a domain, and which manifest says so.
//!
//! With a question (a principal, an action, a path) it answers `Allow`, `Deny` or `Unknown`, with
//! the statements and manifests behind the answer. Without one it gives the whole access matrix.
//!
//! # Caveats
//!
//! From manifests alone the policy is the one that a plan would write; the caveats of
//! [`super::plan`] hold here too. A grant is taken to be behind a policy that stands if all that it
//! asks for is in there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::manifest::CLUSTER;
use super::plan::World;
use super::roles::{self, Half, Roles};
use crate::api::arn::DomainArn;
use crate::policy::compile::Compiler;
use crate::policy::document::{Document, Statement};
use crate::policy::evaluate::{self, Request};
use crate::policy::fine_grained;
use crate::policy::matrix::{self, Row};
use crate::policy::permission::Permissions;
use crate::policy::plan::Outcome;
use crate::policy::validate::{GrantKey, ValidatedGrant};
use crate::policy::verdict::Verdict;
use crate::policy::{canonical, ownership};

/// What is explained.
#[derive(Debug)]
pub struct Subject {
    /// The domain's ARN.
    pub arn: DomainArn,
    /// The whole policy.
    pub policy: Document,
    /// The grants behind it.
    pub grants: Vec<Granted>,
    /// The statements that no manifest is behind.
    pub others: Document,
    /// What the roles of the security plugin permit, where the domain has fine-grained access
    /// control.
    pub roles: Option<Roles>,
}

/// A grant that is in the policy.
#[derive(Debug)]
pub struct Granted {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its lines of the matrix.
    pub rows: Vec<Row>,
    /// Its own statements.
    pub own: Document,
}

/// A manifest behind an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Manifest {
    /// `DomainAccess`, or `DomainRole` of a role that permits it.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file that it came from; absent where it came from a cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// The answer to a question; the JSON output is this.
#[derive(Debug, PartialEq, Serialize)]
pub struct Answer {
    /// `Allow`, `Deny` or `Unknown`.
    pub decision: &'static str,
    /// The statements that decide it, or leave it open.
    pub statements: Vec<Value>,
    /// The manifests behind those.
    pub manifests: Vec<Manifest>,
    /// Why, for a person.
    pub why: String,
    /// What the access policy says, where fine-grained access control has its say too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<Half>,
    /// What fine-grained access control says, where the domain has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Half>,
}

/// The whole access matrix; the JSON output is this.
#[derive(Debug, PartialEq, Serialize)]
pub struct Matrix {
    /// The domain's ARN.
    pub domain: String,
    /// Its lines, in order.
    pub rows: Vec<Row>,
    /// Who has which role of the security plugin, where the domain has fine-grained access control.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<fine_grained::matrix::Row>,
}

/// Why a policy document cannot be explained by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No resource names a domain.
    #[error("no resource of the policy names a domain: say which one it is of with --domain-arn")]
    NoDomain,
    /// Several domains are named.
    #[error(
        "the resources of the policy name several domains: say which one it is of with --domain-arn; they are {0}"
    )]
    SeveralDomains(String),
}

impl Subject {
    /// Takes a domain and its grants out of a planned world: the policy as it would be. Where the
    /// plan is held nothing would be written, and it is the policy as it is.
    #[must_use]
    pub fn of_world(world: &World) -> Self {
        let World { plan, .. } = world;
        let written = plan.policy.as_ref().filter(|_| plan.hold.is_none());
        let granted = world.verdicts.iter().filter_map(|(key, verdict)| {
            let outcome = plan.outcomes.get(key);
            match verdict {
                Verdict::Valid(grant) if matches!(outcome, Some(Outcome::Granted { .. })) => {
                    Some((key, &**grant))
                }
                _ => None,
            }
        });
        let granted: Vec<_> = granted.collect();
        let roles = Roles::of(world, granted.iter().copied(), false);
        Self::of(world, written.unwrap_or(&world.observed), granted, roles)
    }

    /// Takes a domain and its grants as they stand: the policy as it is, and every grant behind
    /// it, though it may be refused or deleted by now and about to go.
    #[must_use]
    pub fn of_standing(world: &World) -> Self {
        let mut asked: BTreeMap<&GrantKey, &ValidatedGrant> = world.held.iter().collect();
        for (key, verdict) in &world.verdicts {
            if let Verdict::Valid(grant) | Verdict::Undecided(grant, _) = verdict {
                asked.insert(key, grant);
            }
        }
        let mapped = asked.iter().map(|(key, grant)| (*key, *grant));
        let roles = Roles::of(world, mapped, true);
        Self::of(world, &world.observed, asked, roles)
    }

    /// Takes a policy, and of the grants those that are in it.
    fn of<'a>(
        world: &'a World,
        policy: &Document,
        candidates: impl IntoIterator<Item = (&'a GrantKey, &'a ValidatedGrant)>,
        roles: Option<Roles>,
    ) -> Self {
        let arn = world.domain.arn.clone();
        let standing = allowed(policy, &arn);
        let mut bodies = Compiler::new(&world.domain, world.facts);
        let mut grants = Vec::new();
        let mut asked = Permissions::default();
        for (key, grant) in candidates {
            let compiled = bodies.grant(grant);
            if !compiled.permissions.is_subset(&standing) {
                continue;
            }
            asked.extend(&compiled.permissions);
            let file = world.files.get(key).filter(|file| *file != CLUSTER);
            grants.push(Granted {
                manifest: Manifest {
                    kind: "DomainAccess",
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    file: file.cloned().unwrap_or_default(),
                },
                rows: matrix::of_grant(grant),
                own: Document::new(compiled.permissions.to_statements()),
            });
        }
        let others = ownership::split(policy, &arn, None, &asked).others;
        Self {
            arn,
            others: Document::new(others),
            policy: policy.clone(),
            grants,
            roles,
        }
    }

    /// Takes a policy document by itself; without an ARN, the domain is the one that its resources
    /// name.
    pub fn of_policy(policy: Document, arn: Option<DomainArn>) -> Result<Self, Error> {
        let arn = match arn {
            Some(arn) => arn,
            None => domain_of(&policy)?,
        };
        Ok(Self {
            arn,
            others: policy.clone(),
            policy,
            grants: Vec::new(),
            roles: None,
        })
    }

    /// Answers a question.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Answer {
        let evaluate = |document: &Document| evaluate::evaluate(document, &self.arn, request);
        let found = evaluate(&self.policy);
        let statements = self.policy.statements();
        let statements = found.statements.iter().filter_map(|&at| statements.get(at));
        // A grant is behind the answer if its own statements alone lead to it in the same way.
        let behind = |granted: &&Granted| {
            let own = evaluate(&granted.own);
            !own.statements.is_empty() && (own.decision, &own.why) == (found.decision, &found.why)
        };
        let behind = self.grants.iter().filter(behind);
        let mut answer = Answer {
            decision: found.decision.as_str(),
            statements: statements.map(Statement::to_value).collect(),
            manifests: behind.map(|granted| granted.manifest.clone()).collect(),
            why: found.why,
            door: None,
            permissions: None,
        };
        if let Some(roles) = &self.roles {
            let (half, decision, manifests) = roles.answer(request);
            let door = (found.decision, answer.why.as_str());
            let (decision, why) = roles::joined(door, (decision, &half.why));
            answer.door = Some(Half {
                decision: answer.decision,
                why: std::mem::replace(&mut answer.why, why),
                roles: BTreeSet::new(),
                filters: BTreeMap::new(),
            });
            answer.decision = decision.as_str();
            answer.permissions = Some(half);
            answer.manifests.extend(manifests);
            answer.manifests.sort_unstable();
            answer.manifests.dedup();
        }
        answer
    }

    /// Returns the whole access matrix.
    #[must_use]
    pub fn matrix(&self) -> Matrix {
        let grants = self.grants.iter().flat_map(|granted| granted.rows.clone());
        let others = matrix::of_statements(&self.others, &self.arn);
        let rows: BTreeSet<Row> = grants.chain(others).collect();
        Matrix {
            domain: self.arn.to_string(),
            rows: rows.into_iter().collect(),
            roles: self.roles.as_ref().map(Roles::matrix).unwrap_or_default(),
        }
    }
}

/// Returns what a policy allows, as far as it is understood.
fn allowed(policy: &Document, arn: &DomainArn) -> Permissions {
    canonical::Canonical::of(policy, arn).permissions().clone()
}

/// Returns the domain that the resources of a policy name.
pub fn domain_of(policy: &Document) -> Result<DomainArn, Error> {
    let resources = policy.statements().iter().flat_map(|statement| {
        let members = statement.members();
        ["Resource", "NotResource"].map(|element| match members.get(element) {
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        })
    });
    let found: BTreeSet<DomainArn> = resources
        .flatten()
        .filter_map(DomainArn::of_resource)
        .collect();
    match found.len() {
        0 => Err(Error::NoDomain),
        1 => found.into_iter().next().ok_or(Error::NoDomain),
        _ => {
            let found: Vec<&str> = found.iter().map(DomainArn::as_str).collect();
            Err(Error::SeveralDomains(found.join(", ")))
        }
    }
}
