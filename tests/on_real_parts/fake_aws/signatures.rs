//! Who may call at all: the fake verifies every signature, whatever else is asked.

use aws_config::retry::RetryConfig;
use aws_sdk_opensearch::Client as OpenSearch;
use aws_sdk_opensearch::config::http::HttpRequest;
use aws_sdk_opensearch::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_opensearch::config::{Builder, ConfigBag, Credentials, Intercept, RuntimeComponents};
use aws_sdk_opensearch::error::BoxError;
use aws_sdk_opensearch::operation::describe_domain::{DescribeDomainError, DescribeDomainOutput};

use jiff::SignedDuration;

use super::{ACCOUNT, REGION, Rig, admin, credentials, refusal, sdk_config};
use crate::common::fake_aws::{DomainOptions, FakeAws};

type Described =
    Result<DescribeDomainOutput, aws_sdk_opensearch::error::SdkError<DescribeDomainError>>;

/// Changes the headers of a request after it was signed.
#[derive(Debug)]
struct Tamper(fn(&mut HttpRequest));

impl Intercept for Tamper {
    fn name(&self) -> &'static str {
        "Tamper"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        (self.0)(context.request_mut());
        Ok(())
    }
}

async fn describe(es: &OpenSearch) -> Described {
    es.describe_domain().domain_name("logs").send().await
}

async fn describe_tampered(rig: &Rig, tamper: fn(&mut HttpRequest)) -> Described {
    let config = sdk_config(&rig.aws, REGION, admin(&rig.aws, ACCOUNT));
    let config = Builder::from(&config).interceptor(Tamper(tamper)).build();
    describe(&OpenSearch::from_conf(config)).await
}

fn iam(aws: &FakeAws, credentials: Credentials) -> aws_sdk_iam::Client {
    aws_sdk_iam::Client::new(&sdk_config(aws, REGION, credentials))
}

#[tokio::test]
async fn a_request_signed_by_the_sdk_is_accepted() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    describe(&rig.es).await.expect("it is signed");
    let call = &rig.aws.calls()[0];
    assert_eq!(
        (call.service, call.region.as_str(), call.status),
        ("es", REGION, Some(200))
    );
    assert_eq!(
        (call.operation.as_str(), call.domain.as_deref()),
        ("DescribeDomain", Some("logs"))
    );
    assert_eq!(call.caller_arn, "arn:aws:iam::111122223333:user/admin");
}

#[tokio::test]
async fn an_unknown_access_key_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let unknown = Credentials::new("AKIAUNKNOWNUNKNOWN", "secret", None, None, "test");
    let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, unknown.clone()));
    let (code, status, message) = refusal(describe(&es).await);
    assert_eq!(
        (code.as_str(), status),
        ("UnrecognizedClientException", 403)
    );
    assert_eq!(
        message,
        "The security token included in the request is invalid."
    );
    let (code, status, _) = refusal(
        iam(&rig.aws, unknown)
            .get_role()
            .role_name("es-role")
            .send()
            .await,
    );
    assert_eq!((code.as_str(), status), ("InvalidClientTokenId", 403));
    let refused = &rig.aws.calls()[0];
    assert_eq!(
        refused.error_code.as_deref(),
        Some("UnrecognizedClientException")
    );
    assert_eq!(
        (refused.account.as_str(), refused.caller_arn.as_str()),
        ("", "")
    );
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let (access_key_id, _) = rig.aws.credentials(ACCOUNT);
    let wrong = Credentials::new(access_key_id, "wrong", None, None, "test");
    let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, wrong.clone()));
    let (code, status, _) = refusal(describe(&es).await);
    assert_eq!((code.as_str(), status), ("InvalidSignatureException", 403));
    let (code, status, _) = refusal(
        iam(&rig.aws, wrong)
            .get_role()
            .role_name("es-role")
            .send()
            .await,
    );
    assert_eq!((code.as_str(), status), ("SignatureDoesNotMatch", 403));
}

#[tokio::test]
async fn a_header_that_changes_after_signing_breaks_the_signature() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let (code, ..) = refusal(
        describe_tampered(&rig, |request| {
            request
                .headers_mut()
                .insert("x-amz-user-agent", "somebody else");
        })
        .await,
    );
    assert_eq!(code, "InvalidSignatureException");
}

#[tokio::test]
async fn an_x_amz_header_that_is_not_signed_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let (code, _, message) = refusal(
        describe_tampered(&rig, |request| {
            request.headers_mut().insert("x-amz-meta-new", "1");
        })
        .await,
    );
    assert_eq!(code, "InvalidSignatureException");
    assert_eq!(
        message,
        "'x-amz-meta-new' must be a 'SignedHeader' in the AWS Authorization."
    );
}

#[tokio::test]
async fn a_payload_hash_that_is_not_the_bodys_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let (code, ..) = refusal(
        describe_tampered(&rig, |request| {
            request
                .headers_mut()
                .insert("x-amz-content-sha256", "0".repeat(64));
        })
        .await,
    );
    assert_eq!(code, "InvalidSignatureException");
}

#[tokio::test]
async fn a_request_without_a_signature_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let (code, status, _) = refusal(
        describe_tampered(&rig, |request| {
            request.headers_mut().remove("authorization");
        })
        .await,
    );
    assert_eq!(
        (code.as_str(), status),
        ("MissingAuthenticationTokenException", 403)
    );
    let (code, ..) = refusal(
        describe_tampered(&rig, |request| {
            request.headers_mut().insert("authorization", "Basic YTpi");
        })
        .await,
    );
    assert_eq!(code, "IncompleteSignatureException");
}

#[tokio::test]
async fn a_scope_of_another_day_or_region_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    for change in [
        (|request| rescope(request, "/20", "/19")) as fn(&mut HttpRequest),
        |request| rescope(request, "eu-west-1", "nowhere"),
        |request| rescope(request, "eu-west-1", "us-east-1"),
    ] {
        let (code, ..) = refusal(describe_tampered(&rig, change).await);
        assert_eq!(code, "InvalidSignatureException");
    }
}

fn rescope(request: &mut HttpRequest, from: &str, to: &str) {
    let headers = request.headers_mut();
    let scoped = headers
        .get("authorization")
        .expect("it is signed")
        .replacen(from, to, 1);
    headers.insert("authorization", scoped);
}

#[tokio::test]
async fn a_date_may_be_off_by_five_minutes_and_not_by_more() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    for (minutes, expected) in [
        (4, None),
        (-4, None),
        (6, Some("Signature expired: ")),
        (-6, Some("Signature not yet current: ")),
    ] {
        rig.aws
            .clock_is_ahead_by(SignedDuration::from_mins(minutes));
        // A client learns the time from each answer, so each of these needs a new one.
        let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, admin(&rig.aws, ACCOUNT)));
        let described = describe(&es).await;
        let Some(expected) = expected else {
            assert!(described.is_ok(), "{minutes} minutes: {described:?}");
            continue;
        };
        let (code, status, message) = refusal(described);
        assert_eq!((code.as_str(), status), ("InvalidSignatureException", 403));
        assert!(message.starts_with(expected), "{message}");
    }
}

#[tokio::test]
async fn an_sdk_whose_clock_is_off_learns_the_time_from_the_refusal() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws.clock_is_ahead_by(SignedDuration::from_hours(1));
    let config = sdk_config(&rig.aws, REGION, admin(&rig.aws, ACCOUNT));
    let config = Builder::from(&config)
        .retry_config(RetryConfig::standard())
        .build();
    describe(&OpenSearch::from_conf(config))
        .await
        .expect("its second try has the right date");
    assert_eq!(rig.aws.calls().len(), 2);
}

#[tokio::test]
async fn a_session_needs_its_token() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let session = rig.aws.session(ACCOUNT, "es-role", "somebody");
    let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, credentials(session.clone())));
    describe(&es).await.expect("the token is sent");
    for token in [None, Some("another".to_owned())] {
        let wrong = crate::common::fake_aws::Credentials {
            session_token: token,
            ..session.clone()
        };
        let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, credentials(wrong)));
        assert_eq!(
            refusal(describe(&es).await).0,
            "UnrecognizedClientException"
        );
    }
}

#[tokio::test]
async fn a_session_ends() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let session = credentials(rig.aws.session(ACCOUNT, "es-role", "somebody"));
    let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, session.clone()));
    describe(&es).await.expect("it lasts an hour");
    rig.aws.expire_sessions();
    let (code, status, message) = refusal(describe(&es).await);
    assert_eq!((code.as_str(), status), ("ExpiredTokenException", 403));
    assert_eq!(
        message,
        "The security token included in the request is expired"
    );
    let (code, ..) = refusal(
        iam(&rig.aws, session)
            .get_role()
            .role_name("es-role")
            .send()
            .await,
    );
    assert_eq!(code, "ExpiredToken");
}

#[tokio::test]
async fn paths_and_queries_that_need_encoding_are_verified_as_they_are_sent() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let described = rig.es.describe_domain().domain_name("a b*,é").send().await;
    assert_eq!(
        refusal(described).0,
        "ResourceNotFoundException",
        "the signature holds"
    );
    let tags = rig.es.list_tags().arn("arn:aws:es:a b/*?&=ü").send().await;
    assert_eq!(
        refusal(tags).0,
        "ResourceNotFoundException",
        "the signature holds"
    );
}
