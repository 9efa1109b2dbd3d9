//! Who a caller is to the security plugin, and which roles it has.

use super::super::entity::Entity;
use super::pattern::{self, Pattern};
use crate::policy::evaluate::{Truth, all, any};

/// A caller, as the plugin sees it.
///
/// A signed request arrives with the ARN as the name of the user. Where it is signed by a session of
/// an IAM role, the role's ARN is the only backend role, and the name as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The name of the user, where it is certain.
    pub(super) name: Option<String>,
    /// Whether it may have roles that no mapping gives: the plugin's own users may.
    pub(super) may_have_any: bool,
    names: Spellings,
    backend_roles: Option<Spellings>,
}

/// How one thing may be spelled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Spellings {
    /// One of these it is.
    likely: Vec<String>,
    /// Or it is any that one of these patterns matches.
    possible: Vec<String>,
}

impl Spellings {
    fn new(likely: impl Into<Vec<String>>, possible: impl Into<Vec<String>>) -> Self {
        Self {
            likely: likely.into(),
            possible: possible.into(),
        }
    }

    fn matches(&self, pattern: &str) -> Truth {
        match Pattern::of(pattern) {
            // It matches whatever there is, and where there is nothing.
            Pattern::Glob("*") => Some(true),
            Pattern::Glob(glob) => {
                let matched = |text: &String| pattern::matches(glob, text);
                if !self.likely.is_empty() && self.likely.iter().all(matched) {
                    return Some(true);
                }
                let touched = |text: &String| pattern::touches(glob, text);
                let open = self.likely.iter().any(matched) || self.possible.iter().any(touched);
                if open { None } else { Some(false) }
            }
            Pattern::Never => Some(false),
            Pattern::Open => {
                let none = self.likely.is_empty() && self.possible.is_empty();
                if none { Some(false) } else { None }
            }
        }
    }
}

impl Caller {
    /// Reads a caller: an ARN, or the name of a user that the plugin keeps itself; `None` is
    /// somebody who did not sign.
    pub(super) fn of(caller: Option<&str>) -> Self {
        let Some(caller) = caller else {
            return Self {
                name: None,
                may_have_any: true,
                names: Spellings::new([], ["*".to_owned()]),
                backend_roles: None,
            };
        };
        let mut parts = caller.splitn(6, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (arn, partition, service, _, account, resource) =
            (next(), next(), next(), next(), next(), next());
        if arn != "arn" {
            return Self {
                name: Some(caller.to_owned()),
                may_have_any: true,
                names: Spellings::new([caller.to_owned()], []),
                backend_roles: None,
            };
        }
        let role = |name: &str| format!("arn:{partition}:iam::{account}:role/{name}");
        let session = |name: &str| format!("arn:{partition}:sts::{account}:assumed-role/{name}");
        let of_role = |likely: Vec<String>, path: Vec<String>, session: String| {
            let name = match likely.as_slice() {
                [one] => Some(one.clone()),
                _ => None,
            };
            let names = [path.clone(), vec![session]].concat();
            Self {
                name,
                may_have_any: false,
                names: Spellings::new(likely.clone(), names),
                backend_roles: Some(Spellings::new(likely, path)),
            }
        };
        match (service, resource.split_once('/')) {
            ("iam", Some(("role", path))) => {
                let name = path.rsplit('/').next().unwrap_or(path);
                // Whether the path of a role reaches the plugin is not known.
                let mut likely = vec![caller.to_owned(), role(name)];
                likely.dedup();
                of_role(likely, Vec::new(), session(&format!("{name}/*")))
            }
            ("sts", Some(("assumed-role", of))) => {
                let name = of.split('/').next().unwrap_or(of);
                let with_path = role(&format!("*/{name}"));
                of_role(vec![role(name)], vec![with_path], caller.to_owned())
            }
            _ => Self {
                name: Some(caller.to_owned()),
                may_have_any: false,
                names: Spellings::new([caller.to_owned()], []),
                backend_roles: Some(Spellings::default()),
            },
        }
    }

    /// Tells whether a mapping gives the caller its role.
    pub(super) fn has(&self, mapping: &Entity) -> Truth {
        let backend_role = |pattern: &str| match &self.backend_roles {
            Some(known) => known.matches(pattern),
            None => (pattern == "*").then_some(true),
        };
        let together: Vec<Truth> = mapping
            .texts("and_backend_roles")
            .map(backend_role)
            .collect();
        let together = if together.is_empty() {
            Some(false)
        } else {
            all(together)
        };
        // Where a request comes from is not part of the question.
        let hosts = mapping
            .texts("hosts")
            .map(|host| (host == "*").then_some(true));
        let users = mapping.texts("users").map(|user| self.names.matches(user));
        let backend_roles = mapping.texts("backend_roles").map(backend_role);
        any(users.chain(backend_roles).chain(hosts).chain([together]))
    }
}
