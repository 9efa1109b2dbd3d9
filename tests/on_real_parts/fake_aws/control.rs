//! The control API, for a fake in another process.

use aws_sdk_opensearch::Client as OpenSearch;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{ACCOUNT, REGION, ROLE, policy_for, principals, refusal, sdk_config};
use crate::common::fake_aws::FakeAws;

/// Sends a plain HTTP request, as curl would, and returns status and body.
async fn send(aws: &FakeAws, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = aws.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("the fake listens");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("it is HTTP");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status line"), body.to_owned())
}

async fn json_of(aws: &FakeAws, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = send(aws, method, path, &body.to_string()).await;
    assert!(
        (200..300).contains(&status),
        "{method} {path}: {status} {answer}"
    );
    serde_json::from_str(&answer).unwrap_or(Value::Null)
}

#[tokio::test]
async fn a_world_is_built_and_watched_over_http() {
    let aws = FakeAws::start().await;
    let role = json_of(&aws, "POST", "/_fake/principals", &json!({ "arn": ROLE })).await;
    assert_eq!(role["arn"], ROLE);
    let domain = json!({ "account": ACCOUNT, "region": REGION, "name": "logs" });
    json_of(&aws, "POST", "/_fake/domains", &domain).await;
    let path = format!("/_fake/accounts/{ACCOUNT}/credentials");
    let key = json_of(&aws, "GET", &path, &Value::Null).await;
    let text = |name: &str| key[name].as_str().expect("it is there").to_owned();
    assert_eq!(
        (text("accessKeyId"), text("secretAccessKey")),
        aws.credentials(ACCOUNT)
    );

    let es = OpenSearch::new(&sdk_config(&aws, REGION, super::admin(&aws, ACCOUNT)));
    let update = es
        .update_domain_config()
        .domain_name("logs")
        .access_policies(policy_for(ROLE));
    update.send().await.expect("it is sound");
    let (_, policy) = send(&aws, "GET", "/_fake/domains/logs/policy", "").await;
    assert_eq!(
        (principals(&policy), policy),
        (vec![ROLE.to_owned()], aws.policy("logs"))
    );

    assert_eq!(
        send(&aws, "PUT", "/_fake/domains/logs/policy", "").await.0,
        204
    );
    assert_eq!(aws.policy("logs"), "");
    let versions = json_of(&aws, "GET", "/_fake/domains/logs/versions", &Value::Null).await;
    let writers: Vec<&Value> = versions
        .as_array()
        .expect("a list")
        .iter()
        .map(|version| &version["callerArn"])
        .collect();
    assert_eq!(
        writers,
        [
            "external",
            "arn:aws:iam::111122223333:user/admin",
            "external"
        ]
    );
    let calls = json_of(&aws, "GET", "/_fake/calls", &Value::Null).await;
    assert_eq!(calls[0]["operation"], "UpdateDomainConfig");
    assert_eq!(calls[0]["bodyKeys"], json!(["AccessPolicies"]));
    assert_eq!(
        calls.as_array().map(Vec::len),
        Some(1),
        "the control API is not recorded"
    );

    let gone = format!("/_fake/principals/{ROLE}");
    assert_eq!(send(&aws, "DELETE", &gone, "").await.0, 204);
    assert_eq!(send(&aws, "DELETE", &gone, "").await.0, 404);
    let update = es
        .update_domain_config()
        .domain_name("logs")
        .access_policies(policy_for(ROLE));
    assert_eq!(refusal(update.send().await).0, "InvalidTypeException");
}

#[tokio::test]
async fn a_user_comes_with_its_access_key() {
    let aws = FakeAws::start().await;
    let user = json!({ "arn": "arn:aws:iam::111122223333:user/team/es-user" });
    let user = json_of(&aws, "POST", "/_fake/principals", &user).await;
    let key = aws.user_credentials(ACCOUNT, "es-user");
    assert_eq!(user["accessKeyId"], key.access_key_id);
    assert_eq!(user["secretAccessKey"], key.secret_access_key);
}

#[tokio::test]
async fn a_cluster_and_its_associations_are_made_over_http() {
    let aws = FakeAws::start().await;
    json_of(&aws, "POST", "/_fake/principals", &json!({ "arn": ROLE })).await;
    let place = json!({ "account": ACCOUNT, "region": REGION, "name": "main" });
    let made = json_of(&aws, "POST", "/_fake/clusters", &place).await;
    assert_eq!(made["issuer"], aws.issuer(ACCOUNT, REGION, "main"));
    let again = send(&aws, "POST", "/_fake/clusters", &place.to_string()).await;
    assert_eq!(again.0, 409);
    let new = json!({ "account": ACCOUNT, "region": REGION, "cluster": "main",
        "namespace": "search", "serviceAccount": "api", "roleArn": ROLE });
    let made = json_of(&aws, "POST", "/_fake/associations", &new).await;
    let id = made["associationId"].as_str().expect("it is there");
    let again = send(&aws, "POST", "/_fake/associations", &new.to_string()).await;
    assert_eq!(again.0, 409);
    let eks = aws_sdk_eks::Client::new(&sdk_config(&aws, REGION, super::admin(&aws, ACCOUNT)));
    let describe = || {
        let describe = eks.describe_pod_identity_association();
        describe.cluster_name("main").association_id(id).send()
    };
    let described = describe().await.expect("it exists").association;
    assert_eq!(described.expect("required").role_arn(), Some(ROLE));
    let path = format!("/_fake/associations/{id}");
    assert_eq!(send(&aws, "DELETE", &path, "").await.0, 204);
    assert_eq!(refusal(describe().await).0, "ResourceNotFoundException");

    let trust = r#"{"Statement":[]}"#;
    let path = format!("/_fake/roles/{ACCOUNT}/es-role/trust");
    assert_eq!(send(&aws, "PUT", &path, trust).await.0, 204);
    let iam = aws_sdk_iam::Client::new(&sdk_config(&aws, REGION, super::admin(&aws, ACCOUNT)));
    let role = iam.get_role().role_name("es-role").send().await;
    let role = role.expect("it exists").role.expect("required");
    let document = role.assume_role_policy_document().expect("it has one");
    assert_eq!(document, "%7B%22Statement%22%3A%5B%5D%7D");
}

#[tokio::test]
async fn faults_are_set_and_cleared_over_http() {
    let aws = FakeAws::start().await;
    aws.account(ACCOUNT).domain("logs", REGION);
    let es = OpenSearch::new(&sdk_config(&aws, REGION, super::admin(&aws, ACCOUNT)));
    let fault = json!({ "operation": "DescribeDomain", "fault": "Throttle" });
    json_of(&aws, "POST", "/_fake/faults", &fault).await;
    let describe = || es.describe_domain().domain_name("logs").send();
    assert_eq!(refusal(describe().await).0, "ThrottlingException");
    assert_eq!(send(&aws, "DELETE", "/_fake/faults", "").await.0, 204);
    describe().await.expect("it is cleared");
}

#[tokio::test]
async fn nonsense_is_refused_with_a_message() {
    let aws = FakeAws::start().await;
    for (method, path, body, expected) in [
        ("POST", "/_fake/principals", "{", 400),
        (
            "POST",
            "/_fake/principals",
            r#"{"arn":"arn:aws:iam::111122223333:group/x"}"#,
            400,
        ),
        (
            "POST",
            "/_fake/principals",
            r#"{"arn":"arn:aws:iam::1:role/x"}"#,
            400,
        ),
        (
            "POST",
            "/_fake/domains",
            r#"{"account":"111122223333"}"#,
            400,
        ),
        ("POST", "/_fake/clusters", r#"{"account":"1"}"#, 400),
        (
            "POST",
            "/_fake/associations",
            r#"{"account":"111122223333","region":"eu-west-1","cluster":"none","namespace":"a",
                "serviceAccount":"b","roleArn":"c"}"#,
            409,
        ),
        ("DELETE", "/_fake/associations/a-nobody", "", 404),
        ("PUT", "/_fake/roles/111122223333/nobody/trust", "{}", 404),
        ("GET", "/_fake/domains/unknown/policy", "", 404),
        ("GET", "/_fake/accounts/1/credentials", "", 400),
    ] {
        let (status, answer) = send(&aws, method, path, body).await;
        assert_eq!(status, expected, "{method} {path} {body}: {answer}");
        assert!(answer.contains("message"), "{answer}");
    }
}
