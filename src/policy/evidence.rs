//! What is known of grants and domains beside their manifests: whether principals exist, which
//! objects cannot be parsed, and which of two objects for one domain is in charge.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;

use super::Rejection;
use super::validate::{GrantKey, ValidatedGrant};
use super::verdict::Verdict;
use crate::api::arn::EntityArn;
use crate::api::condition::Reason;
use crate::api::domain::OpenSearchDomain;

/// What is known of whether an IAM role or user exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existence {
    /// It exists.
    Exists,
    /// It does not exist.
    Missing,
    /// It does not exist, and the policy shows that one which it named was deleted.
    Deleted,
    /// It could not be asked for, and why.
    Unknown(String),
}

/// Refuses grants that name a principal which does not exist: AWS would refuse the whole policy for
/// it. A grant of which that could not be asked is undecided.
///
/// `answers` has the principals that were asked for.
pub fn judge_principals(
    grants: &mut BTreeMap<GrantKey, Verdict>,
    account: &str,
    answers: &BTreeMap<EntityArn, Existence>,
) {
    for verdict in grants.values_mut() {
        let Verdict::Valid(grant) = verdict else {
            continue;
        };
        if let Some(rejection) = doubt(grant, account, answers) {
            *verdict = match rejection.reason {
                Reason::PrincipalUnknown => Verdict::Undecided(grant.clone(), rejection),
                _ => Verdict::Refused(rejection),
            };
        }
    }
}

fn doubt(
    grant: &ValidatedGrant,
    account: &str,
    answers: &BTreeMap<EntityArn, Existence>,
) -> Option<Rejection> {
    let named = grant.principals.iter().enumerate();
    let mut named =
        named.flat_map(|(index, it)| it.entities().iter().map(move |arn| (index, it, arn)));
    named.find_map(|(index, principal, arn)| {
        let field = principal.field(index);
        let missing = |since: &str| {
            Rejection::new(
                Reason::PrincipalNotFound,
                field.clone(),
                format!(
                    "account {account} has no IAM {} {arn}{since}: create it, or correct the ARN, its path included",
                    arn.kind().as_str()
                ),
            )
        };
        match answers.get(arn)? {
            Existence::Exists => None,
            Existence::Missing => Some(missing("")),
            Existence::Deleted => Some(missing(" any more")),
            Existence::Unknown(why) => Some(Rejection::new(
                Reason::PrincipalUnknown,
                field.clone(),
                format!("whether {arn} exists could not be asked: {why}"),
            )),
        }
    })
}

/// A grant of a domain that this version cannot parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which grant.
    pub key: GrantKey,
    /// Why.
    pub error: String,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

/// Adds the grants that cannot be parsed. What is in force of one stays, since nothing says that it
/// should go, until it is deleted.
pub fn add_unreadable(
    grants: &mut BTreeMap<GrantKey, Verdict>,
    unreadable: impl IntoIterator<Item = Unreadable>,
) {
    for grant in unreadable {
        let verdict = if grant.is_deleting {
            Verdict::Deleting
        } else {
            let rule = format!(
                "this version of the operator cannot read the grant: {}",
                grant.error
            );
            Verdict::Unreadable(Rejection::new(Reason::InvalidSpec, "", rule))
        };
        grants.insert(grant.key, verdict);
    }
}

/// Returns what says which domain of AWS an object is about.
#[must_use]
pub fn names(object: &OpenSearchDomain) -> (&str, &str, &str) {
    let spec = &object.spec;
    (&spec.account_id, &spec.region, &spec.domain_name)
}

/// Returns the name of the object that is about the same domain of AWS and is older, and so
/// manages it alone. One that no API server has created yet is younger than any other.
pub fn older_rival<'a>(
    object: &OpenSearchDomain,
    all: impl IntoIterator<Item = &'a OpenSearchDomain>,
) -> Option<String> {
    let age = |it: &OpenSearchDomain| (created(it).unwrap_or(Timestamp::MAX), it.name_any());
    let ours = age(object);
    all.into_iter()
        .filter(|it| names(it) == names(object) && it.name_any() != object.name_any())
        .filter(|it| created(it).is_some())
        .map(age)
        .filter(|theirs| *theirs < ours)
        .min()
        .map(|(_, name)| name)
}

fn created(object: &OpenSearchDomain) -> Option<Timestamp> {
    object.metadata.creation_timestamp.as_ref().map(|it| it.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::domain::OpenSearchDomainSpec;

    fn object(name: &str, region: &str, created: Option<i64>) -> OpenSearchDomain {
        let spec = OpenSearchDomainSpec {
            domain_name: "logs".to_owned(),
            region: region.to_owned(),
            ..OpenSearchDomainSpec::default()
        };
        let mut object = OpenSearchDomain::new(name, spec);
        let time = |second| Timestamp::from_second(second).unwrap();
        object.metadata.creation_timestamp = created
            .map(|second| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(second)));
        object
    }

    #[test]
    fn the_oldest_object_for_a_domain_is_in_charge() {
        let all = [
            object("b", "eu-west-1", Some(1)),
            object("a", "eu-west-1", Some(2)),
            object("c", "eu-west-1", Some(1)),
            object("elsewhere", "eu-west-2", Some(0)),
            object("planned", "eu-west-1", None),
        ];
        let rival = |at: usize| older_rival(&all[at], &all);
        assert_eq!(rival(0), None);
        for younger in [1, 2, 4] {
            assert_eq!(rival(younger).as_deref(), Some("b"), "{younger}");
        }
        assert_eq!(rival(3), None, "another domain");
        let planned = [
            object("x", "eu-west-1", None),
            object("y", "eu-west-1", None),
        ];
        let rival = older_rival(&planned[1], &planned);
        assert_eq!(rival, None, "nobody knows which will be created first");
    }
}
