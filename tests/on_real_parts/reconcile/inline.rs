//! Inline policies on IAM roles: changed with their grant, put right, and refused by AWS for a role's
//! own reasons.

use serde_json::{Value, json};

use crate::common::fake_aws::RoleOptions;
use crate::common::operator::scene::{Scene, condition};
use crate::common::operator::{ACCOUNT, PATIENCE};

/// IAM takes so many characters of inline policies a role.
const ROOM: usize = 10_240;

fn attach(arn: &str) -> Value {
    json!({"principals": [{"iamRole": {"arn": arn}}], "identityPolicy": "Attach"})
}

/// Returns the statements of the operator's inline policy on a role.
fn statements(scene: &Scene, role: &str) -> Value {
    let name = scene.role_name(role);
    let policies = scene.world.aws().role_policies(ACCOUNT, &name);
    let ours = policies
        .iter()
        .find(|(name, _)| name.starts_with("opensearch-access."));
    let document = ours.map(|(_, document)| serde_json::from_str::<Value>(document).unwrap());
    document.unwrap_or_default()["Statement"].clone()
}

/// Waits until the identity half of a grant has a reason, and returns all conditions.
async fn until_identity(scene: &Scene, grant: &str, status: &str, reason: &str) -> Value {
    let look = async || {
        let object = scene.get_grant(grant).await;
        let half = condition(&object, "IdentityPolicyApplied");
        if (&half["status"], &half["reason"]) == (&json!(status), &json!(reason)) {
            return Ok(object);
        }
        Err(format!("{:#}", object["status"]))
    };
    let what = format!("IdentityPolicyApplied of {grant} is {status} {reason}");
    scene.world.eventually(&what, PATIENCE, look).await
}

#[tokio::test]
async fn a_role_without_room_and_one_of_awss_own_refuse_their_own_grant() {
    let scene = Scene::shared("inline-refused").await;
    let aws = scene.world.aws();
    let (full, fine) = (scene.role("full"), scene.role("fine"));
    let filler = json!({"Statement": [{"Sid": "x".repeat(ROOM - 60)}]}).to_string();
    aws.attach_externally(ACCOUNT, &scene.role_name("full"), "theirs", &filler);
    let path = "/aws-reserved/sso.amazonaws.com/";
    let reserved = scene.role_name("reserved");
    let options = RoleOptions::default().path(path);
    aws.account(ACCOUNT).role_with(&reserved, options);
    let reserved = format!("arn:aws:iam::{ACCOUNT}:role{path}{reserved}");
    scene.grant("full", &attach(&full)).await;
    scene.grant("reserved", &attach(&reserved)).await;
    scene.grant("fine", &attach(&fine)).await;
    scene.until_ready(&["fine"]).await;
    let told = until_identity(&scene, "fine", "True", "Reconciled").await;
    assert_eq!(condition(&told, "AccessPolicyApplied")["status"], "True");
    for grant in ["full", "reserved"] {
        let told = until_identity(&scene, grant, "False", "IdentityPolicyRefused").await;
        let ready = condition(&told, "Ready");
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("False"), &json!("IdentityPolicyRefused"))
        );
        // The other half is what it is: a role of the domain's account needs the door alone.
        assert_eq!(condition(&told, "AccessPolicyApplied")["status"], "True");
    }
    scene
        .until_policy(&[scene.allows(&[&full, &reserved, &fine])])
        .await;
    let theirs = aws.role_policies(ACCOUNT, &scene.role_name("full"));
    assert_eq!(
        theirs.get("theirs"),
        Some(&filler),
        "another's is not touched"
    );
}

#[tokio::test]
async fn a_changed_grant_changes_its_inline_policy() {
    let scene = Scene::shared("inline-changed").await;
    let a = scene.role("a");
    scene.grant("one", &attach(&a)).await;
    scene.until_ready(&["one"]).await;
    let before = statements(&scene, "a");
    assert!(
        before.to_string().contains(&scene.resource("*")),
        "{before}"
    );
    let change = json!({"spec": {"access": "Read", "paths": ["logs"]}});
    scene.change_grant("one", &change).await;
    let look = async || {
        let now = statements(&scene, "a").to_string();
        let narrowed = now.contains(&scene.resource("logs/_search")) && !now.contains("es:*");
        narrowed.then_some(()).ok_or(now)
    };
    let what = "the inline policy says what the grant says now";
    scene.world.eventually(what, PATIENCE, look).await;
}

#[tokio::test]
async fn an_inline_policy_that_somebody_edits_or_removes_is_put_right() {
    let scene = Scene::shared("inline-edited").await;
    let a = scene.role("a");
    scene.grant("one", &attach(&a)).await;
    scene.until_ready(&["one"]).await;
    let before = statements(&scene, "a");
    let (aws, role) = (scene.world.aws(), scene.role_name("a"));
    let name = aws
        .role_policies(ACCOUNT, &role)
        .into_keys()
        .next()
        .unwrap();
    let wider = json!({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let look = async || {
        let now = statements(&scene, "a");
        if now == before {
            Ok(())
        } else {
            Err(now.to_string())
        }
    };
    aws.attach_externally(ACCOUNT, &role, &name, &wider.to_string());
    let what = "the inline policy is what it was";
    scene.world.eventually(what, PATIENCE, look).await;
    aws.detach_externally(ACCOUNT, &role, &name);
    scene.world.eventually(what, PATIENCE, look).await;
}
