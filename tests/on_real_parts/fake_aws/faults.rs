//! Faults on purpose: each shows as often as it was asked to, and is told apart by whether anything
//! was applied.

use std::time::{Duration, Instant};

use aws_sdk_opensearch::error::SdkError;

use super::{ACCOUNT, ROLE, Rig, policy_for, principals, refusal};
use crate::common::fake_aws::{DomainOptions, Fault, Times};

#[tokio::test]
async fn throttling_lasts_for_its_count() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws
        .faults()
        .inject("UpdateDomainConfig", Fault::Throttle, Times::Exactly(2));
    for _ in 0..2 {
        let (code, status, message) = refusal(rig.put("").await);
        assert_eq!((code.as_str(), status), ("ThrottlingException", 429));
        assert_eq!(message, "Rate exceeded");
    }
    rig.get().await;
    rig.put("").await.expect("the third call is spared");
    assert_eq!(rig.aws.updates("logs"), 1);
}

#[tokio::test]
async fn internal_errors_last_until_they_are_cleared() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws
        .faults()
        .inject("UpdateDomainConfig", Fault::Internal, Times::UntilCleared);
    for _ in 0..3 {
        let (code, status, _) = refusal(rig.put("").await);
        assert_eq!((code.as_str(), status), ("InternalException", 500));
    }
    rig.aws.faults().clear("UpdateDomainConfig");
    rig.put("").await.expect("it is cleared");
}

#[tokio::test]
async fn a_fault_can_be_meant_for_one_domain() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.account().domain("metrics", super::REGION);
    rig.aws
        .faults()
        .inject_on("metrics", "*", Fault::AccessDenied, Times::UntilCleared);
    rig.get().await;
    let metrics = rig.es.describe_domain().domain_name("metrics").send().await;
    let (code, status, message) = refusal(metrics);
    assert_eq!((code.as_str(), status), ("AccessDeniedException", 403));
    assert!(
        message.ends_with("is not authorized to perform: es:DescribeDomain"),
        "{message}"
    );
}

#[tokio::test]
async fn a_reset_before_applying_leaves_the_policy_alone() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws
        .faults()
        .inject("UpdateDomainConfig", Fault::ResetBefore, Times::Exactly(1));
    let reset = rig.put(&policy_for(ROLE)).await;
    assert!(
        matches!(reset, Err(SdkError::DispatchFailure(_))),
        "{reset:?}"
    );
    assert_eq!((rig.get().await.as_str(), rig.aws.updates("logs")), ("", 0));
    assert_eq!(rig.aws.calls_of("UpdateDomainConfig")[0].status, None);
}

#[tokio::test]
async fn a_reset_after_applying_leaves_the_new_policy() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws
        .faults()
        .inject("UpdateDomainConfig", Fault::ResetAfter, Times::Exactly(1));
    let reset = rig.put(&policy_for(ROLE)).await;
    assert!(
        matches!(reset, Err(SdkError::DispatchFailure(_))),
        "{reset:?}"
    );
    assert_eq!(
        (principals(&rig.get().await), rig.aws.updates("logs")),
        (vec![ROLE.to_owned()], 1)
    );
}

#[tokio::test]
async fn a_delay_combines_with_other_faults() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws
        .faults()
        .delay("UpdateDomainConfig", Duration::from_millis(200));
    rig.aws
        .faults()
        .inject("UpdateDomainConfig", Fault::Throttle, Times::Exactly(1));
    let started = Instant::now();
    assert_eq!(refusal(rig.put("").await).0, "ThrottlingException");
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_refusal_can_be_made_up() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let fault = Fault::Refuse(
        "LimitExceededException",
        409,
        "IOPS must be set to 20000".to_owned(),
    );
    rig.aws
        .faults()
        .inject("UpdateDomainConfig", fault, Times::Exactly(1));
    let (code, status, message) = refusal(rig.put("").await);
    assert_eq!((code.as_str(), status), ("LimitExceededException", 409));
    assert_eq!(message, "IOPS must be set to 20000");
}

#[tokio::test]
async fn faults_of_the_query_services_speak_their_protocol() {
    let rig = Rig::start().await;
    let config = super::sdk_config(&rig.aws, super::REGION, super::admin(&rig.aws, ACCOUNT));
    let iam = aws_sdk_iam::Client::new(&config);
    for (fault, expected) in [
        (Fault::Throttle, ("Throttling", 400)),
        (Fault::Internal, ("ServiceFailure", 500)),
        (Fault::AccessDenied, ("AccessDenied", 403)),
    ] {
        rig.aws.faults().inject("GetRole", fault, Times::Exactly(1));
        let (code, status, _) = refusal(iam.get_role().role_name("es-role").send().await);
        assert_eq!((code.as_str(), status), expected);
    }
}

#[tokio::test]
async fn a_dropped_fake_answers_no_more() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.get().await;
    let Rig { aws, es } = rig;
    drop(aws);
    let described = es.describe_domain().domain_name("logs").send().await;
    assert!(
        matches!(described, Err(SdkError::DispatchFailure(_))),
        "{described:?}"
    );
}
