//! How a change passes through a domain: one at a time, late to be seen, sometimes undone.

use std::time::Duration;

use aws_sdk_opensearch::types::{
    AdvancedSecurityOptionsInput, ConfigChangeStatus, MasterUserOptions, OptionState,
    OverallChangeStatus,
};
use serde_json::json;

use super::{ACCOUNT, ROLE, Rig, policy_for, policy_with, principals, refusal};
use crate::common::fake_aws::{DomainOptions, Period};

const IN_PROGRESS: &str = "A change/update is in progress. Please wait for it to complete before \
    requesting another change.";

impl Rig {
    /// Returns `Processing`, the `DomainProcessingStatus` and the `ConfigChangeStatus`.
    async fn state(&self) -> (bool, String, String) {
        let described = self.es.describe_domain().domain_name("logs").send().await;
        let status = described
            .expect("logs exists")
            .domain_status
            .expect("the model requires it");
        let kind = status
            .domain_processing_status()
            .expect("it is always there")
            .as_str();
        let change = status
            .change_progress_details()
            .and_then(|change| change.config_change_status());
        let change = change
            .map(|change| change.as_str().to_owned())
            .unwrap_or_default();
        (
            status.processing().unwrap_or_default(),
            kind.to_owned(),
            change,
        )
    }

    /// Returns the `State` and the `UpdateVersion` of the access policy.
    async fn policy_status(&self) -> (OptionState, i32) {
        let described = self
            .es
            .describe_domain_config()
            .domain_name("logs")
            .send()
            .await;
        let config = described
            .expect("logs exists")
            .domain_config
            .expect("the model requires it");
        let status = config
            .access_policies
            .expect("always there")
            .status
            .expect("always there");
        assert!(
            status.update_date().secs() > 1_700_000_000,
            "the date is a real one"
        );
        (status.state, status.update_version)
    }
}

#[tokio::test]
async fn a_change_is_processing_until_its_calls_are_used_up() {
    let rig = Rig::with_logs(DomainOptions::default().processing(Period::Calls(2))).await;
    let answered = rig.put(&policy_for(ROLE)).await.expect("it is sound");
    let status = answered
        .access_policies
        .expect("changed")
        .status
        .expect("always there");
    assert_eq!(status.state, OptionState::Processing);
    let seen = [rig.state().await, rig.state().await, rig.state().await];
    let busy = (true, "Modifying".to_owned(), "ApplyingChanges".to_owned());
    let settled = (false, "Active".to_owned(), "Completed".to_owned());
    assert_eq!(seen, [busy.clone(), busy, settled]);
}

#[tokio::test]
async fn a_second_change_is_refused_while_the_first_is_processing() {
    let rig = Rig::with_logs(DomainOptions::default().processing(Period::UntilFinished)).await;
    rig.put(&policy_for(ROLE)).await.expect("the first change");
    let (code, status, message) = refusal(rig.put("").await);
    assert_eq!(
        (code.as_str(), status, message.as_str()),
        ("ValidationException", 400, IN_PROGRESS)
    );
    rig.aws.domain("logs").finish_change();
    rig.put("").await.expect("the first change has ended");
    assert_eq!(rig.aws.updates("logs"), 2);
}

#[tokio::test]
async fn processing_can_end_by_the_clock() {
    let period = Period::For(Duration::from_millis(300));
    let rig = Rig::with_logs(DomainOptions::default().processing(period)).await;
    rig.put(&policy_for(ROLE)).await.expect("the first change");
    assert_eq!(refusal(rig.put("").await).2, IN_PROGRESS);
    tokio::time::sleep(Duration::from_millis(350)).await;
    rig.put("").await.expect("the first change has ended");
}

#[tokio::test]
async fn updates_can_be_refused_although_the_domain_already_says_active() {
    let options = DomainOptions::default()
        .processing(Period::Calls(1))
        .lag(Period::Calls(2));
    let rig = Rig::with_logs(options).await;
    rig.put(&policy_for(ROLE)).await.expect("the first change");
    assert!(rig.state().await.0);
    assert_eq!(rig.state().await.1, "Active");
    assert_eq!(refusal(rig.put("").await).2, IN_PROGRESS);
    assert_eq!(rig.state().await.1, "Active");
    assert_eq!(refusal(rig.put("").await).2, IN_PROGRESS);
    rig.put("").await.expect("the lag is over");
}

#[tokio::test]
async fn a_change_can_fail_after_it_was_accepted_and_is_then_rolled_back() {
    let rig = Rig::with_logs(DomainOptions::default().processing(Period::Calls(1))).await;
    rig.aws.domain("logs").fail_next_change("the domain is red");
    rig.put(&policy_for(ROLE))
        .await
        .expect("it is accepted at first");
    assert_eq!(
        principals(&rig.get().await),
        [ROLE],
        "while it is processing"
    );
    assert_eq!(
        rig.state().await,
        (false, "Active".to_owned(), "ValidationFailed".to_owned())
    );
    assert_eq!(rig.get().await, "", "the policy is the one before");

    let progress = rig
        .es
        .describe_domain_change_progress()
        .domain_name("logs")
        .send()
        .await;
    let details = progress
        .expect("logs exists")
        .change_progress_status
        .expect("there was a change");
    assert_eq!(
        details.status().map(OverallChangeStatus::as_str),
        Some("FAILED")
    );
    assert_eq!(
        details
            .config_change_status()
            .map(ConfigChangeStatus::as_str),
        Some("ValidationFailed")
    );
    let writers: Vec<String> = rig
        .aws
        .versions("logs")
        .into_iter()
        .map(|version| version.caller_arn)
        .collect();
    assert_eq!(
        writers,
        [
            "external",
            "arn:aws:iam::111122223333:user/admin",
            "rollback"
        ]
    );

    rig.put(&policy_for(ROLE))
        .await
        .expect("only one change was to fail");
    rig.aws.domain("logs").finish_change();
    assert_eq!(rig.state().await.2, "Completed");
}

#[tokio::test]
async fn reads_can_be_stale_while_the_domain_is_processing() {
    let rig = Rig::with_logs(DomainOptions::default().processing(Period::UntilFinished)).await;
    rig.aws.domain("logs").stale_reads(true);
    rig.put(&policy_for(ROLE)).await.expect("it is sound");
    assert_eq!(rig.get().await, "");
    assert_eq!(rig.policy_status().await.0, OptionState::Processing);
    rig.aws.domain("logs").finish_change();
    assert_eq!(principals(&rig.get().await), [ROLE]);
}

#[tokio::test]
async fn the_update_version_grows_by_one_with_every_write_and_only_with_writes() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    assert_eq!(rig.policy_status().await, (OptionState::Active, 1));
    rig.put(&policy_for(ROLE)).await.expect("it is sound");
    assert_eq!(rig.policy_status().await, (OptionState::Active, 2));
    refusal(rig.put(&policy_for("nobody")).await);
    assert_eq!(rig.policy_status().await.1, 2);
    rig.aws.set_policy_externally("logs", "");
    assert_eq!(rig.policy_status().await.1, 3);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let rig = Rig::with_logs(DomainOptions::default().processing(Period::UntilFinished)).await;
    let dry = |policy: String| {
        let update = rig.es.update_domain_config().domain_name("logs");
        update.access_policies(policy).dry_run(true).send()
    };
    let results = dry(policy_for(ROLE))
        .await
        .expect("its shape is sound")
        .dry_run_results;
    let kind = results.and_then(|results| results.deployment_type);
    assert_eq!(kind.as_deref(), Some("DynamicUpdate"));
    assert_eq!(refusal(dry("{".to_owned()).await).0, "InvalidTypeException");
    assert_eq!(
        refusal(dry("{\n}".to_owned()).await).0,
        "ValidationException"
    );
    assert_eq!((rig.get().await.as_str(), rig.aws.updates("logs")), ("", 0));
    assert!(!rig.state().await.0);
}

#[tokio::test]
async fn an_external_writer_fits_between_a_read_and_an_update() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws.before_next_update("logs", |policy| {
        assert_eq!(policy, "");
        policy_for(ACCOUNT)
    });
    rig.put(&policy_for(ROLE))
        .await
        .expect("the last writer wins");
    rig.put("").await.expect("it fits in once");
    let versions = rig.aws.versions("logs");
    let written: Vec<(u64, &str)> = versions
        .iter()
        .map(|version| (version.version, version.caller_arn.as_str()))
        .collect();
    let admin = "arn:aws:iam::111122223333:user/admin";
    assert_eq!(
        written,
        [(1, "external"), (2, "external"), (3, admin), (4, admin)]
    );
    assert_eq!(
        principals(&versions[1].document),
        [format!("arn:aws:iam::{ACCOUNT}:root")]
    );
    assert_eq!(versions[2].submitted, policy_for(ROLE));
    assert_eq!(
        (
            versions[3].document.as_str(),
            versions[3].submitted.as_str()
        ),
        ("", "")
    );
}

#[tokio::test]
async fn an_external_writer_may_store_what_would_be_refused_and_what_is_no_policy() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    let odd = policy_with(
        &json!({ "Sid": "Kept", "NotAction": "es:ESHttpPut", "Unknown": { "a": [1] } }),
    );
    rig.aws.set_policy_externally("logs", &odd);
    let read = rig.get().await;
    assert!(
        read.contains("NotAction") && read.contains("Unknown") && !read.contains("Kept"),
        "{read}"
    );
    rig.aws.set_policy_externally("logs", "no policy");
    assert_eq!(rig.get().await, "no policy");
}

#[tokio::test]
async fn a_sparse_update_leaves_the_rest_alone_and_records_which_keys_were_sent() {
    let rig = Rig::with_logs(
        DomainOptions::default()
            .fine_grained()
            .advanced("override_main_response_version", "false"),
    )
    .await;
    rig.put(&policy_for(ROLE)).await.expect("it is sound");
    let master = MasterUserOptions::builder().master_user_arn(ROLE).build();
    let security = AdvancedSecurityOptionsInput::builder()
        .master_user_options(master)
        .build();
    let update = rig
        .es
        .update_domain_config()
        .domain_name("logs")
        .advanced_security_options(security);
    let config = update
        .send()
        .await
        .expect("it is sound")
        .domain_config
        .expect("required");
    let options = config
        .advanced_security_options
        .and_then(|section| section.options);
    assert_eq!(options.and_then(|options| options.enabled), Some(true));
    assert_eq!(
        principals(&rig.get().await),
        [ROLE],
        "the policy was not sent, so it stays"
    );
    let keys: Vec<Vec<String>> = rig
        .aws
        .calls_of("UpdateDomainConfig")
        .into_iter()
        .map(|call| call.body_keys)
        .collect();
    assert_eq!(keys, [["AccessPolicies"], ["AdvancedSecurityOptions"]]);
}

#[tokio::test]
async fn the_master_user_is_never_read_back() {
    let rig = Rig::with_logs(DomainOptions::default().fine_grained()).await;
    let master = MasterUserOptions::builder().master_user_arn(ROLE).build();
    let security = AdvancedSecurityOptionsInput::builder()
        .enabled(true)
        .master_user_options(master)
        .build();
    let update = rig
        .es
        .update_domain_config()
        .domain_name("logs")
        .advanced_security_options(security);
    let updated = format!("{:?}", update.send().await.expect("it is sound"));
    let described = rig
        .es
        .describe_domain()
        .domain_name("logs")
        .send()
        .await
        .expect("it exists");
    for answer in [updated, format!("{described:?}")] {
        assert!(
            !answer.contains("es-role") && !answer.contains("MasterUser"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_test_can_put_a_domain_into_any_state() {
    let rig = Rig::with_logs(DomainOptions::default()).await;
    rig.aws.domain("logs").status(Some("Isolated"));
    assert_eq!(rig.state().await.1, "Isolated");
    rig.aws.domain("logs").status(None);
    assert_eq!(rig.state().await.1, "Active");
}
