//! What one principal holds, taken apart into levels of access and exact actions.

use std::collections::BTreeMap;

use crate::api::access::{
    AccessLevel, Conditions, DomainAccess, DomainAccessSpec, DomainRef, Principal,
};
use crate::policy::compile::Compiler;
use crate::policy::domain::{Access, Domain};
use crate::policy::import::Target;
use crate::policy::permission::{ActionSet, Permissions};
use crate::policy::validate::{self, DomainFacts, GrantKey, Restrictions, ValidatedGrant};

/// The most paths of one grant.
const MOST_PATHS: usize = 50;

/// What a grant gives, apart from who and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Body {
    /// The level; `None`: the actions.
    pub(super) level: Option<AccessLevel>,
    /// The exact actions; empty with a level.
    pub(super) actions: ActionSet,
    /// The paths; none: the whole domain.
    pub(super) paths: Vec<String>,
}

impl Body {
    /// Returns a body that keeps every rule.
    pub(super) fn probe() -> Self {
        Self::level(AccessLevel::Read, Vec::new())
    }

    fn level(level: AccessLevel, paths: Vec<String>) -> Self {
        Self {
            level: Some(level),
            actions: ActionSet::default(),
            paths,
        }
    }

    fn exact(actions: ActionSet, paths: Vec<String>) -> Self {
        Self {
            level: None,
            actions,
            paths,
        }
    }

    /// Spells the body as a manifest.
    pub(super) fn to_grant(
        &self,
        name: &str,
        principals: Vec<Principal>,
        conditions: Option<Conditions>,
        target: &Target,
    ) -> DomainAccess {
        let spec = DomainAccessSpec {
            domain_ref: DomainRef {
                name: target.object_name(),
            },
            principals,
            access: self.level,
            actions: self.actions.to_actions(),
            paths: self.paths.clone(),
            conditions,
            ..DomainAccessSpec::default()
        };
        let mut object = DomainAccess::new(name, spec);
        object.metadata.namespace = Some(target.namespace.clone());
        object
    }

    /// Returns what the body compiles to, by resource.
    fn compile(&self, domain: &Domain) -> BTreeMap<String, ActionSet> {
        let access = match self.level {
            Some(level) => Access::Level(level),
            None => Access::Actions(self.actions.to_actions()),
        };
        let grant = ValidatedGrant {
            key: GrantKey {
                namespace: String::new(),
                name: String::new(),
                uid: String::new(),
            },
            generation: None,
            created: None,
            principals: vec![validate::Principal::Anyone],
            access,
            paths: self.paths.clone(),
            restrictions: Restrictions::default(),
            security_roles: Vec::new(),
            attach_identity_policy: false,
            expires_at: None,
        };
        let facts = DomainFacts {
            fine_grained: domain.fine_grained,
            ..DomainFacts::default()
        };
        let compiled = Compiler::new(domain, facts).grant(&grant);
        by_resource(&compiled.permissions)
    }
}

fn by_resource(permissions: &Permissions) -> BTreeMap<String, ActionSet> {
    let mut found: BTreeMap<String, ActionSet> = BTreeMap::new();
    for (permission, actions) in permissions.iter() {
        let held = found.entry(permission.resource.to_string()).or_default();
        *held = held.union(actions);
    }
    found
}

/// What is held, and what of it no body says yet.
struct Search<'a> {
    domain: &'a Domain,
    held: BTreeMap<String, ActionSet>,
    rest: BTreeMap<String, ActionSet>,
    found: Vec<Body>,
}

impl Search<'_> {
    /// Tells whether all that a body says is held.
    fn fits(&self, body: &Body) -> bool {
        let compiled = body.compile(self.domain);
        compiled.iter().all(|(resource, actions)| {
            let held = self.held.get(resource).copied().unwrap_or_default();
            actions.is_subset(held)
        })
    }

    /// Takes a body, if it fits and says something new.
    fn take(&mut self, body: Body) {
        if !self.fits(&body) {
            return;
        }
        let compiled = body.compile(self.domain);
        let mut is_new = false;
        for (resource, actions) in &compiled {
            if let Some(rest) = self.rest.get_mut(resource) {
                is_new |= !rest.intersection(*actions).is_empty();
                *rest = rest.difference(*actions);
            }
        }
        self.rest.retain(|_, actions| !actions.is_empty());
        if is_new {
            self.found.push(body);
        }
    }

    /// Returns the paths of which something is left.
    fn open_paths(&self) -> Vec<String> {
        let whole = self.domain.arn.resource("");
        let paths = self.rest.keys().filter_map(|it| it.strip_prefix(&whole));
        paths
            .filter(|path| validate::check_path(path).is_ok())
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Takes a level on all paths that have it.
    fn take_level(&mut self, level: AccessLevel) {
        self.take(Body::level(level, Vec::new()));
        let paths = self.open_paths().into_iter();
        let fitting = paths.filter(|path| self.fits(&Body::level(level, vec![path.clone()])));
        let fitting: Vec<String> = fitting.collect();
        // What is below a path that has the level comes with it.
        let stem = |path: &String| path.strip_suffix("/*").map(ToOwned::to_owned);
        let paths: Vec<String> = fitting
            .iter()
            .filter(|path| !stem(path).is_some_and(|stem| fitting.contains(&stem)))
            .cloned()
            .collect();
        for paths in paths.chunks(MOST_PATHS) {
            self.take(Body::level(level, paths.to_vec()));
        }
    }
}

/// Takes apart what one principal holds under one condition; what cannot be said is left.
pub(super) fn recognise(permissions: &Permissions, domain: &Domain) -> Vec<Body> {
    let held = by_resource(permissions);
    let mut search = Search {
        domain,
        rest: held.clone(),
        held,
        found: Vec::new(),
    };
    search.take_level(AccessLevel::ReadWrite);
    search.take_level(AccessLevel::Read);
    for resource in [domain.arn.as_str().to_owned(), domain.arn.resource("*")] {
        if let Some(actions) = search.rest.get(&resource).copied() {
            search.take(Body::exact(actions, Vec::new()));
        }
    }
    let mut exact: BTreeMap<ActionSet, Vec<String>> = BTreeMap::new();
    let mut rest = search.rest.clone();
    // In order, an index comes before what is below it.
    for path in search.open_paths() {
        let resource = domain.arn.resource(&path);
        let of = |rest: &BTreeMap<String, ActionSet>, resource: &str| {
            rest.get(resource).copied().unwrap_or_default()
        };
        let mut actions = of(&rest, &resource);
        if !path.ends_with('*') {
            let below = format!("{resource}/*");
            actions = actions.intersection(of(&search.held, &below));
            let left = of(&rest, &below).difference(actions);
            rest.insert(below, left);
        }
        if !actions.is_empty() {
            exact.entry(actions).or_default().push(path);
        }
    }
    for (actions, paths) in exact {
        for paths in paths.chunks(MOST_PATHS) {
            search.take(Body::exact(actions, paths.to_vec()));
        }
    }
    search.found
}
