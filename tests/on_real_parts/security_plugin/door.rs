//! The gateway's own walls: the signature, the access policy, and the plugin behind them.

use axum::http::Method;
use opensearch_access::policy::fine_grained::entity::EntityKind::Role;
use serde_json::{Value, json};

use super::{ACCOUNT, Domain, REGION, patched, role, shared_node};
use crate::common::fake_aws::Credentials;
use crate::common::gateway::ask;

impl Domain {
    /// Lets a role in on some paths.
    pub(super) fn let_in(&self, role: &str, paths: &str) {
        let statement = json!({"Effect": "Allow", "Action": "es:ESHttp*",
            "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:role/{role}")},
            "Resource": format!("arn:aws:es:{REGION}:{ACCOUNT}:domain/logs/{paths}")});
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
        self.aws.set_policy_externally("logs", &policy.to_string());
    }

    /// Sends a request, signed if there are keys, and returns its status and what it says.
    pub(super) async fn ask(
        &self,
        keys: Option<&Credentials>,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        ask(&self.gateway, keys, REGION, method, path, body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_then_the_plugin_decide() {
    let domain = Domain::open(shared_node().await).await;
    let plugin = domain.plugin().await;
    let master = domain.master();
    for index in ["door-a-1", "door-b-1"] {
        let path = format!("/{index}/_doc/1?refresh=true");
        let (status, said) = domain
            .ask(Some(&master), Method::PUT, &path, &json!({"text": "x"}))
            .await;
        assert_eq!(status, 201, "{said}");
    }
    domain.aws.account(ACCOUNT).role("door-reader");
    let keys = domain.aws.session(ACCOUNT, "door-reader", "s");
    let reads = |path: &'static str| domain.ask(Some(&keys), Method::GET, path, &Value::Null);

    let (status, said) = reads("/door-a-1/_search").await;
    assert_eq!(status, 403);
    let message = said["Message"].as_str().unwrap();
    let who = format!("arn:aws:sts::{ACCOUNT}:assumed-role/door-reader/s");
    assert!(
        message.contains(&who) && message.contains("es:ESHttpGet"),
        "{message}"
    );
    let (status, said) = domain
        .ask(None, Method::GET, "/door-a-1/_search", &Value::Null)
        .await;
    assert_eq!(status, 403);
    assert!(
        said["Message"]
            .as_str()
            .unwrap()
            .starts_with("User: anonymous")
    );

    domain.let_in("door-reader", "door-*");
    let (status, said) = reads("/door-a-1/_search").await;
    assert_eq!(
        (status, &said["error"]["type"]),
        (403, &json!("security_exception"))
    );
    assert_eq!(reads("/other/_search").await.0, 403);

    let reader = role(&["door-a-*"], &["read"]);
    plugin.put(Role, "door.reader", &reader).await.unwrap();
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/door-reader");
    let patch = json!([{"op": "add", "path": "/door.reader", "value": {"backend_roles": [arn]}}]);
    patched(&plugin, &patch).await;
    let (status, said) = reads("/door-a-1/_search").await;
    assert_eq!(
        (status, &said["hits"]["total"]["value"]),
        (200, &json!(1)),
        "{said}"
    );
    assert_eq!(reads("/door-b-1/_search").await.0, 403);
    let (status, _) = domain
        .ask(Some(&keys), Method::PUT, "/door-a-1/_doc/2", &json!({}))
        .await;
    assert_eq!(status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_comes_nowhere() {
    let domain = Domain::open(shared_node().await).await;
    let mut keys = domain.master();
    keys.secret_access_key.push('x');
    let (status, said) = domain
        .ask(Some(&keys), Method::GET, "/", &Value::Null)
        .await;
    assert_eq!(status, 403);
    assert!(
        said["message"].as_str().unwrap().contains("does not match"),
        "{said}"
    );
}
