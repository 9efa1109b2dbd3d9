//! The fake AWS keeps its promises, as seen through the real AWS SDK clients: one test per
//! behaviour.
//!
//! What the operator's tests prove, they prove against this fake; so its own rules are tested
//! first, and by their answers on the wire: error codes, texts, and what is read back.

#![allow(
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_opensearch::Client as OpenSearch;
use aws_sdk_opensearch::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_opensearch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_opensearch::operation::update_domain_config::UpdateDomainConfigError;
use aws_sdk_opensearch::types::DomainConfig;
use serde_json::{Value, json};

use crate::common::fake_aws::{self, AccountHandle, DomainOptions, FakeAws};

mod changes;
mod clusters;
mod control;
mod faults;
mod identities;
mod policies;
mod refusals;
mod sessions;
mod signatures;
mod tokens;

/// The account that everything lives in unless a test says otherwise.
const ACCOUNT: &str = "111122223333";
const REGION: &str = "eu-west-1";
/// The role that most policies name.
const ROLE: &str = "arn:aws:iam::111122223333:role/es-role";
/// The resource of every policy of the domain `logs`.
const LOGS: &str = "arn:aws:es:eu-west-1:111122223333:domain/logs/*";

/// An SDK configuration for the fake, without retries: a test wants to see every answer.
fn sdk_config(aws: &FakeAws, region: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(aws.url())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

fn credentials(from: fake_aws::Credentials) -> Credentials {
    Credentials::new(
        from.access_key_id,
        from.secret_access_key,
        from.session_token,
        None,
        "test",
    )
}

fn admin(aws: &FakeAws, account: &str) -> Credentials {
    let (access_key_id, secret) = aws.credentials(account);
    Credentials::new(access_key_id, secret, None, None, "test")
}

/// A fake with the role `es-role` and a client of the account's admin.
struct Rig {
    aws: FakeAws,
    es: OpenSearch,
}

impl Rig {
    async fn start() -> Self {
        let aws = FakeAws::start().await;
        aws.account(ACCOUNT).role("es-role");
        let es = OpenSearch::new(&sdk_config(&aws, REGION, admin(&aws, ACCOUNT)));
        Self { aws, es }
    }

    /// Starts with a public domain `logs` that has no policy.
    async fn with_logs(options: DomainOptions) -> Self {
        let rig = Self::start().await;
        rig.account().domain_with("logs", REGION, options);
        rig
    }

    fn account(&self) -> AccountHandle<'_> {
        self.aws.account(ACCOUNT)
    }

    /// Updates the policy of `logs`, which is judged.
    async fn put(&self, policy: &str) -> Result<DomainConfig, SdkError<UpdateDomainConfigError>> {
        let call = self
            .es
            .update_domain_config()
            .domain_name("logs")
            .access_policies(policy);
        call.send()
            .await
            .map(|output| output.domain_config.expect("the model requires it"))
    }

    /// Reads the policy of `logs` through the API.
    async fn get(&self) -> String {
        let described = self.es.describe_domain().domain_name("logs").send().await;
        let status = described
            .expect("logs exists")
            .domain_status
            .expect("the model requires it");
        status
            .access_policies
            .expect("it is there even when it is empty")
    }
}

/// Returns the code, the HTTP status and the text of an answer that must be an error.
fn refusal<T, E>(answer: Result<T, SdkError<E>>) -> (String, u16, String)
where
    E: ProvideErrorMetadata,
{
    let Err(error) = answer else {
        panic!("the call was accepted");
    };
    let status = error
        .raw_response()
        .map_or(0, |response| response.status().as_u16());
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (text(error.code()), status, text(error.message()))
}

/// A policy with one statement, with the given members in place of the usual ones.
fn policy_with(members: &Value) -> String {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "AWS": ROLE },
        "Action": "es:ESHttpGet",
        "Resource": LOGS,
    });
    for (name, member) in members.as_object().expect("members of a statement") {
        statement[name] = member.clone();
    }
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

fn policy_for(principal: &str) -> String {
    policy_with(&json!({ "Principal": { "AWS": principal } }))
}

/// Returns every string that stands under the key `AWS`, sorted.
fn principals(policy: &str) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::String(name) if key == "AWS" => found.push(name.clone()),
                        Value::Array(names) if key == "AWS" => {
                            found.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
                        }
                        value => collect(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(
        &serde_json::from_str(policy).expect("a policy is JSON"),
        &mut found,
    );
    found.sort();
    found
}
