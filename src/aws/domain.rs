//! A domain as AWS describes it, and the one write that the operator makes to it.
//!
//! No other member of `UpdateDomainConfig` is ever sent than `AccessPolicies`, `DryRun` and
//! `DryRunMode`.

use aws_sdk_opensearch::config::retry::RetryConfig;
use aws_sdk_opensearch::types::{
    AccessPoliciesStatus, DomainConfig, DomainProcessingStatusType, DryRunMode, OptionState,
};

use super::error::Error;
use super::session::Clients;
use crate::policy::fine_grained::entity::Engine;
use crate::policy::validate::DomainFacts;

/// A domain as AWS describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDomain {
    /// The domain's ARN.
    pub arn: String,
    /// Where its clients go; none while it is being created.
    pub endpoint: Option<String>,
    /// What runs on it.
    pub engine: Engine,
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
    let config = configuration(clients, name).await?;
    let access = config.and_then(|config| config.access_policies);
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
    let engine = Engine::parse(status.engine_version.as_deref().unwrap_or_default());
    // A domain inside a VPC has its endpoint under the name of its network.
    let mut endpoints = status.endpoints.unwrap_or_default();
    let endpoint = status.endpoint.or_else(|| endpoints.remove("vpc"));
    Ok(ObservedDomain {
        arn: status.arn,
        endpoint,
        engine,
        facts: DomainFacts {
            name_limit: engine.text_limit(),
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

async fn configuration(clients: &Clients, name: &str) -> Result<Option<DomainConfig>, Error> {
    let configured = clients
        .opensearch
        .describe_domain_config()
        .domain_name(name);
    let configured = clients
        .call("DescribeDomainConfig", configured.send())
        .await?;
    Ok(configured.domain_config)
}

/// The access policy as it stands, and what its next version is told by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingPolicy {
    /// The text; empty without a policy.
    pub text: String,
    /// Counts the policy's changes.
    pub version: Option<i32>,
    /// The highest count of changes of any part of the domain's configuration.
    pub latest: Option<i32>,
}

impl StandingPolicy {
    /// Tells whether a write, which made the policy's count what it is now, may have replaced one
    /// that was never read.
    ///
    /// Whether AWS counts each part of the configuration by itself or all of them together is not
    /// documented: it is no such write where either explains the count.
    #[must_use]
    pub fn may_have_lost(&self, written: Option<i32>) -> bool {
        let (Some(before), Some(written)) = (self.version, written) else {
            return false;
        };
        let together = self.latest.map(|latest| latest.saturating_add(1));
        written > before.saturating_add(1) && Some(written) != together
    }
}

/// Reads the access policy alone.
pub async fn policy(clients: &Clients, name: &str) -> Result<StandingPolicy, Error> {
    let config = configuration(clients, name).await?;
    let latest = config.as_ref().and_then(latest_version);
    let access = config.and_then(|config| config.access_policies);
    Ok(StandingPolicy {
        version: access.as_ref().and_then(version),
        text: access.map(|access| access.options).unwrap_or_default(),
        latest,
    })
}

fn version(access: &AccessPoliciesStatus) -> Option<i32> {
    access.status.as_ref().map(|status| status.update_version)
}

/// Returns the highest count of changes in a configuration.
fn latest_version(config: &DomainConfig) -> Option<i32> {
    let statuses = [
        config.access_policies.as_ref().map(|it| &it.status),
        config.advanced_options.as_ref().map(|it| &it.status),
        config
            .advanced_security_options
            .as_ref()
            .map(|it| &it.status),
        config.cluster_config.as_ref().map(|it| &it.status),
        config.cognito_options.as_ref().map(|it| &it.status),
        config.domain_endpoint_options.as_ref().map(|it| &it.status),
        config.ebs_options.as_ref().map(|it| &it.status),
        config
            .encryption_at_rest_options
            .as_ref()
            .map(|it| &it.status),
        config.engine_version.as_ref().map(|it| &it.status),
        config.log_publishing_options.as_ref().map(|it| &it.status),
        config
            .node_to_node_encryption_options
            .as_ref()
            .map(|it| &it.status),
        config.off_peak_window_options.as_ref().map(|it| &it.status),
        config.snapshot_options.as_ref().map(|it| &it.status),
        config.software_update_options.as_ref().map(|it| &it.status),
        config.vpc_options.as_ref().map(|it| &it.status),
    ];
    let statuses = statuses.into_iter().flatten().flatten();
    statuses.map(|status| status.update_version).max()
}

/// Replaces a domain's access policy; the empty text removes it. Returns the count of its changes
/// after that.
///
/// Nothing else is ever sent: every other member of the call would change the domain. It is sent
/// once: were it sent again after a lost answer, the refusal of the second would hide that the
/// first was applied.
pub async fn update_policy(
    clients: &Clients,
    name: &str,
    policy: &str,
) -> Result<Option<i32>, Error> {
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
    let config = sent.await?.domain_config;
    Ok(config
        .and_then(|config| config.access_policies)
        .as_ref()
        .and_then(version))
}

/// Asks whether AWS would take an access policy, and changes nothing.
///
/// What a dry run judges is not documented: that one takes a policy does not mean that AWS does.
/// `Basic` is the mode that does not compare instance types and shards.
pub async fn try_policy(clients: &Clients, name: &str, policy: &str) -> Result<(), Error> {
    let update = clients
        .opensearch
        .update_domain_config()
        .domain_name(name)
        .access_policies(policy)
        .dry_run(true)
        .dry_run_mode(DryRunMode::Basic)
        .customize()
        .config_override(
            aws_sdk_opensearch::Config::builder().retry_config(RetryConfig::disabled()),
        )
        .interceptor(clients.gate());
    let sent = clients.call("UpdateDomainConfig (dry run)", update.send());
    sent.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_one_write_explains_lost_nothing() {
        let standing = |version, latest| StandingPolicy {
            text: String::new(),
            version,
            latest,
        };
        let alone = standing(Some(7), Some(7));
        assert!(!alone.may_have_lost(Some(8)));
        assert!(alone.may_have_lost(Some(9)), "one was between");
        assert!(!alone.may_have_lost(None));
        let counted_together = standing(Some(7), Some(12));
        assert!(!counted_together.may_have_lost(Some(13)));
        assert!(counted_together.may_have_lost(Some(14)));
        assert!(counted_together.may_have_lost(Some(9)), "counted alone");
        assert!(!standing(None, None).may_have_lost(Some(9)));
    }
}
