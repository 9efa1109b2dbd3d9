//! IAM: roles, users and inline policies.

use aws_sdk_iam::Client as Iam;
use percent_encoding::percent_decode_str;

use super::{ACCOUNT, REGION, Rig, admin, refusal, sdk_config};
use crate::common::fake_aws::RoleOptions;

const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Action":"es:ESHttpGet","Resource":"*"}]}"#;

impl Rig {
    fn iam(&self) -> Iam {
        Iam::new(&sdk_config(&self.aws, REGION, admin(&self.aws, ACCOUNT)))
    }
}

#[tokio::test]
async fn a_role_is_created_found_and_deleted() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    let trust = ALLOW.replace("\"Action\"", "\"Principal\":{\"AWS\":\"*\"},\"Action\"");
    let create = || {
        iam.create_role()
            .role_name("new")
            .path("/team/")
            .assume_role_policy_document(&trust)
    };
    let created = create()
        .send()
        .await
        .expect("it is new")
        .role
        .expect("required");
    assert_eq!(created.arn(), "arn:aws:iam::111122223333:role/team/new");
    assert!(created.role_id().starts_with("AROA"));
    assert_eq!(refusal(create().send().await).0, "EntityAlreadyExists");
    let found = iam
        .get_role()
        .role_name("new")
        .send()
        .await
        .expect("it exists")
        .role
        .expect("required");
    let document = found.assume_role_policy_document().expect("a role has one");
    assert!(
        document.starts_with("%7B"),
        "the SDK does not decode it: {document}"
    );
    iam.delete_role()
        .role_name("new")
        .send()
        .await
        .expect("it exists");
    let (code, status, message) = refusal(iam.get_role().role_name("new").send().await);
    assert_eq!((code.as_str(), status), ("NoSuchEntity", 404));
    assert_eq!(message, "The role with name new cannot be found.");
}

#[tokio::test]
async fn a_user_is_created_found_and_deleted() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    iam.create_user()
        .user_name("new")
        .send()
        .await
        .expect("it is new");
    let found = iam
        .get_user()
        .user_name("new")
        .send()
        .await
        .expect("it exists")
        .user
        .expect("required");
    assert_eq!(found.arn(), "arn:aws:iam::111122223333:user/new");
    let own = iam
        .get_user()
        .send()
        .await
        .expect("the caller is a user")
        .user
        .expect("required");
    assert_eq!(own.user_name(), "admin");
    iam.delete_user()
        .user_name("new")
        .send()
        .await
        .expect("it exists");
    assert_eq!(
        refusal(iam.get_user().user_name("new").send().await).0,
        "NoSuchEntity"
    );
}

#[tokio::test]
async fn roles_of_another_account_are_not_found() {
    let rig = Rig::start().await;
    rig.aws.account("444455556666").role("foreign");
    assert_eq!(
        refusal(rig.iam().get_role().role_name("foreign").send().await).0,
        "NoSuchEntity"
    );
}

#[tokio::test]
async fn an_inline_policy_reads_back_percent_encoded_and_word_for_word() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    let pretty = ALLOW
        .replace(',', ",\n\t ")
        .replace("es:ESHttpGet", "es:ESHttpGét");
    let put = iam
        .put_role_policy()
        .role_name("es-role")
        .policy_name("a+b=c,d.e@f-g_h");
    put.policy_document(&pretty)
        .send()
        .await
        .expect("it is sound");
    let get = iam
        .get_role_policy()
        .role_name("es-role")
        .policy_name("a+b=c,d.e@f-g_h");
    let document = get.send().await.expect("it exists").policy_document;
    assert!(!document.contains(['{', ' ', '"']), "{document}");
    let decoded = percent_decode_str(&document)
        .decode_utf8()
        .expect("it is UTF-8");
    assert_eq!(decoded, pretty);
    assert_eq!(
        rig.aws.role_policies(ACCOUNT, "es-role")["a+b=c,d.e@f-g_h"],
        pretty
    );
}

#[tokio::test]
async fn inline_policies_are_listed_in_pages_and_deleted() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    for name in ["c", "a", "b"] {
        let put = iam.put_role_policy().role_name("es-role").policy_name(name);
        put.policy_document(ALLOW)
            .send()
            .await
            .expect("it is sound");
    }
    let page = iam.list_role_policies().role_name("es-role").max_items(2);
    let first = page.send().await.expect("the role exists");
    assert_eq!(
        (first.policy_names(), first.is_truncated()),
        (&["a".to_owned(), "b".to_owned()][..], true)
    );
    let next = iam
        .list_role_policies()
        .role_name("es-role")
        .set_marker(first.marker);
    let second = next.send().await.expect("the role exists");
    assert_eq!(
        (second.policy_names(), second.is_truncated()),
        (&["c".to_owned()][..], false)
    );

    let delete = || {
        iam.delete_role_policy()
            .role_name("es-role")
            .policy_name("a")
            .send()
    };
    delete().await.expect("it exists");
    assert_eq!(refusal(delete().await).0, "NoSuchEntity");
    let get = iam
        .get_role_policy()
        .role_name("es-role")
        .policy_name("a")
        .send();
    assert_eq!(refusal(get.await).0, "NoSuchEntity");
    let conflict = refusal(iam.delete_role().role_name("es-role").send().await);
    assert_eq!((conflict.0.as_str(), conflict.1), ("DeleteConflict", 409));
}

#[tokio::test]
async fn inline_policies_share_10240_characters_without_white_space() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    let sized = |size: usize| {
        let bare: String = ALLOW
            .replace("es:ESHttpGet", "")
            .split_whitespace()
            .collect();
        let action = "x".repeat(size - bare.len());
        format!(
            "{}{}",
            bare.replace(r#""Action":"""#, &format!(r#""Action":"{action}""#)),
            " ".repeat(500)
        )
    };
    let put = |name: &str, document: String| {
        let put = iam.put_role_policy().role_name("es-role").policy_name(name);
        put.policy_document(document).send()
    };
    put("one", sized(10_000))
        .await
        .expect("it is below the limit");
    put("two", sized(240)).await.expect("it just fits");
    let (code, status, message) = refusal(put("two", sized(241)).await);
    assert_eq!((code.as_str(), status), ("LimitExceeded", 409));
    assert_eq!(
        message,
        "Maximum policy size of 10240 bytes exceeded for role es-role"
    );
    put("one", sized(9_000))
        .await
        .expect("a replaced policy does not count twice");
    put("two", sized(1_240)).await.expect("there is room now");
}

#[tokio::test]
async fn inline_policies_that_iam_would_not_take_are_refused() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    let put = |role: &str, name: &str, document: &str| {
        let put = iam.put_role_policy().role_name(role).policy_name(name);
        put.policy_document(document).send()
    };
    let with_principal = ALLOW.replace("\"Action\"", "\"Principal\":\"*\",\"Action\"");
    let with_id = ALLOW.replace("\"Statement\"", "\"Id\":\"x\",\"Statement\"");
    for document in [
        with_principal.as_str(),
        with_id.as_str(),
        "{",
        r#"{"Statement":[]}"#,
    ] {
        let (code, status, _) = refusal(put("es-role", "p", document).await);
        assert_eq!(
            (code.as_str(), status),
            ("MalformedPolicyDocument", 400),
            "{document}"
        );
    }
    assert_eq!(
        refusal(put("es-role", "p", &ALLOW.replace("Get", "→")).await).0,
        "ValidationError"
    );
    assert_eq!(
        refusal(put("es-role", "not a name", ALLOW).await).0,
        "ValidationError"
    );
    assert_eq!(
        refusal(put("es-role", &"x".repeat(129), ALLOW).await).0,
        "ValidationError"
    );
    assert_eq!(refusal(put("nobody", "p", ALLOW).await).0, "NoSuchEntity");
}

#[tokio::test]
async fn roles_that_belong_to_aws_cannot_be_changed() {
    let rig = Rig::start().await;
    let iam = rig.iam();
    for (path, name) in [
        (
            "/aws-service-role/es.amazonaws.com/",
            "AWSServiceRoleForElasticsearch",
        ),
        (
            "/aws-reserved/sso.amazonaws.com/",
            "AWSReservedSSO_Admin_0123456789abcdef",
        ),
    ] {
        rig.account()
            .role_with(name, RoleOptions::default().path(path));
        let put = iam
            .put_role_policy()
            .role_name(name)
            .policy_name("p")
            .policy_document(ALLOW);
        let (code, status, _) = refusal(put.send().await);
        assert_eq!((code.as_str(), status), ("UnmodifiableEntity", 400));
    }
}
