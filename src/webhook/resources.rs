//! `/validate`: what is amiss with our own objects, as far as no schema can tell.
//!
//! For early and friendly errors: the reconciler applies the same rules, and nobody can pass it by.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, Operation};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::review::Answer;
use super::stores::Stores;
use crate::api::access::DomainAccess;
use crate::api::action_group::DomainActionGroup;
use crate::api::condition::Reason;
use crate::api::domain::OpenSearchDomain;
use crate::api::role::DomainRole;
use crate::api::tenant::DomainTenant;
use crate::policy::Rejection;
use crate::policy::admission::{self, Finding};
use crate::policy::domain::Domain;
use crate::policy::evidence;
use crate::policy::fine_grained::definition::{self, Defines};
use crate::policy::fine_grained::nearest::{nearest, suggestion};

/// Reviews one of our own objects.
pub(super) async fn review(
    request: &AdmissionRequest<DynamicObject>,
    stores: &Stores,
    now: Timestamp,
) -> Answer {
    let response = AdmissionResponse::from(request);
    let Some(object) = &request.object else {
        return Answer::new(response, "no_object");
    };
    if object.metadata.deletion_timestamp.is_some() || !is_changed(request) {
        return Answer::new(response, "unchanged");
    }
    let kind = request.kind.kind.as_str();
    let mut found = look(kind, object, stores, now).await;
    // What broke a rule before may be put right step by step.
    if let (Ok(Finding::Refused(rejection)), Some(old)) = (&found, &request.old_object)
        && let Ok(Finding::Refused(before)) = look(kind, old, stores, now).await
        && before.reason == rejection.reason
    {
        found = Ok(Finding::Warning(rejection.clone()));
    }
    match found {
        Ok(Finding::Fine) => Answer::new(response, "accepted"),
        Ok(Finding::Warning(rejection)) => {
            Answer::warning(response, rejection.to_string(), "warned")
        }
        Ok(Finding::Refused(rejection)) => {
            Answer::new(response.deny(rejection.to_string()), "refused")
        }
        // Stored by a schema that this version does not know: the reconciler says so in a condition.
        Err(error) => Answer::warning(response, error, "unreadable"),
    }
}

/// Looks at an object of ours.
async fn look(
    kind: &str,
    object: &DynamicObject,
    stores: &Stores,
    now: Timestamp,
) -> Result<Finding, String> {
    let object = json!({
        "apiVersion": object.types.as_ref().map(|it| &it.api_version),
        "kind": object.types.as_ref().map(|it| &it.kind),
        "metadata": object.metadata,
        "spec": object.data.get("spec").cloned().unwrap_or(Value::Null),
    });
    Ok(match kind {
        "OpenSearchDomain" => of_domain(&read(object)?, stores),
        "DomainAccess" => of_grant(&read(object)?, stores, now).await,
        "DomainRole" => {
            let it: DomainRole = read(object)?;
            of_definition(&it, &it.spec.domain_ref.name, stores).await
        }
        "DomainTenant" => {
            let it: DomainTenant = read(object)?;
            of_definition(&it, &it.spec.domain_ref.name, stores).await
        }
        "DomainActionGroup" => {
            let it: DomainActionGroup = read(object)?;
            of_definition(&it, &it.spec.domain_ref.name, stores).await
        }
        other => return Err(format!("{other} is no kind of this operator's")),
    })
}

/// Tells whether the spec is new: labels, finalizers and statuses are nobody's business here, and what
/// was stored once can always be let go.
fn is_changed(request: &AdmissionRequest<DynamicObject>) -> bool {
    let spec = |it: &DynamicObject| it.data.get("spec").cloned();
    let old = request.old_object.as_ref().and_then(spec);
    request.operation != Operation::Update || request.object.as_ref().and_then(spec) != old
}

fn read<K: DeserializeOwned>(object: Value) -> Result<K, String> {
    serde_json::from_value(object)
        .map_err(|error| format!("this version of the operator cannot read the object: {error}"))
}

fn of_domain(object: &OpenSearchDomain, stores: &Stores) -> Finding {
    if let Err(broken) = Domain::parse(object) {
        let all: Vec<String> = broken.iter().map(ToString::to_string).collect();
        return Finding::Refused(Rejection::invalid("", all.join("; ")));
    }
    let domains = stores.domains.state();
    let domains = domains.iter().filter_map(|it| it.0.as_ref().ok());
    let mut rivals = domains.filter(|it| {
        it.name_any() != object.name_any() && evidence::names(it) == evidence::names(object)
    });
    match rivals.next() {
        Some(rival) => Finding::Warning(Rejection::invalid(
            "spec.domainName",
            format!(
                "OpenSearchDomain {} is the same domain of AWS; the older of two manages it, and the other does nothing",
                rival.name_any()
            ),
        )),
        None => Finding::Fine,
    }
}

/// Finds the domain that an object names.
async fn domain_of(name: &str, stores: &Stores) -> Result<(Domain, Option<bool>), Finding> {
    let domains = stores.domains.state();
    let readable = || domains.iter().filter_map(|it| it.0.as_ref().ok());
    let mut found = domains.iter().find(|it| it.name_any() == name).cloned();
    if found.is_none() {
        // Who cannot be asked refuses nobody.
        found = stores.ask(name).await.map_err(|_| Finding::Fine)?;
    }
    let Some(found) = found else {
        let names: Vec<String> = readable().map(ResourceExt::name_any).collect();
        let nearest = nearest(name, names.iter().map(String::as_str));
        let rule = format!(
            "there is no OpenSearchDomain {name:?}{}; apply it first, or ask its admin for its name",
            suggestion(nearest)
        );
        let reason = Reason::DomainNotFound;
        let rejection = Rejection::new(reason, "spec.domainRef.name", rule);
        return Err(Finding::Refused(rejection));
    };
    // Its own admin's to put right, and no reason to refuse others.
    let Some(object) = found.0.as_ref().ok() else {
        return Err(Finding::Fine);
    };
    let domain = Domain::parse(object).map_err(|_| Finding::Fine)?;
    let endpoint = object.status.as_ref().and_then(|it| it.endpoint.as_deref());
    Ok((domain, endpoint.map(|it| it.starts_with("vpc-"))))
}

async fn of_grant(object: &DomainAccess, stores: &Stores, now: Timestamp) -> Finding {
    let (domain, in_vpc) = match domain_of(&object.spec.domain_ref.name, stores).await {
        Ok(found) => found,
        Err(finding) => return finding,
    };
    let grants = stores.grants.state();
    let others = grants.iter().filter_map(|it| it.0.as_ref().ok());
    let others = others.filter(|it| admission::counts(it, object));
    admission::grant(object, others, &domain, in_vpc, &stores.labels(), now)
}

async fn of_definition<K: Defines>(object: &K, domain: &str, stores: &Stores) -> Finding {
    let definition = definition::definition(object);
    let (domain, _) = match domain_of(domain, stores).await {
        Ok(found) => found,
        Err(finding) => return finding,
    };
    let others = stores.definitions(&domain.name);
    admission::definition(definition, others.into_iter(), &domain, &stores.labels())
}
