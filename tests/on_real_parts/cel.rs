//! The kinds on a real API server: what it refuses and says, what it fills in, what `kubectl`
//! shows.
//!
//! One test a rule: the smallest manifests that break that rule alone are refused with the rule's
//! own text, their nearest neighbours are admitted, and the operator's validator, which meets
//! objects that no API server has checked, draws the line at the same place. A rule or bound in
//! `crds/` that has no case here fails the build of the table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it panics"
)]

use std::collections::BTreeSet;
use std::process::Output;

use kube::api::{Api, PostParams};
use opensearch_access::api::access::DomainAccess;
use serde_json::json;
use tokio::sync::OnceCell;

use self::case::{Breaks, Case};
use crate::common::cluster::Cluster;

mod bounds;
mod case;
mod definitions;
mod domains;
mod grants;
mod kubectl;
mod schema;

/// The namespace of these tests in the cluster that all tests share.
const NAMESPACE: &str = "cel";

/// Writes one test for each case, and a function that returns all of them.
macro_rules! cases {
    ($(
        $name:ident: $place:ident $field:literal {
            $breaks:ident: $what:literal,
            $(update: $before:tt,)?
            broken: [$($broken:tt),* $(,)?],
            legal: [$($legal:tt),* $(,)?],
        }
    )*) => {
        $(
            #[tokio::test]
            async fn $name() {
                case(stringify!($name)).prove().await;
            }
        )*

        fn case(name: &str) -> super::case::Case {
            all().into_iter().find(|case| case.name == name).unwrap()
        }

        pub(super) fn all() -> Vec<super::case::Case> {
            vec![$(super::case::Case {
                name: stringify!($name),
                place: $place,
                field: $field,
                breaks: super::cases!(@ $breaks $what),
                before: [$(json!($before))?].into_iter().next(),
                broken: vec![$(json!($broken)),*],
                legal: vec![$(json!($legal)),*],
            }),*]
        }
    };
    (@ rule $message:literal) => { super::case::Breaks::Rule($message) };
    (@ bound $keyword:literal) => { super::case::Breaks::Bound($keyword) };
}
use cases;

/// Returns the shared cluster, with the kinds applied and the namespace made.
async fn cluster() -> &'static Cluster {
    static READY: OnceCell<()> = OnceCell::const_new();
    let cluster = Cluster::shared().await;
    let prepare = async || {
        cluster.apply_crds().await.unwrap();
        succeeded(&cluster.kubectl(["create", "namespace", NAMESPACE]).await);
    };
    READY.get_or_init(prepare).await;
    cluster
}

/// Returns what a command printed.
fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns what a command that failed said.
fn failed(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{printed}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn of_cases(
    cases: &[Case],
    part: impl Fn(&Breaks) -> Option<&'static str>,
) -> BTreeSet<(String, String, String)> {
    let key = |case: &Case| {
        let what = part(&case.breaks)?;
        Some((case.place.kind().to_owned(), case.path(), what.to_owned()))
    };
    cases.iter().filter_map(key).collect()
}

#[test]
fn every_rule_and_every_bound_has_a_case() {
    let cases = [grants::all(), domains::all(), bounds::all()].concat();
    let rules = of_cases(&cases, |breaks| match breaks {
        Breaks::Rule(message) => Some(message),
        Breaks::Bound(_) => None,
    });
    let bounds = of_cases(&cases, |breaks| match breaks {
        Breaks::Rule(_) => None,
        Breaks::Bound(keyword) => Some(keyword),
    });
    assert_eq!(rules, schema::rules());
    assert_eq!(bounds, schema::bounds());
    assert_eq!(
        rules.len() + bounds.len(),
        cases.len(),
        "a case is there twice"
    );
    let incomplete = cases
        .iter()
        .find(|case| case.broken.is_empty() || case.legal.is_empty());
    assert!(incomplete.is_none(), "{incomplete:?}");
}

#[tokio::test]
async fn what_has_the_wrong_form_is_refused_by_the_server_and_by_the_operator() {
    let role = json!([{"iamRole": {"arn": case::ROLE}}]);
    let grants = Api::<kube::api::DynamicObject>::namespaced_with(
        cluster().await.client(),
        NAMESPACE,
        &kube::api::ApiResource::erase::<DomainAccess>(&()),
    );
    let reference = json!({"name": "cel"});
    for (spec, field) in [
        (
            json!({"principals": role, "access": "Read"}),
            "spec.domainRef",
        ),
        (
            json!({"domainRef": {}, "principals": role, "access": "Read"}),
            "spec.domainRef.name",
        ),
        (
            json!({"domainRef": reference, "access": "Read"}),
            "spec.principals",
        ),
        (
            json!({"domainRef": reference, "principals": [{"iamRole": {}}], "access": "Read"}),
            "spec.principals[0].iamRole.arn",
        ),
        (
            json!({"domainRef": reference, "principals": role, "access": "read"}),
            "spec.access",
        ),
        (
            json!({"domainRef": reference, "principals": role, "actions": ["es:UpdateDomain"]}),
            "spec.actions[0]",
        ),
        (
            json!({"domainRef": reference, "principals": role, "access": "Read",
                "identityPolicy": "attach"}),
            "spec.identityPolicy",
        ),
        (
            json!({"domainRef": reference, "access": "Read",
                "principals": [{"account": {"id": 111_122_223_333_u64}}]}),
            "spec.principals[0].account.id",
        ),
    ] {
        let object = json!({
            "apiVersion": "opensearch-access.io/v1alpha1",
            "kind": "DomainAccess",
            "metadata": {"name": "form", "namespace": NAMESPACE},
            "spec": spec,
        });
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let asked = serde_json::from_value(object.clone()).unwrap();
        let kube::Error::Api(status) = grants.create(&params, &asked).await.unwrap_err() else {
            panic!("no answer")
        };
        assert!(status.message.contains(field), "{field}: {status:?}");
        let refused = case::validated(&object);
        assert!(
            matches!(refused, Err(case::Refusal::Unreadable(_))),
            "{field}: {refused:?}"
        );
    }
}
