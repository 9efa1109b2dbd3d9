//! A domain as AWS describes it, and the one write that the operator makes to it.

use aws_sdk_opensearch::config::retry::RetryConfig;
use aws_sdk_opensearch::types::{AccessPoliciesStatus, DomainProcessingStatusType, OptionState};

use super::error::Error;
use super::session::Clients;
use crate::policy::validate::DomainFacts;

/// A domain as AWS describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDomain {
    /// The domain's ARN.
    pub arn: String,
    /// What decides which grants make sense on it.
    pub facts: DomainFacts,
    /// Whether the domain works on a change, or is otherwise unable to take one.
    pub processing: bool,
    /// The access policy as the domain has it or will have it; empty without one.
    pub policy: String,
    /// Whether that policy is in force.
    pub policy_active: bool,
    /// Counts the policy's changes.
    pub policy_version: Option<i32>,
    /// What became of the last change, where AWS failed it after having accepted it.
    pub failed_change: Option<String>,
}

/// Reads a domain.
///
/// Two calls: the state of the access policy is in the domain's configuration alone, the domain's
/// identity and what it works on in its description alone. The description comes first, so that a
/// policy which is called active was read after the domain was.
pub async fn describe(clients: &Clients, name: &str) -> Result<ObservedDomain, Error> {
    let described = clients.opensearch.describe_domain().domain_name(name);
    let described = clients.call("DescribeDomain", described.send()).await?;
    let Some(status) = described.domain_status else {
        return Err(Error::Unavailable {
            operation: "DescribeDomain",
            message: "the answer has no domain".to_owned(),
        });
    };
    let access = access_policies(clients, name).await?;
    let policy = access
        .as_ref()
        .map(|access| access.options.clone())
        .unwrap_or_default();
    let state = access.as_ref().and_then(|access| access.status.as_ref());
    let unable =
        |status: &DomainProcessingStatusType| *status != DomainProcessingStatusType::Active;
    let change = status.change_progress_details.as_ref();
    let failed_change = change
        .and_then(|change| change.config_change_status.as_ref())
        .filter(|status| matches!(status.as_str(), "ValidationFailed" | "PendingUserInput"))
        .map(|status| status.as_str().to_owned());
    let explicit_index = status
        .advanced_options
        .as_ref()
        .and_then(|options| options.get("rest.action.multi.allow_explicit_index"));
    Ok(ObservedDomain {
        arn: status.arn,
        facts: DomainFacts {
            explicit_index_forbidden: explicit_index.is_some_and(|value| value == "false"),
            vpc: status
                .vpc_options
                .and_then(|options| options.vpc_id)
                .is_some(),
            fine_grained: status
                .advanced_security_options
                .and_then(|options| options.enabled)
                .unwrap_or_default(),
        },
        processing: status.processing.unwrap_or_default()
            || status.domain_processing_status.as_ref().is_some_and(unable),
        policy,
        policy_active: state.is_none_or(|state| state.state == OptionState::Active),
        policy_version: state.map(|state| state.update_version),
        failed_change,
    })
}

async fn access_policies(
    clients: &Clients,
    name: &str,
) -> Result<Option<AccessPoliciesStatus>, Error> {
    let configured = clients
        .opensearch
        .describe_domain_config()
        .domain_name(name);
    let configured = clients
        .call("DescribeDomainConfig", configured.send())
        .await?;
    Ok(configured
        .domain_config
        .and_then(|config| config.access_policies))
}

/// Reads the access policy alone, and the count of its changes.
pub async fn policy(clients: &Clients, name: &str) -> Result<(String, Option<i32>), Error> {
    let access = access_policies(clients, name).await?;
    Ok(access.map_or_else(Default::default, |access| {
        let version = access.status.map(|status| status.update_version);
        (access.options, version)
    }))
}

/// Replaces a domain's access policy; the empty text removes it.
///
/// Nothing else is ever sent: every other member of the call would change the domain. It is sent
/// once: were it sent again after a lost answer, the refusal of the second would hide that the
/// first was applied.
pub async fn update_policy(clients: &Clients, name: &str, policy: &str) -> Result<(), Error> {
    let update = clients
        .opensearch
        .update_domain_config()
        .domain_name(name)
        .access_policies(policy)
        .customize()
        .config_override(
            aws_sdk_opensearch::Config::builder().retry_config(RetryConfig::disabled()),
        )
        .interceptor(clients.gate());
    let sent = clients.call("UpdateDomainConfig", update.send());
    sent.await.map(drop)
}
