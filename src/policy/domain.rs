//! `OpenSearchDomain` parsed: a domain whose every field keeps its rule.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;

use self::ceiling::{breaches, parse_entity, require};
use super::validate::bounds;
use super::{Rejection, duration};
use crate::api::access::{AccessLevel, Action};
use crate::api::arn::{DomainArn, EntityArn, EntityKind, is_account_id, partition_of};
use crate::api::domain::{DeletionPolicy, OpenSearchDomain, PolicyMode};

mod ceiling;

pub use self::ceiling::Limits;
pub(super) use self::ceiling::TEMPLATE;

/// How often a domain is looked at without a change in the cluster.
const DEFAULT_INTERVAL: SignedDuration = SignedDuration::from_mins(10);

/// The shortest interval.
const SHORTEST_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// The most characters of an `OpenSearchDomain`'s name: a grant's reference holds no more.
const LONGEST_NAME: usize = 63;

/// A domain whose every field keeps its rule.
#[derive(Debug, Clone)]
pub struct Domain {
    /// The name of the `OpenSearchDomain`.
    pub name: String,
    /// The domain's name in AWS.
    pub domain_name: String,
    /// The domain's account.
    pub account: String,
    /// The domain's region.
    pub region: String,
    /// The domain's ARN.
    pub arn: DomainArn,
    /// The role to assume, with its external id.
    pub assume_role: Option<(EntityArn, Option<String>)>,
    /// How the access policy is managed.
    pub mode: PolicyMode,
    /// Whether the manifest says that the domain has fine-grained access control.
    pub fine_grained: bool,
    /// How the mappings of the security plugin are managed.
    pub security_mode: PolicyMode,
    /// Roles of the security plugin that no pattern of a ceiling covers.
    pub protected_roles: Vec<String>,
    /// The master user of the domain, whom no write may shut out.
    pub master_user: Option<EntityArn>,
    /// Who may grant.
    pub consent: Vec<Consent>,
    /// What happens to granted statements when the object is deleted.
    pub deletion_policy: DeletionPolicy,
    /// Whether writing is suspended.
    pub suspend: bool,
    /// How often the domain is looked at.
    pub interval: SignedDuration,
}

/// One entry of a domain's consent.
#[derive(Debug, Clone)]
pub struct Consent {
    /// The namespaces that it names.
    pub namespaces: Vec<String>,
    /// The labels that select namespaces.
    pub selector: Option<Selector>,
    /// The most that a grant may ask for.
    pub ceiling: Limits,
}

/// A level of access or a list of actions: a grant has one of them, and so has a ceiling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Access {
    /// A level.
    Level(AccessLevel),
    /// Exact actions; never empty.
    Actions(Vec<Action>),
}

impl Access {
    /// Reads the two fields of which exactly one must be set.
    pub fn parse(
        level: Option<AccessLevel>,
        actions: &[Action],
        field: &str,
    ) -> Result<Self, Rejection> {
        match (level, actions) {
            (Some(level), []) => Ok(Self::Level(level)),
            (None, [_, ..]) => Ok(Self::Actions(actions.to_vec())),
            _ => Err(Rejection::invalid(
                field,
                "set exactly one of access and actions",
            )),
        }
    }
}

impl Domain {
    /// Parses the object, and says every rule that it breaks.
    pub fn parse(object: &OpenSearchDomain) -> Result<Self, Vec<Rejection>> {
        let spec = &object.spec;
        let mut broken = Vec::new();
        let name = object.metadata.name.clone().unwrap_or_default();
        if name.len() > LONGEST_NAME {
            broken.push(Rejection::invalid(
                "metadata.name",
                format!("the name of an OpenSearchDomain has at most {LONGEST_NAME} characters"),
            ));
        }
        check_name(&spec.domain_name).map_or_else(|e| broken.push(e), drop);
        if !is_account_id(&spec.account_id) {
            broken.push(Rejection::invalid(
                "spec.accountId",
                format!(
                    "{:?} is not an AWS account id: 12 digits, in quotes",
                    spec.account_id
                ),
            ));
        }
        if !is_region(&spec.region) {
            broken.push(Rejection::invalid(
                "spec.region",
                format!("{:?} is not an AWS region, such as eu-west-1", spec.region),
            ));
        }
        let assume_role = match assume_role(object) {
            Ok(role) => role,
            Err(rejection) => {
                broken.push(rejection);
                None
            }
        };
        let master_user = master_user(object).unwrap_or_else(|rejection| {
            broken.push(rejection);
            None
        });
        let interval = match &spec.interval {
            None => Some(DEFAULT_INTERVAL),
            // CEL, which checks it first, knows no days, and no more than 292 years.
            Some(text) if text.ends_with('d') || text.len() > "99999h".len() => None,
            Some(text) => duration::parse(text).filter(|it| *it >= SHORTEST_INTERVAL),
        };
        let interval = interval.unwrap_or_else(|| {
            let rule = "must be a duration of at least 10s, such as 10m or 1h";
            broken.push(Rejection::invalid("spec.interval", rule));
            DEFAULT_INTERVAL
        });
        let mut consent = Vec::new();
        for (index, entry) in spec.consent.iter().enumerate() {
            match parse_consent(entry, &format!("spec.consent[{index}]")) {
                Ok(entry) => consent.push(entry),
                Err(rejections) => broken.extend(rejections),
            }
        }
        for rejection in bounds::broken("OpenSearchDomain", spec) {
            if !broken.iter().any(|it| it.field == rejection.field) {
                broken.push(rejection);
            }
        }
        if !broken.is_empty() {
            return Err(broken);
        }
        let security = spec.fine_grained_access.clone().unwrap_or_default();
        Ok(Self {
            name,
            arn: DomainArn::new(&spec.region, &spec.account_id, &spec.domain_name),
            domain_name: spec.domain_name.clone(),
            account: spec.account_id.clone(),
            region: spec.region.clone(),
            assume_role,
            mode: spec.access_policy.mode,
            fine_grained: spec.fine_grained_access.is_some(),
            security_mode: security.mode,
            protected_roles: security.protected_roles,
            master_user,
            consent,
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
            suspend: spec.suspend.unwrap_or_default(),
            interval,
        })
    }
}

fn check_name(name: &str) -> Result<(), Rejection> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if (3..=28).contains(&name.len()) && begins && name.bytes().all(legal) {
        return Ok(());
    }
    Err(Rejection::invalid(
        "spec.domainName",
        format!(
            "{name:?} is not a domain name: 3 to 28 lowercase letters, digits and hyphens, beginning with a letter"
        ),
    ))
}

fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let number = parts.next_back().unwrap_or_default();
    let words: Vec<&str> = parts.collect();
    words.len() >= 2
        && words
            .iter()
            .all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase()))
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

fn assume_role(
    object: &OpenSearchDomain,
) -> Result<Option<(EntityArn, Option<String>)>, Rejection> {
    const FIELD: &str = "spec.assumeRole.arn";
    let Some(role) = &object.spec.assume_role else {
        return Ok(None);
    };
    let arn = EntityArn::parse(&role.arn, EntityKind::Role)
        .map_err(|error| Rejection::invalid(FIELD, error.to_string()))?;
    if arn.account() != object.spec.account_id {
        return Err(Rejection::invalid(
            FIELD,
            format!(
                "the role is of account {}, and the domain is in another account, {}: name a role of the domain's account",
                arn.account(),
                object.spec.account_id
            ),
        ));
    }
    let partition = partition_of(&object.spec.region);
    if arn.partition() != partition {
        return Err(Rejection::invalid(
            FIELD,
            format!(
                "the role is of partition {}, and the domain of {partition}",
                arn.partition()
            ),
        ));
    }
    Ok(Some((arn, role.external_id.clone())))
}

fn master_user(object: &OpenSearchDomain) -> Result<Option<EntityArn>, Rejection> {
    let settings = object.spec.fine_grained_access.as_ref();
    let Some(text) = settings.and_then(|settings| settings.master_user_arn.as_deref()) else {
        return Ok(None);
    };
    match parse_entity(text) {
        Ok(arn) => Ok(Some(arn)),
        Err(rule) => Err(Rejection::invalid(
            "spec.fineGrainedAccess.masterUserArn",
            rule,
        )),
    }
}

fn parse_consent(
    entry: &crate::api::domain::Consent,
    field: &str,
) -> Result<Consent, Vec<Rejection>> {
    let mut broken = Vec::new();
    if entry.namespaces.is_empty() == entry.namespace_selector.is_none() {
        broken.push(Rejection::invalid(
            field,
            "set exactly one of namespaces and namespaceSelector",
        ));
    }
    let of_namespace = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    broken.extend(breaches(
        &format!("{field}.namespaces"),
        &entry.namespaces,
        |name| {
            let legal = !name.is_empty() && name.bytes().all(of_namespace);
            require(legal, || format!("{name:?} is not the name of a namespace; wildcards are not allowed, namespaceSelector selects by labels"))
        },
    ));
    let selector = match entry.namespace_selector.clone().map(parse_selector) {
        None => None,
        Some(Ok(selector)) => Some(selector),
        Some(Err(rule)) => {
            broken.push(Rejection::invalid(
                format!("{field}.namespaceSelector"),
                rule,
            ));
            None
        }
    };
    match ceiling::parse(&entry.ceiling, &format!("{field}.ceiling")) {
        Ok(ceiling) if broken.is_empty() => Ok(Consent {
            namespaces: entry.namespaces.clone(),
            selector,
            ceiling,
        }),
        Ok(_) => Err(broken),
        Err(more) => {
            broken.extend(more);
            Err(broken)
        }
    }
}

fn parse_selector(selector: LabelSelector) -> Result<Selector, String> {
    let empty = selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty);
    if empty {
        return Err("an empty selector would consent to every namespace: name labels".to_owned());
    }
    Selector::try_from(selector).map_err(|error| error.to_string())
}
