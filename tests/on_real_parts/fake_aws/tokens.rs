//! Tokens for sessions: `AssumeRoleWithWebIdentity` of STS, and the Pod Identity agent. What the real
//! ones refuse is refused, and by their codes.
//!
//! The tokens are made here, by a key of our own; `tests/proxy/identities.rs` has an API server's.

#![allow(clippy::unwrap_used, reason = "what is made here is well-formed")]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use aws_sdk_opensearch::config::Credentials;
use aws_sdk_sts::Client as Sts;
use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{ACCOUNT, REGION, ROLE, Rig, refusal, sdk_config};
use crate::common::fake_aws::{Agent, Fault, NewAssociation, Times};
use crate::common::gateway::plain_client;

const ISSUER: &str = "https://issuer.example/id/ONE";
const STS: &str = "sts.amazonaws.com";
const PODS: &str = "pods.eks.amazonaws.com";
const SUBJECT: &str = "system:serviceaccount:team-a:shop";
const CLUSTER: &str = "main";

/// The code that most refusals of a token have.
const INVALID: &str = "InvalidIdentityToken";

static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [(); 2].map(|()| KeyPair::generate(KeySize::Rsa2048).unwrap()));

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Publishes a key, as an issuer does.
fn key_set(key: &KeyPair) -> Value {
    // RFC 8017, A.1.1: a modulus of 2048 bits, and 65537, each behind its own head.
    let der = key.public_key().as_ref();
    let (modulus, exponent) = (&der[9..265], &der[267..]);
    assert_eq!(exponent, [1, 0, 1]);
    json!({"keys": [{"use": "sig", "kty": "RSA", "kid": "one", "alg": "RS256",
        "n": encode(modulus), "e": encode(exponent)}]})
}

/// Signs a token.
fn sign(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let signed = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", encode(signature))
}

fn header() -> Value {
    json!({"alg": "RS256", "kid": "one"})
}

/// Returns the claims of a pod's token, with others in place of the usual ones; `null` removes one.
fn claims(audience: &str, others: &Value) -> Value {
    let now = Timestamp::now().as_second();
    let mut claims = json!({"iss": ISSUER, "sub": SUBJECT, "aud": [audience], "iat": now,
        "nbf": now, "exp": now + 3600, "kubernetes.io": {"namespace": "team-a",
            "serviceaccount": {"name": "shop", "uid": "1"}, "pod": {"name": "shop-0", "uid": "2"}}});
    for (name, claim) in others.as_object().unwrap() {
        claims[name] = claim.clone();
    }
    let members = claims.as_object_mut().unwrap();
    members.retain(|_, claim| !claim.is_null());
    claims
}

fn token(audience: &str, others: &Value) -> String {
    sign(&KEYS[0], &header(), &claims(audience, others))
}

fn trust_of(subject: &str) -> Value {
    trust_with(&json!({"StringEquals": {"issuer.example/id/ONE:aud": STS,
        "issuer.example/id/ONE:sub": subject}}))
}

fn trust_with(condition: &Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/issuer.example/id/ONE")},
        "Action": "sts:AssumeRoleWithWebIdentity", "Condition": condition}]})
}

impl Rig {
    /// Lets the role `es-role` be assumed by the tokens of an issuer.
    async fn federated() -> Self {
        let rig = Self::start().await;
        rig.account().provider(ISSUER, &[STS]);
        rig.aws.publish_keys(ISSUER, &key_set(&KEYS[0]));
        rig.aws.set_trust(ACCOUNT, "es-role", &trust_of(SUBJECT));
        rig
    }

    /// Exchanges a token, without a signature; returns the code, the status and the words of a
    /// refusal, or as whom the session is.
    async fn exchange(&self, token: &str) -> Result<String, (String, u16, String)> {
        self.exchange_for(token, ROLE).await
    }

    async fn exchange_for(&self, token: &str, role: &str) -> Result<String, (String, u16, String)> {
        // The SDK signs this call by nobody's keys.
        let nobody = Credentials::new("AKIANOBODY", "secret", None, None, "test");
        let sts = Sts::new(&sdk_config(&self.aws, REGION, nobody));
        let call = sts.assume_role_with_web_identity().role_arn(role);
        let call = call.role_session_name("pod").web_identity_token(token);
        let assumed = match call.send().await {
            Ok(assumed) => assumed,
            Err(error) => return Err(refusal::<(), _>(Err(error))),
        };
        assert_eq!(assumed.subject_from_web_identity_token(), Some(SUBJECT));
        assert_eq!(assumed.audience(), Some(STS));
        let keys = assumed.credentials.expect("there are some");
        let keys = Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            Some(keys.session_token),
            None,
            "test",
        );
        let sts = Sts::new(&sdk_config(&self.aws, REGION, keys));
        let caller = sts.get_caller_identity().send().await.expect("it is known");
        Ok(caller.arn.unwrap_or_default())
    }

    async fn refuses(&self, token: &str, code: &str, status: u16, words: &str) {
        let (got, with, said) = self.exchange(token).await.unwrap_err();
        assert_eq!((got.as_str(), with), (code, status), "{said}");
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
}

#[tokio::test]
async fn a_token_is_exchanged_without_a_signature_for_a_session_that_is_known() {
    let rig = Rig::federated().await;
    let session = "arn:aws:sts::111122223333:assumed-role/es-role/pod";
    for others in [json!({}), json!({"aud": STS}), json!({"nbf": null})] {
        let exchanged = rig.exchange(&token(STS, &others)).await;
        assert_eq!(exchanged.as_deref(), Ok(session), "{others}");
    }
    let calls = rig.aws.calls_of("AssumeRoleWithWebIdentity");
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|it| it.access_key_id.is_empty()));
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_refused_by_its_code() {
    let rig = Rig::federated().await;
    let (now, usual) = (Timestamp::now().as_second(), claims(STS, &json!({})));
    let other_key = sign(&KEYS[1], &header(), &usual);
    let unknown_key = json!({"alg": "RS256", "kid": "two"});
    let unknown_key = sign(&KEYS[0], &unknown_key, &usual);
    let with = |others: Value| token(STS, &others);
    for (token, words) in [
        ("opaque".to_owned(), "not a valid JWT"),
        ("a.b.c".to_owned(), "not a valid JWT"),
        (
            sign(&KEYS[0], &json!({"alg": "none", "kid": "one"}), &usual),
            "not a valid JWT",
        ),
        (
            sign(&KEYS[0], &json!({"alg": "HS256", "kid": "one"}), &usual),
            "not a valid JWT",
        ),
        (
            sign(&KEYS[0], &json!({"alg": "RS256"}), &usual),
            "not a valid JWT",
        ),
        (other_key, "signature"),
        (unknown_key, "Couldn't retrieve verification key"),
        (token(PODS, &json!({})), "Incorrect token audience"),
        (
            with(json!({"aud": [STS, PODS]})),
            "Incorrect token audience",
        ),
        (with(json!({"aud": null})), "required claim: aud"),
        (with(json!({"sub": null})), "required claim: sub"),
        (with(json!({"exp": null})), "required claim: exp"),
        (with(json!({"iat": null})), "required claim: iat"),
        (with(json!({"iat": now + 1800})), "not valid yet"),
        (with(json!({"nbf": now + 1800})), "not valid yet"),
        (
            with(json!({"iss": "https://another.example"})),
            "No OpenIDConnect provider found in your account for https://another.example",
        ),
    ] {
        rig.refuses(&token, INVALID, 400, words).await;
    }
    let usual = with(json!({}));
    let (rest, signature) = usual.rsplit_once('.').unwrap();
    rig.refuses(
        &format!("{rest}.{}", encode("x")),
        INVALID,
        400,
        "signature",
    )
    .await;
    let (header, _) = rest.split_once('.').unwrap();
    let other =
        encode(claims(STS, &json!({"sub": "system:serviceaccount:kube-system:x"})).to_string());
    let swapped = format!("{header}.{other}.{signature}");
    rig.refuses(&swapped, INVALID, 400, "signature").await;
    rig.refuses(
        &with(json!({"iat": now - 7200, "exp": now - 3600})),
        "ExpiredTokenException",
        400,
        "Token expired",
    )
    .await;
    assert!(rig.exchange(&usual).await.is_ok(), "the usual one passes");
}

#[tokio::test]
async fn a_token_expires_by_the_clock_of_aws_and_its_issuer_may_be_away_or_have_new_keys() {
    let rig = Rig::federated().await;
    let token = token(STS, &json!({}));
    rig.aws.clock_is_ahead_by(SignedDuration::from_hours(2));
    rig.refuses(&token, "ExpiredTokenException", 400, "Token expired")
        .await;
    rig.aws.clock_is_ahead_by(SignedDuration::ZERO);
    rig.aws.cut_off(ISSUER);
    rig.refuses(&token, "IDPCommunicationError", 400, "reached")
        .await;
    rig.aws.publish_keys(ISSUER, &key_set(&KEYS[1]));
    rig.refuses(&token, INVALID, 400, "signature").await;
    let renewed = sign(&KEYS[1], &header(), &claims(STS, &json!({})));
    assert!(rig.exchange(&renewed).await.is_ok());
}

#[tokio::test]
async fn the_trust_policy_of_the_role_has_the_last_word() {
    let rig = Rig::federated().await;
    let token = token(STS, &json!({}));
    let refused = async |role: &str| {
        let (code, status, said) = rig.exchange_for(&token, role).await.unwrap_err();
        let words = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
        assert_eq!((code.as_str(), status), ("AccessDenied", 403), "{said}");
        assert_eq!(said, words);
    };
    refused("arn:aws:iam::111122223333:role/nobody-has-this").await;
    let (sub, aud) = ("issuer.example/id/ONE:sub", "issuer.example/id/ONE:aud");
    let deny = |condition: Value| {
        let mut policy = trust_of(SUBJECT);
        let mut statement = trust_with(&condition)["Statement"][0].clone();
        statement["Effect"] = json!("Deny");
        policy["Statement"].as_array_mut().unwrap().push(statement);
        policy
    };
    let changed = |member: &str, value: Value| {
        let mut policy = trust_of(SUBJECT);
        policy["Statement"][0][member] = value;
        policy
    };
    for policy in [
        trust_of("system:serviceaccount:team-b:shop"),
        trust_with(&json!({"StringEquals": {aud: PODS}})),
        trust_with(&json!({"StringEquals": {"another.example:sub": SUBJECT}})),
        trust_with(&json!({"StringLike": {sub: "system:serviceaccount:team-b:*"}})),
        trust_with(&json!({"StringEquals": {sub: "system:serviceaccount:team-a:*"}})),
        trust_with(&json!({"StringNotEquals": {sub: SUBJECT}})),
        deny(json!({"StringLike": {sub: "system:serviceaccount:team-a:*"}})),
        changed("Action", json!("sts:AssumeRole")),
        changed("Principal", json!({"AWS": "*"})),
        changed("Principal", json!("*")),
        changed(
            "Principal",
            json!({"Federated": "arn:aws:iam::444455556666:oidc-provider/issuer.example/id/ONE"}),
        ),
        json!({"Version": "2012-10-17", "Statement": []}),
    ] {
        rig.aws.set_trust(ACCOUNT, "es-role", &policy);
        refused(ROLE).await;
    }
    for policy in [
        trust_with(&json!({"StringLike": {sub: "system:serviceaccount:team-a:*"}})),
        trust_with(&json!({"StringEquals": {sub: ["another", SUBJECT]}})),
        trust_with(&json!({"StringEqualsIfExists": {sub: SUBJECT, "another:key": "x"}})),
        changed("Action", json!("sts:*")),
        deny(json!({"StringNotLike": {sub: "system:serviceaccount:team-a:*"}})),
    ] {
        rig.aws.set_trust(ACCOUNT, "es-role", &policy);
        assert!(rig.exchange(&token).await.is_ok(), "{policy}");
    }
}

#[tokio::test]
async fn what_is_not_a_call_for_a_role_is_invalid() {
    let rig = Rig::federated().await;
    let token = token(STS, &json!({}));
    for (role, token) in [
        ("arn:aws:iam::111122223333:user/admin", token.as_str()),
        (ROLE, "x"),
    ] {
        let (code, status, said) = rig.exchange_for(token, role).await.unwrap_err();
        assert_eq!((code.as_str(), status), ("ValidationError", 400), "{said}");
    }
    // Whatever else needs a signature still does.
    let form = "Action=GetCallerIdentity&Version=2011-06-15";
    let request = Request::post(rig.aws.url()).body(Body::from(form)).unwrap();
    let answer = plain_client().request(request).await.unwrap();
    assert_eq!(answer.status(), 403);
}

/// A cluster whose node has an agent, and an association of `team-a/shop` with `es-role`.
struct Node {
    rig: Rig,
    agent: Agent,
    association: String,
}

impl Node {
    async fn start() -> Self {
        let rig = Rig::start().await;
        let account = rig.account().cluster(CLUSTER, REGION);
        let new = NewAssociation {
            namespace: "team-a".to_owned(),
            service_account: "shop".to_owned(),
            role: ROLE.to_owned(),
            target_role: None,
            policy: None,
        };
        let association = account.associate(REGION, CLUSTER, new);
        rig.aws.set_issuer(ACCOUNT, REGION, CLUSTER, ISSUER);
        rig.aws.publish_keys(ISSUER, &key_set(&KEYS[0]));
        let agent = rig.aws.agent(ACCOUNT, REGION, CLUSTER).await;
        let node = Self {
            rig,
            agent,
            association,
        };
        node.trust("es-role", &json!({}));
        node
    }

    fn trust(&self, role: &str, condition: &Value) {
        let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"Service": PODS}, "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": condition}]});
        self.rig.aws.set_trust(ACCOUNT, role, &policy);
    }

    /// Asks for credentials; returns the status and what is said.
    async fn ask(&self, token: &str) -> (u16, String) {
        let request = Request::get(self.agent.url()).header("authorization", token);
        let request = request.body(Body::empty()).unwrap();
        let answer = plain_client().request(request).await.unwrap();
        let status = answer.status().as_u16();
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(said.to_vec()).unwrap())
    }

    async fn refuses(&self, token: &str, status: u16, words: &str) {
        let (got, said) = self.ask(token).await;
        assert_eq!(got, status, "{said}");
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }

    /// Returns as whom a session is that the agent gives.
    async fn session(&self) -> String {
        let (status, said) = self.ask(&token(PODS, &json!({}))).await;
        assert_eq!(status, 200, "{said}");
        let given: Value = serde_json::from_str(&said).unwrap();
        let text = |member: &str| given[member].as_str().unwrap().to_owned();
        assert!(text("Expiration").parse::<Timestamp>().unwrap() > Timestamp::now());
        let (id, secret) = (text("AccessKeyId"), text("SecretAccessKey"));
        let keys = Credentials::new(id, secret, Some(text("Token")), None, "test");
        let sts = Sts::new(&sdk_config(&self.rig.aws, REGION, keys));
        let caller = sts.get_caller_identity().send().await.expect("it is known");
        caller.arn.unwrap_or_default()
    }
}

#[tokio::test]
async fn an_agent_gives_a_session_of_the_associated_role_or_of_its_target() {
    let node = Node::start().await;
    let session = "arn:aws:sts::111122223333:assumed-role/es-role/eks-main-shop-0";
    assert_eq!(node.session().await, session);
    let aws = &node.rig.aws;
    node.rig.account().role("target");
    let target = "arn:aws:iam::111122223333:role/target";
    let usual = token(PODS, &json!({}));
    aws.change_association(&node.association, ROLE, Some(target));
    // It lets in its account, but no tags.
    node.refuses(&usual, 400, "AccessDeniedException").await;
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Principal": {"AWS": ROLE}, "Action": ["sts:AssumeRole", "sts:TagSession"]}]});
    aws.set_trust(ACCOUNT, "target", &trust);
    let session = "arn:aws:sts::111122223333:assumed-role/target/eks-main-shop-0";
    assert_eq!(node.session().await, session);
}

#[tokio::test]
async fn an_agent_refuses_what_the_real_one_refuses() {
    let node = Node::start().await;
    let usual = claims(PODS, &json!({}));
    let with = |others: Value| token(PODS, &others);
    let now = Timestamp::now().as_second();
    let other_key = sign(&KEYS[1], &header(), &usual);
    let unbound = json!({"namespace": "team-a", "serviceaccount": {"name": "shop", "uid": "1"}});
    let other_account = json!({"namespace": "team-b",
        "serviceaccount": {"name": "shop", "uid": "1"}, "pod": {"name": "shop-0", "uid": "2"}});
    for (token, status, words) in [
        (String::new(), 400, "cannot be empty"),
        ("opaque".to_owned(), 400, "cannot be parsed"),
        (other_key, 400, "signature"),
        (token(STS, &json!({})), 400, "invalid audience"),
        (
            with(json!({"iss": "https://another.example"})),
            400,
            "another cluster",
        ),
        (
            with(json!({"kubernetes.io": unbound})),
            400,
            "kubernetes.io/pod",
        ),
        (with(json!({"exp": now - 60})), 400, "ExpiredTokenException"),
        (
            with(json!({"kubernetes.io": other_account})),
            404,
            "ResourceNotFoundException",
        ),
    ] {
        node.refuses(&token, status, words).await;
    }
    let usual = with(json!({}));
    let other = json!({"StringEquals": {"aws:RequestTag/kubernetes-namespace": "team-b"}});
    node.trust("es-role", &other);
    node.refuses(&usual, 400, "AccessDeniedException").await;
    let own = json!({"StringEquals": {"aws:RequestTag/kubernetes-namespace": "team-a",
        "aws:SourceAccount": ACCOUNT}});
    node.trust("es-role", &own);
    node.session().await;

    let aws = &node.rig.aws;
    aws.faults().inject(
        "AssumeRoleForPodIdentity",
        Fault::Throttle,
        Times::Exactly(1),
    );
    node.refuses(&usual, 429, "ThrottlingException").await;
    node.session().await;
    aws.dissociate(&node.association);
    node.refuses(&usual, 404, "ResourceNotFoundException").await;
}
