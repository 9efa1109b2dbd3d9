//! Service accounts as principals: which IAM role the pods of one get, and what proves it.
//!
//! The annotation `eks.amazonaws.com/role-arn` is text that a tenant writes; it proves nothing. A
//! role counts as a service account's where AWS says so: by a Pod Identity association, or by the
//! role's own trust policy (see [`super::trust`]). Finding out is the caller's; here is what came of
//! it.

use std::collections::BTreeMap;

use super::ownership::LastApplied;
use super::validate::GrantKey;
use crate::api::access::DomainAccess;
use crate::api::arn::{EntityArn, EntityKind};
use crate::api::condition::Reason;

/// The annotation that names the IAM role of a service account (IAM Roles for Service Accounts).
pub const ROLE_ANNOTATION: &str = "eks.amazonaws.com/role-arn";

/// A service account by its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl AccountName {
    /// Names a service account.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Returns the service accounts that a grant names: always of its own namespace.
    pub fn all_of(grant: &DomainAccess) -> impl Iterator<Item = Self> {
        let namespace = grant.metadata.namespace.as_deref().unwrap_or_default();
        let principals = grant.spec.principals.iter();
        let accounts = principals.filter_map(|it| it.service_account.as_ref());
        accounts.map(move |account| Self::new(namespace, &account.name))
    }

    /// Returns what tokens of the service account call their holder.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl std::fmt::Display for AccountName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What says that pods of a service account get a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A Pod Identity association: whoever made it may pass the role, in AWS.
    Association,
    /// The role's trust policy lets in the service account that is annotated with it.
    TrustPolicy,
    /// Nothing but the annotation: the role's trust policy is another account's, and cannot be
    /// read. The role needs the ceiling's word, as if the grant named it.
    Annotation,
    /// Nobody asked AWS: the annotation of a manifest.
    Unchecked,
    /// Nobody asked AWS: the operator's record, which says with which role a grant was applied.
    Recorded,
}

impl Proof {
    /// Returns where the role was found, as a status shows it.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Association => "PodIdentityAssociation",
            Self::Recorded => "Record",
            Self::TrustPolicy | Self::Annotation | Self::Unchecked => "Annotation",
        }
    }
}

/// What came of looking for the role of a service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The role, and what says so.
    Role(EntityArn, Proof),
    /// There is no role, or nothing proves that it is the service account's.
    Refused(Reason, String),
    /// Nobody answered; that passes.
    Unknown(String),
    /// Nobody answers until somebody gives the operator a permission, or what it is not told.
    Denied(String),
}

/// Reads the annotation of a service account.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn annotated(role: &str) -> Result<EntityArn, Resolution> {
    EntityArn::parse(role, EntityKind::Role).map_err(|error| {
        Resolution::Refused(
            Reason::RoleNotResolved,
            format!("its annotation {ROLE_ANNOTATION} is not the ARN of a role: {error}"),
        )
    })
}

/// What came of looking for the roles of the service accounts that the grants of a domain name.
#[derive(Debug, Clone)]
pub struct Resolutions {
    found: BTreeMap<AccountName, Resolution>,
    /// The roles that each grant was applied with, by UID and service account.
    before: BTreeMap<String, BTreeMap<String, Vec<EntityArn>>>,
    otherwise: (Reason, String),
}

impl Default for Resolutions {
    fn default() -> Self {
        Self::new(
            BTreeMap::new(),
            None,
            Reason::PrincipalUnknown,
            "it was not looked up",
        )
    }
}

impl Resolutions {
    /// Gathers what was found.
    ///
    /// `last` tells with which roles grants were applied. `reason` and `otherwise` are said of
    /// service accounts that are not among the found ones, since nobody asked: for that nothing is
    /// revoked.
    #[must_use]
    pub fn new(
        found: BTreeMap<AccountName, Resolution>,
        last: Option<&LastApplied>,
        reason: Reason,
        otherwise: impl Into<String>,
    ) -> Self {
        let recorded = last.into_iter().flat_map(|last| &last.grants);
        let parse = |role: &String| EntityArn::parse(role, EntityKind::Role).ok();
        let before = recorded
            .filter(|(_, grant)| !grant.service_accounts.is_empty())
            .map(|(uid, grant)| {
                let accounts = grant.service_accounts.iter().map(|(name, roles)| {
                    let roles = roles.iter().filter_map(parse).collect();
                    (name.clone(), roles)
                });
                (uid.clone(), accounts.collect())
            })
            .collect();
        Self {
            found,
            before,
            otherwise: (reason, otherwise.into()),
        }
    }

    /// Returns the roles that a grant was applied with for a service account.
    #[must_use]
    pub fn before(&self, grant: &GrantKey, name: &str) -> &[EntityArn] {
        let known = self.before.get(&grant.uid);
        known
            .and_then(|accounts| accounts.get(name))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Returns what came of a service account that a grant names.
    #[must_use]
    pub fn of(&self, grant: &GrantKey, name: &str) -> Resolution {
        let account = AccountName::new(&grant.namespace, name);
        if let Some(found) = self.found.get(&account) {
            return found.clone();
        }
        let (reason, message) = &self.otherwise;
        if *reason == Reason::PrincipalUnknown || !self.before(grant, name).is_empty() {
            Resolution::Denied(message.clone())
        } else {
            Resolution::Refused(*reason, message.clone())
        }
    }

    /// Tells whether what was found takes something away from a grant: it was applied with another
    /// role.
    #[must_use]
    pub fn takes_from(&self, grant: &GrantKey, name: &str) -> bool {
        let before = self.before(grant, name);
        match self.of(grant, name) {
            Resolution::Role(role, _) => before.iter().any(|it| *it != role),
            Resolution::Refused(..) => !before.is_empty(),
            Resolution::Unknown(_) | Resolution::Denied(_) => false,
        }
    }

    /// Puts a newer answer in the place of an older one.
    pub fn replace(&mut self, newer: BTreeMap<AccountName, Resolution>) {
        self.found.extend(newer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ownership::AppliedGrant;

    fn role(name: &str) -> EntityArn {
        let arn = format!("arn:aws:iam::111122223333:role/{name}");
        EntityArn::parse(&arn, EntityKind::Role).unwrap()
    }

    fn key() -> GrantKey {
        GrantKey {
            namespace: "team".into(),
            name: "grant".into(),
            uid: "1".into(),
        }
    }

    fn applied_with(roles: &[&str]) -> LastApplied {
        let roles = roles.iter().map(|name| role(name).to_string()).collect();
        let grant = AppliedGrant {
            namespace: "team".into(),
            name: "grant".into(),
            service_accounts: [("search".to_owned(), roles)].into(),
            ..AppliedGrant::default()
        };
        LastApplied {
            grants: [("1".to_owned(), grant)].into(),
            ..LastApplied::default()
        }
    }

    fn found(resolution: Resolution, last: Option<&LastApplied>) -> Resolutions {
        let found = [(AccountName::new("team", "search"), resolution)].into();
        Resolutions::new(found, last, Reason::PrincipalUnknown, "")
    }

    #[test]
    fn another_role_and_none_take_away_and_no_answer_does_not() {
        let last = applied_with(&["a"]);
        let refused = Resolution::Refused(Reason::TrustNotProven, String::new());
        for (resolution, takes) in [
            (Resolution::Role(role("a"), Proof::Association), false),
            (Resolution::Role(role("b"), Proof::Association), true),
            (refused.clone(), true),
            (Resolution::Unknown(String::new()), false),
            (Resolution::Denied(String::new()), false),
        ] {
            let said = found(resolution.clone(), Some(&last)).takes_from(&key(), "search");
            assert_eq!(said, takes, "{resolution:?}");
        }
        assert!(!found(refused, None).takes_from(&key(), "search"));
        let two = applied_with(&["a", "b"]);
        let one = Resolution::Role(role("b"), Proof::TrustPolicy);
        assert!(found(one, Some(&two)).takes_from(&key(), "search"));
    }

    #[test]
    fn what_nobody_asked_for_is_refused_unless_it_was_applied() {
        let asked = |last: Option<&LastApplied>| {
            let reason = Reason::RoleNotResolved;
            Resolutions::new(BTreeMap::new(), last, reason, "why").of(&key(), "search")
        };
        assert_eq!(
            asked(None),
            Resolution::Refused(Reason::RoleNotResolved, "why".into())
        );
        assert_eq!(
            asked(Some(&applied_with(&["a"]))),
            Resolution::Denied("why".into())
        );
    }

    #[test]
    fn an_account_is_of_the_namespace_of_its_grant() {
        let grant: DomainAccess = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "team", "name": "x"},
            "spec": {"domainRef": {"name": "logs"}, "access": "Read", "principals": [
                {"account": {"id": "111122223333"}}, {"serviceAccount": {"name": "search"}}]},
        }))
        .unwrap();
        let accounts: Vec<_> = AccountName::all_of(&grant).collect();
        assert_eq!(accounts, [AccountName::new("team", "search")]);
        assert_eq!(accounts[0].subject(), "system:serviceaccount:team:search");
    }
}
