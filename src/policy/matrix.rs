//! The access matrix of a domain: who, which paths, which level, from where, until when, by which
//! manifest.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use super::canonical;
use super::document::{Document, Statement};
use super::domain::Access;
use super::permission::{ANYONE, ActionSet, Effect, Permissions};
use super::validate::{Principal, Restrictions, ValidatedGrant};
use crate::api::arn::{DomainArn, is_account_id};

/// Who stands behind what no manifest asks for.
pub const OTHERS: &str = "others";

/// Everybody, signed or not.
const EVERYBODY: &str = "anyone, signed or not";

/// One line of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    /// The principal's ARN, `account 111122223333`, or `anyone, signed or not`.
    pub who: String,
    /// `Allow` or `Deny`.
    pub effect: &'static str,
    /// The level of access, or the actions.
    pub level: String,
    /// The paths, without a leading slash; `*` is the whole domain, the empty path the domain
    /// itself.
    pub paths: Vec<String>,
    /// The conditions that a request must meet.
    pub from: Vec<String>,
    /// When it ends; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The manifest, as `namespace/name`, or [`OTHERS`].
    pub by: String,
}

/// Returns the lines of one grant: one for each principal.
#[must_use]
pub fn of_grant(grant: &ValidatedGrant) -> Vec<Row> {
    let level = match &grant.access {
        Access::Level(level) => level.as_str().to_owned(),
        Access::Actions(actions) => {
            let sets = actions.iter().map(|action| ActionSet::of(*action));
            let set = sets.fold(ActionSet::default(), ActionSet::union);
            set.names().join(", ")
        }
    };
    let paths = if grant.paths.is_empty() {
        vec!["*".to_owned()]
    } else {
        grant.paths.clone()
    };
    let whos = |principal: &Principal| match principal {
        Principal::Entity(_) | Principal::ServiceAccount(_) => {
            let entities = principal.entities().iter();
            entities.map(ToString::to_string).collect()
        }
        Principal::Account(account) => vec![format!("account {account}")],
        Principal::Anyone => vec![EVERYBODY.to_owned()],
    };
    let row = |who: String| Row {
        who,
        effect: Effect::Allow.as_str(),
        level: level.clone(),
        paths: paths.clone(),
        from: conditions(&grant.restrictions),
        until: grant.expires_at.map(|end| end.to_string()),
        by: grant.key.to_string(),
    };
    grant.principals.iter().flat_map(whos).map(row).collect()
}

fn conditions(restrictions: &Restrictions) -> Vec<String> {
    let spell = |block: &IpNet| match block.prefix_len() {
        length if length == block.max_prefix_len() => block.addr().to_string(),
        _ => block.to_string(),
    };
    let addresses = restrictions.source_ips.iter().map(spell);
    let blocks = [
        ("address", addresses.collect::<Vec<_>>()),
        ("organization", restrictions.principal_org_ids.clone()),
        ("account", restrictions.principal_accounts.clone()),
        ("VPC", restrictions.source_vpcs.clone()),
        ("VPC endpoint", restrictions.source_vpces.clone()),
    ];
    let said = blocks.into_iter().filter(|(_, values)| !values.is_empty());
    said.map(|(what, values)| format!("{what} {}", values.join(" or ")))
        .collect()
}

/// Returns the lines of statements that no manifest is behind.
#[must_use]
pub fn of_statements(document: &Document, domain: &DomainArn) -> Vec<Row> {
    let statements = document.statements().iter();
    let rows = |statement| match canonical::permissions(statement, domain) {
        Some(meaning) => of_permissions(&meaning, domain),
        None => vec![as_spelled(statement, domain)],
    };
    statements.flat_map(rows).collect()
}

fn of_permissions(meaning: &Permissions, domain: &DomainArn) -> Vec<Row> {
    let mut rows: BTreeMap<(&str, Effect, ActionSet, &str), BTreeSet<&str>> = BTreeMap::new();
    for (permission, actions) in meaning.iter() {
        let (principal, condition) = (&*permission.principal, &*permission.condition);
        let key = (principal, permission.effect, actions, condition);
        rows.entry(key).or_default().insert(&permission.resource);
    }
    let rows = rows.into_iter();
    rows.map(|((principal, effect, actions, condition), resources)| Row {
        who: who(principal),
        effect: effect.as_str(),
        level: actions.names().join(", "),
        paths: resources.into_iter().map(|it| path(it, domain)).collect(),
        from: spelled_condition(&serde_json::from_str(condition).unwrap_or_default()),
        until: None,
        by: OTHERS.to_owned(),
    })
    .collect()
}

/// Returns the line of a statement whose meaning is not known: its elements as they stand.
fn as_spelled(statement: &Statement, domain: &DomainArn) -> Row {
    let members = statement.members();
    let element = |name: &str, spell: &dyn Fn(&str) -> String| -> Vec<String> {
        let negated = members.get(&format!("Not{name}"));
        let (value, not) = match members.get(name) {
            Some(value) => (value, ""),
            None => (negated.unwrap_or(&Value::Null), "not "),
        };
        let values = scalars(value).into_iter();
        values.map(|it| format!("{not}{}", spell(&it))).collect()
    };
    Row {
        who: element("Principal", &who).join(", "),
        effect: if statement.denies() {
            Effect::Deny.as_str()
        } else {
            Effect::Allow.as_str()
        },
        level: element("Action", &str::to_owned).join(", "),
        paths: match element("Resource", &|it| path(it, domain)) {
            none if none.is_empty() => vec!["*".to_owned()],
            paths => paths,
        },
        from: spelled_condition(members.get("Condition").unwrap_or(&Value::Null)),
        until: None,
        by: OTHERS.to_owned(),
    }
}

fn who(principal: &str) -> String {
    let parts: Vec<&str> = principal.split(':').collect();
    match parts.as_slice() {
        [ANYONE] => EVERYBODY.to_owned(),
        [account] | ["arn", _, "iam", "", account, "root"] if is_account_id(account) => {
            format!("account {account}")
        }
        _ => principal.to_owned(),
    }
}

fn path(resource: &str, domain: &DomainArn) -> String {
    match resource.strip_prefix(domain.as_str()) {
        Some("") => String::new(),
        Some(path) if path.starts_with('/') => path.replacen('/', "", 1),
        _ => resource.to_owned(),
    }
}

/// Returns every text in a value; those in an object carry its key where it is not `AWS`.
fn scalars(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().flat_map(scalars).collect(),
        Value::Object(kinds) => kinds
            .iter()
            .flat_map(|(kind, values)| {
                let spell = move |it| match kind.as_str() {
                    "AWS" => it,
                    kind => format!("{kind} {it}"),
                };
                scalars(values).into_iter().map(spell)
            })
            .collect(),
        other => vec![other.to_string()],
    }
}

fn spelled_condition(block: &Value) -> Vec<String> {
    let operators = block.as_object().into_iter().flatten();
    let keys = operators.flat_map(|(operator, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, values)| (operator.as_str(), key.as_str(), scalars(values)))
    });
    let spell = |(operator, key, values): (&str, &str, Vec<String>)| {
        let values = values.join(" or ");
        match (operator, key) {
            ("IpAddress", "aws:SourceIp") => format!("address {values}"),
            ("StringEquals", "aws:PrincipalOrgID") => format!("organization {values}"),
            ("StringEquals", "aws:PrincipalAccount") => format!("account {values}"),
            ("StringEquals", "aws:SourceVpc") => format!("VPC {values}"),
            ("StringEquals", "aws:SourceVpce") => format!("VPC endpoint {values}"),
            _ => format!("{operator} {key} {values}"),
        }
    };
    keys.map(spell).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(statement: &Value) -> Vec<Row> {
        let document = Document::parse(&json!({ "Statement": statement }).to_string()).unwrap();
        of_statements(
            &document,
            &DomainArn::new("eu-west-1", "111122223333", "logs"),
        )
    }

    #[test]
    fn what_is_understood_is_said_by_principal() {
        let arn = "arn:aws:es:eu-west-1:111122223333:domain/logs";
        let role = "arn:aws:iam::111122223333:role/a";
        let found = rows(
            &json!({"Effect": "Allow", "Principal": {"AWS": ["444455556666", role]},
            "Action": "es:ESHttp*", "Resource": [format!("{arn}/a"), format!("{arn}/a/*")],
            "Condition": {"IpAddress": {"aws:sourceip": "203.0.113.9/24"}}}),
        );
        let row = |who: &str| Row {
            who: who.to_owned(),
            effect: "Allow",
            level: "es:*".to_owned(),
            paths: vec!["a".to_owned(), "a/*".to_owned()],
            from: vec!["address 203.0.113.0/24".to_owned()],
            until: None,
            by: OTHERS.to_owned(),
        };
        assert_eq!(found, [row(role), row("account 444455556666")]);
    }

    #[test]
    fn what_is_not_understood_is_said_as_it_stands() {
        let [row] = &rows(&json!({"Effect": "Deny", "NotPrincipal": {"AWS": ["*"]},
            "NotAction": ["es:ESHttpGet", "es:ESHttpHead"],
            "Condition": {"Bool": {"aws:SecureTransport": false}}}))[..]
        else {
            panic!("not one row")
        };
        assert_eq!(row.who, "not anyone, signed or not");
        assert_eq!(
            (row.effect, &*row.level),
            ("Deny", "not es:ESHttpGet, not es:ESHttpHead")
        );
        assert_eq!(row.paths, ["*"]);
        assert_eq!(row.from, ["Bool aws:SecureTransport false"]);
        let [row] = &rows(&json!({"Effect": "Allow", "Action": "es:*",
            "Principal": {"Service": "es.amazonaws.com"}}))[..]
        else {
            panic!("not one row")
        };
        assert_eq!(row.who, "Service es.amazonaws.com");
    }
}
