//! The second half of access on a domain with fine-grained access control: what the roles of its
//! security plugin permit, once the access policy has let a request in.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::explain::Manifest;
use super::manifest::CLUSTER;
use super::plan::World;
use crate::policy::evaluate::{Decision, Request};
use crate::policy::fine_grained::definition::plan::Outcome;
use crate::policy::fine_grained::entity::{EntityKind, SecurityConfig};
use crate::policy::fine_grained::evaluate::{Filters, Plugin};
use crate::policy::fine_grained::mapping::Entries;
use crate::policy::fine_grained::matrix::{self, Row};
use crate::policy::fine_grained::permission;
use crate::policy::fine_grained::request::Asked;
use crate::policy::validate::{GrantKey, ValidatedGrant};

/// What roles permit, as far as it is known.
#[derive(Debug)]
pub struct Roles {
    config: SecurityConfig,
    /// Whether the plugin itself was read, so that nothing is missing.
    whole: bool,
    /// The manifests that define roles, by role.
    defined: BTreeMap<String, Vec<Manifest>>,
    /// The manifests that map somebody to roles, and whom.
    mapped: Vec<(Manifest, Entries, BTreeSet<String>)>,
}

/// What one half of access says; part of the JSON output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Half {
    /// `Allow`, `Deny` or `Unknown`.
    pub decision: &'static str,
    /// Why, for a person.
    pub why: String,
    /// The roles that the caller has for certain.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// The roles of the caller that keep rows, fields or values back.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filters: BTreeMap<String, Filters>,
}

impl Roles {
    /// Takes what the plugin has, or the manifests say that it will have. `standing` is about what
    /// it has now: manifests count only where it was not read.
    #[must_use]
    pub fn of<'a>(
        world: &'a World,
        granted: impl IntoIterator<Item = (&'a GrantKey, &'a ValidatedGrant)>,
        standing: bool,
    ) -> Option<Self> {
        if !world.facts.fine_grained {
            return None;
        }
        let read = world.security.as_ref();
        let adds = !standing || read.is_none();
        let mut config = read.cloned().unwrap_or_default();
        if adds {
            config = world.definitions.ahead(&config);
        }
        let from = |file: Option<&String>| {
            let file = file.filter(|file| *file != CLUSTER);
            file.cloned().unwrap_or_default()
        };
        let mut defined: BTreeMap<String, Vec<Manifest>> = BTreeMap::new();
        for (key, outcome) in &world.definitions.outcomes {
            if let Outcome::Defined { entity, .. } = outcome
                && key.kind == EntityKind::Role
            {
                defined.entry(entity.clone()).or_default().push(Manifest {
                    kind: key.object_kind(),
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    file: from(world.definition_files.get(key)),
                });
            }
        }
        let mut mapped = Vec::new();
        for (key, grant) in granted {
            let entries = Entries::of_grant(grant);
            for role in grant.security_roles.iter().filter(|_| adds) {
                let mapping = config.mappings.entry(role.clone()).or_default();
                let mut all = Entries::of(mapping);
                all.extend(&entries);
                for (list, texts) in all.lists() {
                    let texts = serde_json::json!(texts);
                    mapping.body.insert(list.to_owned(), texts);
                }
            }
            let manifest = Manifest {
                kind: "DomainAccess",
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                file: from(world.files.get(key)),
            };
            let roles = grant.security_roles.iter().cloned().collect();
            mapped.push((manifest, entries, roles));
        }
        Some(Self {
            config,
            whole: read.is_some(),
            defined,
            mapped,
        })
    }

    /// Takes a plugin that was read, with no manifest.
    #[must_use]
    pub fn of_plugin(config: SecurityConfig) -> Self {
        Self {
            config,
            whole: true,
            defined: BTreeMap::new(),
            mapped: Vec::new(),
        }
    }

    /// Answers a question, and says which manifests are behind the answer.
    #[must_use]
    pub fn answer(&self, request: &Request) -> (Half, Decision, Vec<Manifest>) {
        let groups = permission::fixed_groups();
        let plugin = Plugin::new(&self.config, &groups);
        let method = request.action.strip_prefix("es:ESHttp");
        let asked = Asked::of(method.unwrap_or(&request.action), &request.path);
        let found = plugin.answer(request.principal.as_deref(), asked.as_ref());
        let (mut decision, mut why) = (found.decision, found.why);
        if decision == Decision::Deny && !self.whole {
            decision = Decision::Unknown;
            why.push_str("; what the security plugin has beside these manifests is not known, --live reads it");
        }
        let caller = request.principal.as_deref();
        let names = |entries: &Entries| {
            let mut lists = entries.lists().into_iter();
            lists.any(|(_, texts)| caller.is_some_and(|caller| texts.contains(caller)))
        };
        let mapped = self
            .mapped
            .iter()
            .filter(|(_, entries, roles)| !roles.is_disjoint(&found.by) && names(entries));
        let mapped = mapped.map(|(manifest, _, _)| manifest);
        let defined = found.by.iter().filter_map(|role| self.defined.get(role));
        let manifests = mapped.chain(defined.flatten()).cloned().collect();
        let half = Half {
            decision: decision.as_str(),
            why,
            roles: found.roles,
            filters: found.filters,
        };
        (half, decision, manifests)
    }

    /// Returns who has which role.
    #[must_use]
    pub fn matrix(&self) -> Vec<Row> {
        matrix::rows(&self.config)
    }
}

/// Joins the halves: a request is let in where both let it in.
#[must_use]
pub fn joined(door: (Decision, &str), roles: (Decision, &str)) -> (Decision, String) {
    let (first, second) = (door.1, roles.1);
    match (door.0, roles.0) {
        (Decision::Deny, Decision::Deny) => (
            Decision::Deny,
            format!("the access policy and fine-grained access control deny it: {first}; {second}"),
        ),
        (Decision::Deny, _) => (
            Decision::Deny,
            format!("the access policy denies it: {first}"),
        ),
        (_, Decision::Deny) => (
            Decision::Deny,
            format!("fine-grained access control denies it: {second}"),
        ),
        (Decision::Allow, Decision::Allow) => (Decision::Allow, format!("{first}; {second}")),
        (Decision::Unknown, Decision::Allow) => (
            Decision::Unknown,
            format!("it depends on the access policy: {first}; {second}"),
        ),
        (Decision::Allow, Decision::Unknown) => (
            Decision::Unknown,
            format!("it depends on fine-grained access control: {second}; {first}"),
        ),
        (Decision::Unknown, Decision::Unknown) => (Decision::Unknown, format!("{first}; {second}")),
    }
}
