//! Whose a statement is: the operator's or another writer's.
//!
//! The service does not store `Sid`, so nothing in the policy tells. The record is the *last
//! applied state*: the permissions that the operator wrote, kept in Kubernetes. Where that record
//! is missing (a first look, or a restored cluster), statements that say what manifests ask for
//! are taken as the operator's; every other statement is another's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canonical::{self, is_unique_id};
use super::document::{Document, Statement};
use super::permission::{Permission, Permissions};
use crate::api::arn::DomainArn;

/// The last applied state of one domain, as it is kept between reconciles and restarts.
///
/// Written before the policy is (`pending`), and again after it was read back: whatever write is
/// the last to succeed, everything that may be in the policy by the operator's hand is in here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastApplied {
    /// The statements that the operator had in the policy when it last looked.
    pub applied: Vec<Value>,
    /// The statements of the write that is under way, or whose answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Vec<Value>>,
    /// The grants that are in those statements, by UID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<String, AppliedGrant>,
    /// The unique ids that stand in the policy for principals of the operator's which were deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deleted: BTreeSet<String>,
}

/// A grant that is in the last applied state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedGrant {
    /// The grant's namespace.
    pub namespace: String,
    /// The grant's name.
    pub name: String,
    /// The inline policies that were attached for it: role ARN and policy name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity_policies: Vec<(String, String)>,
    /// The service accounts among its principals, each with the ARNs of the roles that it was, or
    /// is about to be, in the policy by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_accounts: BTreeMap<String, Vec<String>>,
    /// Whether its deleted object was let go before it was revoked: it is to be revoked, and nobody
    /// misses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    /// What a released grant asked for, as far as there was room to keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

impl LastApplied {
    /// Returns everything that may be in the policy by the operator's hand.
    #[must_use]
    pub fn claim(&self, domain: &DomainArn) -> Permissions {
        let mut claim = Permissions::default();
        for permissions in self.written(domain) {
            claim.extend(&permissions);
        }
        claim
    }

    /// Tells whether something that was in place is gone from the policy, by somebody else's hand;
    /// while a write is under way, nobody knows.
    #[must_use]
    pub fn is_drifted(&self, observed: &Document, domain: &DomainArn) -> bool {
        let standing = || split(observed, domain, Some(self), &Permissions::default()).ours;
        self.pending.is_none() && !self.claim(domain).is_subset(&standing())
    }

    /// Returns the meaning of each statement that the operator wrote, or was about to.
    fn written(&self, domain: &DomainArn) -> Vec<Permissions> {
        let pending = self.pending.iter().flatten();
        let statements = self
            .applied
            .iter()
            .chain(pending)
            .filter_map(Value::as_object);
        statements
            .filter_map(|members: &Map<String, Value>| {
                canonical::permissions(&Statement::new(members.clone()), domain)
            })
            .collect()
    }
}

/// Joins statements that a record holds into the fewest that mean the same.
pub(super) fn joined(statements: &[Value], domain: &DomainArn) -> Vec<Value> {
    let record = LastApplied {
        applied: statements.to_vec(),
        ..LastApplied::default()
    };
    let joined = record.claim(domain).to_statements();
    joined.iter().map(Statement::to_value).collect()
}

/// A policy as it was read, divided by who wrote what.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Split {
    /// What is in the policy by the operator's hand.
    pub ours: Permissions,
    /// Every statement that others wrote, in the order of the document; as it was read, or the
    /// rest of it where somebody had added to a statement of the operator's.
    pub others: Vec<Statement>,
    /// What others allow, as far as it is understood.
    pub allowed_by_others: Permissions,
    /// The unique ids that stand for principals of the operator's which were deleted. What they
    /// are allowed is nobody's, and counts as another's.
    pub deleted: BTreeSet<String>,
}

/// Divides a policy.
///
/// `asked` is what manifests ask for, and asked for before: it counts only without a last applied
/// state, and takes the place of it.
#[must_use]
pub fn split(
    observed: &Document,
    domain: &DomainArn,
    last: Option<&LastApplied>,
    asked: &Permissions,
) -> Split {
    let (claim, mut written) = match last {
        Some(last) => (last.claim(domain), last.written(domain)),
        None => (asked.clone(), Vec::new()),
    };
    let mut split = Split::default();
    let mut rest = Vec::new();
    // Statements that stand as they were written are ours; a second copy of one is another's.
    for statement in observed.statements() {
        let meaning = canonical::permissions(statement, domain);
        let ours = meaning.as_ref().and_then(|meaning| {
            // What means nothing is nobody's in particular, and is kept.
            let is_it = |written: &Permissions| !meaning.is_empty() && written == meaning;
            let at = written.iter().position(is_it)?;
            Some(written.swap_remove(at))
        });
        match ours {
            Some(ours) => split.ours.extend(&ours),
            None => rest.push((statement, meaning)),
        }
    }
    // What was written and does not stand as a statement of its own may be part of one: somebody
    // joined, split or extended statements.
    let astray = claim.difference(&split.ours);
    let mut standing = Permissions::default();
    for (_, meaning) in &rest {
        standing.extend(meaning.as_ref().unwrap_or(&Permissions::default()));
    }
    let gone = astray.difference(&standing);
    let known = last.map(|last| &last.deleted);
    for (statement, meaning) in rest {
        if let Some(meaning) = &meaning {
            split.deleted.extend(deleted(meaning, &gone, known));
        }
        let Some(meaning) = meaning.filter(|_| !statement.denies()) else {
            split.others.push(statement.clone());
            continue;
        };
        let ours = meaning.intersection(&astray);
        let foreign = meaning.difference(&ours);
        // Somebody who is deleted is nobody's claim.
        let deleted = |permission: &Permission| is_unique_id(&permission.principal);
        let adopted_whole =
            last.is_some() || foreign.iter().all(|(permission, _)| deleted(permission));
        if ours.is_empty() || !adopted_whole {
            split.allowed_by_others.extend(&meaning);
            split.others.push(statement.clone());
        } else {
            split.ours.extend(&ours);
            split.allowed_by_others.extend(&foreign);
            split.others.extend(foreign.to_statements());
        }
    }
    split
}

/// Returns the unique ids in a statement that are on record as having been the operator's, or take
/// the place of an ARN that it wrote and that is there no more.
fn deleted(
    meaning: &Permissions,
    gone: &Permissions,
    known: Option<&BTreeSet<String>>,
) -> BTreeSet<String> {
    let ids = meaning
        .iter()
        .filter(|(permission, _)| is_unique_id(&permission.principal));
    ids.filter(|(permission, actions)| {
        known.is_some_and(|known| known.contains(&*permission.principal))
            || gone.iter().any(|(lost, lost_actions)| {
                let like = Permission {
                    principal: lost.principal.clone(),
                    ..(*permission).clone()
                };
                *lost == like && lost_actions == *actions
            })
    })
    .map(|(permission, _)| permission.principal.to_string())
    .collect()
}

/// Returns a statement without the unique ids of deleted principals, which the service shows in
/// the place of ARNs and refuses to take back; `None` if no principal is left.
///
/// A deleted role or user can make no request, so neither an allowance nor a denial loses anything.
#[must_use]
pub fn without_deleted_principals(statement: &Statement) -> Option<Statement> {
    let mut members = statement.members().clone();
    if let Some(Value::Object(kinds)) = members.get_mut("Principal")
        && let Some(named) = kinds.get_mut("AWS")
    {
        let gone = |value: &Value| value.as_str().is_some_and(is_unique_id);
        let none_left = match named {
            Value::Array(many) => {
                many.retain(|principal| !gone(principal));
                many.is_empty()
            }
            one => gone(one),
        };
        if none_left {
            kinds.remove("AWS");
        }
        // Principals of other kinds may stand beside.
        if kinds.is_empty() {
            return None;
        }
    }
    Some(Statement::new(members))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn domain() -> DomainArn {
        DomainArn::new("eu-west-1", "111122223333", "logs")
    }

    fn allow(roles: &[&str], action: &str) -> Value {
        let arns: Vec<String> = roles
            .iter()
            .map(|role| format!("arn:aws:iam::111122223333:role/{role}"))
            .collect();
        json!({"Effect": "Allow", "Principal": {"AWS": arns}, "Action": action,
            "Resource": "arn:aws:es:eu-west-1:111122223333:domain/logs/*"})
    }

    fn document(statements: &[Value]) -> Document {
        Document::parse(&json!({"Statement": statements}).to_string()).unwrap()
    }

    fn meaning(statements: &[Value]) -> Permissions {
        canonical::Canonical::of(&document(statements), &domain())
            .permissions()
            .clone()
    }

    fn applied(statements: &[Value]) -> LastApplied {
        LastApplied {
            applied: statements.to_vec(),
            ..LastApplied::default()
        }
    }

    #[test]
    fn what_was_written_is_ours_and_the_rest_is_anothers() {
        let theirs = allow(&["x"], "es:*");
        let observed = document(&[theirs.clone(), allow(&["b", "a"], "es:*")]);
        let last = applied(&[allow(&["a", "b"], "es:ESHttp*")]);
        let split = split(&observed, &domain(), Some(&last), &Permissions::default());
        assert_eq!(split.ours, meaning(&[allow(&["a", "b"], "es:*")]));
        assert_eq!(split.others, document(&[theirs]).statements());
    }

    #[test]
    fn a_copy_that_another_wrote_stays_anothers() {
        let observed = document(&[allow(&["a"], "es:*"), allow(&["a"], "es:*")]);
        let last = applied(&[allow(&["a"], "es:*")]);
        let split = split(&observed, &domain(), Some(&last), &Permissions::default());
        assert_eq!(split.others.len(), 1);
        assert_eq!(split.allowed_by_others, split.ours);
    }

    #[test]
    fn what_another_added_to_our_statement_stays_when_ours_goes() {
        let observed = document(&[allow(&["a", "theirs"], "es:*")]);
        let last = applied(&[allow(&["a"], "es:*")]);
        let split = split(&observed, &domain(), Some(&last), &Permissions::default());
        assert_eq!(split.ours, meaning(&[allow(&["a"], "es:*")]));
        assert_eq!(
            split.allowed_by_others,
            meaning(&[allow(&["theirs"], "es:*")])
        );
    }

    #[test]
    fn a_statement_that_another_split_is_still_ours() {
        let observed = document(&[allow(&["a"], "es:*"), allow(&["b"], "es:*")]);
        let last = applied(&[allow(&["a", "b"], "es:*")]);
        let split = split(&observed, &domain(), Some(&last), &Permissions::default());
        assert!(split.others.is_empty());
        assert_eq!(split.ours, meaning(&[allow(&["a", "b"], "es:*")]));
    }

    #[test]
    fn a_lost_answer_leaves_nothing_without_an_owner() {
        let last = LastApplied {
            applied: vec![allow(&["a"], "es:*")],
            pending: Some(vec![allow(&["a", "b"], "es:*")]),
            ..LastApplied::default()
        };
        for observed in [allow(&["a"], "es:*"), allow(&["a", "b"], "es:*")] {
            let observed = document(&[observed]);
            let split = split(&observed, &domain(), Some(&last), &Permissions::default());
            assert!(split.others.is_empty(), "{split:?}");
        }
    }

    #[test]
    fn without_a_record_only_whole_statements_that_are_asked_for_are_adopted() {
        let asked = meaning(&[allow(&["a"], "es:*")]);
        let whole = split(&document(&[allow(&["a"], "es:*")]), &domain(), None, &asked);
        assert!(whole.others.is_empty());
        let mixed = split(
            &document(&[allow(&["a", "b"], "es:*")]),
            &domain(),
            None,
            &asked,
        );
        assert!(mixed.ours.is_empty());
        assert_eq!(mixed.others.len(), 1);
    }

    #[test]
    fn an_id_in_the_place_of_an_arn_of_ours_is_of_a_principal_of_ours_that_was_deleted() {
        let id = "AROAEXAMPLEEXAMPLE12";
        let with_id = |action: &str| {
            let mut statement = allow(&["b"], action);
            statement["Principal"]["AWS"] = json!([id, statement["Principal"]["AWS"][0]]);
            document(&[statement])
        };
        let found = |observed: &Document, last: &LastApplied| {
            split(observed, &domain(), Some(last), &Permissions::default()).deleted
        };
        let last = applied(&[allow(&["a", "b"], "es:*")]);
        let ours = BTreeSet::from([id.to_owned()]);
        assert_eq!(found(&with_id("es:*"), &last), ours);
        assert_eq!(found(&with_id("es:ESHttpGet"), &last), BTreeSet::new());
        let mut later = applied(&[allow(&["b"], "es:*")]);
        assert_eq!(found(&with_id("es:*"), &later), BTreeSet::new());
        later.deleted = ours.clone();
        assert_eq!(found(&with_id("es:*"), &later), ours, "on record");
    }

    #[test]
    fn a_denial_is_never_ours() {
        let mut denial = allow(&["a"], "es:*");
        denial["Effect"] = "Deny".into();
        let observed = document(&[denial.clone()]);
        let split = split(
            &observed,
            &domain(),
            Some(&applied(&[])),
            &Permissions::default(),
        );
        assert_eq!(split.others, observed.statements());
    }

    #[test]
    fn unique_ids_of_the_deleted_are_never_sent_back() {
        let with = |principals: Value| {
            let mut statement = allow(&["a"], "es:*");
            statement["Principal"]["AWS"] = principals;
            Statement::new(statement.as_object().unwrap().clone())
        };
        let arn = "arn:aws:iam::111122223333:role/a";
        assert_eq!(
            without_deleted_principals(&with(json!("AROAEXAMPLEEXAMPLE12"))),
            None
        );
        assert_eq!(
            without_deleted_principals(&with(json!([arn, "AIDAEXAMPLEEXAMPLE12"]))),
            Some(with(json!([arn])))
        );
        assert_eq!(
            without_deleted_principals(&with(json!("*"))),
            Some(with(json!("*")))
        );
    }

    #[test]
    fn a_denial_of_a_service_survives_the_deletion_of_a_role_beside_it() {
        let with = |principal: Value| {
            let mut statement = allow(&["a"], "es:*");
            statement["Effect"] = "Deny".into();
            statement["Principal"] = principal;
            Statement::new(statement.as_object().unwrap().clone())
        };
        let both = with(json!({"AWS": "AROAEXAMPLEEXAMPLE12", "Service": "x.amazonaws.com"}));
        assert_eq!(
            without_deleted_principals(&both),
            Some(with(json!({"Service": "x.amazonaws.com"})))
        );
    }

    #[test]
    fn without_a_record_a_statement_of_ours_with_a_deleted_role_is_still_ours() {
        let mut stale = allow(&["a"], "es:*");
        stale["Principal"]["AWS"] =
            json!(["AROAEXAMPLEEXAMPLE12", "arn:aws:iam::111122223333:role/a"]);
        let asked = meaning(&[allow(&["a"], "es:*")]);
        assert_eq!(
            split(&document(&[stale]), &domain(), None, &asked).ours,
            asked
        );
    }
}
