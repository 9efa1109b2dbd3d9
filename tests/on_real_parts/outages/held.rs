//! A guard that holds the access policy does not hold what it need not.

use std::time::Duration;

use serde_json::json;

use super::{own, record, until_settled};
use crate::common::operator::{ACCOUNT, PATIENCE};

#[tokio::test]
async fn inline_policies_go_while_the_access_policy_is_held() {
    let scene = own("guarded", &json!({})).await;
    let (a, master) = (scene.role("a"), scene.role("master"));
    let principals = json!([{"iamRole": {"arn": a}}]);
    let attach = json!({"principals": principals, "identityPolicy": "Attach"});
    scene.grant("goes", &attach).await;
    scene.others_write(&[scene.allows(&[&master])]);
    scene.world.start_operator();
    scene.until_ready(&["goes"]).await;
    until_settled(&scene).await;
    let attached = || {
        let role = scene.role_name("a");
        scene.world.aws().role_policies(ACCOUNT, &role).len()
    };
    assert_eq!(attached(), 1);

    // To own the policy is to shut the master user out.
    let spec =
        json!({"accessPolicy": {"mode": "Own"}, "fineGrainedAccess": {"masterUserArn": master}});
    scene.change_domain(&json!({"spec": spec})).await;
    scene.until_domain_says("False", "PolicyRejected").await;
    let written = scene.updates();
    scene.delete_grant("goes").await;
    let look = async || match attached() {
        0 => Ok(()),
        count => Err(format!("{count} are attached")),
    };
    let what = "the inline policy is gone";
    scene.world.eventually(what, PATIENCE, look).await;
    scene.until_says("goes", "False", "PolicyRejected").await;
    assert_eq!(scene.updates(), written);
    // That is done, and on record.
    let look = async || match record(&scene).await {
        record if !record.to_string().contains("identityPolicies") => Ok(()),
        record => Err(format!("{record:#}")),
    };
    let what = "the record has forgotten the inline policy";
    scene.world.eventually(what, PATIENCE, look).await;
    let calls = || scene.world.aws().calls_of("DeleteRolePolicy").len();
    let before = calls();
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(calls(), before);

    let merge = json!({"spec": {"accessPolicy": {"mode": "Merge"}}});
    scene.change_domain(&merge).await;
    scene.until_gone("goes").await;
    scene.until_policy(&[scene.allows(&[&master])]).await;
}
