//! The principals of a grant, parsed.

use super::{GrantKey, Restrictions, is_object_name};
use crate::api::access::Principal as Spec;
use crate::api::arn::{EntityArn, EntityKind, is_account_id};
use crate::api::condition::Reason;
use crate::policy::Rejection;
use crate::policy::domain::Domain;
use crate::policy::service_account::{Proof, Resolution, Resolutions};

/// A principal that a policy may name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An IAM role or user.
    Entity(EntityArn),
    /// A service account of the grant's namespace, by the IAM role that its pods get.
    ServiceAccount(ServiceAccount),
    /// A whole account.
    Account(String),
    /// Unsigned requests.
    Anyone,
}

/// A service account of the grant's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its name.
    pub name: String,
    /// Its role. In a grant that is not decided, the roles that it was applied with: none, one, or
    /// two while one takes the place of the other.
    pub roles: Vec<EntityArn>,
    /// What says that the role is the service account's; `None` where nobody could be asked.
    pub proof: Option<Proof>,
}

impl Principal {
    /// Returns the IAM roles and users that a policy names for the principal.
    #[must_use]
    pub fn entities(&self) -> &[EntityArn] {
        match self {
            Self::Entity(arn) => std::slice::from_ref(arn),
            Self::ServiceAccount(account) => &account.roles,
            Self::Account(_) | Self::Anyone => &[],
        }
    }

    /// Returns the field of the grant's spec that names the principal, which is the one at `index`.
    #[must_use]
    pub fn field(&self, index: usize) -> String {
        let member = match self {
            Self::Entity(arn) => match arn.kind() {
                EntityKind::Role => "iamRole.arn",
                EntityKind::User => "iamUser.arn",
            },
            Self::ServiceAccount(_) => "serviceAccount",
            Self::Account(_) => "account.id",
            Self::Anyone => "anonymous",
        };
        format!("spec.principals[{index}].{member}")
    }
}

/// The principals of a grant.
pub(super) struct Parsed {
    /// One for each of the spec, in its order.
    pub(super) principals: Vec<Principal>,
    /// Why the first service account that has no role has none.
    pub(super) unresolved: Option<Rejection>,
}

/// Parses the principals of a grant.
pub(super) fn all(
    specs: &[Spec],
    key: &GrantKey,
    domain: &Domain,
    restrictions: &Restrictions,
    accounts: &Resolutions,
) -> Result<Parsed, Rejection> {
    let mut principals = Vec::new();
    let mut unresolved: Option<Rejection> = None;
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("spec.principals[{index}]");
        let kinds = [
            spec.iam_role.is_some(),
            spec.iam_user.is_some(),
            spec.service_account.is_some(),
            spec.account.is_some(),
            spec.anonymous.is_some(),
        ];
        if kinds.iter().filter(|set| **set).count() != 1 {
            return Err(Rejection::invalid(
                field,
                "set exactly one of iamRole, iamUser, serviceAccount, account and anonymous",
            ));
        }
        let principal = if let Some(role) = &spec.iam_role {
            let field = format!("{field}.iamRole.arn");
            Principal::Entity(entity(&role.arn, EntityKind::Role, &field, domain)?)
        } else if let Some(user) = &spec.iam_user {
            let field = format!("{field}.iamUser.arn");
            Principal::Entity(entity(&user.arn, EntityKind::User, &field, domain)?)
        } else if let Some(account) = &spec.service_account {
            let field = format!("{field}.serviceAccount");
            let (account, why) = service_account(&account.name, &field, key, domain, accounts)?;
            // What is refused is told before what may be right.
            let known = |it: &Rejection| it.reason != Reason::PrincipalUnknown;
            if unresolved.is_none() || !unresolved.as_ref().is_some_and(known) {
                unresolved = why.or(unresolved);
            }
            Principal::ServiceAccount(account)
        } else if let Some(account) = &spec.account {
            if !is_account_id(&account.id) {
                return Err(Rejection::invalid(
                    format!("{field}.account.id"),
                    format!(
                        "{:?} is not an AWS account id: 12 digits, in quotes",
                        account.id
                    ),
                ));
            }
            Principal::Account(account.id.clone())
        } else if restrictions.source_ips.is_empty() {
            return Err(Rejection::new(
                Reason::PublicAccess,
                format!("{field}.anonymous"),
                "an anonymous principal needs conditions.sourceIps: without it everybody could use the domain",
            ));
        } else {
            Principal::Anyone
        };
        principals.push(principal);
    }
    Ok(Parsed {
        principals,
        unresolved,
    })
}

fn entity(
    text: &str,
    kind: EntityKind,
    field: &str,
    domain: &Domain,
) -> Result<EntityArn, Rejection> {
    let arn = EntityArn::parse(text, kind)
        .map_err(|error| Rejection::invalid(field, error.to_string()))?;
    check_partition(&arn, field, domain)?;
    Ok(arn)
}

fn check_partition(arn: &EntityArn, field: &str, domain: &Domain) -> Result<(), Rejection> {
    if arn.partition() == domain.arn.partition() {
        return Ok(());
    }
    Err(Rejection::invalid(
        field,
        format!(
            "{:?} is of partition {}, and the domain of partition {}: AWS keeps partitions apart",
            arn.as_str(),
            arn.partition(),
            domain.arn.partition()
        ),
    ))
}

/// Takes a service account with what came of looking for its role; where that is no role, says why.
fn service_account(
    name: &str,
    field: &str,
    key: &GrantKey,
    domain: &Domain,
    accounts: &Resolutions,
) -> Result<(ServiceAccount, Option<Rejection>), Rejection> {
    if !is_object_name(name) {
        return Err(Rejection::invalid(
            format!("{field}.name"),
            format!("{name:?} is not the name of a service account"),
        ));
    }
    let unresolved = |reason, why: &str| {
        let account = ServiceAccount {
            name: name.to_owned(),
            roles: accounts.before(key, name).to_vec(),
            proof: None,
        };
        let rule = format!("service account {name}: {why}");
        (account, Some(Rejection::new(reason, field, rule)))
    };
    match accounts.of(key, name) {
        Resolution::Role(role, proof) => {
            check_partition(&role, field, domain)?;
            let account = ServiceAccount {
                name: name.to_owned(),
                roles: vec![role],
                proof: Some(proof),
            };
            Ok((account, None))
        }
        Resolution::Refused(reason, why) => Ok(unresolved(reason, &why)),
        Resolution::Unknown(why) | Resolution::Denied(why) => {
            Ok(unresolved(Reason::PrincipalUnknown, &why))
        }
    }
}

/// Checks that inline policies can be attached to every principal.
pub(super) fn check_attachable(principals: &[Principal], domain: &Domain) -> Result<(), Rejection> {
    for (index, principal) in principals.iter().enumerate() {
        let roles = match principal {
            Principal::Entity(arn) if arn.kind() == EntityKind::Role => principal.entities(),
            Principal::ServiceAccount(_) => principal.entities(),
            _ => {
                return Err(unfit(
                    index,
                    "an inline policy is attached to IAM roles only",
                ));
            }
        };
        if roles.iter().any(|role| role.account() != domain.account) {
            return Err(unfit(
                index,
                "the role is of another account than the domain, where the operator cannot write: attach its policy there",
            ));
        }
    }
    Ok(())
}

fn unfit(index: usize, rule: &str) -> Rejection {
    Rejection::invalid(
        "spec.identityPolicy",
        format!("Attach does not fit spec.principals[{index}]: {rule}"),
    )
}
