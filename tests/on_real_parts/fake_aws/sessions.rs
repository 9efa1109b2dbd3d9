//! STS: who calls, and who may act as a role.

use aws_sdk_opensearch::Client as OpenSearch;
use aws_sdk_opensearch::config::Credentials;
use aws_sdk_sts::Client as Sts;

use super::{ACCOUNT, REGION, ROLE, Rig, admin, credentials, refusal, sdk_config};
use crate::common::fake_aws::{DomainOptions, RoleOptions};

const OTHER: &str = "444455556666";

impl Rig {
    fn sts(&self, credentials: Credentials) -> Sts {
        Sts::new(&sdk_config(&self.aws, REGION, credentials))
    }
}

#[tokio::test]
async fn sts_says_who_calls() {
    let rig = Rig::start().await;
    let admin = rig
        .sts(admin(&rig.aws, ACCOUNT))
        .get_caller_identity()
        .send()
        .await
        .expect("signed");
    assert_eq!(admin.account(), Some(ACCOUNT));
    assert_eq!(admin.arn(), Some("arn:aws:iam::111122223333:user/admin"));
    let session = credentials(rig.aws.session(ACCOUNT, "es-role", "pod-1"));
    let role = rig
        .sts(session)
        .get_caller_identity()
        .send()
        .await
        .expect("signed");
    assert_eq!(
        role.arn(),
        Some("arn:aws:sts::111122223333:assumed-role/es-role/pod-1")
    );
    let id = rig.aws.role_id(ACCOUNT, "es-role").expect("it exists");
    assert_eq!(role.user_id(), Some(format!("{id}:pod-1").as_str()));
}

#[tokio::test]
async fn an_assumed_role_acts_in_its_own_account_under_its_session_name() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws.account(OTHER).domain("foreign", REGION).role_with(
        "operator",
        RoleOptions::default()
            .trusts("arn:aws:iam::111122223333:user/admin")
            .external_id("secret-1"),
    );
    let sts = rig.sts(admin(&rig.aws, ACCOUNT));
    let assume = sts
        .assume_role()
        .role_arn("arn:aws:iam::444455556666:role/operator");
    let assumed = assume
        .role_session_name("domain-foreign")
        .external_id("secret-1")
        .send()
        .await;
    let session = assumed
        .expect("it is trusted")
        .credentials
        .expect("required");
    assert!(session.access_key_id().starts_with("ASIA"));
    let token = Some(session.session_token().to_owned());
    let session = Credentials::new(
        session.access_key_id(),
        session.secret_access_key(),
        token,
        None,
        "test",
    );
    let es = OpenSearch::new(&sdk_config(&rig.aws, REGION, session));
    es.describe_domain()
        .domain_name("foreign")
        .send()
        .await
        .expect("it is in that account");
    let own = es.describe_domain().domain_name("logs").send().await;
    assert_eq!(refusal(own).0, "ResourceNotFoundException");

    let calls = rig.aws.calls_of("DescribeDomain");
    let call = calls.first().expect("it was recorded");
    assert_eq!(
        (call.account.as_str(), call.session_name.as_deref()),
        (OTHER, Some("domain-foreign"))
    );
    assert_eq!(
        call.caller_arn,
        "arn:aws:sts::444455556666:assumed-role/operator/domain-foreign"
    );
}

#[tokio::test]
async fn a_role_is_not_assumed_without_its_external_id_or_its_trust() {
    let rig = Rig::start().await;
    let trusting = |principal: &str| RoleOptions::default().trusts(principal);
    rig.aws
        .account(OTHER)
        .role_with("by-account", trusting(ACCOUNT).external_id("secret-1"))
        .role_with("by-role", trusting(ROLE));
    let sts = rig.sts(admin(&rig.aws, ACCOUNT));
    let assume = |role: &str, external_id: Option<&str>| {
        let assume = sts
            .assume_role()
            .role_arn(format!("arn:aws:iam::{OTHER}:role/{role}"));
        assume
            .role_session_name("test")
            .set_external_id(external_id.map(str::to_owned))
            .send()
    };
    assume("by-account", Some("secret-1"))
        .await
        .expect("the account is trusted");
    for (role, external_id) in [
        ("by-account", None),
        ("by-account", Some("other")),
        ("by-role", None),
        ("nobody", None),
    ] {
        let (code, status, message) = refusal(assume(role, external_id).await);
        assert_eq!((code.as_str(), status), ("AccessDenied", 403), "{role}");
        assert_eq!(
            message,
            format!(
                "User: arn:aws:iam::111122223333:user/admin is not authorized to perform: \
                 sts:AssumeRole on resource: arn:aws:iam::{OTHER}:role/{role}"
            )
        );
    }
    let session = rig.sts(credentials(rig.aws.session(ACCOUNT, "es-role", "pod-1")));
    let chained = session
        .assume_role()
        .role_arn(format!("arn:aws:iam::{OTHER}:role/by-role"));
    chained
        .role_session_name("test")
        .send()
        .await
        .expect("the role behind the session is trusted");
}

#[tokio::test]
async fn a_session_name_is_checked() {
    let rig = Rig::start().await;
    let sts = rig.sts(admin(&rig.aws, ACCOUNT));
    for name in ["x", "not a name", &"x".repeat(65)] {
        let assume = sts.assume_role().role_arn(ROLE).role_session_name(name);
        let (code, status, _) = refusal(assume.send().await);
        assert_eq!((code.as_str(), status), ("ValidationError", 400), "{name}");
    }
}

#[tokio::test]
async fn assumed_sessions_last_as_long_as_the_test_wants() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws.sessions_last(std::time::Duration::ZERO);
    let sts = rig.sts(admin(&rig.aws, ACCOUNT));
    let assumed = sts
        .assume_role()
        .role_arn(ROLE)
        .role_session_name("test")
        .send()
        .await;
    let session = assumed
        .expect("the account trusts itself")
        .credentials
        .expect("required");
    let token = Some(session.session_token().to_owned());
    let session = Credentials::new(
        session.access_key_id(),
        session.secret_access_key(),
        token,
        None,
        "test",
    );
    let identity = rig.sts(session).get_caller_identity().send().await;
    assert_eq!(refusal(identity).0, "ExpiredToken");
}
