//! What the fake refuses in a submitted access policy, and with which words.

use std::time::Duration;

use serde_json::json;

use super::{ACCOUNT, LOGS, REGION, ROLE, Rig, policy_for, policy_with, refusal};
use crate::common::fake_aws::DomainOptions;

/// Asserts that the policy is refused as AWS refuses any bad policy: whole, and without a reason.
async fn assert_refused_whole(rig: &Rig, policy: &str) {
    let before = rig.aws.policy("logs");
    let (code, status, message) = refusal(rig.put(policy).await);
    assert_eq!(
        (code.as_str(), status),
        ("InvalidTypeException", 409),
        "{policy}"
    );
    assert_eq!(message, format!("Error setting policy: [{policy}]"));
    assert_eq!(
        rig.aws.policy("logs"),
        before,
        "nothing of a refused policy is stored"
    );
    assert_eq!(rig.aws.updates("logs"), 0);
}

#[tokio::test]
async fn a_newline_in_a_policy_is_refused_by_the_member_pattern() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let pretty = policy_for(ROLE).replace(',', ",\n");
    let (code, status, message) = refusal(rig.put(&pretty).await);
    assert_eq!((code.as_str(), status), ("ValidationException", 400));
    let expected = format!(
        "1 validation error detected: Value '{pretty}' at 'accessPolicies' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: .*"
    );
    assert_eq!(message, expected);
}

#[tokio::test]
async fn a_policy_of_102400_characters_is_taken_and_one_more_is_too_long() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let padded = |length: usize| {
        let bare = policy_with(&json!({ "Sid": "" }));
        bare.replace(
            r#""Sid":"""#,
            &format!(r#""Sid":"{}""#, "x".repeat(length - bare.len())),
        )
    };
    rig.put(&padded(102_400))
        .await
        .expect("it is just short enough");
    let (code, _, message) = refusal(rig.put(&padded(102_401)).await);
    assert_eq!(code, "ValidationException");
    assert!(
        message.ends_with("Member must have length less than or equal to 102400"),
        "{message}"
    );
}

#[tokio::test]
async fn one_unknown_principal_refuses_the_whole_policy_without_naming_it() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let nobody = format!("arn:aws:iam::{ACCOUNT}:role/nobody");
    assert_refused_whole(
        &rig,
        &policy_with(&json!({ "Principal": { "AWS": [ROLE, nobody] } })),
    )
    .await;
}

#[tokio::test]
async fn a_deleted_principal_is_unknown() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    assert!(rig.aws.delete_role(ACCOUNT, "es-role"));
    assert_refused_whole(&rig, &policy_for(ROLE)).await;
}

#[tokio::test]
async fn a_new_principal_is_unknown_until_it_has_propagated() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws.principals_propagate_in(Duration::from_millis(300));
    rig.account().role("fresh");
    let fresh = policy_for(&format!("arn:aws:iam::{ACCOUNT}:role/fresh"));
    assert_refused_whole(&rig, &fresh).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    rig.put(&fresh).await.expect("it has propagated");
}

#[tokio::test]
async fn principals_that_a_resource_policy_cannot_name_are_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.account().user("es-user");
    for principal in [
        "arn:aws:iam::111122223333:role/*",
        "arn:aws:iam::111122223333:role/es-rol?",
        "arn:aws:sts::111122223333:assumed-role/es-role/*",
        "arn:aws:iam::111122223333:user/ES-USER",
        "arn:aws:iam::111122223333:group/admins",
        "arn:aws-cn:iam::111122223333:role/es-role",
        "arn:aws:iam::999999999999:root",
        "999999999999",
        "es-role",
        "",
    ] {
        assert_refused_whole(&rig, &policy_for(principal)).await;
    }
}

#[tokio::test]
async fn everybody_among_arns_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    assert_refused_whole(
        &rig,
        &policy_with(&json!({ "Principal": { "AWS": [ROLE, "*"] } })),
    )
    .await;
}

#[tokio::test]
async fn every_form_of_an_existing_principal_is_taken() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.account().user("es-user");
    rig.aws.account("444455556666").role("foreign");
    for principal in [
        ROLE,
        "arn:aws:iam::111122223333:user/es-user",
        "arn:aws:iam::111122223333:root",
        "111122223333",
        "arn:aws:sts::111122223333:assumed-role/es-role/some-session",
        "arn:aws:sts::111122223333:federated-user/somebody",
        "arn:aws:iam::444455556666:role/foreign",
    ] {
        rig.put(&policy_for(principal))
            .await
            .unwrap_or_else(|_| panic!("{principal} is refused"));
    }
}

#[tokio::test]
async fn malformed_documents_are_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    for document in ["{", "[]", "null", " ", r#"{"Version":"2012-10-17"}"#] {
        assert_refused_whole(&rig, document).await;
    }
    for members in [
        json!({ "Effect": "allow" }),
        json!({ "Action": [] }),
        json!({ "Action": "s3:GetObject" }),
        json!({ "Principal": {} }),
        json!({ "Principal": ROLE }),
        json!({ "Unknown": "member" }),
        json!({ "NotResource": LOGS }),
        json!({ "Condition": { "SoundsLike": { "aws:SourceVpc": "vpc-1" } } }),
        json!({ "Condition": { "StringEquals": { "es:Index": "logs" } } }),
        json!({ "Condition": { "IpAddress": { "aws:SourceIp": "300.1.2.3/8" } } }),
    ] {
        assert_refused_whole(&rig, &policy_with(&members)).await;
    }
}

#[tokio::test]
async fn an_unknown_version_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    assert_refused_whole(&rig, &policy_for(ROLE).replace("2012-10-17", "2012-10-18")).await;
    rig.put(&policy_for(ROLE).replace("2012-10-17", "2008-10-17"))
        .await
        .expect("the old version");
}

#[tokio::test]
async fn not_principal_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let named = policy_for(ROLE);
    assert_refused_whole(&rig, &named.replace("\"Principal\"", "\"NotPrincipal\"")).await;
}

#[tokio::test]
async fn resources_of_another_domain_are_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    for resource in [
        "arn:aws:es:eu-west-1:111122223333:domain/metrics/*",
        "arn:aws:es:eu-west-1:111122223333:domain/logs-2/*",
        "arn:aws:es:eu-west-1:444455556666:domain/logs/*",
        "arn:aws:es:us-east-1:111122223333:domain/logs/*",
        "arn:aws-cn:es:eu-west-1:111122223333:domain/logs/*",
        "logs",
    ] {
        assert_refused_whole(&rig, &policy_with(&json!({ "Resource": [LOGS, resource] }))).await;
    }
    for resource in [
        "arn:aws:es:eu-west-1:111122223333:domain/logs/app-*/_search",
        "*",
    ] {
        rig.put(&policy_with(&json!({ "Resource": resource })))
            .await
            .expect("it is of this domain");
    }
}

#[tokio::test]
async fn a_policy_without_statements_is_refused() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    assert_refused_whole(&rig, r#"{"Version":"2012-10-17","Statement":[]}"#).await;
}

#[tokio::test]
async fn an_ip_rule_on_a_vpc_domain_is_refused_with_a_typographic_apostrophe() {
    let rig = Rig::with_logs(DomainOptions::default().vpc("vpc-1")).await;
    let by_ip = policy_with(&json!({
        "Principal": "*",
        "Condition": { "IpAddress": { "aws:SourceIp": ["203.0.113.0/24"] } },
    }));
    let (code, status, message) = refusal(rig.put(&by_ip).await);
    assert_eq!((code.as_str(), status), ("InvalidTypeException", 409));
    assert_eq!(
        message,
        "You can’t attach an IP-based policy to a domain that has a VPC endpoint. Instead, use a \
         security group to control IP-based access."
    );
}

#[tokio::test]
async fn an_open_policy_needs_a_vpc_or_fine_grained_access_control() {
    let open = policy_with(&json!({ "Principal": "*" }));
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let (code, status, message) = refusal(rig.put(&open).await);
    assert_eq!((code.as_str(), status), ("ValidationException", 400));
    assert_eq!(
        message,
        "Enable fine-grained access control or apply a restrictive access policy to your domain"
    );
    for options in [
        DomainOptions::default().vpc("vpc-1"),
        DomainOptions::default().fine_grained(),
    ] {
        let rig = Rig::with_logs(options).await;
        rig.put(&open)
            .await
            .expect("something else restricts access to this domain");
    }
}

#[tokio::test]
async fn conditions_that_leave_nobody_out_do_not_close_an_open_policy() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let with =
        |condition| policy_with(&json!({ "Principal": { "AWS": "*" }, "Condition": condition }));
    for condition in [
        json!({ "IpAddress": { "aws:SourceIp": "0.0.0.0/0" } }),
        json!({ "IpAddress": { "aws:SourceIp": ["203.0.113.1", "::/0"] } }),
        json!({ "IpAddress": { "aws:SourceIp": ["0.0.0.0/1", "128.0.0.0/1"] } }),
        json!({ "NotIpAddress": { "aws:SourceIp": "203.0.113.1" } }),
        json!({ "IpAddressIfExists": { "aws:SourceIp": "203.0.113.1" } }),
        json!({ "StringLike": { "aws:PrincipalArn": "*" } }),
        json!({ "Bool": { "aws:SecureTransport": "true" } }),
    ] {
        let (_, _, message) = refusal(rig.put(&with(condition)).await);
        assert!(message.contains("restrictive access policy"), "{message}");
    }
    for condition in [
        json!({ "IpAddress": { "aws:SourceIp": ["203.0.113.1", "2001:db8::/32"] } }),
        json!({ "StringEquals": { "aws:PrincipalOrgID": "o-1" } }),
    ] {
        rig.put(&with(condition))
            .await
            .expect("that is some restriction");
    }
}

#[tokio::test]
async fn a_domain_of_another_account_or_region_does_not_exist() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    for (account, region) in [("444455556666", REGION), (ACCOUNT, "us-east-1")] {
        let config = super::sdk_config(&rig.aws, region, super::admin(&rig.aws, account));
        let other = aws_sdk_opensearch::Client::new(&config);
        let described = refusal(other.describe_domain().domain_name("logs").send().await);
        assert_eq!(
            (described.0.as_str(), described.1),
            ("ResourceNotFoundException", 409)
        );
        let update = other
            .update_domain_config()
            .domain_name("logs")
            .access_policies("");
        let updated = refusal(update.send().await);
        assert_eq!(
            (updated.0.as_str(), updated.1),
            ("ResourceNotFoundException", 409)
        );
    }
}
