//! The configuration API of Amazon OpenSearch Service, as far as access policies go.
//!
//! A call is answered for the domains of its own account and region; every other domain does not
//! exist for it. Domains are there at once: nothing here waits the quarter of an hour that creating
//! one takes.

use std::collections::BTreeMap;

use axum::http::Method;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::State;
use super::accounts::{Accounts, Caller};
use super::domain::{Domain, DomainOptions};
use super::policy::{self, Site, stored};
use super::wire::{Answer, Refusal, Service, form};

mod shape;

/// The most domains that one `DescribeDomains` may name.
const MOST_NAMES: usize = 5;

/// The members of `UpdateDomainConfig` that describe the call, not the domain.
const OF_THE_CALL: [&str; 3] = ["DryRun", "DryRunMode", "DomainName"];

/// One authenticated call.
pub(crate) struct Call<'a> {
    pub(crate) operation: &'a str,
    pub(crate) domain: Option<&'a str>,
    pub(crate) query: &'a str,
    pub(crate) body: &'a Value,
    pub(crate) region: &'a str,
    pub(crate) caller: &'a Caller,
    pub(crate) now: Timestamp,
}

/// Names the operation behind a method and a path, and the domain in the path.
pub(crate) fn route(method: &Method, path: &str) -> Option<(&'static str, Option<String>)> {
    let path = path.strip_prefix("/2021-01-01/")?.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    let (operation, domain) = match (method.as_str(), &parts[..]) {
        ("POST", ["opensearch", "domain"]) => ("CreateDomain", None),
        ("GET", ["opensearch", "domain", name]) => ("DescribeDomain", Some(*name)),
        ("DELETE", ["opensearch", "domain", name]) => ("DeleteDomain", Some(*name)),
        ("GET", ["opensearch", "domain", name, "config"]) => ("DescribeDomainConfig", Some(*name)),
        ("POST", ["opensearch", "domain", name, "config"]) => ("UpdateDomainConfig", Some(*name)),
        ("GET", ["opensearch", "domain", name, "progress"]) => {
            ("DescribeDomainChangeProgress", Some(*name))
        }
        ("POST", ["opensearch", "domain-info"]) => ("DescribeDomains", None),
        ("GET", ["domain"]) => ("ListDomainNames", None),
        ("GET", ["tags"]) => ("ListTags", None),
        _ => return None,
    };
    let decode = |name: &str| percent_decode_str(name).decode_utf8_lossy().into_owned();
    Some((operation, domain.map(decode)))
}

/// Answers a call.
pub(crate) fn answer(state: &mut State, call: &Call<'_>) -> Result<Answer, Refusal> {
    let body = match call.operation {
        "CreateDomain" => create(state, call)?,
        "DeleteDomain" => delete(state, call)?,
        "DescribeDomain" => {
            let mut status =
                |domain: &Domain, state: &State| shape::status(domain, &state.accounts);
            json!({ "DomainStatus": with_domain(state, call, &mut status)? })
        }
        "DescribeDomainConfig" => {
            let mut config =
                |domain: &Domain, state: &State| shape::config(domain, &state.accounts);
            json!({ "DomainConfig": with_domain(state, call, &mut config)? })
        }
        "DescribeDomainChangeProgress" => {
            let mut progress = |domain: &Domain, _: &State| shape::progress(domain);
            with_domain(state, call, &mut progress)?
        }
        "DescribeDomains" => describe_many(state, call)?,
        "ListDomainNames" => list(state, call),
        "ListTags" => tags(state, call)?,
        "UpdateDomainConfig" => update(state, call)?,
        other => return Err(Refusal::unknown_operation(Service::Es, other)),
    };
    Ok(Answer::Json(body))
}

/// Returns the ARN that a domain of the caller's account and the call's region has.
pub(crate) fn arn(call: &Call<'_>, name: &str) -> String {
    site(call, name).arn()
}

fn site(call: &Call<'_>, name: &str) -> Site {
    Site {
        partition: call.caller.partition.clone(),
        region: call.region.to_owned(),
        account: call.caller.account.clone(),
        domain: name.to_owned(),
        vpc: false,
        fgac: false,
        takes_deleted: false,
    }
}

/// Reads the domain that the path names.
fn with_domain(
    state: &mut State,
    call: &Call<'_>,
    read: &mut dyn FnMut(&Domain, &State) -> Value,
) -> Result<Value, Refusal> {
    let name = call.domain.unwrap_or_default();
    let arn = arn(call, name);
    advance(state, &arn, call.now);
    let domain = state
        .domains
        .get(&arn)
        .ok_or_else(|| Refusal::domain_not_found(name))?;
    Ok(read(domain, state))
}

/// Counts a read of the domain.
fn advance(state: &mut State, arn: &str, now: Timestamp) {
    if let Some(domain) = state.domains.get_mut(arn) {
        domain.advance(true, &state.accounts, now);
    }
}

fn describe_many(state: &mut State, call: &Call<'_>) -> Result<Value, Refusal> {
    let names: Vec<&str> = call.body["DomainNames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if names.len() > MOST_NAMES {
        let message = format!("Please provide a maximum of {MOST_NAMES} domain names to describe.");
        return Err(Refusal::validation(message));
    }
    let mut found = Vec::new();
    for name in names {
        let arn = arn(call, name);
        advance(state, &arn, call.now);
        // No error is modelled for an unknown name: it is left out.
        found.extend(
            state
                .domains
                .get(&arn)
                .map(|domain| shape::status(domain, &state.accounts)),
        );
    }
    Ok(json!({ "DomainStatusList": found }))
}

fn list(state: &State, call: &Call<'_>) -> Value {
    let names: Vec<Value> = state
        .domains
        .values()
        .filter(|domain| {
            domain.site.account == call.caller.account && domain.site.region == call.region
        })
        .map(|domain| {
            let engine = domain.options.engine_version.split('_').next();
            json!({ "DomainName": domain.site.domain, "EngineType": engine })
        })
        .collect();
    json!({ "DomainNames": names })
}

fn tags(state: &State, call: &Call<'_>) -> Result<Value, Refusal> {
    let arn = form(call.query).remove("arn").unwrap_or_default();
    let visible = state.domains.get(&arn).filter(|domain| {
        domain.site.account == call.caller.account && domain.site.region == call.region
    });
    let domain = visible.ok_or_else(|| Refusal::domain_not_found(&arn))?;
    let tags: Vec<Value> = domain
        .options
        .tags
        .iter()
        .map(|(key, value)| json!({ "Key": key, "Value": value }))
        .collect();
    Ok(json!({ "TagList": tags }))
}

/// Creates a domain from the members that matter to access; the rest of the body is kept as it
/// comes.
fn create(state: &mut State, call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call.body["DomainName"].as_str().unwrap_or_default();
    let sound = (3..=28).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !sound {
        return Err(Refusal::validation(format!(
            "1 validation error detected: Value '{name}' at 'domainName' failed to satisfy \
            constraint: Member must satisfy regular expression pattern: [a-z][a-z0-9\\-]+"
        )));
    }
    let mut options = DomainOptions::default();
    if let Some(version) = call.body["EngineVersion"].as_str() {
        version.clone_into(&mut options.engine_version);
    }
    if call.body["VPCOptions"]["SubnetIds"]
        .as_array()
        .is_some_and(|subnets| !subnets.is_empty())
    {
        options.vpc_id = Some("vpc-0fake".to_owned());
    }
    options.fine_grained = call.body["AdvancedSecurityOptions"]["Enabled"] == true;
    for tag in call.body["TagList"].as_array().into_iter().flatten() {
        let text = |key: &str| tag[key].as_str().unwrap_or_default().to_owned();
        options.tags.push((text("Key"), text("Value")));
    }
    let site = Site {
        vpc: options.vpc_id.is_some(),
        fgac: options.fine_grained,
        ..site(call, name)
    };
    let arn = site.arn();
    if state.domains.contains_key(&arn) {
        let message = format!("Domain {name} already exists");
        return Err(Refusal::new("ResourceAlreadyExistsException", 409, message));
    }
    if let Some(policy) = call.body["AccessPolicies"]
        .as_str()
        .filter(|policy| !policy.is_empty())
    {
        policy::check_shape(policy)?;
        policy::judge(policy, &site, &state.accounts, call.now)?;
        policy.clone_into(&mut options.policy);
    }
    let mut domain = Domain::new(site, options, &state.accounts, state.seed, call.now);
    domain.merge(call.body);
    let status = shape::status(&domain, &state.accounts);
    state.domains.insert(arn, domain);
    Ok(json!({ "DomainStatus": status }))
}

fn delete(state: &mut State, call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call.domain.unwrap_or_default();
    let mut domain = state
        .domains
        .remove(&arn(call, name))
        .ok_or_else(|| Refusal::domain_not_found(name))?;
    domain.status = Some("Deleting".to_owned());
    Ok(json!({ "DomainStatus": shape::status(&domain, &state.accounts) }))
}

fn update(state: &mut State, call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call.domain.unwrap_or_default();
    let State {
        accounts, domains, ..
    } = state;
    let empty = Map::new();
    let members = call.body.as_object().unwrap_or(&empty);
    let policy = members.get("AccessPolicies").and_then(Value::as_str);
    if let Some(policy) = policy {
        policy::check_shape(policy)?;
    }
    let domain = domains
        .get_mut(&arn(call, name))
        .ok_or_else(|| Refusal::domain_not_found(name))?;
    domain.advance(false, accounts, call.now);
    if call.body["DryRun"] == true {
        return dry_run(domain, policy, accounts, call.now);
    }
    domain.check_idle()?;
    if domain.options.fine_grained && call.body["AdvancedSecurityOptions"]["Enabled"] == false {
        let message = "Advanced security options cannot be disabled once they are enabled.";
        return Err(Refusal::validation(message));
    }
    let submitted = match policy {
        None => None,
        Some("") => Some((stored::Stored::Empty, "")),
        Some(text) => {
            let document = policy::judge(text, &domain.site, accounts, call.now)?;
            let order = domain.next_order();
            Some((
                stored::normalise(&document, &domain.site, accounts, order),
                text,
            ))
        }
    };
    let properties: Vec<String> = members
        .keys()
        .filter(|key| !OF_THE_CALL.contains(&key.as_str()))
        .cloned()
        .collect();
    domain.merge(call.body);
    domain.accept(submitted, properties, &call.caller.arn, accounts, call.now);
    Ok(json!({ "DomainConfig": shape::config(domain, accounts) }))
}

/// Answers a dry run, which changes nothing. Whether the service judges more than the document's
/// form is not known: a domain does either, see [`DomainOptions::dry_runs_judge`].
fn dry_run(
    domain: &Domain,
    policy: Option<&str>,
    accounts: &Accounts,
    now: Timestamp,
) -> Result<Value, Refusal> {
    if let Some(text) = policy.filter(|text| !text.is_empty()) {
        if domain.options.dry_runs_judge {
            policy::judge(text, &domain.site, accounts, now)?;
        } else if !serde_json::from_str::<Value>(text).is_ok_and(|document| document.is_object()) {
            let message = format!("Error setting policy: [{text}]");
            return Err(Refusal::new("InvalidTypeException", 409, message));
        }
    }
    let kind = if domain.is_processing() {
        "Undetermined"
    } else {
        "DynamicUpdate"
    };
    Ok(json!({
        "DomainConfig": shape::config(domain, accounts),
        "DryRunResults": {
            "DeploymentType": kind,
            "Message": "This change will not require a blue/green deployment.",
        },
    }))
}

/// The configuration that is carried along without a meaning of its own, as a domain has it at
/// first.
pub(crate) fn plain_sections() -> BTreeMap<String, Value> {
    BTreeMap::from([
        (
            "ClusterConfig".to_owned(),
            json!({ "InstanceType": "t3.small.search", "InstanceCount": 1 }),
        ),
        (
            "EBSOptions".to_owned(),
            json!({ "EBSEnabled": true, "VolumeType": "gp3", "VolumeSize": 10 }),
        ),
        ("CognitoOptions".to_owned(), json!({ "Enabled": false })),
        (
            "EncryptionAtRestOptions".to_owned(),
            json!({ "Enabled": true }),
        ),
        (
            "NodeToNodeEncryptionOptions".to_owned(),
            json!({ "Enabled": true }),
        ),
        (
            "DomainEndpointOptions".to_owned(),
            json!({
                "EnforceHTTPS": true,
                "TLSSecurityPolicy": "Policy-Min-TLS-1-2-2019-07",
                "CustomEndpointEnabled": false,
            }),
        ),
    ])
}
