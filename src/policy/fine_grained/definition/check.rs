//! The rules of a definition, and its ceiling.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::ceiling::Bounds;
use super::{Definition, prefix};
use crate::api::condition::Reason;
use crate::policy::consent;
use crate::policy::domain::{Domain, Limits, TEMPLATE};
use crate::policy::fine_grained::entity::{Engine, EntityKind, SecurityConfig};
use crate::policy::fine_grained::permission::{self, Group, Scope};
use crate::policy::fine_grained::query;
use crate::policy::{Rejection, glob};

/// What becomes of a definition, as far as it can be told without looking at what stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is to be in the plugin.
    Valid(Definition),
    /// It breaks a rule. What stands of it stays, as long as that keeps the ceiling.
    Broken(Definition, Rejection),
    /// Nobody consents to it.
    Refused(Definition, Rejection),
    /// Its object is being deleted.
    Deleting(Definition),
    /// This version cannot parse the object; what stands of it stays.
    Unreadable,
    /// This version cannot parse the object, which is being deleted.
    Gone,
}

/// Everything that a definition is checked by.
#[derive(Debug)]
pub struct Rules<'a> {
    /// The domain.
    pub domain: &'a Domain,
    /// Whether the domain has fine-grained access control.
    pub fine_grained: bool,
    /// Its engine.
    pub engine: Engine,
    /// What the plugin has; nothing where it is not known.
    pub observed: &'a SecurityConfig,
    /// The labels of the namespaces.
    pub labels: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// Action groups that objects define who may, by name: their namespace, and what they say.
    groups: BTreeMap<&'a str, (&'a str, Group)>,
}

impl<'a> Rules<'a> {
    /// Takes note of the action groups that objects define, by which roles may be.
    #[must_use]
    pub fn new(
        domain: &'a Domain,
        fine_grained: bool,
        engine: Engine,
        observed: &'a SecurityConfig,
        labels: &'a BTreeMap<String, BTreeMap<String, String>>,
        all: &'a [Definition],
    ) -> Self {
        let mut rules = Self {
            domain,
            fine_grained,
            engine,
            observed,
            labels,
            groups: BTreeMap::new(),
        };
        let claims = |it: &&Definition| {
            let is_group = it.key.kind == EntityKind::ActionGroup && !it.is_deleting;
            is_group && rules.may_be_named(it).is_ok()
        };
        let mut claims: Vec<&Definition> = all.iter().filter(claims).collect();
        claims.sort_by_key(|it| (it.created, &it.key));
        for it in claims {
            let claim = (it.key.namespace.as_str(), group(&it.body));
            rules.groups.entry(it.entity.as_str()).or_insert(claim);
        }
        rules
    }

    /// Returns the action groups that definitions of a namespace may name, beside the plugin's own:
    /// its own, and those that no object may define. Another namespace could change its at any time.
    ///
    /// Of its own, what stands counts together with what is to stand: neither may be permitted to
    /// whoever may not have both, whichever of two writes comes through.
    fn groups_for(&self, namespace: &str) -> BTreeMap<String, Group> {
        let mut found = BTreeMap::new();
        for (name, entity) in &self.observed.action_groups {
            let claimed = self.groups.get(name.as_str());
            if claimed.is_none_or(|(of, _)| *of == namespace) {
                found.insert(name.clone(), group(&entity.body));
            }
        }
        for (name, (_, wanted)) in self.groups.iter().filter(|(_, (of, _))| *of == namespace) {
            let known = found.entry((*name).to_owned());
            let known = known.or_insert_with(|| wanted.clone());
            known.scope = wanted.scope;
            known.actions.extend(wanted.actions.iter().cloned());
        }
        found
    }

    /// Returns all action groups, as they stand together with what is to stand.
    fn all_groups(&self) -> BTreeMap<String, Group> {
        let standing = self.observed.action_groups.iter();
        let mut found: BTreeMap<String, Group> = standing
            .map(|(name, entity)| (name.clone(), group(&entity.body)))
            .collect();
        for (name, (_, wanted)) in &self.groups {
            let known = found.entry((*name).to_owned());
            let known = known.or_insert_with(|| wanted.clone());
            known.scope = wanted.scope;
            known.actions.extend(wanted.actions.iter().cloned());
        }
        found
    }

    /// Checks that a namespace may give the name that a definition has.
    fn may_be_named(&self, definition: &Definition) -> Result<(), Rejection> {
        let namespace = &definition.key.namespace;
        let limits = consent::limits(self.domain, namespace, self.labels.get(namespace))?;
        self.name(definition, limits)
    }

    /// Decides about a definition.
    #[must_use]
    pub fn judge(&self, definition: Definition) -> Verdict {
        if definition.is_deleting {
            return Verdict::Deleting(definition);
        }
        if !self.fine_grained {
            let rejection = Rejection::new(
                Reason::NoFineGrainedAccess,
                "spec.domainRef",
                "the domain has no fine-grained access control: enable it, or delete this object (offline, spec.fineGrainedAccess of the OpenSearchDomain says that it has)",
            );
            return Verdict::Refused(definition, rejection);
        }
        // First, since what is no permission is over every ceiling.
        if let Err(rejection) = self.rules(&definition) {
            return Verdict::Broken(definition, rejection);
        }
        match self.consent(&definition, &definition.body) {
            Ok(()) => Verdict::Valid(definition),
            Err(rejection) => Verdict::Refused(definition, rejection),
        }
    }

    /// Checks that a body keeps its namespace's ceiling.
    pub fn consent(
        &self,
        definition: &Definition,
        body: &Map<String, Value>,
    ) -> Result<(), Rejection> {
        let namespace = &definition.key.namespace;
        let limits = consent::limits(self.domain, namespace, self.labels.get(namespace))?;
        self.name(definition, limits)?;
        // Whoever defines a group: what it permits is what naming it permits.
        let groups = self.all_groups();
        let bounds = Bounds::of(limits, namespace);
        match definition.key.kind {
            EntityKind::ActionGroup => {
                let group = group(body);
                bounds.actions(group.scope, &group.actions, "spec.allowedActions", &groups)
            }
            EntityKind::Role => bounds.role(body, &groups),
            EntityKind::Tenant | EntityKind::Mapping => Ok(()),
        }
    }

    fn name(&self, definition: &Definition, limits: &Limits) -> Result<(), Rejection> {
        let Definition { key, entity, .. } = definition;
        let own = prefix(&key.namespace);
        let mut patterns = limits.definitions.names.iter();
        if consent::is_protected(self.domain, entity) {
            let rule = format!("{entity:?} is a protected role, which no object may define");
            return Err(Rejection::new(Reason::OverCeiling, "spec.name", rule));
        }
        let named = patterns.any(|it| glob::matches(&it.replace(TEMPLATE, &key.namespace), entity));
        if named
            || entity
                .strip_prefix(&own)
                .is_some_and(|rest| !rest.is_empty())
        {
            return Ok(());
        }
        let rule = format!(
            "{entity:?} is not among the names that the ceiling allows (definitions.names): leave the name out, or begin it with {own:?}"
        );
        Err(Rejection::new(Reason::OverCeiling, "spec.name", rule))
    }

    /// Checks what needs no consent.
    fn rules(&self, definition: &Definition) -> Result<(), Rejection> {
        let Definition {
            key, entity, body, ..
        } = definition;
        if let Some(rejection) = &definition.broken {
            return Err(rejection.clone());
        }
        if !is_name(entity) {
            let rule = format!("{entity:?} is no name of letters, digits, '.', '_' and '-'");
            return Err(Rejection::invalid("spec.name", rule));
        }
        if let Some(limit) = self.engine.text_limit() {
            short(entity, "spec.name", limit)?;
            let mut texts = Vec::new();
            texts_of(&Value::Object(body.clone()), &mut texts);
            for text in texts {
                short(&text, "spec", limit)?;
            }
        }
        let groups = self.groups_for(&key.namespace);
        let other = match key.kind {
            EntityKind::ActionGroup => self.observed.roles.contains_key(entity),
            EntityKind::Role => self.observed.action_groups.contains_key(entity),
            EntityKind::Tenant | EntityKind::Mapping => false,
        };
        if other {
            let rule = format!(
                "{entity:?}: a role and an action group cannot have one name: choose another"
            );
            return Err(Rejection::new(Reason::Conflicted, "spec.name", rule));
        }
        match key.kind {
            EntityKind::ActionGroup => {
                let group = group(body);
                if group.actions.contains(entity) {
                    let rule = "an action group cannot name itself";
                    return Err(Rejection::invalid("spec.allowedActions", rule));
                }
                known(&group.actions, group.scope, "spec.allowedActions", &groups)
            }
            EntityKind::Role => role(body, &groups),
            EntityKind::Tenant | EntityKind::Mapping => Ok(()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let first = text
        .chars()
        .next()
        .is_some_and(|it| it.is_ascii_alphanumeric());
    first
        && text
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "._-".contains(it))
}

fn short(text: &str, field: &str, limit: usize) -> Result<(), Rejection> {
    let length = text.chars().count();
    if length <= limit {
        return Ok(());
    }
    let rule = format!(
        "a text of {length} characters, where OpenSearch 3.8 and later take {limit} at most"
    );
    Err(Rejection::invalid(field, rule))
}

fn texts_of(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|it| texts_of(it, texts)),
        Value::Object(members) => members.values().for_each(|it| texts_of(it, texts)),
        _ => {}
    }
}

/// Reads the body of an action group.
pub(super) fn group(body: &Map<String, Value>) -> Group {
    Group {
        scope: if body.get("type").and_then(Value::as_str) == Some("cluster") {
            Scope::Cluster
        } else {
            Scope::Index
        },
        actions: texts(body, "allowed_actions"),
    }
}

pub(super) fn texts(body: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = body.get(name).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The items of one of a role's lists, each with the field that it is to users.
fn items<'a>(
    body: &'a Map<String, Value>,
    name: &str,
    field: &'a str,
) -> impl Iterator<Item = (String, &'a Map<String, Value>)> {
    let list = body.get(name).and_then(Value::as_array);
    let items = list.into_iter().flatten().enumerate();
    items.filter_map(move |(index, item)| {
        Some((format!("spec.{field}[{index}]"), item.as_object()?))
    })
}

pub(super) fn indexes(
    body: &Map<String, Value>,
) -> impl Iterator<Item = (String, &Map<String, Value>)> {
    items(body, "index_permissions", "indexPermissions")
}

pub(super) fn tenants(
    body: &Map<String, Value>,
) -> impl Iterator<Item = (String, &Map<String, Value>)> {
    items(body, "tenant_permissions", "tenantPermissions")
}

/// Checks the rules of a role.
fn role(body: &Map<String, Value>, groups: &BTreeMap<String, Group>) -> Result<(), Rejection> {
    let cluster = texts(body, "cluster_permissions");
    known(&cluster, Scope::Cluster, "spec.clusterPermissions", groups)?;
    if cluster.is_empty() && indexes(body).next().is_none() && tenants(body).next().is_none() {
        let rule = "a role needs clusterPermissions, indexPermissions or tenantPermissions";
        return Err(Rejection::invalid("spec", rule));
    }
    for (field, item) in indexes(body) {
        for (at, pattern) in texts(item, "index_patterns").iter().enumerate() {
            if !is_index_pattern(pattern) {
                return Err(Rejection::invalid(
                    format!("{field}.indexPatterns[{at}]"),
                    format!(
                        "{pattern:?} is no index name (lowercase letters, digits, . _ + and -) with * and ? as wildcards"
                    ),
                ));
            }
        }
        known(
            &texts(item, "allowed_actions"),
            Scope::Index,
            &format!("{field}.allowedActions"),
            groups,
        )?;
        let dls = item.get("dls").and_then(Value::as_str).unwrap_or_default();
        if !dls.is_empty() {
            query::check(dls)
                .map_err(|error| Rejection::invalid(format!("{field}.dls"), error.to_string()))?;
        }
        let fields = texts(item, "fls");
        let hidden = fields.iter().filter(|it| it.starts_with('~')).count();
        if hidden != 0 && hidden != fields.len() {
            let rule = "name either the fields that are seen or, each with ~, those that are not";
            return Err(Rejection::invalid(format!("{field}.fls"), rule));
        }
    }
    for (field, item) in tenants(body) {
        let actions = texts(item, "allowed_actions");
        if let Some(other) = actions
            .iter()
            .find(|it| !TENANT_ACTIONS.contains(&it.as_str()))
        {
            let rule = format!("{other:?} is neither kibana_all_read nor kibana_all_write");
            return Err(Rejection::invalid(format!("{field}.allowedActions"), rule));
        }
    }
    Ok(())
}

/// What a role may do with a tenant.
const TENANT_ACTIONS: [&str; 2] = ["kibana_all_read", "kibana_all_write"];

fn is_index_pattern(text: &str) -> bool {
    let allowed =
        |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "._*?+-".contains(it);
    let first = text
        .chars()
        .next()
        .is_some_and(|it| allowed(it) && !"+-".contains(it));
    first && text.chars().all(allowed)
}

/// Checks that the plugin knows permissions.
fn known(
    actions: &[String],
    scope: Scope,
    field: &str,
    groups: &BTreeMap<String, Group>,
) -> Result<(), Rejection> {
    for (index, action) in actions.iter().enumerate() {
        permission::check(action, scope, groups)
            .map_err(|error| Rejection::invalid(format!("{field}[{index}]"), error.to_string()))?;
    }
    Ok(())
}
