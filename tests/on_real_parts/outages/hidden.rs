//! A watch that loses events, and nothing else that would have the operator look closer.

use serde_json::json;

use super::{own, until_settled};
use crate::common::operator::wired::{Leads, Wired};

#[tokio::test]
async fn what_a_watch_lost_is_found_within_the_interval() {
    let scene = own("hidden", &json!({"interval": "10s"})).await;
    let (a, b, c) = (scene.role("a"), scene.role("b"), scene.role("c"));
    scene.grant_to("changes", &a).await;
    scene.grant_to("goes", &c).await;
    let operator = Wired::start(&scene.world, "operator-hidden", Leads::Alone).await;
    scene.until_ready(&["changes", "goes"]).await;
    until_settled(&scene).await;

    for name in ["changes", "goes", "comes"] {
        operator.proxy.hide(&format!("\"name\":\"{name}\""));
    }
    let principals = json!([{"iamRole": {"arn": b}}]);
    let change = json!({"spec": {"principals": principals}});
    scene.change_grant("changes", &change).await;
    scene.until_policy(&[scene.allows(&[&b, &c])]).await;
    scene.grant_to("comes", &a).await;
    scene.until_policy(&[scene.allows(&[&a, &b, &c])]).await;
    scene.delete_grant("goes").await;
    scene.until_policy(&[scene.allows(&[&a, &b])]).await;
    scene.until_gone("goes").await;
    operator.proxy.clear();
    scene.until_ready(&["changes", "comes"]).await;
    assert!(operator.stop().await.success());
}
