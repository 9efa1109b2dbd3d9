//! What the fake keeps of an access policy, and how it reads back.

use std::collections::BTreeSet;

use aws_sdk_opensearch::types::AdvancedSecurityOptions;
use serde_json::{Value, json};

use super::{ACCOUNT, LOGS, REGION, ROLE, Rig, policy_for, policy_with, principals, refusal};
use crate::common::fake_aws::{DomainOptions, FakeAws};

/// Reads the one statement of a policy.
fn statement(policy: &str) -> Value {
    let policy: Value = serde_json::from_str(policy).expect("a policy is JSON");
    policy["Statement"][0].clone()
}

/// Returns a scalar or a one-element list as the scalar.
fn scalar(value: &Value) -> &Value {
    value.get(0).unwrap_or(value)
}

#[tokio::test]
async fn a_domain_without_a_policy_reads_as_the_empty_text() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    assert_eq!(rig.get().await, "");
}

#[tokio::test]
async fn the_empty_text_clears_the_policy() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.put(&policy_for(ROLE)).await.expect("it is sound");
    assert_ne!(rig.get().await, "");
    rig.put("").await.expect("it always is");
    assert_eq!(rig.get().await, "");
    assert_eq!(rig.aws.updates("logs"), 2);
}

#[tokio::test]
async fn sid_is_accepted_and_forgotten() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.put(&policy_with(&json!({ "Sid": "Mine" })))
        .await
        .expect("it is sound");
    assert_eq!(statement(&rig.get().await).get("Sid"), None);
}

#[tokio::test]
async fn everybody_reads_back_as_an_aws_principal() {
    let rig = Rig::with_logs(DomainOptions::default().fine_grained()).await;
    rig.put(&policy_with(&json!({ "Principal": "*" })))
        .await
        .expect("fine-grained");
    let statement = statement(&rig.get().await);
    assert_eq!(scalar(&statement["Principal"]["AWS"]), "*");
}

#[tokio::test]
async fn an_account_id_reads_back_as_its_root_arn() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.put(&policy_for(ACCOUNT)).await.expect("it is sound");
    assert_eq!(
        principals(&rig.get().await),
        [format!("arn:aws:iam::{ACCOUNT}:root")]
    );
}

#[tokio::test]
async fn a_missing_resource_reads_back_as_the_domains() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let mut policy: Value = serde_json::from_str(&policy_for(ROLE)).expect("it is JSON");
    policy["Statement"][0]
        .as_object_mut()
        .expect("a statement")
        .remove("Resource");
    rig.put(&policy.to_string()).await.expect("it is sound");
    assert_eq!(scalar(&statement(&rig.get().await)["Resource"]), LOGS);
}

#[tokio::test]
async fn a_single_statement_without_a_list_reads_back_in_one() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let policy = policy_for(ROLE)
        .replace("\"Statement\":[", "\"Statement\":")
        .replace("}]", "}");
    rig.put(&policy).await.expect("it is sound");
    assert_eq!(statement(&rig.get().await)["Effect"], "Allow");
}

/// Saves the same policy of many statements again and again, and returns how it read each time.
async fn readings(aws: &FakeAws, es: &aws_sdk_opensearch::Client) -> Vec<String> {
    let statements: Vec<Value> = ["Get", "Put", "Post", "Head"]
        .iter()
        .map(|verb| {
            json!({
                "Effect": "Allow",
                "Principal": { "AWS": ROLE },
                "Action": [format!("es:ESHttp{verb}"), "es:ESHttpPatch", "es:ESHttpDelete"],
                "Resource": [LOGS],
            })
        })
        .collect();
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let mut readings = Vec::new();
    for _ in 0..8 {
        let update = es
            .update_domain_config()
            .domain_name("logs")
            .access_policies(&policy);
        update.send().await.expect("it is sound");
        readings.push(aws.policy("logs"));
    }
    readings
}

#[tokio::test]
async fn order_and_scalars_differ_between_versions_and_repeat_with_the_seed() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let first = readings(&rig.aws, &rig.es).await;
    let differing: BTreeSet<&String> = first.iter().collect();
    assert!(
        differing.len() > 4,
        "the order changes with most versions: {first:?}"
    );
    let scalars = first
        .iter()
        .filter(|policy| policy.contains(&format!("\"Resource\":\"{LOGS}\"")));
    let lists = first
        .iter()
        .filter(|policy| policy.contains(&format!("\"Resource\":[\"{LOGS}\"]")));
    assert!(
        scalars.count() > 0 && lists.count() > 0,
        "both forms are seen"
    );

    let again = Rig::with_logs(DomainOptions::default()).await;
    assert_eq!(readings(&again.aws, &again.es).await, first);
}

#[tokio::test]
async fn reading_twice_reads_the_same() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.put(&policy_for(ROLE)).await.expect("it is sound");
    assert_eq!(rig.get().await, rig.get().await);
}

#[tokio::test]
async fn a_deleted_principal_reads_back_as_its_unique_id_even_if_its_name_comes_back() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.account().user("es-user");
    let user = format!("arn:aws:iam::{ACCOUNT}:user/es-user");
    rig.put(&policy_with(
        &json!({ "Principal": { "AWS": [ROLE, user] } }),
    ))
    .await
    .expect("sound");
    assert_eq!(principals(&rig.get().await), [ROLE, user.as_str()]);

    let old = rig.aws.role_id(ACCOUNT, "es-role").expect("it exists");
    rig.aws.delete_role(ACCOUNT, "es-role");
    rig.aws.delete_user(ACCOUNT, "es-user");
    let gone = principals(&rig.get().await);
    assert!(
        gone[0].starts_with("AIDA") && gone[0].len() == 21,
        "{gone:?}"
    );
    assert_eq!(gone[1], old);

    rig.account().role("es-role").user("es-user");
    assert_ne!(rig.aws.role_id(ACCOUNT, "es-role").expect("it exists"), old);
    assert_eq!(
        principals(&rig.get().await),
        gone,
        "the new role is another principal"
    );

    rig.put(&policy_for(ROLE))
        .await
        .expect("the ARN means the new role");
    assert_eq!(principals(&rig.get().await), [ROLE]);
}

#[tokio::test]
async fn the_unique_id_of_a_deleted_principal_cannot_be_sent_back() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.put(&policy_for(ROLE)).await.expect("it is sound");
    rig.aws.delete_role(ACCOUNT, "es-role");
    let echoed = rig.get().await;
    let (code, _, message) = refusal(rig.put(&echoed).await);
    assert_eq!(code, "InvalidTypeException");
    assert_eq!(message, format!("Error setting policy: [{echoed}]"));
}

#[tokio::test]
async fn a_vpc_domain_has_its_endpoint_and_its_vpc_where_aws_puts_them() {
    let rig = Rig::with_logs(DomainOptions::default().vpc("vpc-1").fine_grained()).await;
    rig.account().domain("public", REGION);
    let names = ["public", "unknown", "logs"].map(str::to_owned);
    let described = rig
        .es
        .describe_domains()
        .set_domain_names(Some(names.to_vec()))
        .send()
        .await;
    let described = described
        .expect("unknown names are left out")
        .domain_status_list;
    let [public, logs] = &described[..] else {
        panic!("two of three exist: {described:?}");
    };

    assert!(
        public
            .endpoint()
            .is_some_and(|endpoint| endpoint.starts_with("search-public-"))
    );
    assert_eq!((public.endpoints(), public.vpc_options()), (None, None));
    assert_eq!(
        public
            .advanced_security_options()
            .and_then(AdvancedSecurityOptions::enabled),
        Some(false)
    );

    assert_eq!(logs.endpoint(), None);
    assert!(
        logs.endpoints()
            .is_some_and(|all| all["vpc"].starts_with("vpc-logs-"))
    );
    assert_eq!(
        logs.vpc_options().and_then(|options| options.vpc_id()),
        Some("vpc-1")
    );
    assert_eq!(
        logs.advanced_security_options()
            .and_then(AdvancedSecurityOptions::enabled),
        Some(true)
    );
    assert_eq!(logs.arn(), LOGS.trim_end_matches("/*"));
    let explicit_index = logs
        .advanced_options()
        .map(|all| &all["rest.action.multi.allow_explicit_index"]);
    assert_eq!(explicit_index.map(String::as_str), Some("true"));
}

#[tokio::test]
async fn describe_domains_takes_five_names() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let names = vec!["logs".to_owned(); 6];
    let (code, ..) = refusal(
        rig.es
            .describe_domains()
            .set_domain_names(Some(names))
            .send()
            .await,
    );
    assert_eq!(code, "ValidationException");
}

#[tokio::test]
async fn list_domain_names_and_list_tags_know_the_callers_domains_only() {
    let rig = Rig::with_logs(DomainOptions::default().tag("team", "a")).await;
    rig.account().domain("elsewhere", "us-east-1");
    rig.aws.account("444455556666").domain("foreign", REGION);
    let listed = rig
        .es
        .list_domain_names()
        .send()
        .await
        .expect("it always answers");
    let names: Vec<_> = listed
        .domain_names()
        .iter()
        .filter_map(|info| info.domain_name())
        .collect();
    assert_eq!(names, ["logs"]);

    let logs = rig.aws.domain("logs").arn().to_owned();
    let tags = rig
        .es
        .list_tags()
        .arn(logs)
        .send()
        .await
        .expect("it exists")
        .tag_list;
    assert_eq!(tags.expect("it has one")[0].value(), "a");
    let foreign = rig.aws.domain("foreign").arn().to_owned();
    assert_eq!(
        refusal(rig.es.list_tags().arn(foreign).send().await).0,
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn a_created_domain_is_there_until_it_is_deleted() {
    let rig = Rig::start().await;
    let create = || {
        rig.es
            .create_domain()
            .domain_name("logs")
            .access_policies(policy_for(ROLE))
    };
    let created = create()
        .send()
        .await
        .expect("it is sound")
        .domain_status
        .expect("it is there");
    assert_eq!(created.arn(), LOGS.trim_end_matches("/*"));
    assert_eq!(principals(&rig.get().await), [ROLE]);
    assert_eq!(
        refusal(create().send().await).0,
        "ResourceAlreadyExistsException"
    );
    let deleted = rig
        .es
        .delete_domain()
        .domain_name("logs")
        .send()
        .await
        .expect("it exists");
    assert_eq!(
        deleted.domain_status.and_then(|status| status.deleted),
        Some(true)
    );
    let described = rig.es.describe_domain().domain_name("logs").send().await;
    assert_eq!(refusal(described).0, "ResourceNotFoundException");
}
