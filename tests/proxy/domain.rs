//! Before a real OpenSearch, behind what the managed service puts in front of it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::program::{Answer, Proxy, get, post, until};
use crate::common::fake_aws::{DomainOptions, FakeAws};
use crate::common::gateway::{Gateway, ask, authority};
use crate::common::opensearch::{Node, shared_node};

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-west-1";

/// A domain with an OpenSearch node, and two who ask it.
pub(crate) struct Domain {
    pub(crate) aws: FakeAws,
    pub(crate) gateway: Gateway,
}

impl Domain {
    pub(crate) async fn open() -> Self {
        Self::of(shared_node().await).await
    }

    /// The same, with a node of its own.
    pub(crate) async fn of(node: Arc<Node>) -> Self {
        let aws = FakeAws::start().await;
        let options = DomainOptions::default().fine_grained();
        aws.account(ACCOUNT)
            .role("app")
            .role("nobody")
            .domain_with("proxied", REGION, options);
        let gateway = Gateway::open(&aws, "proxied", node).await;
        let domain = Self { aws, gateway };
        domain.lets_in("app").await;
        domain
    }

    /// Opens the door to a role, and lets it do everything with its indexes.
    async fn lets_in(&self, role: &str) {
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"AWS": arn}, "Action": "es:*",
            "Resource": format!("arn:aws:es:{REGION}:{ACCOUNT}:domain/proxied/*")}]});
        self.aws
            .set_policy_externally("proxied", &policy.to_string());
        let (key, secret) = self.aws.credentials(ACCOUNT);
        let admin = crate::common::fake_aws::Credentials {
            access_key_id: key,
            secret_access_key: secret,
            session_token: None,
            expires: None,
        };
        let roles = [
            (
                "roles/proxied",
                json!({"cluster_permissions": ["*"],
                "index_permissions": [{"index_patterns": ["proxied-*"], "allowed_actions": ["indices_all"]}]}),
            ),
            ("rolesmapping/proxied", json!({"backend_roles": [arn]})),
        ];
        for (path, body) in roles {
            let path = format!("/_plugins/_security/api/{path}");
            let put = axum::http::Method::PUT;
            // Another test's write may come between.
            let write = async || {
                let (gateway, put) = (&self.gateway, put.clone());
                let asked = ask(gateway, Some(&admin), REGION, put, &path, &body).await;
                (asked.0 < 300).then_some(())
            };
            until("the plugin takes it", write).await;
        }
    }

    /// Starts a proxy for a role.
    pub(crate) async fn proxy(&self, role: &str) -> Proxy {
        let keys = self.aws.session(ACCOUNT, role, "s");
        let token = keys.session_token.unwrap_or_default();
        let variables = [
            ("AWS_ACCESS_KEY_ID", keys.access_key_id.as_str()),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.as_str()),
            ("AWS_SESSION_TOKEN", token.as_str()),
        ];
        let url = format!("https://{}", self.gateway.endpoint());
        let authority = authority();
        let options = ["--ca", authority.to_str().unwrap()];
        let proxy = Proxy::start(&url, &variables, &options).await;
        proxy.until_ready().await;
        proxy
    }
}

pub(crate) fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
}

pub(crate) fn with_json(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_indexes_and_searches_unsigned() {
    let domain = Domain::open().await;
    let proxy = domain.proxy("app").await;
    for (id, body) in [
        ("1", r#"{"x": "\u65e5\u672c"}"#),
        ("a%2Fb%20c%2B", r#"{"x": 2}"#),
        ("%E6%97%A5", "{\"x\": 3}"),
    ] {
        let target = format!("/proxied-a/_doc/{id}?refresh=true");
        let answer = proxy.ask(with_json("PUT", &target, body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let read = proxy.ask(get(&format!("/proxied-a/_doc/{id}"))).await;
        assert_eq!(read.status, 200, "{id}: {read:?}");
    }
    for target in [
        "/proxied-a/_search?q=x:2 OR x:3".replace(' ', "%20"),
        "/proxied-a/_search?q=x:2+OR+x:3".to_owned(),
        "//proxied-a///_search?q=x:2%20OR%20x:3&pretty&filter_path=hits.total.value,*.x".to_owned(),
        "/proxied-*/_search?q=x:(2%20OR%203)".to_owned(),
    ] {
        let answer = proxy.ask(get(&target)).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert_eq!(json_of(&answer)["hits"]["total"]["value"], 2, "{target}");
    }
    let found = proxy
        .ask(with_json(
            "POST",
            "/proxied-a/_search?scroll=1m",
            r#"{"size": 1}"#,
        ))
        .await;
    let id = json_of(&found)["_scroll_id"].as_str().unwrap().to_owned();
    let next = json!({"scroll": "1m", "scroll_id": id}).to_string();
    let next = proxy.ask(with_json("POST", "/_search/scroll", &next)).await;
    assert_eq!(json_of(&next)["hits"]["hits"].as_array().unwrap().len(), 1);
    let scroll = json!({"scroll_id": [id]}).to_string();
    assert_eq!(
        proxy
            .ask(with_json("DELETE", "/_search/scroll", &scroll))
            .await
            .status,
        200
    );
    let math = "/%3Cproxied-%7Bnow%2Fd%7D%3E/_doc?refresh=true";
    assert_eq!(proxy.ask(with_json("POST", math, "{}")).await.status, 201);
    let mut client = super::program::Client::connect(proxy.address).await;
    client
        .send(b"HEAD /proxied-a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(client.answer_to(true).await.unwrap().status, 200);

    let line = "{\"index\": {\"_index\": \"proxied-b\"}}\n{\"text\": \"0123456789\"}\n";
    let bulk = line.repeat(20_000);
    let answer = proxy.ask(with_json("POST", "/_bulk", &bulk)).await;
    assert_eq!(
        (answer.status, &json_of(&answer)["errors"]),
        (200, &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_by_which_half() {
    let domain = Domain::open().await;
    let app = domain.proxy("app").await;
    let answer = app.ask(get("/other/_search")).await;
    assert_eq!(answer.status, 403);
    let explained = answer.field("x-opensearch-access-explained").unwrap();
    assert!(explained.contains("security plugin"), "{explained}");
    let nobody = domain.proxy("nobody").await;
    let answer = nobody.ask(post("/proxied-a/_search", "{}")).await;
    assert_eq!(answer.status, 403);
    let explained = answer.field("x-opensearch-access-explained").unwrap();
    assert!(explained.contains("access policy"), "{explained}");
    let metrics = nobody.utility("/metrics").await.1;
    let counted = "refused_by_domain_total{cause=\"access_policy\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_whose_certificate_nobody_vouches_for_is_not_spoken_to() {
    let domain = Domain::open().await;
    let variables = [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
    let url = format!("https://{}", domain.gateway.endpoint());
    let before = domain.gateway.passed().len();
    let proxy = Proxy::start(&url, &variables, &[]).await;
    proxy.until_ready().await;
    let answer = proxy.ask(get("/")).await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("certificate"), "{answer:?}");
    // The certificate is for another name.
    let url = url.replace("localhost", "127.0.0.2");
    let authority = authority();
    let options = ["--ca", authority.to_str().unwrap()];
    let proxy = Proxy::start(&url, &variables, &options).await;
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/")).await.status, 502);
    assert_eq!(domain.gateway.passed().len(), before);
}
