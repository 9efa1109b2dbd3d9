//! Whose requests they are: a pod's own token, from a real API server, and nothing else, by web
//! identity (IRSA) and by EKS Pod Identity, before a real OpenSearch.
//!
//! How long a session lasts is what the fake AWS hands out, and when one ends is asked of it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::Request;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::domain::{ACCOUNT, Domain, REGION, json_of, with_json};
use super::program::{Answer, PATIENCE, Proxy, get, until};
use crate::common::cluster::Cluster;
use crate::common::fake_aws::{Agent, Call, Fault, NewAssociation, Times};
use crate::common::gateway::authority;

const CLUSTER: &str = "main";
const NAMESPACE: &str = "default";

/// The role that the domain lets in, and one that it does not.
const APP: &str = "arn:aws:iam::111122223333:role/app";
const BASE: &str = "arn:aws:iam::111122223333:role/nobody";

/// Long enough for the slowest machine to renew in the second half, which is when it is done.
const SHORT: Duration = Duration::from_secs(20);

/// How a token is exchanged for a session.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    WebIdentity,
    PodIdentity,
}

use Way::{PodIdentity, WebIdentity};

impl Way {
    fn audience(self) -> &'static str {
        match self {
            WebIdentity => "sts.amazonaws.com",
            PodIdentity => "pods.eks.amazonaws.com",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            WebIdentity => "AssumeRoleWithWebIdentity",
            PodIdentity => "AssumeRoleForPodIdentity",
        }
    }

    /// Returns what a call exchanged.
    fn token(self, call: &Call) -> &str {
        let member = match self {
            WebIdentity => "WebIdentityToken",
            PodIdentity => "token",
        };
        call.body[member].as_str().unwrap_or_default()
    }
}

/// A domain, and a pod whose service account may have a role.
struct Rig {
    way: Way,
    domain: Domain,
    agent: Agent,
    issuer: String,
    keys: Value,
    /// The service account, and the pod.
    name: &'static str,
    folder: TempDir,
}

impl Rig {
    /// Opens a domain that lets in the role `app`, and lets a new pod's service account have a role.
    async fn open(way: Way, name: &'static str, role: &str) -> Self {
        let domain = Domain::open().await;
        let (issuer, keys) = issuer().await;
        create_pod(name).await;
        let account = domain.aws.account(ACCOUNT);
        let account = account.provider(&issuer, &["sts.amazonaws.com"]);
        let account = account.cluster(CLUSTER, REGION);
        let aws = &domain.aws;
        aws.set_issuer(ACCOUNT, REGION, CLUSTER, &issuer);
        aws.publish_keys(&issuer, &keys);
        if way == PodIdentity {
            let new = NewAssociation {
                namespace: NAMESPACE.to_owned(),
                service_account: name.to_owned(),
                role: role.to_owned(),
                target_role: None,
                policy: None,
            };
            account.associate(REGION, CLUSTER, new);
        }
        let agent = aws.agent(ACCOUNT, REGION, CLUSTER).await;
        let rig = Self {
            way,
            domain,
            agent,
            issuer,
            keys,
            name,
            folder: tempfile::tempdir().unwrap(),
        };
        rig.trust(role, name);
        rig
    }

    /// Lets a role trust a service account.
    fn trust(&self, role: &str, service_account: &str) {
        let bare = self.issuer.strip_prefix("https://").unwrap();
        let statement = match self.way {
            WebIdentity => json!({
                "Effect": "Allow",
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{bare}")},
                "Condition": {"StringEquals": {
                    format!("{bare}:aud"): "sts.amazonaws.com",
                    format!("{bare}:sub"): format!("system:serviceaccount:{NAMESPACE}:{service_account}"),
                }},
            }),
            PodIdentity => json!({
                "Effect": "Allow",
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Condition": {"StringEquals": {
                    "aws:RequestTag/kubernetes-service-account": service_account,
                }},
            }),
        };
        self.set_trust(role, &statement);
    }

    fn set_trust(&self, role: &str, statement: &Value) {
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
        let name = role.rsplit('/').next().unwrap();
        self.domain.aws.set_trust(ACCOUNT, name, &policy);
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Projects a new token into the pod, as a kubelet does: there is never half of one.
    async fn project(&self, audience: &str) -> String {
        let token = token(self.name, audience).await;
        let unnamed = self.folder.path().join("new");
        fs::write(&unnamed, &token).unwrap();
        fs::rename(unnamed, self.token_file()).unwrap();
        token
    }

    /// Starts a proxy that has what a pod has: two variables, and where it is.
    async fn start(&self, role: &str, options: &[&str]) -> Proxy {
        let file = self.token_file();
        let file = file.to_str().unwrap();
        let own = match self.way {
            WebIdentity => [
                ("AWS_ROLE_ARN", role),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", file),
            ],
            PodIdentity => [
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", self.agent.url()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file),
            ],
        };
        let place = [
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT_URL_STS", self.domain.aws.url()),
        ];
        let variables = [own, place].concat();
        let authority = authority();
        let options = [&["--ca", authority.to_str().unwrap()], options].concat();
        let url = format!("https://{}", self.domain.gateway.endpoint());
        Proxy::start(&url, &variables, &options).await
    }

    async fn ready(&self) -> Proxy {
        let proxy = self.start(APP, &[]).await;
        proxy.until_ready().await;
        proxy
    }

    /// Returns how often a token was exchanged, or was to be.
    fn exchanges(&self) -> Vec<Call> {
        self.domain.aws.calls_of(self.way.operation())
    }

    /// Returns as whom the last request came, and with which access key.
    fn last_caller(&self) -> (String, String) {
        let last = self.domain.gateway.passed().pop().expect("a request");
        (last.caller.unwrap_or_default(), last.access_key_id)
    }

    /// Waits until AWS refuses a token by a code, and the proxy says what it knows of that.
    async fn is_refused(&self, proxy: &Proxy, code: &str, why: &str) {
        let refused = async || {
            let last = self.exchanges().pop()?;
            (last.error_code.as_deref() == Some(code)).then_some(())
        };
        until(code, refused).await;
        self.says_why(proxy, why).await;
    }

    /// Waits until a proxy without credentials says why.
    async fn says_why(&self, proxy: &Proxy, why: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, said) = proxy.utility("/ready").await;
            if status == 503 && said.contains(why) {
                break;
            }
            assert!(Instant::now() < deadline, "{why:?} is not in {said:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = proxy.ask(get("/proxied-a/_search")).await;
        assert_no_credentials(&answer);
        assert!(answer.text().contains(why), "{why:?}: {answer:?}");
    }
}

fn assert_no_credentials(answer: &Answer) {
    let class = answer.field("x-opensearch-access-proxy-error");
    assert_eq!(
        (answer.status, class, answer.field("retry-after")),
        (503, Some("no_credentials"), Some("1")),
        "{answer:?}"
    );
}

/// Returns the API server's issuer and its keys, as it publishes them.
async fn issuer() -> (String, Value) {
    async fn read<T: DeserializeOwned>(path: &str) -> T {
        let client = Cluster::shared().await.client();
        let request = Request::get(path).body(Vec::new()).unwrap();
        client.request(request).await.unwrap()
    }
    let discovered: Value = read("/.well-known/openid-configuration").await;
    let issuer = discovered["issuer"].as_str().expect("it names itself");
    (issuer.to_owned(), read("/openid/v1/jwks").await)
}

/// Creates a service account, and a pod that runs as it.
async fn create_pod(name: &str) {
    let client = Cluster::shared().await.client();
    let account = json!({"metadata": {"name": name}});
    let pod = json!({"metadata": {"name": name}, "spec": {"serviceAccountName": name,
        "containers": [{"name": "app", "image": "app.example/app:1"}]}});
    let params = PostParams::default();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    let account = serde_json::from_value(account).unwrap();
    accounts.create(&params, &account).await.unwrap();
    let pods = Api::<Pod>::namespaced(client, NAMESPACE);
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&params, &pod).await.unwrap();
}

/// Requests a token for a pod, as its kubelet would.
async fn token(name: &str, audience: &str) -> String {
    let client = Cluster::shared().await.client();
    let accounts = Api::<ServiceAccount>::namespaced(client, NAMESPACE);
    let spec = json!({"audiences": [audience], "expirationSeconds": 3600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name}});
    let spec: TokenRequestSpec = serde_json::from_value(spec).unwrap();
    let request = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let created = accounts.create_token_request(name, &params, &request);
    created.await.unwrap().status.expect("it is granted").token
}

async fn works_on_nothing_but_a_token(way: Way, name: &'static str) {
    let rig = Rig::open(way, name, APP).await;
    let token = rig.project(way.audience()).await;
    let proxy = rig.ready().await;
    let index = format!("/proxied-{name}");
    let put = with_json(
        "PUT",
        &format!("{index}/_doc/1?refresh=true"),
        r#"{"x": 1}"#,
    );
    let answer = proxy.ask(put).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    for _ in 0..200 {
        let found = proxy.ask(get(&format!("{index}/_search?q=x:1"))).await;
        assert_eq!(found.status, 200, "{found:?}");
        assert_eq!(json_of(&found)["hits"]["total"]["value"], 1);
    }
    let (caller, _) = rig.last_caller();
    let session = format!("arn:aws:sts::{ACCOUNT}:assumed-role/app/");
    assert!(caller.starts_with(&session), "{caller}");
    let exchanges = rig.exchanges();
    assert_eq!(exchanges.len(), 1, "one for all requests: {exchanges:?}");
    assert_eq!(way.token(&exchanges[0]), token);
    let secrets = [rig.domain.aws.secrets(), vec![token]].concat();
    let shown = proxy.log() + &proxy.utility("/metrics").await.1;
    assert!(!secrets.iter().any(|it| shown.contains(it)), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn web_identity_needs_a_token_alone_and_two_hundred_requests_exchange_it_once() {
    works_on_nothing_but_a_token(WebIdentity, "irsa").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_identity_needs_a_token_alone_and_two_hundred_requests_exchange_it_once() {
    works_on_nothing_but_a_token(PodIdentity, "pod-identity").await;
}

async fn reads_the_token_anew(way: Way, name: &'static str) {
    let rig = Rig::open(way, name, APP).await;
    rig.domain.aws.sessions_last(SHORT);
    let first = rig.project(way.audience()).await;
    let proxy = rig.ready().await;
    assert_eq!(proxy.ask(get("/proxied-*/_search")).await.status, 200);
    let (_, old_key) = rig.last_caller();
    let second = rig.project(way.audience()).await;
    assert_ne!(first, second);
    let renewed = async || {
        // Whoever asks meanwhile is served.
        let answer = proxy.ask(get("/proxied-*/_search")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (_, key) = rig.last_caller();
        (key != old_key).then_some(())
    };
    until("requests are signed by another session", renewed).await;
    let exchanges = rig.exchanges();
    let tokens: Vec<&str> = exchanges.iter().map(|call| way.token(call)).collect();
    assert_eq!(tokens[..2], [first.as_str(), second.as_str()]);
    assert!(exchanges.iter().all(|it| it.status == Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_web_identity_token_is_read_at_the_next_renewal() {
    reads_the_token_anew(WebIdentity, "irsa-rotates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_identity_token_is_read_at_the_next_renewal() {
    reads_the_token_anew(PodIdentity, "pod-identity-rotates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_refuses_of_a_web_identity_is_told_until_it_is_put_right() {
    let rig = Rig::open(WebIdentity, "irsa-refused", APP).await;
    let proxy = rig.start(APP, &[]).await;
    rig.says_why(&proxy, "No such file").await;
    rig.project(PodIdentity.audience()).await;
    rig.says_why(&proxy, "Incorrect token audience").await;
    rig.trust(APP, "another");
    rig.project(WebIdentity.audience()).await;
    let denied = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    rig.says_why(&proxy, denied).await;
    rig.trust(APP, rig.name);
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/proxied-*/_search")).await.status, 200);

    let aws = &rig.domain.aws;
    let other = json!({"keys": []});
    aws.publish_keys(&rig.issuer, &other);
    let proxy = rig.start(APP, &[]).await;
    rig.says_why(&proxy, "Couldn't retrieve verification key")
        .await;
    aws.cut_off(&rig.issuer);
    rig.says_why(&proxy, "could not be reached").await;
    aws.publish_keys(&rig.issuer, &rig.keys);
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/proxied-*/_search")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_refuses_of_a_pod_identity_is_told_until_it_is_put_right() {
    let rig = Rig::open(PodIdentity, "pod-identity-refused", APP).await;
    let proxy = rig.start(APP, &[]).await;
    rig.says_why(&proxy, "No such file").await;
    // The SDK keeps the agent's words to itself.
    rig.project(WebIdentity.audience()).await;
    rig.is_refused(&proxy, "InvalidTokenException", "StatusCode(400)")
        .await;
    rig.trust(APP, "another");
    rig.project(PodIdentity.audience()).await;
    rig.is_refused(&proxy, "AccessDeniedException", "StatusCode(400)")
        .await;
    rig.trust(APP, rig.name);
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/proxied-*/_search")).await.status, 200);

    let stranger = Rig::open(PodIdentity, "pod-identity-stranger", APP).await;
    create_pod("without-association").await;
    let token = token("without-association", PodIdentity.audience()).await;
    fs::write(stranger.token_file(), token).unwrap();
    let proxy = stranger.start(APP, &[]).await;
    let before = stranger.domain.gateway.passed().len();
    stranger
        .is_refused(&proxy, "ResourceNotFoundException", "StatusCode(404)")
        .await;
    let after = stranger.domain.gateway.passed().len();
    assert_eq!(after, before, "nothing is sent");
}

async fn assumes_a_role_on_top(way: Way, name: &'static str) {
    let rig = Rig::open(way, name, BASE).await;
    rig.set_trust(
        APP,
        &json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": BASE},
            "Condition": {"StringEquals": {"sts:ExternalId": "the-domain"}}}),
    );
    rig.project(way.audience()).await;
    for options in [
        &["--assume-role", APP][..],
        &["--assume-role", APP, "--external-id", "another"],
    ] {
        let proxy = rig.start(BASE, options).await;
        let why = format!("not authorized to perform: sts:AssumeRole on resource: {APP}");
        rig.says_why(&proxy, &why).await;
    }
    let options = ["--assume-role", APP, "--external-id", "the-domain"];
    let proxy = rig.start(BASE, &options).await;
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/proxied-*/_search")).await.status, 200);
    let (caller, _) = rig.last_caller();
    let session = format!("arn:aws:sts::{ACCOUNT}:assumed-role/app/opensearch-access-proxy");
    assert_eq!(caller, session);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_by_web_identity_with_its_external_id_alone() {
    assumes_a_role_on_top(WebIdentity, "irsa-assumes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_by_pod_identity_with_its_external_id_alone() {
    assumes_a_role_on_top(PodIdentity, "pod-identity-assumes").await;
}

/// Each answer is judged by what the fake handed out: one that was signed came before the end of its
/// session, and the first that was refused after it.
async fn outlives_an_outage(way: Way, name: &'static str) {
    let rig = Rig::open(way, name, APP).await;
    let aws = &rig.domain.aws;
    aws.sessions_last(SHORT);
    rig.project(way.audience()).await;
    let proxy = rig.ready().await;
    let operation = way.operation();
    aws.faults()
        .inject(operation, Fault::ResetBefore, Times::UntilCleared);
    let mut served = 0;
    let (refused, last_key) = loop {
        let before = Timestamp::now();
        let answer = proxy.ask(get("/proxied-*/_search")).await;
        let (_, key) = rig.last_caller();
        let expires = aws.expiry(&key).expect("a session ends");
        if answer.status == 503 {
            assert!(Timestamp::now() >= expires, "it was served until then");
            break (answer, key);
        }
        assert!(before < expires, "nothing is signed after then");
        // What was signed in the last moment may arrive after it.
        let late = answer.status == 403 && Timestamp::now() >= expires;
        assert!(answer.status == 200 || late, "{answer:?}");
        served += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_no_credentials(&refused);
    let expires = aws.expiry(&last_key).expect("a session ends");
    let failed = |call: &Call| call.status.is_none() && call.at < expires;
    assert!(served > 0 && rig.exchanges().iter().any(failed));
    let metrics = proxy.utility("/metrics").await.1;
    let counted = "refusals_total{class=\"no_credentials\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(proxy.utility("/ready").await.0, 503);

    let sent = rig.domain.gateway.passed().len();
    assert_no_credentials(&proxy.ask(get("/proxied-*/_search")).await);
    assert_eq!(rig.domain.gateway.passed().len(), sent, "nothing is sent");
    aws.faults().clear(operation);
    proxy.until_ready().await;
    assert_eq!(proxy.ask(get("/proxied-*/_search")).await.status, 200);
    assert_ne!(rig.last_caller().1, last_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_sts_is_outlived_by_what_is_valid_still() {
    outlives_an_outage(WebIdentity, "irsa-outage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_pod_identity_agent_is_outlived_by_what_is_valid_still() {
    outlives_an_outage(PodIdentity, "pod-identity-outage").await;
}
