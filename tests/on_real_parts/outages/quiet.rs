//! Where nothing changes nothing is written, and another writer of a status is not fought.

use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{own, until_settled};
use crate::common::operator::{OPERATOR_NAMESPACE, PATIENCE};

/// How often the operator is made to look.
const LOOKS: usize = 10;

#[tokio::test]
async fn after_it_is_done_the_operator_writes_nothing() {
    let scene = own("quiet", &json!({"interval": "1h"})).await;
    let a = scene.role("a");
    let principals = json!([{"iamRole": {"arn": a}}]);
    let attach = json!({"principals": principals, "identityPolicy": "Attach"});
    scene.grant("attached", &attach).await;
    scene.grant_to("plain", &scene.role("b")).await;
    scene
        .grant_to("refused", "arn:aws:iam::999999999999:role/x")
        .await;
    scene.world.start_operator();
    scene.until_ready(&["attached", "plain"]).await;
    scene.until_refused("refused", "OverCeiling", &[]).await;
    scene.until_domain_says("True", "Reconciled").await;
    until_settled(&scene).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let versions = async || {
        let mut found = Vec::new();
        for grant in scene.grants().await {
            found.push(grant["metadata"]["resourceVersion"].clone());
        }
        let map = scene
            .world
            .get("ConfigMap", Some(OPERATOR_NAMESPACE), "domain-state.quiet");
        found.push(map.await["metadata"]["resourceVersion"].clone());
        found
    };
    let aws_writes = || {
        let writes = ["UpdateDomainConfig", "PutRolePolicy", "DeleteRolePolicy"];
        let count = |it: &&str| scene.world.aws().calls_of(it).len();
        writes.iter().map(count).sum::<usize>()
    };
    let looks = || scene.world.aws().calls_of("DescribeDomain").len();
    let (before, written) = (versions().await, aws_writes());
    for number in 0..LOOKS {
        let seen = looks();
        let metadata = json!({"annotations": {"looked-at": number.to_string()}});
        scene.change_domain(&json!({"metadata": metadata})).await;
        let touched = scene.domain().await["metadata"]["resourceVersion"].clone();
        let look = async || match looks() {
            now if now > seen => Ok(()),
            _ => Err("not yet".to_owned()),
        };
        let what = "the operator looks again";
        scene.world.eventually(what, PATIENCE, look).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = scene.domain().await["metadata"]["resourceVersion"].clone();
        assert_eq!(now, touched, "the domain's status churns");
    }
    assert_eq!(versions().await, before);
    assert_eq!(aws_writes(), written);
}

#[tokio::test]
async fn a_status_that_somebody_else_writes_keeps_nothing_waiting() {
    let scene = own("scribbled", &json!({})).await;
    let (a, b) = (scene.role("a"), scene.role("b"));
    scene.grant_to("scribbled", &a).await;
    scene.world.start_operator();
    scene.until_ready(&["scribbled"]).await;
    let grants = scene.world.api("DomainAccess", Some(scene.name));
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let began = Instant::now();
    let (mut last, mut theirs) = (Value::Null, 0_u32);
    let mut asked = false;
    while began.elapsed() < Duration::from_secs(15) {
        let found = scene.get_grant("scribbled").await;
        theirs += u32::from(last != Value::Null && version(&found) != last);
        let scribble = began.elapsed().as_millis().to_string();
        let condition = json!({"type": "Ready", "status": "False", "reason": "Scribble",
            "message": scribble, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"conditions": [condition]}});
        let patched = grants
            .patch_status("scribbled", &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
        last = version(&serde_json::to_value(patched).unwrap());
        if !asked && began.elapsed() > Duration::from_secs(3) {
            scene.grant_to("other", &b).await;
            asked = true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rate = f64::from(theirs) / began.elapsed().as_secs_f64();
    assert!(rate < 2.0, "{theirs} statuses, {rate} a second");
    scene
        .until_policy_within(Duration::ZERO, &[scene.allows(&[&a, &b])])
        .await;
    scene.until_ready(&["scribbled", "other"]).await;
}
