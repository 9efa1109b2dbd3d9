//! How a domain looks in answers.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::accounts::Accounts;
use super::super::domain::{Change, Domain};

/// Returns a timestamp as rest-json writes it: seconds with a fraction.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 are far below 2^52"
)]
fn seconds(at: Timestamp) -> Value {
    json!(at.as_millisecond() as f64 / 1000.0)
}

/// Builds `DomainStatus`.
pub(super) fn status(domain: &Domain, accounts: &Accounts) -> Value {
    let site = &domain.site;
    let deleting = domain.status.as_deref() == Some("Deleting");
    let kind = domain
        .status
        .as_deref()
        .unwrap_or(if domain.is_processing() {
            "Modifying"
        } else {
            "Active"
        });
    let processing = domain.is_processing() || kind == "Creating";
    let mut status = json!({
        "ARN": site.arn(),
        "DomainId": domain.id,
        "DomainName": site.domain,
        "Created": true,
        "Deleted": deleting,
        "Processing": processing,
        "UpgradeProcessing": false,
        "DomainProcessingStatus": kind,
        "EngineVersion": domain.options.engine_version,
        "AccessPolicies": domain.shown().read(accounts),
        "IPAddressType": "ipv4",
        "AdvancedOptions": domain.options.advanced,
        "AdvancedSecurityOptions": security(domain),
        "ModifyingProperties": modifying(domain, accounts),
    });
    let members = status.as_object_mut().expect("it was written as an object");
    members.extend(domain.sections.clone());
    if let Some(change) = &domain.change {
        members.insert("ChangeProgressDetails".to_owned(), change_details(change));
    }
    let kind_of_endpoint = if site.vpc { "vpc" } else { "search" };
    let endpoint = domain.options.endpoint.clone().unwrap_or_else(|| {
        let suffix = if site.partition == "aws-cn" {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!(
            "{kind_of_endpoint}-{}-{}.{}.es.{suffix}",
            site.domain, "fakefakefakefakefakefake", site.region
        )
    });
    if kind != "Creating" {
        if site.vpc {
            members.insert("Endpoints".to_owned(), json!({ "vpc": endpoint }));
        } else {
            members.insert("Endpoint".to_owned(), json!(endpoint));
        }
    }
    if let Some(vpc) = vpc(domain) {
        members.insert("VPCOptions".to_owned(), vpc);
    }
    status
}

/// Builds `DomainConfig`, where every section comes with a status of its own.
pub(super) fn config(domain: &Domain, accounts: &Accounts) -> Value {
    let state = if domain.is_processing() {
        "Processing"
    } else {
        "Active"
    };
    let with_status = |options: Value, changed: bool| {
        json!({
            "Options": options,
            "Status": {
                "CreationDate": seconds(domain.policy_created),
                "UpdateDate": seconds(domain.policy_updated),
                "UpdateVersion": domain.update_version,
                "State": if changed { state } else { "Active" },
                "PendingDeletion": false,
            },
        })
    };
    let changing = |name: &str| {
        domain
            .change
            .as_ref()
            .is_some_and(|change| change.properties.iter().any(|changed| changed == name))
    };
    let mut sections: Vec<(String, Value)> = vec![
        (
            "AccessPolicies".to_owned(),
            json!(domain.shown().read(accounts)),
        ),
        (
            "EngineVersion".to_owned(),
            json!(domain.options.engine_version),
        ),
        ("AdvancedOptions".to_owned(), json!(domain.options.advanced)),
        ("AdvancedSecurityOptions".to_owned(), security(domain)),
    ];
    sections.extend(vpc(domain).map(|vpc| ("VPCOptions".to_owned(), vpc)));
    sections.extend(domain.sections.clone());
    let mut config: Map<String, Value> = sections
        .into_iter()
        .map(|(name, options)| {
            let changed = changing(&name);
            (name, with_status(options, changed))
        })
        .collect();
    if let Some(change) = &domain.change {
        config.insert("ChangeProgressDetails".to_owned(), change_details(change));
    }
    config.insert(
        "ModifyingProperties".to_owned(),
        modifying(domain, accounts),
    );
    Value::Object(config)
}

/// Builds the answer of `DescribeDomainChangeProgress`.
pub(super) fn progress(domain: &Domain) -> Value {
    let Some(change) = &domain.change else {
        return json!({});
    };
    let (overall, pending, completed) = match change.status {
        "Completed" => ("COMPLETED", &[][..], &change.properties[..]),
        "ValidationFailed" => ("FAILED", &change.properties[..], &[][..]),
        _ => ("PROCESSING", &change.properties[..], &[][..]),
    };
    let mut details = json!({
        "ChangeId": change.id,
        "StartTime": seconds(change.started),
        "LastUpdatedTime": seconds(change.updated),
        "Status": overall,
        "PendingProperties": pending,
        "CompletedProperties": completed,
        "TotalNumberOfStages": 0,
        "ChangeProgressStages": [],
        "ConfigChangeStatus": change.status,
        "InitiatedBy": "CUSTOMER",
    });
    if change.status == "ValidationFailed" {
        details["ValidationFailures"] =
            json!([{ "Code": "ValidationFailed", "Message": change.message }]);
    }
    json!({ "ChangeProgressStatus": details })
}

fn change_details(change: &Change) -> Value {
    json!({
        "ChangeId": change.id,
        "Message": change.message,
        "ConfigChangeStatus": change.status,
        "InitiatedBy": "CUSTOMER",
        "StartTime": seconds(change.started),
        "LastUpdatedTime": seconds(change.updated),
    })
}

/// Builds `AdvancedSecurityOptions`, which never has the master user in it.
fn security(domain: &Domain) -> Value {
    json!({
        "Enabled": domain.options.fine_grained,
        "InternalUserDatabaseEnabled": false,
        "AnonymousAuthEnabled": false,
    })
}

fn vpc(domain: &Domain) -> Option<Value> {
    domain.options.vpc_id.as_ref().map(|id| {
        json!({
            "VPCId": id,
            "SubnetIds": ["subnet-0fake"],
            "AvailabilityZones": [format!("{}a", domain.site.region)],
            "SecurityGroupIds": ["sg-0fake"],
        })
    })
}

fn modifying(domain: &Domain, accounts: &Accounts) -> Value {
    match &domain.change {
        Some(change)
            if domain.is_processing()
                && change
                    .properties
                    .iter()
                    .any(|name| name == "AccessPolicies") =>
        {
            json!([{
                "Name": "AccessPolicies",
                "ActiveValue": change.previous.read(accounts),
                "PendingValue": domain.stored().read(accounts),
                "ValueType": "STRINGIFIED_JSON",
            }])
        }
        _ => json!([]),
    }
}
