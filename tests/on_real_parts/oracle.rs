//! The oracle finds what it is there for, and nothing where nothing is wrong.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::common::fake_aws::Version;
use crate::common::operator::meaning;
use crate::common::oracle::manifest;
use crate::common::oracle::{Case, Sighting, judge, wanted};

const ACCOUNT: &str = "111122223333";

fn second(second: i64) -> Timestamp {
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
    begin + SignedDuration::from_secs(second)
}

fn role(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

fn allow(names: &[&str]) -> Value {
    let arns: Vec<String> = names.iter().map(|name| role(name)).collect();
    json!({"Effect": "Allow", "Principal": {"AWS": arns}, "Action": "es:ESHttp*",
        "Resource": format!("arn:aws:es:eu-west-1:{ACCOUNT}:domain/logs/*")})
}

fn deny(name: &str) -> Value {
    let mut statement = allow(&[name]);
    statement["Effect"] = json!("Deny");
    statement
}

/// A history that a test writes.
#[derive(Default)]
struct History {
    versions: Vec<Version>,
    sightings: Vec<Sighting>,
}

impl History {
    /// A domain with consent for everything in its account, seen from the first second on.
    fn new() -> Self {
        let mut history = Self::default();
        let ceiling = json!({"access": "Admin", "principals": {"accounts": [ACCOUNT]}});
        history.domain(0, &json!([{"namespaces": ["team"], "ceiling": ceiling}]));
        history
    }

    fn domain(&mut self, at: i64, consent: &Value) {
        let spec = json!({"domainName": "logs", "accountId": ACCOUNT, "region": "eu-west-1",
            "consent": consent});
        self.see(at, "OpenSearchDomain", "logs", &spec);
    }

    fn grant(&mut self, at: i64, name: &str, change: &Value) {
        let mut spec = json!({"domainRef": {"name": "logs"}, "access": "Admin",
            "principals": [{"iamRole": {"arn": role(name)}}]});
        for (field, value) in change.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        self.see(at, "DomainAccess", name, &spec);
    }

    fn see(&mut self, at: i64, kind: &str, name: &str, spec: &Value) {
        let fields = json!([{"manager": "kubectl", "time": second(at).to_string()}]);
        let object = json!({"kind": kind, "spec": spec, "metadata": {"name": name, "uid": name,
            "namespace": "team", "creationTimestamp": second(at).to_string(),
            "managedFields": fields}});
        let (at, gone) = (second(at), false);
        self.sightings.push(Sighting { at, object, gone });
    }

    fn delete(&mut self, at: i64, name: &str) {
        let of_name = |it: &&Sighting| it.object["metadata"]["name"] == name;
        let last = self.sightings.iter().rev().find(of_name);
        let mut object = last.map(|it| it.object.clone()).unwrap_or_default();
        object["metadata"]["deletionTimestamp"] = json!(second(at).to_string());
        let (at, gone) = (second(at), false);
        self.sightings.push(Sighting { at, object, gone });
    }

    fn store(&mut self, at: i64, by: &str, statements: &[Value]) {
        let document = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let document = if statements.is_empty() {
            String::new()
        } else {
            document
        };
        self.versions.push(Version {
            version: self.versions.len() as u64 + 1,
            at: second(at),
            caller_arn: by.to_owned(),
            submitted: document.clone(),
            document,
        });
    }

    fn others(&mut self, at: i64, statements: &[Value]) {
        self.store(at, "external", statements);
    }

    fn operator(&mut self, at: i64, statements: &[Value]) {
        self.store(at, "arn:aws:iam::111122223333:user/operator", statements);
    }

    fn case(&self, end: i64) -> Case<'_> {
        Case {
            name: "logs",
            fine_grained: false,
            versions: &self.versions,
            sightings: &self.sightings,
            end: second(end),
            stale: SignedDuration::from_secs(3),
            lingers: Some(SignedDuration::from_secs(10)),
        }
    }

    /// Makes sure that the oracle objects once, to one version, in these words.
    fn is_wrong(&self, end: i64, version: u64, words: &str) {
        let found = judge(&self.case(end)).violations;
        let meant = format!("version {version}: ");
        assert!(
            !found.is_empty()
                && found
                    .iter()
                    .all(|it| it.contains(&meant) && it.contains(words)),
            "{found:#?}"
        );
    }

    fn is_right(&self, end: i64) {
        let found = judge(&self.case(end));
        assert_eq!(found.violations, Vec::<String>::new());
        assert_eq!(found.versions, self.versions.len());
    }
}

/// Others wrote an allowance and a denial, two grants came, one went.
fn ordinary() -> History {
    let mut history = History::new();
    let theirs = [allow(&["theirs"]), deny("banned")];
    history.others(1, &theirs);
    history.grant(5, "a", &json!({}));
    history.grant(5, "b", &json!({}));
    history.operator(6, &[allow(&["theirs", "a", "b"]), deny("banned")]);
    history.delete(20, "a");
    history.operator(21, &[allow(&["b", "theirs"]), deny("banned")]);
    history
}

#[test]
fn an_ordinary_history_is_right() {
    let history = ordinary();
    history.is_right(100);
    let wanted = wanted(&history.case(100), &[]);
    let said = meaning::of_statements(&[allow(&["theirs", "b"]), deny("banned")]);
    assert_eq!(wanted, said);
}

#[test]
fn an_extra_principal_is_found() {
    let mut history = ordinary();
    history.operator(22, &[allow(&["theirs", "b", "c"]), deny("banned")]);
    history.is_wrong(30, 4, "role/c");
    // A whole account is more than its roles.
    let mut history = ordinary();
    let mut account = allow(&[]);
    account["Principal"] = json!({"AWS": ACCOUNT});
    history.operator(22, &[allow(&["theirs", "b"]), deny("banned"), account]);
    history.is_wrong(30, 4, ":root");
}

#[test]
fn a_wider_action_a_wider_resource_and_a_lost_condition_are_found() {
    let narrow = json!({"access": "Read", "paths": ["logs-*"],
        "conditions": {"principalOrgIds": ["o-abcdefghij"]}});
    let mut history = History::new();
    history.others(1, &[]);
    history.grant(5, "a", &narrow);
    let domain = &json!({"domainName": "logs", "accountId": ACCOUNT, "region": "eu-west-1"});
    let mut spec = narrow.clone();
    spec["principals"] = json!([{"iamRole": {"arn": role("a")}}]);
    let asked = manifest::statements(&spec, domain, false);
    history.operator(6, &asked);
    history.is_right(9);

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut history = History::new();
        history.others(1, &[]);
        history.grant(5, "a", &narrow);
        let mut asked = asked.clone();
        change(&mut asked[0]);
        history.operator(6, &asked);
        history
    };
    changed(&|it| it["Action"] = json!(["es:ESHttpGet", "es:ESHttpHead", "es:ESHttpDelete"]))
        .is_wrong(9, 2, "es:eshttpdelete");
    changed(&|it| it["Action"] = json!("es:ESHttpP*")).is_wrong(9, 2, "it adds");
    changed(&|it| it["Resource"] = json!(format!("arn:aws:es:eu-west-1:{ACCOUNT}:domain/logs/*")))
        .is_wrong(9, 2, "domain/logs/*");
    changed(&|it| it["Condition"] = Value::Null).is_wrong(9, 2, "always");
}

#[test]
fn a_lost_statement_and_a_lost_denial_of_others_are_found() {
    let mut history = ordinary();
    history.operator(22, &[allow(&["b"]), deny("banned")]);
    history.is_wrong(30, 4, "a statement of another writer is lost");
    let mut history = ordinary();
    history.operator(22, &[allow(&["b", "theirs"])]);
    history.is_wrong(30, 4, "a denial of another writer is lost");
    // What this version of anything does not understand, too.
    let odd = json!({"Effect": "Deny", "NotAction": "es:ESHttpGet", "Principal": "*"});
    let mut history = History::new();
    history.others(1, &[odd]);
    history.operator(2, &[]);
    history.is_wrong(30, 2, "a denial");
}

#[test]
fn what_is_unauthorised_is_found_in_a_middle_version() {
    let mut history = History::new();
    history.others(1, &[]);
    history.grant(5, "a", &json!({}));
    history.operator(6, &[allow(&["a", "c"])]);
    history.operator(7, &[allow(&["a"])]);
    history.is_wrong(30, 2, "role/c");
    // Even if it was authorised long before, or will be.
    let mut history = History::new();
    history.others(1, &[]);
    history.grant(2, "c", &json!({}));
    history.delete(3, "c");
    history.operator(10, &[allow(&["c"])]);
    history.operator(11, &[]);
    history.grant(12, "c", &json!({}));
    history.is_wrong(30, 2, "role/c");
}

#[test]
fn a_grant_that_outlives_its_deletion_is_found() {
    let mut history = History::new();
    history.others(1, &[]);
    history.grant(5, "a", &json!({}));
    history.operator(6, &[allow(&["a"])]);
    history.delete(20, "a");
    history.is_right(30);
    history.is_wrong(31, 2, "it still has");
    history.operator(40, &[]);
    history.is_wrong(41, 2, "it still has");
}

#[test]
fn what_was_revoked_does_not_come_back() {
    let mut history = ordinary();
    // Deleted at 20, revoked at 21.
    history.operator(22, &[allow(&["theirs", "a", "b"]), deny("banned")]);
    history.is_wrong(23, 4, "it adds");
    let mut history = ordinary();
    history.grant(22, "a", &json!({}));
    history.operator(23, &[allow(&["theirs", "a", "b"]), deny("banned")]);
    history.is_right(23);
}

#[test]
fn withdrawn_consent_expiry_and_ceilings_end_what_is_authorised() {
    let mut history = ordinary();
    history.domain(30, &json!([]));
    history.is_right(40);
    history.is_wrong(41, 3, "role/b");

    let mut history = History::new();
    history.others(1, &[]);
    let end = second(20).to_string();
    history.grant(5, "a", &json!({"expiresAt": end}));
    history.operator(6, &[allow(&["a"])]);
    history.is_right(30);
    history.is_wrong(31, 2, "it still has");

    let mut history = History::new();
    let ceiling = json!({"access": "Read", "principals": {"accounts": [ACCOUNT]}});
    history.domain(1, &json!([{"namespaces": ["team"], "ceiling": ceiling}]));
    history.others(1, &[]);
    history.grant(5, "a", &json!({}));
    history.operator(6, &[allow(&["a"])]);
    history.is_wrong(9, 2, "it adds");
}

#[test]
fn what_others_write_is_theirs_and_what_they_copy_is_not() {
    let mut history = ordinary();
    // They copied what the operator wrote for b, and left out their own first statement.
    history.others(30, &[allow(&["b", "new"]), deny("banned")]);
    history.operator(31, &[allow(&["b", "new"]), deny("banned")]);
    history.is_right(50);
    history.delete(51, "b");
    history.operator(52, &[allow(&["new"]), deny("banned")]);
    history.is_right(90);
    history.operator(91, &[allow(&["new", "theirs"]), deny("banned")]);
    history.is_wrong(92, 7, "role/theirs");
}
