//! `/mutate-pods`: pods that ask for a signing proxy get one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, Operation};
use kube::runtime::reflector::ObjectRef;
use tracing::{info, warn};

use super::review::Answer;
use super::stores::Stores;
use crate::api::access::DomainAccess;
use crate::api::condition::condition_type::READY;
use crate::api::domain::OpenSearchDomain;
use crate::inject::decide::{Decision, Domain, Injection, Skip, decide};
use crate::inject::options::ENVIRONMENT;
use crate::inject::patch::patch;
use crate::inject::sidecar::Settings;
use crate::policy::service_account::ROLE_ANNOTATION;

/// Reviews a pod.
pub(super) fn review(
    request: &AdmissionRequest<Pod>,
    stores: &Stores,
    settings: &Settings,
) -> Answer {
    let response = AdmissionResponse::from(request);
    let Some(pod) = &request.object else {
        return Answer::new(response, "no_object");
    };
    // What a pod runs is chosen when it is made; nothing of it can be added later.
    if request.operation != Operation::Create {
        return Answer::new(response, "not_created");
    }
    let namespace = request.namespace.clone().unwrap_or_default();
    // A pod that a controller makes has no name yet.
    let name = pod.metadata.name.clone();
    let name = name.or_else(|| pod.metadata.generate_name.clone());
    let name = name.unwrap_or_default();
    match decide(pod, &domains(stores), settings) {
        Ok(Decision::Skip(Skip::NotAsked)) => Answer::new(response, Skip::NotAsked.name()),
        Ok(Decision::Skip(skip)) => Answer::warning(response, skip.to_string(), skip.name()),
        Ok(Decision::Inject(injection)) => {
            let patch = match patch(pod, &injection) {
                Ok(patch) => patch,
                Err(error) => return Answer::new(response.deny(error.to_string()), "error"),
            };
            if patch.0.is_empty() {
                return Answer::new(response, "unchanged");
            }
            info!(%namespace, pod = name, domains = ?names(&injection), "a pod gets a signing proxy");
            let warnings = warnings(pod, &namespace, &injection, stores);
            let mut response = match response.with_patch(patch) {
                Ok(response) => response,
                Err(error) => {
                    warn!(%error, "a patch cannot be written");
                    let denied = AdmissionResponse::from(request).deny(error.to_string());
                    return Answer::new(denied, "error");
                }
            };
            response.warnings = (!warnings.is_empty()).then_some(warnings);
            let said = names(&injection).join(",");
            let annotations = &mut response.audit_annotations;
            annotations.insert("injected".to_owned(), said);
            Answer::new(response, "injected")
        }
        Err(denial) => {
            info!(%namespace, pod = name, "a pod is refused: {denial}");
            Answer::new(response.deny(denial.to_string()), "refused")
        }
    }
}

fn names(injection: &Injection) -> Vec<&str> {
    injection.placed.iter().map(|it| it.name.as_str()).collect()
}

/// Returns the domains that pods can use.
fn domains(stores: &Stores) -> BTreeMap<String, Domain> {
    let domains = stores.domains.state();
    let domains = domains.iter().filter_map(|it| it.0.as_ref().ok());
    let domain = |it: &OpenSearchDomain| Domain {
        endpoint: it.status.as_ref().and_then(|it| it.endpoint.clone()),
        region: it.spec.region.clone(),
        settings: it.spec.signing_proxy.clone().unwrap_or_default(),
    };
    domains.map(|it| (it.name_any(), domain(it))).collect()
}

/// What whoever makes the pod should know: the domain would refuse its requests.
fn warnings(pod: &Pod, namespace: &str, injection: &Injection, stores: &Stores) -> Vec<String> {
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|it| it.service_account_name.as_deref());
    let account = account.filter(|it| !it.is_empty()).unwrap_or("default");
    let found = stores
        .accounts
        .get(&ObjectRef::new(account).within(namespace));
    let role = found.and_then(|it| it.annotations().get(ROLE_ANNOTATION).cloned());
    let grants = stores.grants.state();
    let grants = || grants.iter().filter_map(|it| it.0.as_ref().ok());
    let mut warnings = Vec::new();
    for placed in &injection.placed {
        let domain = &placed.name;
        let is_for = |grant: &&DomainAccess| {
            let own = grant.namespace().as_deref() == Some(namespace);
            grant.spec.domain_ref.name == *domain
                && grant.metadata.deletion_timestamp.is_none()
                && grant.spec.principals.iter().any(|it| {
                    let by_account = it.service_account.as_ref();
                    let by_role = it.iam_role.as_ref();
                    let for_all = it.account.is_some() || it.anonymous.is_some();
                    own && by_account.is_some_and(|it| it.name == account)
                        || by_role.is_some_and(|it| Some(&it.arn) == role.as_ref())
                        || for_all
                })
        };
        let mut named = grants().filter(is_for);
        let Some(first) = named.next() else {
            warnings.push(format!(
                "no DomainAccess lets service account {namespace}/{account} use domain {domain:?}: unless its role is let in otherwise, its requests are refused until one does"
            ));
            continue;
        };
        if is_in_force(first) || named.any(is_in_force) {
            continue;
        }
        // Of another namespace's grant nothing is told.
        if first.namespace().as_deref() == Some(namespace) {
            warnings.push(format!(
                "DomainAccess {namespace}/{} on domain {domain:?} is not in force yet: kubectl describe domainaccess {} says why",
                first.name_any(),
                first.name_any()
            ));
        }
    }
    let asks = pod.annotations().get(ENVIRONMENT).map(String::as_str) == Some("true");
    if asks && !injection.is_native {
        warnings.push(
            "the signing proxy starts beside the pod's containers, not before them: have them try again until it listens"
                .to_owned(),
        );
    }
    warnings
}

fn is_in_force(grant: &DomainAccess) -> bool {
    let conditions = grant.status.iter().flat_map(|it| &it.conditions);
    let mut ready = conditions.into_iter().filter(|it| it.type_ == READY);
    ready.any(|it| it.status == "True")
}
