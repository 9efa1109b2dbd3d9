//! The gateway's own walls: the signature, the access policy, and the plugin behind them.

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use opensearch_access::policy::fine_grained::entity::EntityKind::{Mapping, Role};
use opensearch_access::sigv4::{self, Credentials as Keys, Payload, Signer, Target};
use serde_json::{Value, json};

use super::{ACCOUNT, Domain, REGION, role, shared_node};
use crate::common::fake_aws::Credentials;
use crate::common::gateway::tls_client;

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
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let host = self.gateway.endpoint();
        let target = Target::parse(path.as_bytes()).unwrap();
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{host}{}", target.as_sent()))
            .header("content-type", "application/json");
        if let Some(keys) = keys {
            let token = keys.session_token.clone();
            let made = Keys::new(&keys.access_key_id, &keys.secret_access_key, token);
            let signed = Signer::new(made.unwrap(), REGION, "es").sign(
                &sigv4::Request {
                    method: method.as_str(),
                    host: &host,
                    target: &target,
                    payload: Payload::of(body.as_bytes()),
                },
                jiff::Timestamp::now(),
            );
            for (name, value) in signed.headers() {
                request = request.header(name, value);
            }
        }
        let request = request.body(Body::from(body)).unwrap();
        let answer = tls_client().request(request).await.unwrap();
        let status = answer.status().as_u16();
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&said).unwrap_or_default())
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
    plugin.patch(Mapping, &patch).await.unwrap();
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
