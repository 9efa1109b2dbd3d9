//! A rule of the kinds, with manifests that break it and manifests that just keep it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::Status;
use opensearch_access::api::access::DomainAccess;
use opensearch_access::api::condition::Reason;
use opensearch_access::api::domain::OpenSearchDomain;
use opensearch_access::policy::Rejection;
use opensearch_access::policy::domain::Domain;
use opensearch_access::policy::service_account::Resolutions;
use opensearch_access::policy::validate::{self, DomainFacts};
use serde_json::{Value, json};

use super::{NAMESPACE, cluster, schema};

pub(super) const ACCOUNT: &str = "111122223333";
pub(super) const ROLE: &str = "arn:aws:iam::111122223333:role/a";

/// Where the patches of a case apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The spec of a `DomainAccess`.
    Grant,
    /// A whole `OpenSearchDomain`.
    Object,
    /// The spec of an `OpenSearchDomain`.
    Domain,
    /// Its one consent entry.
    Consent,
    /// That entry's ceiling.
    Ceiling,
}

impl Place {
    pub(super) fn kind(self) -> &'static str {
        if self == Self::Grant {
            "DomainAccess"
        } else {
            "OpenSearchDomain"
        }
    }

    /// Returns the path of a field in the kind's schema.
    fn path(self, field: &str) -> String {
        let place = match self {
            Self::Object => "",
            Self::Grant | Self::Domain => "spec",
            Self::Consent => "spec.consent[]",
            Self::Ceiling => "spec.consent[].ceiling",
        };
        let separator = if place.is_empty() || field.is_empty() {
            ""
        } else {
            "."
        };
        format!("{place}{separator}{field}")
    }

    /// Returns the smallest object that keeps every rule, with a patch applied.
    fn object(self, name: &str, patch: &Value) -> Value {
        let mut object = match self {
            Self::Grant => json!({
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "domainRef": {"name": "cel"},
                    "principals": [{"iamRole": {"arn": ROLE}}],
                    "access": "Read",
                },
            }),
            _ => json!({
                "metadata": {"name": name},
                "spec": {"domainName": "cel", "accountId": ACCOUNT, "region": "eu-west-1"},
            }),
        };
        object["apiVersion"] = "opensearch-access.io/v1alpha1".into();
        object["kind"] = self.kind().into();
        if matches!(self, Self::Consent | Self::Ceiling) {
            object["spec"]["consent"] =
                json!([{"namespaces": ["team-a"], "ceiling": {"access": "Read"}}]);
        }
        let place = match self {
            Self::Object => &mut object,
            Self::Grant | Self::Domain => &mut object["spec"],
            Self::Consent => &mut object["spec"]["consent"][0],
            Self::Ceiling => &mut object["spec"]["consent"][0]["ceiling"],
        };
        merge(place, patch);
        object
    }
}

/// Applies a JSON merge patch (RFC 7396).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

/// Which part of the schema a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaks {
    /// The CEL rule with this message.
    Rule(&'static str),
    /// The bound of this name, such as `maxItems`.
    Bound(&'static str),
}

/// A rule, and manifests on either side of it, each as a patch of the smallest manifest.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) place: Place,
    /// The field that the schema has the rule at, from the place on.
    pub(super) field: &'static str,
    pub(super) breaks: Breaks,
    /// What the manifests are updates of, where the rule is about updates.
    pub(super) before: Option<Value>,
    pub(super) broken: Vec<Value>,
    pub(super) legal: Vec<Value>,
}

impl Case {
    pub(super) fn path(&self) -> String {
        self.place.path(self.field)
    }

    /// Returns what the API server says of a manifest that breaks the rule.
    fn refusal(&self) -> String {
        let Breaks::Bound(bound) = self.breaks else {
            let Breaks::Rule(message) = self.breaks else {
                unreachable!()
            };
            return message.to_owned();
        };
        let limit = schema::bound(self.place.kind(), &self.path(), bound);
        match bound {
            "maxItems" => format!("must have at most {limit} items"),
            "minItems" => format!("should have at least {limit} items"),
            "maxLength" => format!("may not be more than {limit} bytes"),
            "minLength" => format!("should be at least {limit} chars long"),
            "maximum" => format!("should be less than or equal to {limit}"),
            "minimum" => format!("should be greater than or equal to {limit}"),
            _ => panic!("no case knows the bound {bound}"),
        }
    }

    /// Proves the rule on the API server, and the operator's own validator to be as strict.
    pub(super) async fn prove(&self) {
        let server = Server::new(self).await;
        for patch in &self.broken {
            let status = server
                .admit(patch)
                .await
                .expect_err(&format!("admitted: {patch}"));
            let causes = status
                .details
                .clone()
                .map(|it| it.causes)
                .unwrap_or_default();
            let tells_that_cel_was_not_tried = "some validation rules were not checked";
            let is_rule = |message: &str| !message.contains(tells_that_cel_was_not_tried);
            let broken: Vec<_> = causes.iter().filter(|it| is_rule(&it.message)).collect();
            assert_eq!(
                broken.len(),
                1,
                "{patch} breaks other rules too: {status:?}"
            );
            assert!(
                broken[0].message.contains(&self.refusal()),
                "{patch}: {status:?}"
            );
            let field = self.path().replace("[]", "[0]");
            assert!(
                broken[0].field.starts_with(&field),
                "{patch}: not {field}: {status:?}"
            );
        }
        for patch in &self.legal {
            let admitted = server.admit(patch).await;
            admitted.unwrap_or_else(|status| panic!("{patch} is legal: {status:?}"));
        }
        if self.before.is_none() {
            self.prove_offline();
        }
    }

    /// Proves that the operator's own validator draws the line where the API server does.
    fn prove_offline(&self) {
        for patch in &self.broken {
            match validated(&self.place.object("cel", patch)) {
                Ok(()) => panic!("the operator takes what the API server refuses: {patch}"),
                Err(Refusal::Unreadable(_)) => {}
                Err(Refusal::Rejected(rejections)) => {
                    let (path, found) = (self.path().replace("[]", "[0]"), &rejections);
                    let near = |field: &str| field.starts_with(&path) || path.starts_with(field);
                    assert!(
                        found
                            .iter()
                            .all(|it| near(&it.field) && !BEYOND.contains(&it.reason)),
                        "{patch} breaks {path} and is refused for {found:?}"
                    );
                }
            }
        }
        for patch in &self.legal {
            match validated(&self.place.object("cel", patch)) {
                Ok(()) => {}
                Err(Refusal::Rejected(rejections))
                    if rejections.iter().all(|it| BEYOND.contains(&it.reason)) => {}
                Err(refusal) => panic!("the operator refuses what is legal: {patch}: {refusal:?}"),
            }
        }
    }
}

/// The API server, with what a case's manifests update already in it.
struct Server<'a> {
    case: &'a Case,
    name: String,
    api: Api<DynamicObject>,
    version: Option<String>,
}

impl<'a> Server<'a> {
    async fn new(case: &'a Case) -> Self {
        let client = cluster().await.client();
        let api = if case.place == Place::Grant {
            Api::namespaced_with(client, NAMESPACE, &ApiResource::erase::<DomainAccess>(&()))
        } else {
            Api::all_with(client, &ApiResource::erase::<OpenSearchDomain>(&()))
        };
        let mut server = Self {
            case,
            name: case.name.replace('_', "-"),
            api,
            version: None,
        };
        if let Some(before) = &case.before {
            let object = server.object(before);
            let created = server
                .api
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
            server.version = created.metadata.resource_version;
        }
        server
    }

    fn object(&self, patch: &Value) -> DynamicObject {
        let mut object = self.case.place.object(&self.name, patch);
        if let Some(version) = &self.version {
            object["metadata"]["resourceVersion"] = version.as_str().into();
        }
        serde_json::from_value(object).unwrap()
    }

    /// Asks for a manifest to be created, or updated to, and keeps nothing.
    async fn admit(&self, patch: &Value) -> Result<(), Box<Status>> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let object = self.object(patch);
        let answer = match self.version {
            None => self.api.create(&params, &object).await,
            Some(_) => self.api.replace(&self.name, &params, &object).await,
        };
        match answer {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Why a legal object is not granted all the same: this version does not do it, or AWS would have to
/// be asked.
const BEYOND: [Reason; 1] = [Reason::PrincipalUnknown];

/// Why the operator does not take an object.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It cannot be read into the kind's type.
    Unreadable(#[expect(dead_code, reason = "for the test's output")] serde_json::Error),
    /// Its fields break rules.
    Rejected(Vec<Rejection>),
}

/// Validates an object as the operator does, with a domain that consents to everything.
pub(super) fn validated(object: &Value) -> Result<(), Refusal> {
    if object["kind"] == "OpenSearchDomain" {
        let domain = serde_json::from_value(object.clone()).map_err(Refusal::Unreadable)?;
        return Domain::parse(&domain).map(drop).map_err(Refusal::Rejected);
    }
    let grant: DomainAccess =
        serde_json::from_value(object.clone()).map_err(Refusal::Unreadable)?;
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let labels = BTreeMap::new();
    validate::grant(
        &grant,
        &generous_domain(),
        // What a manifest does not say is as a grant may need it.
        DomainFacts {
            fine_grained: true,
            ..DomainFacts::default()
        },
        &Resolutions::default(),
        Some(&labels),
        now,
    )
    .map(drop)
    .map_err(|refusal| Refusal::Rejected(vec![refusal.into_rejection()]))
}

pub(super) fn generous_domain() -> Domain {
    let patch = json!({
        "namespaces": [NAMESPACE],
        "ceiling": {
            "access": null,
            "actions": ["es:*", "es:ESCrossClusterGet"],
            "principals": {"accounts": [ACCOUNT], "wholeAccounts": [ACCOUNT], "serviceAccounts": true},
            "sourceIps": ["0.0.0.0/0", "::/0"],
            "anonymous": true,
            "identityPolicies": true,
            "securityRoles": ["*"],
        },
    });
    let object = Place::Consent.object("cel", &patch);
    Domain::parse(&serde_json::from_value(object).unwrap()).unwrap()
}
