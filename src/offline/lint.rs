//! `lint`: what is amiss with manifests and policy documents, each with its place and what to do.
//!
//! A grant's own rules need its domain: without that among the manifests they are not checked, and
//! a warning says so.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::manifest::Manifests;
use super::plan::{self, Current, World};
use crate::api::condition::Reason;
use crate::policy::compile::Compiler;
use crate::policy::domain::Domain;
use crate::policy::fine_grained::definition::plan::Outcome as DefinitionOutcome;
use crate::policy::fine_grained::definition::{DefinitionKey, prefix};
use crate::policy::fine_grained::entity::EntityKind;
use crate::policy::fine_grained::nearest::{nearest, suggestion};
use crate::policy::lint::{self, Finding, Severity, Subject, UNUSABLE};
use crate::policy::permission::Permissions;
use crate::policy::plan::Outcome;
use crate::policy::validate::{GrantKey, ValidatedGrant};
use crate::policy::verdict::Verdict;
use crate::policy::{Rejection, address};

/// What is amiss, in the order of files; the JSON output is this.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Everything that was found.
    pub findings: Vec<Placed>,
}

/// Something amiss, with the file and the object that it is in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Placed {
    /// The file, `-` for standard input, `<cluster>` for a cluster, `<aws>` for AWS.
    pub file: String,
    /// The object, such as `DomainAccess team-a/search-api`; empty in a policy document.
    pub object: String,
    /// What is amiss.
    #[serde(flatten)]
    pub finding: Finding,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.file, &self.object, &self.finding.place] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        write!(f, "{} ({})", self.finding.message, self.finding.rule)
    }
}

impl Report {
    /// Tells whether an input could not be read for what it is.
    #[must_use]
    pub fn has_unusable(&self) -> bool {
        self.findings.iter().any(|it| it.finding.rule == UNUSABLE)
    }

    /// Adds what is amiss with a policy document.
    pub fn add_policy(&mut self, file: &str, text: &str, subject: Subject<'_>) {
        for finding in lint::document(text, subject) {
            self.add(file, "", finding);
        }
    }

    /// Adds what is amiss with manifests, for all that is known beside them.
    pub fn add_manifests(&mut self, manifests: &Manifests, current: &Current, now: Timestamp) {
        for error in &manifests.errors {
            let finding = Finding::new(Severity::Error, UNUSABLE, &error.field, &error.rule);
            self.add(&error.file, &error.object, finding);
        }
        for (name, broken) in &manifests.unusable_domains {
            self.add_broken(&broken.file, &of_domain(name), &broken.object);
        }
        for grant in &manifests.unusable_grants {
            let (namespace, name) = &grant.grant;
            let object = format!("DomainAccess {namespace}/{name}");
            self.add_broken(&grant.broken.file, &object, &grant.broken.object);
        }
        for (name, sourced) in &manifests.domains {
            match Domain::parse(&sourced.object) {
                Ok(domain) => {
                    self.add_ceilings(&domain, &sourced.file);
                    let world = plan::world(domain, manifests, current, now);
                    self.add_world(&world);
                }
                Err(broken) => self.add_broken(&sourced.file, &of_domain(name), &broken),
            }
        }
        for sourced in manifests.grants.values() {
            let (object, domain) = (&sourced.object, &sourced.object.spec.domain_ref.name);
            let object = of_grant(&GrantKey::of(object));
            self.add_stray((&sourced.file, &object), domain, manifests);
        }
        for sourced in manifests.definitions.values() {
            let (key, domain) = (&sourced.object.definition.key, &sourced.object.domain);
            self.add_stray((&sourced.file, &of_definition(key)), domain, manifests);
        }
        self.findings.sort_unstable();
    }

    fn add(&mut self, file: &str, object: &str, finding: Finding) {
        self.findings.push(Placed {
            file: file.to_owned(),
            object: object.to_owned(),
            finding,
        });
    }

    fn add_broken(&mut self, file: &str, object: &str, broken: &[Rejection]) {
        for rejection in broken {
            self.add(file, object, refused(rejection));
        }
    }

    fn add_ceilings(&mut self, domain: &Domain, file: &str) {
        for (entry, consent) in domain.consent.iter().enumerate() {
            let field = format!("spec.consent[{entry}].ceiling.sourceIps");
            for finding in private_addresses(&consent.ceiling.source_ips, &field) {
                self.add(file, &of_domain(&domain.name), finding);
            }
        }
    }

    /// Adds an object whose domain is not there to check it against.
    fn add_stray(&mut self, (file, object): (&str, &str), name: &str, manifests: &Manifests) {
        if manifests.domains.contains_key(name) || manifests.unusable_domains.contains_key(name) {
            return;
        }
        let message = format!(
            "no OpenSearchDomain {name:?} is among the manifests, so the object's rules were not checked: add the domain's manifest"
        );
        let place = "spec.domainRef.name";
        let rule = Reason::DomainNotFound.as_str();
        let finding = Finding::new(Severity::Warning, rule, place, message);
        self.add(file, object, finding);
    }

    fn add_world(&mut self, world: &World) {
        let mut valid: Vec<(&GrantKey, &ValidatedGrant, Arc<Permissions>)> = Vec::new();
        for (key, outcome) in &world.plan.outcomes {
            let finding = match outcome {
                Outcome::Refused(rejection) | Outcome::Undecided(rejection) => refused(rejection),
                Outcome::Granted {
                    warning: Some(message),
                    ..
                } => Finding::new(
                    Severity::Warning,
                    "paths-not-enforced",
                    "spec.paths",
                    *message,
                ),
                _ => continue,
            };
            self.add_to_grant(world, key, finding);
        }
        for (key, outcome) in &world.definitions.outcomes {
            if let DefinitionOutcome::Refused(rejection, _) = outcome {
                let file = world.definition_files.get(key);
                let file = file.map(String::as_str).unwrap_or_default();
                self.add(file, &of_definition(key), refused(rejection));
            }
        }
        self.add_unknown_roles(world);
        let mut bodies = Compiler::new(&world.domain, world.facts);
        for (key, verdict) in &world.verdicts {
            if let Verdict::Valid(grant) = verdict {
                let compiled = bodies.grant(grant);
                valid.push((key, grant, compiled.permissions));
            }
        }
        let sets: Vec<&Permissions> = valid.iter().map(|(_, _, set)| set.as_ref()).collect();
        for index in lint::repeated(&sets) {
            let Some((key, grant, _)) = valid.get(index) else {
                continue;
            };
            // An identity policy is more than what the others grant.
            if !grant.attach_identity_policy {
                let message = "other grants on the domain grant all of this too: deleting one of them revokes nothing, so keep one";
                let finding = Finding::new(Severity::Warning, "repeated", "", message);
                self.add_to_grant(world, key, finding);
            }
        }
        for (key, grant, _) in &valid {
            let addresses = &grant.restrictions.source_ips;
            for finding in private_addresses(addresses, "spec.conditions.sourceIps") {
                self.add_to_grant(world, key, finding);
            }
        }
    }

    /// Adds grants of roles that their namespace would define, and that no manifest does, while
    /// nobody has asked the plugin.
    fn add_unknown_roles(&mut self, world: &World) {
        if world.security.is_some() {
            return;
        }
        let outcomes = world.definitions.outcomes.iter();
        let defined: BTreeSet<&str> = outcomes
            .filter_map(|(key, outcome)| match outcome {
                DefinitionOutcome::Defined { entity, .. } if key.kind == EntityKind::Role => {
                    Some(entity.as_str())
                }
                _ => None,
            })
            .collect();
        for (key, verdict) in &world.verdicts {
            let Verdict::Valid(grant) = verdict else {
                continue;
            };
            for (index, role) in grant.security_roles.iter().enumerate() {
                let own = role.starts_with(&prefix(&key.namespace));
                if !own || defined.contains(role.as_str()) {
                    continue;
                }
                let meant = nearest(role, defined.iter().copied());
                let message = format!(
                    "no DomainRole among the manifests defines {role:?}{}; whether the security plugin has it, --live tells",
                    suggestion(meant)
                );
                let place = format!("spec.securityRoles[{index}]");
                let rule = Reason::RoleNotFound.as_str();
                let finding = Finding::new(Severity::Warning, rule, place, message);
                self.add_to_grant(world, key, finding);
            }
        }
    }

    fn add_to_grant(&mut self, world: &World, key: &GrantKey, finding: Finding) {
        let file = world.files.get(key).map(String::as_str).unwrap_or_default();
        self.add(file, &of_grant(key), finding);
    }
}

fn of_domain(name: &str) -> String {
    format!("OpenSearchDomain {name}")
}

fn of_definition(key: &DefinitionKey) -> String {
    format!("{} {}/{}", key.object_kind(), key.namespace, key.name)
}

fn of_grant(key: &GrantKey) -> String {
    format!("DomainAccess {key}")
}

/// Returns the finding of a grant or domain that is refused: its rule is the reason that the
/// condition would carry.
fn refused(rejection: &Rejection) -> Finding {
    // What only AWS knows is no fault of the manifests.
    let harmless = [Reason::Expired, Reason::PrincipalUnknown];
    let severity = if harmless.contains(&rejection.reason) {
        Severity::Warning
    } else {
        Severity::Error
    };
    let rule = rejection.reason.as_str();
    Finding::new(severity, rule, &rejection.field, &rejection.rule)
}

fn private_addresses(blocks: &[ipnet::IpNet], field: &str) -> Vec<Finding> {
    let private = blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| address::is_private(**block));
    private
        .map(|(index, block)| {
            lint::private_address(&block.to_string(), &format!("{field}[{index}]"))
        })
        .collect()
}
