//! The calls that both emulators get, and what is compared of their answers.
//!
//! Each call leaves one line: what a caller goes by, without dates, ids and texts.

use std::fmt::Display;

use aws_config::SdkConfig;
use aws_sdk_iam::Client as Iam;
use aws_sdk_opensearch::Client as OpenSearch;
use aws_sdk_opensearch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_opensearch::types::DomainStatus;
use aws_sdk_sts::Client as Sts;
use percent_encoding::percent_decode_str;
use serde_json::Value;

mod clusters;
mod policies;

/// The account that both play.
pub(super) const ACCOUNT: &str = "111122223333";
const ROLE: &str = "arn:aws:iam::111122223333:role/es-role";
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}"#;

/// The lines that the calls left, by what was called.
#[derive(Default)]
pub(super) struct Log(Vec<(&'static str, String)>);

impl Log {
    /// Notes an answer: what `read` makes of it, or the error's code and HTTP status.
    fn note<T, E, L: Display>(
        &mut self,
        call: &'static str,
        answer: Result<T, SdkError<E>>,
        read: impl FnOnce(T) -> L,
    ) where
        E: ProvideErrorMetadata,
    {
        let line = match answer {
            Ok(output) => read(output).to_string(),
            Err(error) => {
                let status = error
                    .raw_response()
                    .map_or(0, |response| response.status().as_u16());
                format!("{} {status}", error.code().unwrap_or("no code"))
            }
        };
        self.0.push((call, line));
    }
}

/// Makes all calls and returns what they left.
pub(super) async fn make(config: &SdkConfig) -> Vec<(&'static str, String)> {
    let mut log = Log::default();
    identities(config, &mut log).await;
    domains(config, &mut log).await;
    policies::of_domains(config, &mut log).await;
    policies::of_roles(config, &mut log).await;
    clusters::of_accounts(config, &mut log).await;
    deletions(config, &mut log).await;
    log.0
}

async fn identities(config: &SdkConfig, log: &mut Log) {
    let (sts, iam) = (Sts::new(config), Iam::new(config));
    let identity = sts.get_caller_identity().send().await;
    log.note("caller identity: account", identity, |found| {
        found.account.unwrap_or_default()
    });
    let create = || {
        iam.create_role()
            .role_name("es-role")
            .assume_role_policy_document(TRUST)
            .send()
    };
    log.note("create a role", create().await, |output| {
        arn_of(output.role)
    });
    log.note("create it again", create().await, |output| {
        arn_of(output.role)
    });
    let role = |name: &str| iam.get_role().role_name(name).send();
    log.note("get the role", role("es-role").await, |output| {
        arn_of(output.role)
    });
    log.note(
        "get the role: its trust policy",
        role("es-role").await,
        |output| {
            let encoded = output
                .role
                .and_then(|role| role.assume_role_policy_document);
            let encoded = encoded.unwrap_or_default();
            canonical(&percent_decode_str(&encoded).decode_utf8_lossy())
        },
    );
    log.note("get an unknown role", role("nobody").await, |output| {
        arn_of(output.role)
    });
    let assume = |role: &str| {
        let assume = sts.assume_role().role_session_name("second-opinion");
        assume
            .role_arn(format!("arn:aws:iam::{ACCOUNT}:role/{role}"))
            .send()
    };
    let session = assume("es-role").await;
    log.note("assume the role", session, |output| {
        output
            .assumed_role_user
            .map(|user| user.arn)
            .unwrap_or_default()
    });
    log.note(
        "assume an unknown role",
        assume("nobody").await,
        |_| "accepted",
    );
}

fn arn_of(role: Option<aws_sdk_iam::types::Role>) -> String {
    role.map(|role| role.arn).unwrap_or_default()
}

async fn domains(config: &SdkConfig, log: &mut Log) {
    let es = OpenSearch::new(config);
    let describe = |name: &str| es.describe_domain().domain_name(name).send();
    log.note(
        "describe an unknown domain",
        describe("logs").await,
        |_| "accepted",
    );
    log.note(
        "update an unknown domain",
        policies::put(&es, "").await,
        |_| "accepted",
    );
    let create = || es.create_domain().domain_name("logs").send();
    let arn = |status: Option<DomainStatus>| status.map(|status| status.arn).unwrap_or_default();
    log.note("create a domain", create().await, |output| {
        arn(output.domain_status)
    });
    log.note("create it again", create().await, |output| {
        arn(output.domain_status)
    });
    log.note("describe the domain", describe("logs").await, |output| {
        arn(output.domain_status)
    });
    log.note(
        "describe the domain: public",
        describe("logs").await,
        |output| {
            let status = output.domain_status.expect("the model requires it");
            format!(
                "{:?} {:?}",
                status.vpc_options.is_some(),
                status.endpoint.is_some()
            )
        },
    );
    log.note(
        "describe the domain: fine-grained",
        describe("logs").await,
        |output| {
            let status = output.domain_status.expect("the model requires it");
            let options = status.advanced_security_options;
            options
                .and_then(|options| options.enabled)
                .unwrap_or_default()
        },
    );
    let many = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        es.describe_domains().set_domain_names(Some(names)).send()
    };
    log.note(
        "describe a known and an unknown domain",
        many(&["logs", "metrics"]).await,
        |output| output.domain_status_list.len(),
    );
    log.note(
        "describe six domains",
        many(&["logs"; 6]).await,
        |_| "accepted",
    );
    log.note(
        "list the domains",
        es.list_domain_names().send().await,
        |output| {
            let names = output.domain_names.unwrap_or_default();
            names
                .into_iter()
                .filter_map(|info| info.domain_name)
                .collect::<Vec<_>>()
                .join(" ")
        },
    );
    let logs = format!("arn:aws:es:eu-west-1:{ACCOUNT}:domain/logs");
    log.note(
        "list the domain's tags",
        es.list_tags().arn(logs).send().await,
        |output| output.tag_list.unwrap_or_default().len(),
    );
}

async fn deletions(config: &SdkConfig, log: &mut Log) {
    let (es, iam) = (OpenSearch::new(config), Iam::new(config));
    let deleted = iam.delete_role().role_name("es-role").send().await;
    log.note("delete the role", deleted, |_| "accepted");
    let described = es.describe_domain().domain_name("logs").send().await;
    log.note(
        "read a policy whose principal is gone",
        described,
        |output| {
            let text = output
                .domain_status
                .and_then(|status| status.access_policies);
            if text.unwrap_or_default().contains("AROA") {
                "a unique id"
            } else {
                "the ARN"
            }
        },
    );
    log.note(
        "delete the domain",
        es.delete_domain().domain_name("logs").send().await,
        |output| {
            output
                .domain_status
                .and_then(|status| status.deleted)
                .unwrap_or_default()
        },
    );
    let described = es.describe_domain().domain_name("logs").send().await;
    log.note("describe a deleted domain", described, |_| "accepted");
}

/// Rewrites a policy so that equal ones read equal: keys and lists in order, lists of one as
/// scalars.
fn canonical(text: &str) -> String {
    fn rewrite(value: &Value) -> Value {
        match value {
            Value::Array(items) if items.len() == 1 => rewrite(&items[0]),
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(rewrite).collect();
                items.sort_by_key(Value::to_string);
                Value::Array(items)
            }
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| (name.clone(), rewrite(member)))
                .collect(),
            scalar => scalar.clone(),
        }
    }
    serde_json::from_str(text).map_or_else(|_| text.to_owned(), |value| rewrite(&value).to_string())
}
