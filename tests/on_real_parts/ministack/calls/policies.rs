//! Calls about access policies and about the inline policies of roles.

use aws_config::SdkConfig;
use aws_sdk_iam::Client as Iam;
use aws_sdk_opensearch::Client as OpenSearch;
use aws_sdk_opensearch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_opensearch::operation::describe_domain::DescribeDomainOutput;
use aws_sdk_opensearch::operation::describe_domain_config::DescribeDomainConfigOutput;
use aws_sdk_opensearch::operation::update_domain_config::{
    UpdateDomainConfigError, UpdateDomainConfigOutput,
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{ACCOUNT, Log, ROLE, canonical};

const INLINE: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Action":"es:ESHttpGet","Resource":"*"}]}"#;

pub(super) type Put = Result<UpdateDomainConfigOutput, SdkError<UpdateDomainConfigError>>;

pub(super) async fn put(es: &OpenSearch, policy: &str) -> Put {
    es.update_domain_config()
        .domain_name("logs")
        .access_policies(policy)
        .send()
        .await
}

fn policy(members: &Value) -> String {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "AWS": ROLE },
        "Action": ["es:ESHttpGet"],
        "Resource": format!("arn:aws:es:eu-west-1:{ACCOUNT}:domain/logs/*"),
    });
    for (name, member) in members.as_object().expect("members of a statement") {
        statement[name] = member.clone();
    }
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

pub(super) async fn of_domains(config: &SdkConfig, log: &mut Log) {
    let es = OpenSearch::new(config);
    let read = || async { es.describe_domain().domain_name("logs").send().await };
    let document = |output: DescribeDomainOutput| {
        let text = output
            .domain_status
            .and_then(|status| status.access_policies);
        text.map_or_else(|| "absent".to_owned(), |text| canonical(&text))
    };
    let version = || async { es.describe_domain_config().domain_name("logs").send().await };
    let number = |output: DescribeDomainConfigOutput| {
        let policies = output
            .domain_config
            .and_then(|config| config.access_policies);
        policies
            .and_then(|policies| policies.status)
            .map_or(0, |status| status.update_version)
    };
    log.note("the policy of a new domain", read().await, document);
    log.note(
        "put a policy",
        put(&es, &policy(&json!({}))).await,
        |_| "accepted",
    );
    log.note("read the policy", read().await, document);
    log.note(
        "the version of the policy after one write",
        version().await,
        number,
    );
    log.note("clear the policy", put(&es, "").await, |_| "accepted");
    log.note("read the cleared policy", read().await, document);

    let with_sid = policy(&json!({ "Sid": "Mine" }));
    log.note(
        "put a statement with a Sid",
        put(&es, &with_sid).await,
        |_| "accepted",
    );
    log.note("read a statement that had a Sid", read().await, |output| {
        if document(output).contains("Sid") {
            "the Sid is there"
        } else {
            "no Sid"
        }
    });
    let dry = es
        .update_domain_config()
        .domain_name("logs")
        .access_policies("")
        .dry_run(true);
    log.note(
        "clear the policy in a dry run",
        dry.send().await,
        |_| "accepted",
    );
    log.note(
        "read the policy after the dry run",
        read().await,
        |output| {
            if document(output).is_empty() {
                "nothing"
            } else {
                "the policy"
            }
        },
    );

    refused(&es, log).await;
    log.note(
        "put the policy again",
        put(&es, &policy(&json!({}))).await,
        |_| "accepted",
    );
    let progress = es
        .describe_domain_change_progress()
        .domain_name("logs")
        .send()
        .await;
    log.note("the progress of the change", progress, |output| {
        let status = output
            .change_progress_status
            .and_then(|details| details.status);
        status.map_or_else(String::new, |status| status.as_str().to_owned())
    });
}

/// Puts what AWS refuses.
async fn refused(es: &OpenSearch, log: &mut Log) {
    let nobody = format!("arn:aws:iam::{ACCOUNT}:role/nobody");
    for (call, refused) in [
        (
            "put an unknown principal",
            policy(&json!({ "Principal": { "AWS": nobody } })),
        ),
        ("put an open policy", policy(&json!({ "Principal": "*" }))),
        ("put a newline", policy(&json!({})).replace(',', ",\n")),
        (
            "put no statements",
            r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned(),
        ),
        ("put what is not JSON", "{".to_owned()),
        (
            "put 102401 characters",
            policy(&json!({ "Sid": "x".repeat(102_401) })),
        ),
    ] {
        log.note(call, put(es, &refused).await, |_| "accepted");
    }
}

pub(super) async fn of_roles(config: &SdkConfig, log: &mut Log) {
    let iam = Iam::new(config);
    let put = |role: &str, name: &str, document: &str| {
        iam.put_role_policy()
            .role_name(role)
            .policy_name(name)
            .policy_document(document)
            .send()
    };
    let get = |name: &str| {
        iam.get_role_policy()
            .role_name("es-role")
            .policy_name(name)
            .send()
    };
    let list = || iam.list_role_policies().role_name("es-role").send();
    let delete = |name: &str| {
        iam.delete_role_policy()
            .role_name("es-role")
            .policy_name(name)
            .send()
    };
    log.note(
        "put an inline policy",
        put("es-role", "one", INLINE).await,
        |_| "accepted",
    );
    log.note("get the inline policy", get("one").await, |output| {
        canonical(&percent_decode_str(&output.policy_document).decode_utf8_lossy())
    });
    log.note(
        "get the inline policy: encoded",
        get("one").await,
        |output| output.policy_document.starts_with("%7B"),
    );
    log.note("list the inline policies", list().await, |output| {
        output.policy_names.join(" ")
    });
    log.note(
        "get an unknown inline policy",
        get("two").await,
        |_| "accepted",
    );
    log.note(
        "delete an unknown inline policy",
        delete("two").await,
        |_| "accepted",
    );
    log.note(
        "put an inline policy on an unknown role",
        put("nobody", "one", INLINE).await,
        |_| "accepted",
    );
    let with_principal = INLINE.replace("\"Action\"", "\"Principal\":\"*\",\"Action\"");
    let too_large = INLINE.replace("es:ESHttpGet", &"x".repeat(10_240));
    for (call, name, refused) in [
        (
            "put an inline policy with a principal",
            "two",
            with_principal.as_str(),
        ),
        ("put an inline policy that is too large", "two", &too_large),
        ("put an inline policy that is not JSON", "two", "{"),
        ("put an inline policy under no name", "not a name", INLINE),
    ] {
        log.note(call, put("es-role", name, refused).await, |_| "accepted");
        if let Err(error) = delete(name).await {
            assert!(
                error.code().is_some(),
                "a refused policy is not there: {error:?}"
            );
        }
    }
    let deleted = iam.delete_role().role_name("es-role").send().await;
    log.note(
        "delete a role that has inline policies",
        deleted,
        |_| "accepted",
    );
    log.note(
        "delete the inline policy",
        delete("one").await,
        |_| "accepted",
    );
    log.note("list no inline policies", list().await, |output| {
        output.policy_names.len()
    });
}
