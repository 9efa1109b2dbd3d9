//! What statements grant, apart from how they are spelled.
//!
//! A policy can say the same in many ways: statements split or joined, lists in any order, one
//! element alone or in a list, `es:*` or the six HTTP actions. [`Permissions`] is the one form that
//! all of them share, so that policies are compared, and ownership is kept, by meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::document::Statement;
use crate::api::access::Action;

/// The principal of unsigned requests.
pub const ANYONE: &str = "*";

/// Whether a statement allows or denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The statement allows.
    Allow,
    /// The statement denies.
    Deny,
}

impl Effect {
    /// Returns the effect as policies spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
        }
    }
}

/// The actions of a domain's data plane, with the bit of each in an [`ActionSet`].
const ACTIONS: [(&str, u8); 7] = [
    ("es:ESHttpGet", 1),
    ("es:ESHttpHead", 1 << 1),
    ("es:ESHttpPost", 1 << 2),
    ("es:ESHttpPut", 1 << 3),
    ("es:ESHttpPatch", 1 << 4),
    ("es:ESHttpDelete", 1 << 5),
    ("es:ESCrossClusterGet", 1 << 6),
];

/// A set of the data plane's actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ActionSet(u8);

impl ActionSet {
    /// Every HTTP method: what `es:*` and `es:ESHttp*` both mean on a domain's paths.
    pub const HTTP: Self = Self(0b11_1111);
    /// GET and HEAD.
    pub const FETCH: Self = Self(0b11);
    /// POST alone.
    pub const POST: Self = Self(0b100);
    /// The search from another cluster.
    pub const CROSS_CLUSTER: Self = Self(0b100_0000);

    /// Returns the set of what an action of a manifest means.
    #[must_use]
    pub fn of(action: Action) -> Self {
        match action {
            Action::All | Action::Http => Self::HTTP,
            Action::Get => Self(1),
            Action::Head => Self(1 << 1),
            Action::Post => Self::POST,
            Action::Put => Self(1 << 3),
            Action::Patch => Self(1 << 4),
            Action::Delete => Self(1 << 5),
            Action::CrossClusterGet => Self::CROSS_CLUSTER,
        }
    }

    /// Reads an action, or a pattern with `*` and `?`, as a policy spells it; case does not matter.
    ///
    /// `None` where it matches none of the data plane's actions.
    #[must_use]
    pub fn matching(pattern: &str) -> Option<Self> {
        let pattern = pattern.to_ascii_lowercase();
        let bits = ACTIONS
            .iter()
            .filter(|(name, _)| super::glob::matches(&pattern, &name.to_ascii_lowercase()))
            .fold(0, |bits, (_, bit)| bits | bit);
        (bits != 0).then_some(Self(bits))
    }

    /// Reads one action of the data plane by its whole name, in any case, and gives its spelling.
    #[must_use]
    pub fn exact(name: &str) -> Option<&'static str> {
        let mut names = ACTIONS.iter().map(|(name, _)| *name);
        names.find(|known| known.eq_ignore_ascii_case(name))
    }

    /// Returns the names of all actions of the data plane.
    #[must_use]
    pub fn all_names() -> [&'static str; 7] {
        ACTIONS.map(|(name, _)| name)
    }

    /// Returns the actions of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the actions of both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the actions that are not in the other set.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether every action is in the other set.
    #[must_use]
    pub fn is_subset(self, other: Self) -> bool {
        self.difference(other).is_empty()
    }

    /// Returns the set as a manifest spells it.
    #[must_use]
    pub fn to_actions(self) -> Vec<Action> {
        let (mut actions, rest) = if Self::HTTP.is_subset(self) {
            (vec![Action::All], self.difference(Self::HTTP))
        } else {
            (Vec::new(), self)
        };
        let each = [
            Action::Get,
            Action::Head,
            Action::Post,
            Action::Put,
            Action::Patch,
            Action::Delete,
            Action::CrossClusterGet,
        ];
        let held = each.into_iter().filter(|it| Self::of(*it).is_subset(rest));
        actions.extend(held);
        actions
    }

    /// Iterates over the sets of one action each that this set is made of.
    pub fn each(self) -> impl Iterator<Item = Self> {
        let bits = ACTIONS.into_iter().map(|(_, bit)| Self(bit));
        bits.filter(move |one| one.is_subset(self))
    }

    /// Tells whether there is no action.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the set as a policy spells it.
    ///
    /// All HTTP methods are `es:*`, which in a domain's policy means no more than `es:ESHttp*`
    /// (service developer guide, access control) and is the shortest.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let (mut names, rest) = if Self::HTTP.is_subset(self) {
            (vec!["es:*"], self.difference(Self::HTTP))
        } else {
            (Vec::new(), self)
        };
        names.extend(
            ACTIONS
                .iter()
                .filter(|(_, bit)| rest.0 & bit != 0)
                .map(|(name, _)| *name),
        );
        names
    }
}

/// What one permission is about, apart from its actions.
///
/// Ordered so that the statements of a policy are in a readable order: what is allowed first, the
/// principals by name, unsigned requests last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// Whether it allows or denies.
    pub effect: Effect,
    /// The principal: an ARN, a unique id that AWS put in an ARN's place, or [`ANYONE`].
    pub principal: Arc<str>,
    /// The resource, as a policy spells it.
    pub resource: Arc<str>,
    /// The condition in its canonical form; empty without one.
    pub condition: Arc<str>,
}

/// A set of permissions: the meaning of a list of statements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions(BTreeMap<Permission, ActionSet>);

impl Permissions {
    /// Adds actions to a permission.
    pub fn insert(&mut self, permission: Permission, actions: ActionSet) {
        if !actions.is_empty() {
            let held = self.0.entry(permission).or_default();
            *held = held.union(actions);
        }
    }

    /// Adds everything of another set.
    pub fn extend(&mut self, other: &Self) {
        for (permission, actions) in other.iter() {
            self.insert(permission.clone(), actions);
        }
    }

    /// Iterates over the permissions in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Permission, ActionSet)> {
        self.0
            .iter()
            .map(|(permission, actions)| (permission, *actions))
    }

    /// Returns the actions held for a permission.
    #[must_use]
    pub fn actions(&self, permission: &Permission) -> ActionSet {
        self.0.get(permission).copied().unwrap_or_default()
    }

    /// Tells whether there is no permission.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of distinct permissions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns what is here and not in the other set.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(|permission, actions| actions.difference(other.actions(permission)))
    }

    /// Returns what is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(|permission, actions| actions.intersection(other.actions(permission)))
    }

    /// Tells whether everything here is in the other set.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter()
            .all(|(permission, actions)| actions.is_subset(other.actions(permission)))
    }

    fn combine(&self, keep: impl Fn(&Permission, ActionSet) -> ActionSet) -> Self {
        let kept = self
            .iter()
            .map(|(permission, actions)| (permission, keep(permission, actions)));
        let kept = kept.filter(|(_, actions)| !actions.is_empty());
        Self(
            kept.map(|(permission, actions)| (permission.clone(), actions))
                .collect(),
        )
    }

    /// Returns the fewest statements that a grouping by principal gives: principals that hold the
    /// same actions on the same resources under the same condition share a statement.
    ///
    /// The same permissions give the same statements, in the same order, whatever they were built
    /// from.
    #[must_use]
    pub fn to_statements(&self) -> Vec<Statement> {
        type Holder<'a> = (Effect, &'a str, &'a str);
        type Body<'a> = (Effect, bool, &'a str, ActionSet, Vec<&'a str>);

        let mut held: BTreeMap<Holder<'_>, BTreeMap<ActionSet, Vec<&str>>> = BTreeMap::new();
        for (permission, actions) in self.iter() {
            let holder = (
                permission.effect,
                &*permission.principal,
                &*permission.condition,
            );
            let resources = held.entry(holder).or_default().entry(actions).or_default();
            resources.push(&*permission.resource);
        }
        // The service refuses `*` beside ARNs in one list, hence the flag in the key.
        let mut grouped: BTreeMap<Body<'_>, Vec<&str>> = BTreeMap::new();
        for ((effect, principal, condition), bodies) in held {
            for (actions, resources) in bodies {
                let body = (effect, principal == ANYONE, condition, actions, resources);
                grouped.entry(body).or_default().push(principal);
            }
        }
        grouped
            .into_iter()
            .map(|((effect, _, condition, actions, resources), principals)| {
                statement(effect, &principals, &actions.names(), &resources, condition)
            })
            .collect()
    }
}

fn statement(
    effect: Effect,
    principals: &[&str],
    actions: &[&str],
    resources: &[&str],
    condition: &str,
) -> Statement {
    let mut members = Map::new();
    members.insert("Effect".into(), effect.as_str().into());
    let principals = Map::from_iter([("AWS".to_owned(), one_or_many(principals))]);
    members.insert("Principal".into(), Value::Object(principals));
    members.insert("Action".into(), one_or_many(actions));
    members.insert("Resource".into(), one_or_many(resources));
    if let Ok(condition @ Value::Object(_)) = serde_json::from_str(condition) {
        members.insert("Condition".into(), condition);
    }
    Statement::new(members)
}

/// Spells a list as the service stores it: one element alone is no list.
pub(super) fn one_or_many(items: &[&str]) -> Value {
    match items {
        [one] => (*one).into(),
        many => many.iter().copied().collect(),
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} on {}",
            self.effect.as_str(),
            self.principal,
            self.resource
        )?;
        if self.condition.is_empty() {
            Ok(())
        } else {
            write!(f, " if {}", self.condition)
        }
    }
}
