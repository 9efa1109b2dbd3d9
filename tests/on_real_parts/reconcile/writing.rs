//! Nothing that happens beside a write keeps others waiting, or is overwritten by it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::fake_aws::{DomainOptions, Fault, Times};
use crate::common::operator::scene::Scene;
use crate::common::operator::{ACCOUNT, OPERATOR_NAMESPACE, PATIENCE, REGION, World};

/// Lets nobody but the grants' authors write grants, in one namespace of each kind.
const ADMISSION: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: hands-off}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [opensearch-access.io], apiVersions: ['*'], operations: [UPDATE], resources: [domainaccesses, domainaccesses/status]}
  matchConditions:
    - {name: namespaces, expression: "request.namespace in ['unheld-there', 'untold-there']"}
    - {name: operator, expression: "request.userInfo.username == 'operator'"}
  validations:
    - expression: "has(request.subResource) && request.subResource == 'status' ? request.namespace != 'untold-there' : request.namespace != 'unheld-there'"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: hands-off}
spec: {policyName: hands-off, validationActions: [Deny]}
"#;

/// Sets up a domain with consent for a second namespace in which the operator may not write
/// everything.
async fn beside(name: &'static str, there: &str) -> Scene {
    let scene = Scene::bare(name, DomainOptions::default()).await;
    scene.world.namespace(there, &json!({})).await;
    let applied = scene
        .world
        .cluster()
        .kubectl_apply(&ADMISSION.replace("hands-off", there))
        .await;
    assert!(applied.status.success(), "{applied:?}");
    // The API server takes a moment to heed it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut other = scene.consent(&json!({}));
    other["namespaces"] = json!([there]);
    let consent = json!({"consent": [scene.consent(&json!({})), other]});
    scene.add_domain(&consent).await;
    scene
}

#[tokio::test]
async fn a_grant_that_cannot_be_held_keeps_nobody_else_waiting() {
    let scene = beside("unheld", "unheld-there").await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    let there = json!({"principals": [{"iamRole": {"arn": c}}]});
    scene
        .try_grant("unheld-there", "there", &there)
        .await
        .unwrap();
    scene.grant_to("here", &a).await;
    scene.grant_to("goes", &b).await;
    scene.until_ready(&["here", "goes"]).await;
    let message = scene
        .until_grant_says("unheld-there", "there", "Unknown", "Unavailable")
        .await;
    assert!(message.contains("finalizer"), "{message}");
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&a])]).await;
}

#[tokio::test]
async fn a_status_that_cannot_be_written_keeps_nobody_else_waiting() {
    let scene = beside("untold", "untold-there").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    let there = json!({"principals": [{"iamRole": {"arn": b}}]});
    scene
        .try_grant("untold-there", "there", &there)
        .await
        .unwrap();
    scene.grant_to("here", &a).await;
    scene.grant_to("goes", &a).await;
    scene.until_ready(&["here", "goes"]).await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    scene.until_domain_says("True", "Reconciled").await;
}

#[tokio::test]
async fn what_another_writes_between_look_and_write_survives() {
    // The delay is for the first who attaches a policy: no other test's operator is to be that.
    let world = World::start().await;
    let scene = Scene::in_world(world, "window", DomainOptions::default()).await;
    scene.add_domain(&json!({})).await;
    scene.until_domain_says("True", "Reconciled").await;
    let (a, theirs) = (scene.role("a"), scene.role("theirs"));
    let reads = || {
        let calls = scene.world.aws().calls_of("DescribeDomainConfig");
        let of_domain = |it: &&_| domain_of(it) == Some(scene.name);
        calls.iter().filter(of_domain).count()
    };
    // Attaching an inline policy takes a while, after the policy was read.
    let faults = scene.world.aws().faults();
    let slow = Fault::Delay(Duration::from_secs(2));
    faults.inject("PutRolePolicy", slow, Times::Exactly(1));
    let before = reads();
    let principals = json!([{"iamRole": {"arn": a}}]);
    scene
        .grant(
            "grant",
            &json!({"principals": principals, "identityPolicy": "Attach"}),
        )
        .await;
    let look = async || match reads() - before {
        0 => Err("not read".to_owned()),
        _ => Ok(()),
    };
    let what = "the policy was read";
    scene.world.eventually(what, PATIENCE, look).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.others_write(&[scene.allows(&[&theirs])]);
    scene.until_ready(&["grant"]).await;
    scene.until_policy(&[scene.allows(&[&a, &theirs])]).await;
    assert_eq!(scene.updates(), 1);
}

fn domain_of(call: &crate::common::fake_aws::Call) -> Option<&str> {
    call.domain.as_deref()
}

#[tokio::test]
async fn a_writer_that_undoes_each_write_is_not_fought_without_end() {
    let scene = Scene::bare("fought", DomainOptions::default()).await;
    scene.add_domain(&json!({"interval": "10m"})).await;
    scene.until_domain_says("True", "Reconciled").await;
    let theirs = [scene.allows(&[&scene.role("theirs")])];
    scene.others_write(&theirs);
    let theirs = json!({"Version": "2012-10-17", "Statement": theirs}).to_string();
    scene.world.aws().domain(scene.name).undo_updates(&theirs);
    scene.grant_to("grant", &scene.role("a")).await;
    let message = scene.until_domain_says("False", "Conflicted").await;
    assert!(message.contains("undone each time"), "{message}");
    assert_eq!(scene.updates(), 3);
    // From here on it is one write an interval.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(scene.updates(), 3);
}

#[tokio::test]
async fn a_refused_write_leaves_nothing_on_record() {
    let scene = Scene::shared("unrecorded").await;
    scene.grant_to("first", &scene.role("a")).await;
    scene.until_ready(&["first"]).await;
    let record = async || {
        let name = format!("domain-state.{}", scene.name);
        let map = scene
            .world
            .get("ConfigMap", Some(OPERATOR_NAMESPACE), &name)
            .await;
        let text = map["data"]["state.json"].as_str().unwrap_or("null");
        serde_json::from_str::<Value>(text).unwrap()
    };
    let look = async || match record().await {
        there if there["pending"].is_null() && !there["applied"].is_null() => Ok(there),
        there => Err(there.to_string()),
    };
    let what = "the record is settled";
    let before = scene.world.eventually(what, PATIENCE, look).await;
    let faults = scene.world.aws().faults();
    faults.inject_on(
        scene.name,
        "UpdateDomainConfig",
        Fault::AccessDenied,
        Times::UntilCleared,
    );
    scene.grant_to("second", &scene.role("b")).await;
    let message = scene.until_domain_says("False", "AccessDenied").await;
    assert!(message.contains("UpdateDomainConfig"), "{message}");
    let look = async || match record().await {
        there if there == before => Ok(()),
        there => Err(there.to_string()),
    };
    let what = "the record is as before";
    scene.world.eventually(what, PATIENCE, look).await;
    faults.clear_on(scene.name);
    scene.until_ready(&["second"]).await;
}

#[tokio::test]
async fn a_revocation_goes_ahead_while_aws_refuses_what_is_added() {
    let scene = Scene::shared("picky").await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("stays", &a).await;
    scene.grant_to("goes", &b).await;
    scene.until_ready(&["stays", "goes"]).await;
    let refused = Fault::Refuse("ValidationException", 400, "no".to_owned());
    let faults = scene.world.aws().faults();
    faults.inject_on(scene.name, "UpdateDomainConfig", refused, Times::Exactly(1));
    let more = json!([{"iamRole": {"arn": a}}, {"iamRole": {"arn": scene.role("c")}}]);
    scene.grant("new", &json!({"principals": more})).await;
    scene.delete_grant("goes").await;
    scene.until_gone("goes").await;
    let history = scene.history();
    let without_both = crate::common::operator::meaning::of_statements(&[scene.allows(&[&a])]);
    assert!(history.contains(&without_both), "{history:#?}");
    scene.until_ready(&["stays", "new"]).await;
}

#[tokio::test]
async fn a_deleted_grant_says_what_it_waits_for() {
    let scene = Scene::shared("lingers").await;
    scene.grant_to("grant", &scene.role("a")).await;
    scene.until_ready(&["grant"]).await;
    scene
        .change_domain(&json!({"spec": {"suspend": true}}))
        .await;
    scene.delete_grant("grant").await;
    let message = scene.until_says("grant", "False", "Suspended").await;
    assert!(message.contains("turned off"), "{message}");
    // Nothing of it is left to revoke.
    scene.others_write(&[]);
    scene.until_gone("grant").await;
    assert_eq!(scene.updates(), 1);
}

#[tokio::test]
async fn of_two_objects_for_one_domain_the_older_alone_writes() {
    let scene = Scene::shared("older").await;
    let scene = scene.unjudged("grants on another object for the domain");
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("first", &a).await;
    scene.until_ready(&["first"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let manifest = json!({
        "apiVersion": "opensearch-access.io/v1alpha1",
        "kind": "OpenSearchDomain",
        "metadata": {"name": "a-younger"},
        "spec": {"domainName": scene.name, "accountId": ACCOUNT, "region": REGION, "interval": "10s",
            "consent": [scene.consent(&json!({}))]},
    });
    scene.world.create(&manifest).await.unwrap();
    let second =
        json!({"domainRef": {"name": "a-younger"}, "principals": [{"iamRole": {"arn": b}}]});
    scene.grant("second", &second).await;
    let message = scene.until_says("second", "False", "Conflicted").await;
    assert!(message.contains("older"), "{message}");
    let younger = scene.world.get("OpenSearchDomain", None, "a-younger").await;
    let ready = crate::common::operator::scene::condition(&younger, "Ready");
    assert_eq!(ready["reason"], "Conflicted", "{younger:#}");
    scene.until_policy(&[scene.allows(&[&a])]).await;
    scene.delete_domain().await;
    scene.until_domain_is_gone().await;
    scene.until_ready(&["second"]).await;
    assert_eq!(scene.updates(), 2);
}
